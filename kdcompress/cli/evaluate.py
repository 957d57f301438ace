"""kdcompress evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import GATES, MEASURES, OUTPUT, STUDENT, TEACHER, THREAT, Format, default
from kdcompress.cli.output import add_to_job_summary, deliver, speaks, watched
from kdcompress.cli.places import refuse_places
from kdcompress.errors import EXIT_GATE_MISSED, UsageError
from kdcompress.settings import DataSettings, EvaluateSettings, EvaluationSettings, GateSettings, ThreatSettings


def evaluate(
    data: options.Data,
    eps: Annotated[
        str,
        typer.Option(
            help="Radius of the perturbation in pixels of [0,1], such as 8/255 or 0.15. Several with commas give "
            "robust accuracy over eps; gates and comparison take the first.",
            rich_help_panel=THREAT,
            show_default=False,
        ),
    ],
    model: Annotated[
        Path | None, typer.Argument(help="The model file to judge: student.safetensors, or any that --arch explains.")
    ] = None,
    norm: options.NormOption = "Linf",
    arch: options.Arch = None,
    arg: options.Arg = None,
    mean: options.Mean = None,
    std: options.Std = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher to compare with on the same images.", rich_help_panel=TEACHER)
    ] = None,
    teacher_arch: options.TeacherArch = None,
    teacher_arg: options.TeacherArg = None,
    teacher_mean: options.TeacherMean = None,
    teacher_std: options.TeacherStd = None,
    surrogate: Annotated[
        Path | None,
        typer.Option(
            help="A network with gradients, such as MODEL's float parent: what breaks it is tried on MODEL too; where "
            "MODEL has no gradients of its own, it stands in for MODEL under white-box attacks.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    surrogate_arch: Annotated[str | None, typer.Option(help="As --teacher-arch.", rich_help_panel=STUDENT)] = None,
    surrogate_arg: Annotated[list[str] | None, typer.Option(help="As --arg.", rich_help_panel=STUDENT)] = None,
    surrogate_mean: Annotated[str | None, typer.Option(help="As --mean.", rich_help_panel=STUDENT)] = None,
    surrogate_std: Annotated[str | None, typer.Option(help="As --std.", rich_help_panel=STUDENT)] = None,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    images: Annotated[
        int | None,
        typer.Option(
            help="The first N of a seeded shuffle of the test split. Default: all.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    attack: Annotated[
        str,
        typer.Option(
            help="autoattack (standard), autoattack-plus, autoattack-rand (for randomised networks); faster and "
            "weaker: apgd, square, pgd-N, and screen for the inner loop of development; none.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "attack"),
    certify_images: Annotated[
        int,
        typer.Option(
            help="Images for the first-order estimate and for smoothing; 0 skips both.", rich_help_panel=MEASURES
        ),
    ] = default(EvaluationSettings, "certify_images"),
    smoothing: options.SmoothingMethod = default(EvaluationSettings, "smoothing"),
    sigma: options.Sigma = default(EvaluationSettings, "sigma"),
    n0: options.N0 = default(EvaluationSettings, "n0"),
    n: options.N = default(EvaluationSettings, "n"),
    alpha: options.Alpha = default(EvaluationSettings, "alpha"),
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Images an attack sees at once; recorded, since figures depend on it. Default: 250, on CUDA 1000, "
            "with --confidence 50; fewer for large images.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "chunk"),
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Most images a forward: less memory, the same figures. Default: a chunk under attack, else 250.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "batch_size"),
    masking_checks: Annotated[
        bool, typer.Option(help="Look for signs of gradient masking.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "masking"),
    keep_dir: options.KeepDir = None,
    fresh: options.Fresh = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the shuffle, the attacks and the noise.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "seed"),
    device: options.MeasuringDevice = default(EvaluationSettings, "device"),
    min_clean_accuracy: Annotated[
        float | None, typer.Option(help="Least clean accuracy, a fraction.", rich_help_panel=GATES)
    ] = None,
    min_robust_accuracy: Annotated[
        float | None, typer.Option(help="Least robust accuracy, a fraction.", rich_help_panel=GATES)
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Stop attacking as soon as --min-robust-accuracy is decided this surely, such as 0.99.",
            rich_help_panel=GATES,
        ),
    ] = None,
    min_certified_accuracy: options.MinCertifiedAccuracy = None,
    max_robust_drop: Annotated[
        float | None,
        typer.Option(
            help="Most robust accuracy lost against the teacher, a fraction: the interval's upper end decides.",
            rich_help_panel=GATES,
        ),
    ] = None,
    max_params: Annotated[int | None, typer.Option(help="Most parameters.", rich_help_panel=GATES)] = None,
    max_macs: Annotated[
        int | None, typer.Option(help="Most multiply-accumulates an image.", rich_help_panel=GATES)
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds, median forward of one image.", rich_help_panel=GATES)
    ] = None,
    allow_untrusted: Annotated[
        bool,
        typer.Option(
            "--allow-untrusted",
            help="Judge robust accuracy even where a sign of gradient masking was found.",
            rich_help_panel=GATES,
        ),
    ] = default(GateSettings, "allow_untrusted"),
    gate_on: options.GateOn = default(GateSettings, "gate_on"),
    report: options.Report = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look at, in one file.", rich_help_panel=OUTPUT)
    ] = None,
    markdown: options.Markdown = None,
    card: Annotated[
        Path | None,
        typer.Option(help="Write a model card with the metadata that hubs read.", rich_help_panel=OUTPUT),
    ] = None,
    junit: options.Junit = None,
    table: Annotated[
        Path | None, typer.Option(help="Write a CSV file, a row for each image.", rich_help_panel=OUTPUT)
    ] = None,
    format: options.FormatOption = Format.table,
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
        if keep_dir is not None and keep_dir.exists() and not keep_dir.is_dir():
            raise UsageError(f"--keep-dir must be a folder, got the file {keep_dir}")
        first, *more = options.radii(eps)
        settings = EvaluateSettings.of(
            student=options.optional_model_file(model, arch, arg, mean, std, ""),
            teacher=options.optional_model_file(
                teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"
            ),
            surrogate=options.optional_model_file(
                surrogate, surrogate_arch, surrogate_arg, surrogate_mean, surrogate_std, "surrogate-"
            ),
            data=DataSettings.of(data=data, data_dir=data_dir, image_size=image_size),
            threat=ThreatSettings.of(norm=norm, eps=first),
            more_eps=tuple(more),
            evaluation=EvaluationSettings.of(
                attack=attack,
                images=images,
                seed=seed,
                device=device,
                chunk=chunk,
                batch_size=batch_size,
                masking=masking_checks,
                keep_dir=None if fresh else keep_dir or options.cache_folder("verdicts"),
                smoothing=smoothing,
                sigma=sigma,
                n0=n0,
                n=n,
                alpha=alpha,
                certify_images=certify_images,
            ),
            gates=GateSettings.of(
                min_clean_accuracy=min_clean_accuracy,
                min_robust_accuracy=min_robust_accuracy,
                min_certified_accuracy=min_certified_accuracy,
                max_robust_drop=max_robust_drop,
                max_params=max_params,
                max_macs=max_macs,
                max_latency_ms=max_latency_ms,
                gate_on=gate_on,
                confidence=confidence,
                allow_untrusted=allow_untrusted,
            ),
        )
        refuse_places(
            {
                "--report": report,
                "--html": html,
                "--markdown": markdown,
                "--card": card,
                "--junit": junit,
                "--table": table,
            },
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
        files: dict[Path | None, bytes] = {report: f"{text}\n".encode()}
        if html is not None:
            from kdcompress.render.html.page import page

            files[html] = page(result, evidence).encode()
        if markdown is not None:
            files[markdown] = as_markdown(result).encode()
        if card is not None:
            from kdcompress.render.card import model_card

            files[card] = model_card(result).encode()
        if junit is not None:
            from kdcompress.render.junit import junit as as_junit

            files[junit] = as_junit(result).encode()
        if table is not None:
            from kdcompress.render.table import table as as_table

            files[table] = as_table(evidence.rows, tuple(result.models)).encode("utf-8", "surrogateescape")
        add_to_job_summary(as_markdown(result))
        deliver(text, evaluation(result), format, files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
