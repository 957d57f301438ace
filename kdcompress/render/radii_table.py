"""Every image's radii, as a table file: each kind in its own column."""

import csv
import io
from collections.abc import Sequence

from kdcompress.certification import Certification, CertifiedModel

FIELDS = ("first_order_estimate", "clever_estimate", "smoothing_answer", "smoothing_certified_l2")


def radii_table(found: Certification, ids: Sequence[str], labels: Sequence[str]) -> str:
    """CSV (RFC 4180): a header, then one line an image, in the seeded order.

    Columns are `id`, `label`, and for every network `<network>_first_order_estimate` (`inf` where it is infinite),
    `<network>_clever_estimate`, `<network>_smoothing_answer` (a class, or `abstains`),
    `<network>_smoothing_certified_l2` (0 where it abstains; by the sequential test one of the curve's radii, and 0
    where the answer is wrong) and `<network>_bounds_certified_linf` or `_l2` (0 where the network is wrong). Cells are
    empty where a kind was not measured on an image.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    fields = (*FIELDS, f"bounds_certified_{found.threat_model.norm.lower()}")
    writer.writerow(["id", "label", *(f"{name}_{field}" for name in found.models for field in fields)])
    columns = [column for model in found.models.values() for column in _columns(model, found.data.classes, len(ids))]
    for place, (id_, label) in enumerate(zip(ids, labels, strict=True)):
        writer.writerow([id_, label, *(column[place] for column in columns)])
    return file.getvalue()


def _columns(model: CertifiedModel, classes: Sequence[str], n: int) -> list[list[object]]:
    first, smoothing, clever, bounds = model.first_order, model.smoothing, model.clever, model.bounds
    return [
        _filled(["inf" if radius is None else radius for radius in first.radii] if first else (), n),
        _filled(clever.scores if clever else (), n),
        _filled(["abstains" if k < 0 else classes[k] for k in smoothing.predictions] if smoothing else (), n),
        _filled(smoothing.radii if smoothing else (), n),
        _filled(bounds.largest if bounds else (), n),
    ]


def _filled(values: Sequence[object], n: int) -> list[object]:
    return [*values, *[None] * (n - len(values))]
