"""The audit of the propositions as lines of text: figures by radius, the same on the terminal and on the page."""

from kdcompress.certification import Audit
from kdcompress.render.words import percent, tenths_of_percent
from kdcompress.report import CounterExamples, Proposition1, Proposition2, RadiusCompared
from kdcompress.threat import ThreatModel

HEADS = {
    "proposition 1": "Proposition 1 (radius preserved): a reason for the loss and no certificate. Shares of images for "
    "which its premises hold, and an inequality that needs none of them. ESTIMATES, but for what is exact in the "
    "logits and gradients at the image.",
    "proposition 2": "Proposition 2, eq. 26: how far the losses may drift apart in the ball. Right sides are ESTIMATES "
    "from below, since the remainders are found by ascent.",
    "radii": "The student's radius beside the teacher's: upper bounds by attack.",
    "counter-examples": "Counter-examples, (24) and (25): outputs that agree on the image and not in its ball.",
}

Rows = tuple[tuple[str, ...], ...]
"""The first is the head."""


def proposition1_rows(found: tuple[Proposition1, ...]) -> Rows:
    """A row for each premise and outcome, a column for each radius."""
    balls = [str(ThreatModel(one.norm, one.eps)) for one in found]
    rows: list[tuple[str, ...]] = [("share of images", *balls)]
    rows.append(("(12) teacher constant: not falsified, estimate", *(percent(one.constant) for one in found)))
    if any(one.certified for one in found):
        rows.append(("(12) teacher constant: certified, around the label", *map(_certified, found)))
    rows.append(("(17) both right", *(percent(one.right) for one in found)))
    for place, premise in enumerate(found[0].premises):
        estimate = ", estimate" if premise.kind == "estimate" else ""
        for at, held in enumerate(premise.held):
            cells = (percent(one.premises[place].held[at]) for one in found)
            rows.append((f"{premise.equation} {premise.name}, to {held.tolerance:g}{estimate}", *cells))
    for at, held in enumerate(found[0].all_hold):
        rows.append((f"all premises, to {held.tolerance:g}, estimate", *(percent(one.all_hold[at]) for one in found)))
    rows.append(
        (f"margin kept by the inequality{_of_rivals(found[0])}, estimate", *(percent(one.kept) for one in found))
    )
    rows.append(("student stands the attack, estimate", *(percent(one.stood) for one in found)))
    rows.append(("other searches exceeded a remainder's own", *(percent(one.exceeded) for one in found)))
    free = (_share(one.directions.median_free) for one in found)
    rows.append(("Jacobian difference at the image left free by (21), median", *free))
    return tuple(rows)


def proposition2_rows(found: tuple[Proposition2, ...]) -> Rows:
    """A row for each side and term, a column for each radius."""
    balls = [str(ThreatModel(one.norm, one.eps)) for one in found]
    return (
        ("median over images", *balls),
        ("gap of the losses found by attack, estimate", *(_number(one.median_gap) for one in found)),
        ("right side with |CE_s - CE_t|, estimate", *(_number(one.median_bound) for one in found)),
        ("right side of (26), CE_s + CE_t, estimate", *(_number(one.median_bound_of_paper) for one in found)),
        ("largest term, by images, estimate", *(_dominant(one) for one in found)),
        ("attack above the estimate before merging", *(percent(one.exceeded) for one in found)),
        ("above it after merging", *(f"{one.violated} of {one.n}" for one in found)),
    )


def radii_sentence(found: RadiusCompared) -> str:
    """Whose radius is larger."""
    student, teacher = (_median(one, found.largest) for one in (found.median_student, found.median_teacher))
    text = (
        f"Nearest misclassified point that was found, {found.norm}, median of {found.n} images: {student} (student), "
        f"{teacher} (teacher); the student's is nearer on {percent(found.below)} of them."
    )
    if found.proved_smaller is not None:
        text += (
            f" Inside the teacher's certified radius, where Proposition 1's conclusion is false, it fell on "
            f"{percent(found.proved_smaller)}."
        )
    for name, images in (("student", found.rounding_student), ("teacher", found.rounding_teacher)):
        if images:
            text += f" By the rounding of float32 alone the {name} fell inside its own certified radius on {images}."
    return text


def counter_sentence(found: CounterExamples) -> str:
    """How many there are."""
    ball = ThreatModel(found.norm, found.eps)
    agreed = round(found.agreed.value * found.agreed.n)
    begin = (
        f"On {agreed} of {found.agreed.n} images both are right, their logits agree to {found.agreement:g}, and the "
        f"teacher stands {found.attack} at {ball}"
    )
    if found.found is None:
        return f"{begin}: there is nothing to look for."
    broken = round(found.found.value * found.found.n)
    return f"{begin}; on {broken} of these the student is broken at a point that the teacher sees rightly."


def text_of(audit: Audit) -> tuple[tuple[str, Rows | str], ...]:
    """(what is shown and what it may claim, its rows or its sentence), in order."""
    missing = "; ".join(audit.unmeasured)
    return (
        (HEADS["proposition 1"], proposition1_rows(audit.proposition1) if audit.proposition1 else missing),
        (HEADS["proposition 2"], proposition2_rows(audit.proposition2) if audit.proposition2 else missing),
        (HEADS["radii"], radii_sentence(audit.radii)),
        (HEADS["counter-examples"], counter_sentence(audit.counter_examples)),
    )


def _certified(found: Proposition1) -> str:
    """Who is wrong in an image has no certificate there: how many could have one is said."""
    if found.certified is None:
        return "no bounds"
    return f"{percent(found.certified)}, {found.certified_tried} of {found.n} tried"


def _of_rivals(found: Proposition1) -> str:
    """Of how many, where the record is not of all classes."""
    return "" if found.rivals == found.classes - 1 else f", of {found.rivals} rivals"


def _share(value: float | None) -> str:
    return "equal Jacobians" if value is None else tenths_of_percent(value)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _median(value: float | None, largest: float) -> str:
    return f"none within {largest:.4g}" if value is None else f"{value:.4f}"


def _dominant(found: Proposition2) -> str:
    term, images = max(found.dominant.items(), key=lambda one: one[1])
    return f"{term.replace('_', ' of the ')}: {images} of {found.n}"
