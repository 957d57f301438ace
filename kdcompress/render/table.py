"""What became of every image, as a table file."""

import csv
import io
from collections.abc import Sequence

from kdcompress.evidence import ImageRow

FIELDS = ("prediction", "verdict", "broken_by", "stood_eps")


def table(rows: Sequence[ImageRow], models: Sequence[str] = ()) -> str:
    """CSV (RFC 4180): a header, then one line an image, in the rows' order.

    Columns are `id`, `label`, and for every model `<model>_prediction`, `<model>_verdict`, `<model>_broken_by` and
    `<model>_stood_eps`. Cells are empty where there is nothing to say; ids stand exactly as they are.

    Args:
        models: columns that are there even without rows; others follow as the rows name them.
    """
    names = dict.fromkeys([*models, *(name for row in rows for name in row.models)])
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["id", "label", *(f"{name}_{field}" for name in names for field in FIELDS)])
    for row in rows:
        answers = [row.models.get(name) for name in names]
        # The writer turns None into an empty cell, and a float into digits that read back as the same float.
        writer.writerow([row.id, row.label, *(getattr(answer, field, None) for answer in answers for field in FIELDS)])
    return file.getvalue()
