"""The report: frozen results with their intervals, the JSON that CI reads, and the gates that decide an exit code.

`report.schema.json` beside this file is generated from `Report` and pinned by a test.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from kdcompress.files import legible
from kdcompress.threat import Norm

SCHEMA_VERSION: Literal["1.1"] = "1.1"
IN_MEMORY = "in memory"
"""What images are called, and the folder of networks, that came from no file."""


class Result(BaseModel):
    """Frozen; unknown keys are errors; text is such that JSON can hold it, whatever a file is called."""

    # The schema tells readers that a key with a default is always written.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, values: Any) -> Any:
        return _legible(values)


def _legible(value: Any) -> Any:
    """All text in plain containers made `legible`."""
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, dict):
        return {_legible(key): _legible(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_legible, value))
    return value


class Rate(Result):
    """A fraction of n images with its 95% Clopper-Pearson interval, unless `RobustRate.interval` says otherwise."""

    value: float
    low: float
    high: float
    n: int


class RobustRate(Rate):
    """Accuracy under the named attack: an upper bound on robust accuracy.

    Attributes:
        attack: what ran, as `AutoAttack standard`; a reduced set says so.
        stages: its parts, in order, as `apgd-ce`.
        chunk: images the attack sees at once; chunk number b has seed `seed + b`.
        interval: `anytime-valid` where a gate was free to stop early, when a Clopper-Pearson interval would not hold.
        confidence: of the interval.
        surrogate: what white-box attacks were made on, where the network itself has no gradients.
    """

    attack: str
    stages: tuple[str, ...]
    chunk: int
    interval: Literal["Clopper-Pearson", "anytime-valid"] = "Clopper-Pearson"
    confidence: float = 0.95
    surrogate: str | None = None


class RobustAt(Rate):
    """Robust accuracy at one of several radii: share of images that stood the attack at this and every smaller one."""

    eps: float


class ClassRate(Result):
    """One class's share of its own images."""

    name: str
    clean: Rate
    robust: Rate | None


class MaskingCheck(Result):
    """One sign of gradient masking, looked for.

    Attributes:
        name: what is looked for, as `zero gradients`.
        statistic: of what attacks find the low end of its interval, so that few images flag nothing by chance; of what
            is seen in outputs and gradients the share itself. `finding` has the counts. None where the check does not
            apply.
        threshold: the flag goes up where the statistic is above it.
        flagged: whether the robust accuracy is not to be believed.
        finding: what was measured and what it says, in a sentence.
        source: who describes the sign.
    """

    name: str
    statistic: float | None
    threshold: float
    flagged: bool
    finding: str
    source: str


class Masking(Result):
    """The masking checks of one network, on its first n images."""

    checks: tuple[MaskingCheck, ...]
    n: int
    seconds: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the robust accuracy is not to be trusted; empty where it is."""
        return tuple(check.finding for check in self.checks if check.flagged)


class CertifiedRate(Rate):
    """Share of images classified rightly with a certified radius of at least `radius`."""

    radius: float


class FirstOrder(Result):
    """First-order radii. Estimates: they bound nothing.

    Attributes:
        median: of `radii`; None where it is infinite.
        radii: one an image, zero where it is misclassified; None where it is infinite.
    """

    kind: Literal["estimate"] = "estimate"
    norm: Norm
    median: float | None
    radii: tuple[float | None, ...] = ()
    n: int


class Abstention(Result):
    """Why the smoothed classifier gives no answer for so many images: a diagnosis, which bounds nothing."""

    reason: str
    images: int
    finding: str


class Smoothing(Result):
    """Randomized smoothing: L2, with probability 1 - alpha an image, for the SMOOTHED classifier.

    Attributes:
        n: the most draws that bound an image's probability.
        cap: the largest radius that n draws can certify.
        abstained: images without an answer; `reasons` adds up to it.
        at: certified accuracy over the radius.
        method: `fixed`, n draws for every image (CERTIFY of Cohen et al. 2019); `sequential`, until the radii of `at`
            are decided; `adaptive`, as many as a pilot says they are worth.
        average_radius: the mean certified radius, an image abstained from or answered wrongly counted as 0. With
            `sequential` each is the largest of `at` that was shown, so that the mean is one from below.
        noisy_accuracy: the network's own, under one draw of the noise, in the mean over the n0 first draws.
        predicted: PREDICT's accuracy with the same draws, an abstention counted as wrong; `fixed` only.
        turned: images answered wrongly that the network itself sees rightly.
        draws: forward passes that the answers rest on.
        diagnosis_draws: the most that explaining the abstentions took beside them.
        predictions, radii: one an image; -1 and 0 where it abstains. Where the answer is wrong `sequential` asks for no
            radius and has 0.
    """

    kind: Literal["certificate of the smoothed classifier"] = "certificate of the smoothed classifier"
    norm: Literal["L2"] = "L2"
    sigma: float
    n0: int
    n: int
    alpha: float
    cap: float
    abstained: int
    at: tuple[CertifiedRate, ...]
    method: Literal["fixed", "sequential", "adaptive"] = "fixed"
    average_radius: float | None = None
    noisy_accuracy: float | None = None
    predicted: Rate | None = None
    turned: int | None = None
    reasons: tuple[Abstention, ...] = ()
    draws: int | None = None
    diagnosis_draws: int | None = None
    predictions: tuple[int, ...] = ()
    radii: tuple[float, ...] = ()


class Clever(Result):
    """CLEVER scores (Weng et al. 2018, arXiv:1801.10578). Estimates: they bound nothing, and masking inflates them.

    Attributes:
        R: the largest score there is, the radius of the ball that was sampled.
        Nb, Ns: batches, and points in each.
        rivals: target classes of each image, the nearest by first order.
        scores: one an image, zero where it is misclassified; None of a network without gradients.
        median: of `scores`.
        at_cap: images whose score is R.
        not_fitted: images whose score rests on the largest gradient of the sample, since no fit was to be had.
    """

    kind: Literal["estimate"] = "estimate"
    norm: Norm
    R: float
    Nb: int
    Ns: int
    rivals: int
    seed: int
    scores: tuple[float, ...]
    median: float
    at_cap: int
    not_fitted: int
    n: int


class HeldAt(Rate):
    """For which share of the images a premise holds to within `tolerance` of its own scale."""

    tolerance: float


class Premise(Result):
    """One premise of Proposition 1, image by image.

    Attributes:
        equation: its number in the appendix of arXiv:2110.12072, or what stands there in words.
        values: what is compared with the tolerances, one an image; None where it is infinite.
        kind: `estimate` where ascent found the value, so that it is one from below and the premise may hold for fewer
            images than are counted; `exact` where nothing is searched for.
    """

    name: str
    equation: str
    kind: Literal["exact", "estimate"]
    values: tuple[float | None, ...]
    held: tuple[HeldAt, ...]


class MarginTerms(Result):
    """The margin inequality, image by image, for the rival class that leaves least: all of it estimates.

    Of the rivals that were looked at: where these are not all classes, another may leave less.

        student_margin >= guaranteed = teacher_margin - logits - gradients - remainder_student - remainder_teacher

    Attributes:
        rival: the class's index.
        teacher_margin: the least that was found in the ball, over the points of all searches: from above.
        remainder_student, remainder_teacher: the largest that were found: from below.
        student_margin: the least that was found, over all classes, looked at or not: from above.
    """

    kind: Literal["estimate"] = "estimate"
    rival: tuple[int, ...]
    teacher_margin: tuple[float, ...]
    logits: tuple[float, ...]
    gradients: tuple[float, ...]
    remainder_student: tuple[float, ...]
    remainder_teacher: tuple[float, ...]
    guaranteed: tuple[float, ...]
    student_margin: tuple[float, ...]


class FreeDirections(Result):
    """||J^s - J^t||_F^2 of each image, in shares: what eq. 14 constrains, the harmless common shift, what is left free.

    Attributes:
        constrained, common, free: sum to 1; None where the Jacobians are equal. Of a difference without a preferred
            direction they are 1 / K, 1 / K and (K - 2) / K.
        weight: ||p - e_y||, what the constrained part is weighed with in (21): it fades where the teacher is sure.
        difference: ||J^s - J^t|| / ||J^t||, both without the common shift: how much there is to be shared.
    """

    constrained: tuple[float | None, ...]
    common: tuple[float | None, ...]
    free: tuple[float | None, ...]
    weight: tuple[float, ...]
    difference: tuple[float | None, ...]
    median_free: float | None
    median_difference: float | None
    median_weight: float


class Proposition1(Result):
    """Proposition 1 audited in one ball: its premises, and the inequality that holds without them.

    Attributes:
        steps, restarts, seed: of the searches.
        rivals: how many of the `classes` are looked at, an image: those nearest by either network's logits.
        attack: what the teacher's constancy and both networks' margins were tried with.
        teacher_constant: a character an image: `c` certified, `.` not falsified by `attack`, `x` falsified.
        constant: the share of `c` and `.`; `certified`: of `c`, None where no certificates were given. These
            are about the label's class: only the `certified_tried` images that the teacher sees rightly can have one.
        right: the share that both networks classify rightly (17).
        premises: (15), (16) and linearity of both networks.
        gradient_cosine: of the CE gradients of (15), one an image.
        all_hold: the share with every premise, those without a tolerance and those within it.
        kept: the share for which the inequality leaves the student a positive margin to each of `rivals`: an estimate.
        stood: the share that `attack` leaves the student, right and unbroken.
        exceeded: the share for which some search's point breaks the inequality with the remainders that their own
            ascents found, before the points are merged.
        violated: images for which one does after merging: 0, or the arithmetic is wrong.
        rounding: the largest margin difference between float32, which searches, and float64, which judges.
    """

    kind: Literal["estimate"] = "estimate"
    norm: Norm
    eps: float
    n: int
    steps: int
    restarts: int
    rivals: int
    classes: int
    seed: int
    attack: str
    teacher_constant: str
    constant: Rate
    certified: Rate | None
    certified_tried: int | None
    right: Rate
    premises: tuple[Premise, ...]
    gradient_cosine: tuple[float, ...]
    all_hold: tuple[HeldAt, ...]
    terms: MarginTerms
    kept: Rate
    stood: Rate
    exceeded: Rate
    violated: int
    rounding: float
    directions: FreeDirections


class RadiusCompared(Result):
    """The student's radius beside the teacher's: upper bounds by attack, lower bounds by certificate where given.

    Attributes:
        attack: what found the upper bounds.
        student_at_most, teacher_at_most: the distance of the nearest misclassified point that was found; 0 for a
            misclassified image, None where none was found up to `largest`.
            Rounded up.
        student_at_least, teacher_at_least: certified radii, rounded down; None where none were given.
        rounding_student, rounding_teacher: images whose point was found inside their own certified radius, and which
            the network sees rightly in float64: the rounding of float32, and no contradiction.
        median_student, median_teacher: of the upper bounds; None where more than half of them are.
        below: the share of images whose student fell nearer than the teacher: a comparison of attacks.
        proved_smaller: the share whose student fell inside the teacher's certified radius: Proposition 1's conclusion
            is false there. None without certificates.
    """

    norm: Norm
    n: int
    attack: str
    largest: float
    student_at_most: tuple[float | None, ...]
    teacher_at_most: tuple[float | None, ...]
    student_at_least: tuple[float, ...] | None
    teacher_at_least: tuple[float, ...] | None
    rounding_student: int = 0
    rounding_teacher: int = 0
    median_student: float | None
    median_teacher: float | None
    below: Rate
    proved_smaller: Rate | None


class CounterExamples(Result):
    """Images of (24) and (25): same outputs on the data, different ones in the ball.

    Attributes:
        agreement: the largest relative difference of centred logits that counts as the same outputs.
        agreed: the share of images that both see rightly, with outputs that agree, and where the teacher stands.
        found: of those, the share for which the student is broken at a point that the teacher still sees rightly.
        images: which, by number, most alike first; `difference` their logits' relative difference; `student` and
            `teacher` what each sees at x~, the teacher its label.
    """

    norm: Norm
    eps: float
    n: int
    attack: str
    agreement: float
    agreed: Rate
    found: Rate | None
    images: tuple[int, ...]
    difference: tuple[float, ...]
    student: tuple[str, ...]
    teacher: tuple[str, ...]


class Proposition2(Result):
    """Proposition 2, eq. 26, evaluated in one ball. The right sides are estimates from below: LLM is found by ascent.

    Attributes:
        attack: what measured the left side; the remainders have ascents and seeds of their own, of as many steps.
        gap: the left side, the largest |CE_s - CE_t| that was found in each image's ball.
        remainder_student, remainder_teacher: LLM.
        losses: |CE_s - CE_t| at x; `losses_of_paper`: CE_s + CE_t, which (26) has in its place.
        gradients: delta ||g_s - g_t||_q.
        bound: LLM_s + LLM_t + losses + gradients; with `losses_of_paper`, (26) as printed: `bound_of_paper`.
        dominant: how many images each of the bound's four terms is the largest of.
        exceeded: the share of images whose gap, found by its own attack, is above the bound with the remainders found
            by their own ascent, before the points are merged.
        raised: the share whose LLM of either network grew by over 1% when they were.
        violated: images whose gap exceeds the bound after merging: 0, or the arithmetic is wrong.
        rounding: the largest difference of a loss between float32, which searches, and float64, which judges.
    """

    kind: Literal["estimate"] = "estimate"
    norm: Norm
    eps: float
    n: int
    steps: int
    restarts: int
    seed: int
    attack: str
    gap: tuple[float, ...]
    bound: tuple[float, ...]
    bound_of_paper: tuple[float, ...]
    remainder_student: tuple[float, ...]
    remainder_teacher: tuple[float, ...]
    losses: tuple[float, ...]
    losses_of_paper: tuple[float, ...]
    gradients: tuple[float, ...]
    median_gap: float
    median_bound: float
    median_bound_of_paper: float
    dominant: dict[Literal["remainder_student", "remainder_teacher", "losses", "gradients"], int]
    exceeded: Rate
    raised: Rate
    violated: int
    rounding: float


class VerifiedAt(Rate):
    """Verified accuracy at one radius: share of images for which no point of the ball is misclassified, as proved.

    Of n images `verified` are proved, `broken` fell to an attack, `wrong` are misclassified as they are; `open` are
    neither proved nor broken.
    """

    eps: float
    verified: int
    broken: int
    wrong: int
    open: int


class Verified(Result):
    """Sound bounds: a lower bound on the robustness of the network itself, in the threat model's norm; no estimate.

    Attributes:
        unsupported: `not supported: <layer>` where bounds cannot pass a layer, or `too large: ...`; then there are no
            figures.
        at: ascending in eps.
        largest: the largest certified eps of each image in order, to `tolerance` of itself; 0 where misclassified.
            Empty where it was not sought.
        median: of `largest`: of an even number of images the mean of the middle two.
        attack: what broke the images that were skipped.
        seconds: of all images, whether they were certified now or taken from what was kept.
    """

    kind: Literal["certificate of the network itself"] = "certificate of the network itself"
    method: str = "CROWN"
    norm: Norm
    unsupported: str | None = None
    attack: str | None = None
    at: tuple[VerifiedAt, ...] = ()
    largest: tuple[float, ...] = ()
    median: float | None = None
    tolerance: float
    n: int
    seconds: float = 0.0


class Certified(Result):
    """The kinds of radius, never in one column. `first_order` is None for a network without gradients."""

    first_order: FirstOrder | None
    smoothing: Smoothing | None


class ModelReport(Result):
    """One network: what it is, what it costs, how accurate and how robust it is.

    Attributes:
        macs: multiply-accumulates of one image's forward.
        file_bytes: the size of its file.
        latency_ms: median forward of one image on the report's device, timed side by side with the other models.
        sha256: of its file.
        over_eps: where `--eps` named several radii, ascending.
        classes: class by class, in the order of the labels; classes without images are left out.
        masking: None where it was not asked for, or nothing was attacked.
        verdicts: a character an image, in the seeded order: `x` wrong as it is, `.` stood, `?` not attacked, else the
            index in `robust_accuracy.stages` of the attack that broke it. Without an attack: `x` wrong, `?` right.
    """

    arch: str
    params: int
    macs: int
    file_bytes: int
    latency_ms: float
    sha256: str
    clean_accuracy: Rate
    robust_accuracy: RobustRate | None
    over_eps: tuple[RobustAt, ...] = ()
    classes: tuple[ClassRate, ...] = ()
    certified: Certified | None
    masking: Masking | None = None
    verdicts: str = ""


class Paired(Result):
    """Teacher and student on the same images, under the same attack: counts, and the drop with its 95% interval.

    Attributes:
        drop: the teacher's robust accuracy minus the student's; interval of Tango (1998).
        p_value: exact McNemar test of no difference, two-sided.
        within: the most robust accuracy that may be lost for robustness to be preserved (`--max-robust-drop`, or .03).
        preserved: whether the whole interval says so: `high` is at most `within`. None where the `masking` of one of
            the two has a flag: it cannot be told then.
    """

    both_kept: int
    teacher_only: int
    student_only: int
    both_lost: int
    drop: float
    low: float
    high: float
    p_value: float
    within: float
    preserved: bool | None
    n: int


class Gate(Result):
    """A demand on a figure, and whether it was met.

    Attributes:
        name: the option, as typed.
        decided_by: the number compared with the threshold: the point estimate, or the conservative end of the interval.
        undecided: the threshold lies inside the interval: more images could turn the verdict.
        why: what decided where it was not the figure: masking, or a test that could not decide.
        caution: what a reader should know of the figure, although it decided nothing.
    """

    name: str
    model: str
    threshold: float
    value: float
    low: float
    high: float
    decided_by: Literal["point", "bound"]
    met: bool
    undecided: bool
    why: str | None = None
    caution: str | None = None


class DataRecord(Result):
    """Which images were used, in a seeded order; `sha256` is of their names, labels and pixels in that order."""

    name: str
    split: Literal["test"] = "test"
    images: int
    of: int
    seed: int
    classes: tuple[str, ...]
    sha256: str


class ThreatRecord(Result):
    """The threat model."""

    norm: Norm
    eps: float


class Report(Result):
    """What `kdcompress evaluate` and `kdcompress demo` found."""

    schema_version: Literal["1.1"] = SCHEMA_VERSION
    threat_model: ThreatRecord
    data: DataRecord
    device: str
    models: dict[str, ModelReport]
    paired: Paired | None = None
    ratios: dict[str, float] = {}
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float

    @property
    def gates_met(self) -> bool:
        """Whether every gate was met; true where there is none."""
        return all(gate.met for gate in self.gates)
