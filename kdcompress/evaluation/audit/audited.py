"""One audit, readable top to bottom: both propositions at every radius, the radii compared, the counter-examples."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from kdcompress.certification import Audit, CertifiedModel
from kdcompress.evaluation.audit.counter_example import counter_examples
from kdcompress.evaluation.audit.memory import TooLargeError
from kdcompress.evaluation.audit.proposition1 import proposition1
from kdcompress.evaluation.audit.proposition2 import proposition2
from kdcompress.evaluation.audit.radius import compared_radii
from kdcompress.evaluation.kept import key_of
from kdcompress.evaluation.loading import Loaded
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.measure import identity
from kdcompress.progress import Listener
from kdcompress.report import Proposition1, Proposition2
from kdcompress.settings import CertifySettings
from kdcompress.threat import ThreatModel
from kdcompress.versions import versions

P = TypeVar("P", Proposition1, Proposition2)


def why_no_audit(loaded: Loaded, batch_size: int, device: torch.device) -> str | None:
    """A search without gradients moves nowhere, and would find every premise to hold."""
    x, y = next(loaded.images.batches(min(8, batch_size), device=device))
    without = [name for name, model in loaded.models.items() if not has_gradients(model.model, x, y)]
    return f"the propositions: not measured: no gradients of the {without[0]}" if without else None


def audited(
    loaded: Loaded,
    models: dict[str, CertifiedModel],
    settings: CertifySettings,
    device: torch.device,
    listener: Listener,
) -> Audit:
    """Both propositions, on the first images; sound bounds of either network serve where they were found."""
    images = loaded.images.subset(range(min(settings.audit_images, len(loaded.images))))
    student, teacher = (loaded.models[name].model for name in ("student", "teacher"))
    norm, radii, how = settings.threat.norm, settings.radii, settings.audit
    memory = settings.memory_bytes
    sound = {name: _largest(model, len(images)) for name, model in models.items()}

    def kept(what: str, threat: ThreatModel | None = None) -> Path | None:
        root = settings.evaluation.keep_dir
        if root is None:
            return None
        ball = None if threat is None else [threat.norm, threat.eps]
        pair = [identity(loaded.models[name]) for name in ("student", "teacher")]
        drawn = how.model_dump(exclude={"batch_size"})  # changes no figure
        software = [versions(), device.type]
        return root / key_of(
            {"audit": what, "pair": pair, "ball": ball, "all": [norm, radii], "how": drawn, "of": software}
        )

    def first(ball: ThreatModel) -> Proposition1:
        return proposition1(
            student,
            teacher,
            images,
            ball,
            how,
            classes=len(loaded.classes),
            device=device,
            teacher_certified=sound["teacher"],
            memory=memory,
            folder=kept("proposition 1", ball),
            on_progress=partial(listener.count, f"{ball}: Proposition 1"),
        )

    def second(ball: ThreatModel) -> Proposition2:
        return proposition2(
            student,
            teacher,
            images,
            ball,
            how,
            device=device,
            memory=memory,
            folder=kept("proposition 2", ball),
            on_progress=partial(listener.count, f"{ball}: Proposition 2"),
        )

    balls = [ThreatModel(norm, eps) for eps in radii]
    firsts, no_first = _at_each(balls, first, "Proposition 1")
    seconds, no_second = _at_each(balls, second, "Proposition 2")
    for note in (unmeasured := (*no_first, *no_second)):
        listener.note(note)
    compared = compared_radii(
        student,
        teacher,
        images,
        norm,
        radii,
        how,
        device=device,
        student_certified=sound["student"],
        teacher_certified=sound["teacher"],
        memory=memory,
        folder=kept("radii"),
        on_progress=partial(listener.count, "both: radii by attack"),
    )
    counter = counter_examples(
        student,
        teacher,
        images,
        ThreatModel(norm, settings.threat.eps),
        how,
        names=loaded.classes,
        device=device,
        memory=memory,
        on_progress=partial(listener.count, "both: counter-examples"),
    )
    return Audit(
        n=len(images),
        proposition1=firsts,
        proposition2=seconds,
        radii=compared,
        counter_examples=counter.record,
        unmeasured=unmeasured,
    )


def _at_each(
    balls: Sequence[ThreatModel], look: Callable[[ThreatModel], P], what: str
) -> tuple[tuple[P, ...], tuple[str, ...]]:
    """What was found in every ball up to the first that memory is too little for, and a line on that one."""
    found: list[P] = []
    for ball in balls:
        try:
            found.append(look(ball))
        except TooLargeError as error:
            return tuple(found), (f"{what} at {ball}: not measured: {error}",)
    return tuple(found), ()


def _largest(model: CertifiedModel, n: int) -> torch.Tensor | None:
    """Certified radii of the first n images, (n,); None where bounds were not asked for or cannot pass the network."""
    if model.bounds is None or not model.bounds.largest:
        return None
    return torch.tensor(model.bounds.largest[:n], dtype=torch.float64)
