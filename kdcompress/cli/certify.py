"""kdcompress certify."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.measuring_options import Judged, Kept, Page, Smoothed, Teacher, of_evaluation, of_images, of_model
from kdcompress.cli.options import GATES, MEASURES, TEACHER, default, gathered
from kdcompress.cli.output import deliver, speaks, watched
from kdcompress.cli.places import refuse_places
from kdcompress.cli.signatures import taking
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import (
    CERTIFIED_IMAGES,
    KINDS,
    AuditSettings,
    CertifyGates,
    CertifySettings,
    CleverSettings,
    ThreatSettings,
)


class Ball:
    """Which perturbations, and whom beside: a teacher, and how many images."""

    eps: Annotated[
        str,
        typer.Option(
            help="Radius in pixels of [0,1], such as 2/255; several with commas. A gate takes the first.",
            rich_help_panel=options.THREAT,
            show_default=False,
        ),
    ]
    norm: Annotated[
        Literal["Linf", "L2"], typer.Option(help="Norm of the perturbation.", rich_help_panel=options.THREAT)
    ] = default(ThreatSettings, "norm")
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Its teacher: certified on the same images, and the propositions audited.", rich_help_panel=TEACHER
        ),
    ] = None
    images: Annotated[
        int, typer.Option(help="The first N of a seeded shuffle of the test split.", rich_help_panel=options.DATA)
    ] = CERTIFIED_IMAGES


class Gates:
    """What decides the exit code."""

    min_verified_accuracy: Annotated[
        float | None,
        typer.Option(help="Least accuracy verified by sound bounds at the first --eps.", rich_help_panel=GATES),
    ] = None


class Radii:
    """Which radii, and what each may take."""

    kinds: Annotated[
        str,
        typer.Option(
            help="Which radii, with commas: first-order and clever (estimates), smoothing (the smoothed "
            "classifier's), bounds (sound, by interval and CROWN).",
            autocompletion=options.offering(*KINDS),
            rich_help_panel=MEASURES,
        ),
    ] = "first-order,clever,smoothing,bounds"
    propositions: Annotated[
        bool,
        typer.Option(
            help="Audit Propositions 1 and 2 of the paper on MODEL and --teacher, where both are given.",
            rich_help_panel=MEASURES,
        ),
    ] = True
    audit_images: Annotated[int, typer.Option(help="Images for the propositions.", rich_help_panel=MEASURES)] = default(
        CertifySettings, "audit_images"
    )
    clever_images: Annotated[int, typer.Option(help="Images for CLEVER.", rich_help_panel=MEASURES)] = default(
        CertifySettings, "clever_images"
    )
    clever_batches: Annotated[int, typer.Option(help="CLEVER: Nb.", rich_help_panel=MEASURES)] = default(
        CleverSettings, "clever_batches"
    )
    clever_samples: Annotated[int, typer.Option(help="CLEVER: Ns.", rich_help_panel=MEASURES)] = default(
        CleverSettings, "clever_samples"
    )
    clever_radius: Annotated[
        float | None,
        typer.Option(
            help="CLEVER: R, the largest score. Default: 4 times the largest --eps, 1 at most under Linf.",
            rich_help_panel=MEASURES,
        ),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            help="Most GiB that sound bounds and the audit may take. Default: a quarter of what is free.",
            rich_help_panel=MEASURES,
        ),
    ] = None
    largest: Annotated[
        bool,
        typer.Option(
            help="Sound bounds: seek each image's largest radius too, half of the time and more; a gate needs none.",
            rich_help_panel=MEASURES,
        ),
    ] = default(CertifySettings, "largest")


@taking(Judged, Ball, Teacher, Radii, Gates, Smoothed, Kept, Page)
def certify(
    model: Annotated[
        Path | None, typer.Argument(help="The model file: student.safetensors, or any that --arch explains.")
    ] = None,
    **asked: Any,
) -> None:
    """Report certified radii of a model and its teacher, each kind by itself, and audit the paper's propositions.

    Exit code 0: ran, gates met. 1: ran, a gate was missed. 2: could not run.

    Example:

        kdcompress certify student/student.safetensors --data cifar10/ \\
            --teacher teacher.safetensors --eps 1/255,2/255 \\
            --html certificates.html
    """
    with boundary():
        first, *more = options.radii(asked["eps"])
        settings = CertifySettings.of(
            student=of_model(model, asked),
            teacher=of_model(asked["teacher"], asked, "teacher-"),
            data=of_images(asked),
            threat=ThreatSettings.of(norm=asked["norm"], eps=first),
            more_eps=tuple(more),
            kinds=tuple(dict.fromkeys(kind.strip() for kind in asked["kinds"].split(","))),
            **{name: asked[name] for name in ("propositions", "audit_images", "clever_images", "memory", "largest")},
            clever=CleverSettings.for_radii(
                (first, *more),
                asked["norm"],
                **{name: asked[name] for name in ("clever_radius", "clever_batches", "clever_samples", "seed")},
            ),
            audit=gathered(AuditSettings, {name: value for name, value in asked.items() if value is not None}),
            evaluation=of_evaluation({**asked, "attack": "none"}),
            gates=gathered(CertifyGates, asked),
        )
        written: dict[str, Path | None] = {f"--{name}": asked[name] for name in ("report", "html", "table")}
        refuse_places(
            written,
            {"MODEL": settings.student, "--teacher": settings.teacher},
            settings.data,
        )
        from kdcompress.evaluation.certify import certify_with_names
        from kdcompress.processes import joined
        from kdcompress.render.certification import certification

        with joined(settings.evaluation.device), watched() as listener:
            result, names = certify_with_names(settings, listener=listener)
        if not speaks():
            return
        text = result.model_dump_json(indent=2)
        files: dict[Path | None, bytes] = {written["--report"]: f"{text}\n".encode()}
        if (path := written["--html"]) is not None:
            from kdcompress.render.html.certificates import page

            files[path] = page(result).encode()
        if (path := written["--table"]) is not None:
            from kdcompress.render.radii_table import radii_table

            files[path] = radii_table(result, names.ids, names.labels).encode("utf-8", "surrogateescape")
        deliver(text, certification(result), asked["format"], files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
