"""kdcompress evaluate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.measuring_options import Judged, Kept, Page, Smoothed, Teacher, of_evaluation, of_images, of_model
from kdcompress.cli.options import GATES, MEASURES, OUTPUT, STUDENT, TEACHER, THREAT, default, gathered
from kdcompress.cli.output import add_to_job_summary, deliver, speaks, watched
from kdcompress.cli.places import refuse_places
from kdcompress.cli.signatures import taking
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import EvaluateSettings, EvaluationSettings, GateSettings, ThreatSettings


class Ball:
    """Which perturbations, and whom beside: a teacher, and how many images."""

    eps: Annotated[
        str,
        typer.Option(
            help="Radius of the perturbation in pixels of [0,1], such as 8/255 or 0.15. Several with commas give "
            "robust accuracy over eps; gates and comparison take the first.",
            rich_help_panel=THREAT,
            show_default=False,
        ),
    ]
    norm: options.NormOption = "Linf"
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher to compare with on the same images.", rich_help_panel=TEACHER)
    ] = None
    images: Annotated[
        int | None,
        typer.Option(
            help="The first N of a seeded shuffle of the test split. Default: all.",
            rich_help_panel=options.DATA,
        ),
    ] = None


class Attacked:
    """How hard it is looked at."""

    attack: Annotated[
        str,
        typer.Option(
            help="autoattack (standard), autoattack-plus, autoattack-rand (for randomised networks); faster and "
            "weaker: apgd, square, pgd-N, and screen for the inner loop of development; none.",
            autocompletion=options.ATTACKS,
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "attack")
    certify_images: Annotated[
        int,
        typer.Option(
            help="Images for the first-order estimate and for smoothing; 0 skips both.", rich_help_panel=MEASURES
        ),
    ] = default(EvaluationSettings, "certify_images")
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Images an attack sees at once; recorded, since figures depend on it. Default: 250, on CUDA 1000, "
            "with --confidence 50; fewer for large images.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "chunk")
    masking_checks: Annotated[
        bool, typer.Option(help="Look for signs of gradient masking.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "masking")


class Surrogate:
    """A network with gradients that stands beside MODEL, or in for it."""

    surrogate: Annotated[
        Path | None,
        typer.Option(
            help="A network with gradients, such as MODEL's float parent: what breaks it is tried on MODEL too; where "
            "MODEL has no gradients of its own, it stands in for MODEL under white-box attacks.",
            rich_help_panel=STUDENT,
        ),
    ] = None
    surrogate_arch: Annotated[str | None, typer.Option(help="As --teacher-arch.", rich_help_panel=STUDENT)] = None
    surrogate_arg: Annotated[list[str] | None, typer.Option(help="As --arg.", rich_help_panel=STUDENT)] = None
    surrogate_mean: Annotated[str | None, typer.Option(help="As --mean.", rich_help_panel=STUDENT)] = None
    surrogate_std: Annotated[str | None, typer.Option(help="As --std.", rich_help_panel=STUDENT)] = None


class Gates:
    """What decides the exit code."""

    min_clean_accuracy: Annotated[
        float | None, typer.Option(help="Least clean accuracy, a fraction.", rich_help_panel=GATES)
    ] = None
    min_robust_accuracy: Annotated[
        float | None, typer.Option(help="Least robust accuracy, a fraction.", rich_help_panel=GATES)
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Stop attacking as soon as --min-robust-accuracy is decided this surely, such as 0.99.",
            rich_help_panel=GATES,
        ),
    ] = None
    max_robust_drop: Annotated[
        float | None,
        typer.Option(
            help="Most robust accuracy lost against the teacher, a fraction: the interval's upper end decides.",
            rich_help_panel=GATES,
        ),
    ] = None
    max_params: Annotated[int | None, typer.Option(help="Most parameters.", rich_help_panel=GATES)] = None
    max_macs: Annotated[int | None, typer.Option(help="Most multiply-accumulates an image.", rich_help_panel=GATES)] = (
        None
    )
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds, median forward of one image.", rich_help_panel=GATES)
    ] = None
    allow_untrusted: Annotated[
        bool,
        typer.Option(
            "--allow-untrusted",
            help="Judge robust accuracy even where a sign of gradient masking was found.",
            rich_help_panel=GATES,
        ),
    ] = default(GateSettings, "allow_untrusted")


class Written:
    """Files beside the report."""

    markdown: options.Markdown = None
    card: Annotated[
        Path | None,
        typer.Option(help="Write a model card with the metadata that hubs read.", rich_help_panel=OUTPUT),
    ] = None
    junit: options.Junit = None


@taking(Judged, Ball, Teacher, Surrogate, Attacked, Smoothed, Kept, Gates, Page, Written)
def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="The model file to judge: student.safetensors, or any that --arch explains.")
    ] = None,
    **asked: Any,
) -> None:
    """Report clean, robust (AutoAttack) and certified accuracy of a model, beside its teacher if named; judge gates.

    Exit code 0: ran, gates met. 1: ran, a gate was missed. 2: could not run.

    Examples:

        kdcompress evaluate student/student.safetensors --data cifar10/ \\
            --teacher teacher.safetensors --eps 8/255 --images 1000 \\
            --max-robust-drop 0.03 --report report.json --html report.html
        kdcompress evaluate robust.pt --mean none --data cifar10/ --eps 8/255 \\
            --attack screen --images 200
    """
    with boundary():
        first, *more = options.radii(asked["eps"])
        settings = EvaluateSettings.of(
            student=of_model(model, asked),
            teacher=of_model(asked["teacher"], asked, "teacher-"),
            surrogate=of_model(asked["surrogate"], asked, "surrogate-"),
            data=of_images(asked),
            threat=ThreatSettings.of(norm=asked["norm"], eps=first),
            more_eps=tuple(more),
            evaluation=of_evaluation({**asked, "masking": asked["masking_checks"]}),
            gates=gathered(GateSettings, asked),
        )
        written: dict[str, Path | None] = {
            f"--{name}": asked[name] for name in ("report", "html", "markdown", "card", "junit", "table")
        }
        refuse_places(
            written,
            {"MODEL": settings.student, "--teacher": settings.teacher, "--surrogate": settings.surrogate},
            settings.data,
        )
        from kdcompress.evaluation.evaluate import evaluate_with_evidence
        from kdcompress.processes import joined
        from kdcompress.render.console import evaluation
        from kdcompress.render.markdown import markdown as as_markdown

        with joined(settings.evaluation.device), watched() as listener:
            result, evidence = evaluate_with_evidence(settings, listener=listener)
        if not speaks():
            return
        text = result.model_dump_json(indent=2)
        files: dict[Path | None, bytes] = {written["--report"]: f"{text}\n".encode()}
        if (path := written["--html"]) is not None:
            from kdcompress.render.html.page import page

            files[path] = page(result, evidence).encode()
        if (path := written["--markdown"]) is not None:
            files[path] = as_markdown(result).encode()
        if (path := written["--card"]) is not None:
            from kdcompress.render.card import model_card

            files[path] = model_card(result).encode()
        if (path := written["--junit"]) is not None:
            from kdcompress.render.junit import junit as as_junit

            files[path] = as_junit(result).encode()
        if (path := written["--table"]) is not None:
            from kdcompress.render.table import table as as_table

            files[path] = as_table(evidence.rows, tuple(result.models)).encode("utf-8", "surrogateescape")
        add_to_job_summary(as_markdown(result))
        deliver(text, evaluation(result), asked["format"], files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
