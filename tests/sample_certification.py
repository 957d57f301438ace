"""A certification of two networks with its audit, made by hand: what the renderers are shown."""

from kdcompress.certification import Audit, Certification, CertifiedModel
from kdcompress.report import (
    Abstention,
    CertifiedRate,
    Clever,
    CounterExamples,
    DataRecord,
    FirstOrder,
    FreeDirections,
    HeldAt,
    MarginTerms,
    Premise,
    Proposition1,
    Proposition2,
    RadiusCompared,
    Rate,
    Smoothing,
    ThreatRecord,
    Verified,
    VerifiedAt,
)

RADII = (1 / 255, 2 / 255)


def rate(value: float, n: int = 4) -> Rate:
    return Rate(value=value, low=max(0.0, value - 0.2), high=min(1.0, value + 0.2), n=n)


def smoothing() -> Smoothing:
    return Smoothing(
        sigma=0.25,
        n0=100,
        n=1000,
        alpha=0.001,
        cap=0.6,
        abstained=1,
        at=tuple(CertifiedRate(**rate(value).model_dump(), radius=r) for r, value in ((0.0, 0.75), (0.25, 0.5))),
        method="sequential",
        average_radius=0.21,
        reasons=(Abstention(reason="n too small", images=1, finding="2,000 draws would decide"),),
        draws=2400,
        predictions=(0, 1, -1, 1),
        radii=(0.3, 0.25, 0.0, 0.3),
    )


def bounds(unsupported: str | None = None) -> Verified:
    if unsupported is not None:
        return Verified(norm="Linf", unsupported=unsupported, tolerance=0.02, n=4)
    counts = ((0.5, 2, 0, 1, 1), (0.25, 1, 1, 1, 1))
    at = tuple(
        VerifiedAt(**rate(value).model_dump(), eps=eps, verified=v, broken=b, wrong=w, open=o)
        for eps, (value, v, b, w, o) in zip(RADII, counts, strict=True)
    )
    return Verified(
        norm="Linf", attack="PGD-20", at=at, largest=(0.009, 0.005, 0.0, 0.001), median=0.003, tolerance=0.02, n=4
    )


def model(arch: str, unsupported: str | None = None) -> CertifiedModel:
    return CertifiedModel(
        arch=arch,
        params=1200,
        sha256="0" * 64,
        clean_accuracy=rate(0.75),
        first_order=FirstOrder(norm="Linf", median=0.012, radii=(0.012, None, 0.0, 0.02), n=4),
        clever=Clever(
            norm="Linf",
            R=0.03,
            Nb=5,
            Ns=6,
            rivals=9,
            seed=0,
            scores=(0.02, 0.03),
            median=0.02,
            at_cap=1,
            not_fitted=0,
            n=2,
        ),
        smoothing=smoothing(),
        bounds=bounds(unsupported),
    )


def proposition1(eps: float) -> Proposition1:
    held = tuple(HeldAt(**rate(0.5).model_dump(), tolerance=at) for at in (0.1, 0.5))
    two = (0.1, 0.2)
    return Proposition1(
        norm="Linf",
        eps=eps,
        n=2,
        steps=20,
        restarts=1,
        rivals=9,
        classes=10,
        seed=0,
        attack="PGD",
        teacher_constant="c.",
        constant=rate(1.0),
        certified=rate(0.5),
        certified_tried=1,
        right=rate(1.0),
        premises=(
            Premise(name="equal gradients", equation="(15)", kind="exact", values=two, held=held),
            Premise(name="linear student", equation="linearity", kind="estimate", values=two, held=held),
        ),
        gradient_cosine=two,
        all_hold=held,
        terms=MarginTerms(
            rival=(1, 2),
            teacher_margin=two,
            logits=two,
            gradients=two,
            remainder_student=two,
            remainder_teacher=two,
            guaranteed=two,
            student_margin=two,
        ),
        kept=rate(0.5),
        stood=rate(0.5),
        exceeded=rate(0.0),
        violated=0,
        rounding=1e-6,
        directions=FreeDirections(
            constrained=two,
            common=two,
            free=two,
            weight=two,
            difference=two,
            median_free=0.71,
            median_weight=0.2,
            median_difference=0.3,
        ),
    )


def proposition2(eps: float) -> Proposition2:
    two = (0.1, 0.2)
    return Proposition2(
        norm="Linf",
        eps=eps,
        n=2,
        steps=20,
        restarts=1,
        attack="ascent",
        seed=0,
        gap=(0.05, 0.15),
        bound=two,
        bound_of_paper=(0.3, 0.4),
        remainder_student=two,
        remainder_teacher=two,
        losses=two,
        losses_of_paper=two,
        gradients=two,
        median_gap=0.05,
        median_bound=0.1,
        median_bound_of_paper=0.3,
        dominant={"remainder_student": 2, "remainder_teacher": 0, "losses": 0, "gradients": 0},
        exceeded=rate(0.0),
        raised=rate(0.5),
        violated=0,
        rounding=1e-6,
    )


def audit() -> Audit:
    return Audit(
        n=2,
        proposition1=tuple(map(proposition1, RADII)),
        proposition2=tuple(map(proposition2, RADII)),
        radii=RadiusCompared(
            norm="Linf",
            n=2,
            attack="PGD",
            largest=2 / 255,
            student_at_most=(0.004, None),
            teacher_at_most=(0.006, None),
            student_at_least=None,
            teacher_at_least=(0.005, 0.007),
            median_student=0.004,
            median_teacher=None,
            below=rate(0.5),
            proved_smaller=rate(0.5),
        ),
        counter_examples=CounterExamples(
            norm="Linf",
            eps=1 / 255,
            n=2,
            attack="PGD",
            agreement=0.1,
            agreed=rate(0.5, 2),
            found=rate(1.0, 1),
            images=(0,),
            difference=(0.05,),
            student=("dog",),
            teacher=("cat",),
        ),
    )


def certification(*, classes: tuple[str, ...] = ("cat", "dog"), audited: bool = True) -> Certification:
    return Certification(
        threat_model=ThreatRecord(norm="Linf", eps=RADII[0]),
        radii=RADII,
        data=DataRecord(name="pets", images=4, of=10, seed=0, classes=classes, sha256="1" * 64),
        device="cpu",
        models={"student": model("vit", "not supported: GELU"), "teacher": model("resnet18")},
        audit=audit() if audited else None,
        notes=("a note",),
        settings={"kinds": ["first-order", "clever", "smoothing", "bounds"]},
        versions={"kdcompress": "0"},
        seconds=61.0,
    )
