"""Every image under every attack: chunk by chunk, radius by radius, stage by stage, with all that is known kept."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import kept_in_ball
from kdcompress.attacks.plans import Plan, Stage
from kdcompress.attacks.slices import Sliced
from kdcompress.data import Split
from kdcompress.devices import out_of_memory
from kdcompress.errors import UsageError
from kdcompress.evaluation.accuracy import Verdicts, predictions
from kdcompress.evaluation.forecast import seconds_left
from kdcompress.evaluation.kept import NOWHERE, STOOD, UNTRIED, WRONG, Chunk, Kept, agrees, chunk_name
from kdcompress.evaluation.masking.gradients import gradient_or_none
from kdcompress.processes import here, shared
from kdcompress.progress import AttackProgress
from kdcompress.threat import Norm, ThreatModel

T = TypeVar("T")
SHOWN = 16
"""Images whose adversarial versions are kept for the gallery."""
PROBED = 8
TOLD_EVERY = 0.2  # seconds

Enough = Callable[[int, int], bool]
"""(images standing, images tried) -> whether the attack may stop here."""


@dataclass(frozen=True)
class Conditions:
    """How the images are attacked.

    Attributes:
        radii: ascending; images that fall at one are not attacked at the larger ones.
        chunk: B, images the attack sees at once; chunk number b is attacked with seed `seed + b`.
        batch_size: images a forward.
        eps: the radius that an early stop is about; None for the largest.
    """

    plan: Plan
    norm: Norm
    radii: tuple[float, ...]
    seed: int
    chunk: int
    batch_size: int
    device: torch.device
    eps: float | None = None

    @property
    def steps(self) -> list[tuple[float, Stage]]:
        """(radius, stage) in the order of work."""
        return [(eps, stage) for eps in self.radii for stage in self.plan.stages]

    def standing(self, verdict: Tensor) -> int:
        """How many images of a chunk stand at the radius that an early stop is about."""
        beyond = len(self.steps) if self.eps is None else (self.radii.index(self.eps) + 1) * len(self.plan.stages)
        return int(entering(verdict, beyond).sum())


def under_attack(
    model: nn.Module,
    images: Split,
    conditions: Conditions,
    *,
    surrogates: Sequence[nn.Module] = (),
    kept: Kept = NOWHERE,
    first: int | None = None,
    enough: Enough | None = None,
    on_progress: Callable[[AttackProgress], None] = lambda now: None,
    note: Callable[[str], None] = lambda text: None,
) -> Verdicts:
    """Attack every image, bring each answer back into the ball and [0,1], run the network again, and count.

    Guarantees:
        With one radius, the images that stand are those that stand a direct call of the attack's package for each
        chunk with the same seed.
        Killed and called again with the same `kept`, it ends with the same verdicts, and repeats at most the stage of
        the chunk that was in work.
        Processes that share the chunks end with the verdicts of one.

    Args:
        model: eval mode.
        surrogates: what the plan's stages on surrogates attack, by number. Verdicts are the model's.
        first: attack so many images alone; clean accuracy is over all of them.
        enough: asked after every chunk; None attacks them all.
    """
    chosen = images if first is None else images.subset(range(min(first, len(images))))
    watch = _Watch(conditions, len(chosen), on_progress)
    networks: dict[int | None, nn.Module] = {None: model, **dict(enumerate(surrogates))}
    sliced = {on: Sliced(network, conditions.batch_size) for on, network in networks.items()}

    def attacked(number: int) -> Chunk:
        rows = range(len(chosen))[number * conditions.chunk :][: conditions.chunk]
        ((x, y),) = chosen.subset(rows).batches(conditions.chunk, device=conditions.device)
        seed = conditions.seed + number
        with _own_randomness(x, seed):
            name = chunk_name(number, x, y)
            chunk = _begun(kept, name, number == 0, sliced, x, y, seed, conditions, note)
            for step, (eps, stage) in list(enumerate(conditions.steps))[chunk.done :]:
                threat = ThreatModel(conditions.norm, eps)
                watch.begins(chunk, number, step)
                chunk = _one_step(chunk, step, stage, sliced, x, y, threat, seed, conditions, watch, note)
                kept.save(name, chunk)
        watch.ends(chunk)
        return chunk

    chunks = _until(enough, attacked, len(chosen), conditions)
    if kept.note is not None:
        note(kept.note)
    return _together(chunks, images, sliced, conditions, note)


def _until(enough: Enough | None, attacked: Callable[[int], Chunk], images: int, conditions: Conditions) -> list[Chunk]:
    """The chunks up to the first after which it is enough, in their order.

    Processes that share them find more than are wanted of the last round; those are left out.
    """
    count = -(-images // conditions.chunk)
    at_once = count if enough is None else here().count
    chunks: list[Chunk] = []
    tried = standing = 0
    for done in range(0, count, at_once):
        for chunk in shared("attack", min(at_once, count - done), partial(_after, done, attacked)):
            chunks.append(chunk)
            tried, standing = tried + len(chunk.verdict), standing + conditions.standing(chunk.verdict)
            if enough is not None and tried < images and enough(standing, tried):
                return chunks
    return chunks


def _after(done: int, attacked: Callable[[int], Chunk], number: int) -> Chunk:
    return attacked(done + number)


def _begun(
    kept: Kept,
    name: str,
    is_first: bool,
    sliced: dict[int | None, Sliced],
    x: Tensor,
    y: Tensor,
    seed: int,
    conditions: Conditions,
    note: Callable[[str], None],
) -> Chunk:
    """The chunk as it was left by an earlier run, or with nothing but the verdict on clean input."""
    few, own = x[:PROBED], y[:PROBED]
    with torch.no_grad():
        probe = _sparing(sliced, len(few), note, lambda: sliced[None](few)).float().cpu()
    gradient = _sparing(sliced, len(few), note, lambda: gradient_or_none(sliced.get(0, sliced[None]), few, own))
    slope = (torch.full_like(few, torch.nan) if gradient is None else gradient).float().cpu()
    found = kept.load(name)
    if found is not None and len(found.verdict) == len(x) and found.done > 0:
        if agrees(found.probe, probe) and agrees(found.slope, slope):
            if is_first:
                note(f"verdicts of an earlier run are taken up again, from {kept.folder}")
            return found
        note("the network answers otherwise than in the run whose verdicts were kept: it is attacked anew")
    seen = _unattacked(sliced, x, seed, conditions, note)
    verdict = torch.where(seen == y, STOOD, WRONG).to(torch.int16)
    shown = x[: SHOWN if is_first else 0]
    return Chunk(seen.cpu(), verdict.cpu(), shown.cpu().clone(), probe, slope)


def entering(verdict: Tensor, step: int) -> Tensor:
    """Which images of a chunk no step before `step` broke, (B,), boolean."""
    return (verdict == STOOD) | (verdict >= step)


def _unattacked(
    sliced: dict[int | None, Sliced], x: Tensor, seed: int, conditions: Conditions, note: Callable[[str], None]
) -> Tensor:
    """The classes seen in a chunk as it is, (B,)."""

    def see() -> Tensor:
        with _own_randomness(x, seed):
            return predictions(sliced[None], x, conditions.plan.draws)

    return _sparing(sliced, len(x), note, see)


def _one_step(
    chunk: Chunk,
    step: int,
    stage: Stage,
    sliced: dict[int | None, Sliced],
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    seed: int,
    conditions: Conditions,
    watch: "_Watch",
    note: Callable[[str], None],
) -> Chunk:
    """One attack on the images of a chunk that still stand."""
    at = (chunk.verdict == STOOD).nonzero().flatten()
    warnings = chunk.warnings
    if len(at):
        here = at.to(x.device)

        def run() -> tuple[Tensor, tuple[str, ...], Tensor]:
            torch.manual_seed(seed)  # so that a run taken up here draws what the whole run drew
            with watch.listening(sliced[stage.on]):
                answer, heard = stage.run(sliced[stage.on], x[here], y[here], threat, seed)
            answer = kept_in_ball(x[here], answer, threat)
            return answer, heard, (predictions(sliced[None], answer, conditions.plan.draws) != y[here]).cpu()

        answer, heard, broken = _sparing(sliced, len(here), note, run)
        warnings = tuple(dict.fromkeys((*warnings, *heard)))
        verdict, shown = chunk.verdict.clone(), chunk.shown.clone()
        verdict[at[broken]] = step
        for row in (at[broken] < len(shown)).nonzero().flatten().tolist():
            shown[at[broken][row]] = answer[broken.to(answer.device)][row].cpu()
        chunk = replace(chunk, verdict=verdict, shown=shown)
    return replace(chunk, done=step + 1, warnings=warnings)


def _sparing(sliced: dict[int | None, Sliced], images: int, note: Callable[[str], None], work: Callable[[], T]) -> T:
    """The outcome of `work`, begun again with half as many images a forward each time that memory runs out."""
    while True:
        try:
            return work()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            _lower(sliced, images, note, error)


def _lower(sliced: dict[int | None, Sliced], images: int, note: Callable[[str], None], error: RuntimeError) -> None:
    """Half as many images a forward: the same chunk, the same seed, the same answers to rounding."""
    size = min(sliced[None].size, images)
    if size == 1:
        raise UsageError("out of memory with one image a forward: lower --chunk") from error
    for model in sliced.values():
        model.size = size // 2
    torch.cuda.empty_cache()
    note(f"out of memory: the attack goes on with {size // 2} images a forward; its chunk stays as it is")


def _together(
    chunks: list[Chunk],
    images: Split,
    sliced: dict[int | None, Sliced],
    conditions: Conditions,
    note: Callable[[str], None],
) -> Verdicts:
    seen = [chunk.predicted for chunk in chunks]
    steps = [chunk.verdict for chunk in chunks]
    attacked = sum(len(chunk.verdict) for chunk in chunks)
    rest = images.subset(range(attacked, len(images)))
    # Where the attack stopped early, clean accuracy is over all images.
    for number, (x, y) in enumerate(rest.batches(conditions.chunk, device=conditions.device), start=len(chunks)):
        classes = _unattacked(sliced, x, conditions.seed + number, conditions, note)
        seen.append(classes.cpu())
        steps.append(torch.where(classes == y, UNTRIED, WRONG).to(torch.int16).cpu())
    everything = torch.cat(seen)
    return Verdicts(
        plan=conditions.plan,
        radii=conditions.radii,
        predicted=everything,
        right=everything == images.labels,
        steps=torch.cat(steps),
        attacked=attacked,
        shown=chunks[0].shown,
        warnings=tuple(dict.fromkeys(warning for chunk in chunks for warning in chunk.warnings)),
        batch_size=sliced[None].size,
        taken_up=sum(len(chunk.verdict) for chunk in chunks if chunk.taken_up),
    )


class _Watch:
    """Tells who listens how far the attack is and how long it will take."""

    def __init__(self, conditions: Conditions, images: int, on_progress: Callable[[AttackProgress], None]) -> None:
        self.conditions, self.all, self.on_progress = conditions, images, on_progress
        self.chunks = -(-images // conditions.chunk)
        own = range(here().rank, self.chunks, here().count)
        self.images = sum(min(conditions.chunk, images - number * conditions.chunk) for number in own)
        self.done = self.standing = 0  # images of finished chunks, and those that stand
        self.entered = [0.0] * len(conditions.steps)  # of those, how many entered each step
        self.seconds = self.work = self.told = 0.0
        self.chunk: Chunk | None = None
        self.number = self.step = 0

    def begins(self, chunk: Chunk, number: int, step: int) -> None:
        self.chunk, self.number, self.step = chunk, number, step
        self.tell(0.0)

    def ends(self, chunk: Chunk) -> None:
        self.done += len(chunk.verdict)
        self.entered = [n + float(entering(chunk.verdict, at).sum()) for at, n in enumerate(self.entered)]
        self.standing += int((chunk.verdict == STOOD).sum())
        self.chunk = None
        self.tell(0.0)

    @contextmanager
    def listening(self, model: Sliced) -> Iterator[None]:
        """Counts the model's calls while a stage runs."""
        began, before = time.perf_counter(), model.work

        def hook(*_: object) -> None:
            now = time.perf_counter()
            if now - self.told >= TOLD_EVERY:
                self.told = now
                self.tell(model.work - before, now - began)

        handle = model.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
            self.seconds += time.perf_counter() - began
            self.work += model.work - before

    def tell(self, in_stage: float, seconds: float = 0.0) -> None:
        steps = self.conditions.steps
        costs = [stage.cost for _, stage in steps[self.step :]] if self.chunk is not None else []
        standing = 0 if self.chunk is None else int((self.chunk.verdict == STOOD).sum())
        present = 0 if self.chunk is None else len(self.chunk.verdict)
        # Later chunks are taken to be like those before and this one so far.
        entered = self.entered
        if self.chunk is not None:
            entered = [n + float(entering(self.chunk.verdict, at).sum()) for at, n in enumerate(entered)]
        shares = [n / max(self.done + present, 1) for n in entered]
        later = (self.images - self.done - present) * sum(
            share * stage.cost for share, (_, stage) in zip(shares, steps, strict=True)
        )
        eps, stage = steps[self.step] if self.chunk is not None else steps[-1]
        self.on_progress(
            AttackProgress(
                stage=stage.name,
                eps=eps if len(self.conditions.radii) > 1 else None,
                chunk=self.number + 1,
                chunks=self.chunks,
                done=self._of_all(self.done),
                images=self.all,
                tried=self._of_all(self.done + present),
                standing=self._of_all(self.standing + standing),
                seconds_left=seconds_left(
                    self.seconds + seconds,
                    self.work + in_stage,
                    standing=standing,
                    in_stage=in_stage,
                    costs=costs,
                    later=later,
                ),
            )
        )

    def _of_all(self, own: int) -> int:
        """What others have done is taken to be like what this process has."""
        return own if self.images == self.all else round(own * self.all / max(self.images, 1))


@contextmanager
def _own_randomness(x: Tensor, seed: int) -> Iterator[None]:
    """A randomised network draws the same under the same seed, and the process's generators are left as they were."""
    with torch.random.fork_rng(devices=[x.get_device()] if x.is_cuda else []):
        torch.manual_seed(seed)
        yield
