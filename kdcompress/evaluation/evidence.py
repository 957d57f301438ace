"""Verdicts and networks -> rows and pictures for people."""

from collections.abc import Mapping

import torch
from numpy import uint8
from numpy.typing import NDArray
from torch import Tensor

from kdcompress.evaluation.accuracy import Verdicts, predictions
from kdcompress.evaluation.attacking import SHOWN
from kdcompress.evaluation.kept import STOOD, UNTRIED, WRONG
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.measure import Measured, Subject
from kdcompress.evidence import Attacked, Evidence, ImageRow, ModelRow, ShownImage
from kdcompress.maths.gradients import logits_and_input_gradient

GALLERY = 8
"""Images of the gallery: of the first `SHOWN`, those that most networks see rightly and some attack broke."""


def evidence_of(subject: Subject, measured: Mapping[str, Measured], device: torch.device) -> Evidence:
    """A row for every image, and the gallery."""
    models = {name: _rows(found, subject) for name, found in measured.items()}
    rows = tuple(
        ImageRow(id_, subject.classes[label], {name: found[at] for name, found in models.items()})
        for at, (id_, label) in enumerate(zip(subject.images.ids, subject.images.labels.tolist(), strict=True))
    )
    return Evidence(rows, _gallery(subject, measured, device))


def _rows(found: Measured, subject: Subject) -> list[ModelRow]:
    labels, classes = subject.images.labels.tolist(), subject.classes
    predicted = found.predicted.tolist()
    if found.verdicts is None:
        return [
            ModelRow(classes[seen], "not attacked" if seen == label else "wrong", None, None)
            for seen, label in zip(predicted, labels, strict=True)
        ]
    return [
        _row(found.verdicts, subject, classes[seen], step)
        for seen, step in zip(predicted, found.verdicts.steps.tolist(), strict=True)
    ]


def _row(verdicts: Verdicts, subject: Subject, prediction: str, step: int) -> ModelRow:
    if step in (WRONG, UNTRIED):
        return ModelRow(prediction, "wrong" if step == WRONG else "not attacked", None, None)
    stages = verdicts.plan.stages
    fell = len(verdicts.radii) if step == STOOD else step // len(stages)
    stood = fell > verdicts.radii.index(subject.eps)
    return ModelRow(
        prediction,
        "stood" if stood else "broken",
        None if stood else stages[step % len(stages)].name,
        (verdicts.radii[fell - 1] if fell else 0.0) if len(verdicts.radii) > 1 else None,
    )


def _gallery(subject: Subject, measured: Mapping[str, Measured], device: torch.device) -> tuple[ShownImage, ...]:
    kept = [len(found.verdicts.shown) for found in measured.values() if found.verdicts is not None]
    first = subject.images.subset(range(min(SHOWN, len(subject.images), *kept)))
    x, y = next(first.batches(len(first), device=device))
    answers = {
        name: found.verdicts.shown[: len(x)].to(device) if found.verdicts is not None else x
        for name, found in measured.items()
    }
    changed = {name: (answer != x[: len(answer)]).flatten(1).any(1) for name, answer in answers.items()}
    # Where one network fell and another stood there is most to see.
    worth = sum(
        2.0 * changed[name].float() + (found.predicted[: len(x)].to(device) == y).float()
        for name, found in measured.items()
    )
    assert isinstance(worth, Tensor)
    chosen = worth.argsort(descending=True, stable=True)[:GALLERY].sort().values
    views = {
        name: _views(
            found,
            found.predicted[chosen.cpu()],
            x[chosen],
            y[chosen],
            answers[name][chosen],
            changed[name][chosen],
            subject.classes,
            chosen.cpu(),
        )
        for name, found in measured.items()
    }
    return tuple(
        ShownImage(
            first.ids[at],
            subject.classes[int(y[at])],
            _pixels(x[at]),
            {name: seen[place] for name, seen in views.items()},
        )
        for place, at in enumerate(chosen.tolist())
    )


def _views(
    found: Measured,
    predicted: Tensor,
    x: Tensor,
    y: Tensor,
    answer: Tensor,
    changed: Tensor,
    classes: tuple[str, ...],
    places: Tensor,
) -> list[Attacked]:
    # A randomised network draws here too; the process's generators are left alone.
    with torch.random.fork_rng(devices=[x.get_device()] if x.is_cuda else []):
        torch.manual_seed(0)
        after = predictions(found.model, answer, 1 if found.verdicts is None else found.verdicts.plan.draws)
        gradient = (
            logits_and_input_gradient(found.model, x, y, create_graph=False)[1]
            if has_gradients(found.model, x, y)
            else torch.zeros_like(x)
        )
    seen = predicted
    return [
        Attacked(
            prediction=classes[int(seen[row])],
            adversarial=_pixels(answer[row]) if changed[row] else None,
            adversarial_prediction=classes[int(after[row])] if changed[row] else None,
            gradient=gradient[row].float().permute(1, 2, 0).cpu().numpy(),
            eps=_radius(found, int(places[row])) if changed[row] else None,
        )
        for row in range(len(x))
    ]


def _radius(found: Measured, place: int) -> float | None:
    """Where image number `place` fell, if several radii were attacked."""
    if found.verdicts is None or len(found.verdicts.radii) == 1:
        return None
    step = int(found.verdicts.steps[place])
    return found.verdicts.radii[step // len(found.verdicts.plan.stages)] if step >= 0 else None


def _pixels(x: Tensor) -> NDArray[uint8]:
    """uint8 (H, W, C)."""
    found: NDArray[uint8] = (x * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return found
