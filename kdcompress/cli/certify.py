"""kdcompress certify."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import GATES, MEASURES, OUTPUT, TEACHER, Format, default
from kdcompress.cli.output import deliver, speaks, watched
from kdcompress.cli.places import refuse_places
from kdcompress.errors import EXIT_GATE_MISSED, UsageError
from kdcompress.settings import (
    CERTIFIED_IMAGES,
    AuditSettings,
    CertifyGates,
    CertifySettings,
    CleverSettings,
    DataSettings,
    EvaluationSettings,
    ThreatSettings,
)


def certify(
    model: Annotated[
        Path | None, typer.Argument(help="The model file: student.safetensors, or any that --arch explains.")
    ] = None,
    arch: options.Arch = None,
    arg: options.Arg = None,
    mean: options.Mean = None,
    std: options.Std = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Its teacher: certified on the same images, and the propositions audited.", rich_help_panel=TEACHER
        ),
    ] = None,
    teacher_arch: options.TeacherArch = None,
    teacher_arg: options.TeacherArg = None,
    teacher_mean: options.TeacherMean = None,
    teacher_std: options.TeacherStd = None,
    data: options.Data = ...,  # type: ignore[assignment]
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    images: Annotated[
        int, typer.Option(help="The first N of a seeded shuffle of the test split.", rich_help_panel=options.DATA)
    ] = CERTIFIED_IMAGES,
    eps: Annotated[
        str,
        typer.Option(
            help="Radius in pixels of [0,1], such as 2/255; several with commas. A gate takes the first.",
            rich_help_panel=options.THREAT,
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    norm: Annotated[
        Literal["Linf", "L2"], typer.Option(help="Norm of the perturbation.", rich_help_panel=options.THREAT)
    ] = default(ThreatSettings, "norm"),
    kinds: Annotated[
        str,
        typer.Option(
            help="Which radii, with commas: first-order and clever (estimates), smoothing (the smoothed "
            "classifier's), bounds (sound, by interval and CROWN).",
            rich_help_panel=MEASURES,
        ),
    ] = "first-order,clever,smoothing,bounds",
    propositions: Annotated[
        bool,
        typer.Option(
            help="Audit Propositions 1 and 2 of the paper on MODEL and --teacher, where both are given.",
            rich_help_panel=MEASURES,
        ),
    ] = True,
    audit_images: Annotated[int, typer.Option(help="Images for the propositions.", rich_help_panel=MEASURES)] = default(
        CertifySettings, "audit_images"
    ),
    clever_images: Annotated[int, typer.Option(help="Images for CLEVER.", rich_help_panel=MEASURES)] = default(
        CertifySettings, "clever_images"
    ),
    clever_batches: Annotated[int, typer.Option(help="CLEVER: Nb.", rich_help_panel=MEASURES)] = default(
        CleverSettings, "clever_batches"
    ),
    clever_samples: Annotated[int, typer.Option(help="CLEVER: Ns.", rich_help_panel=MEASURES)] = default(
        CleverSettings, "clever_samples"
    ),
    clever_radius: Annotated[
        float | None,
        typer.Option(
            help="CLEVER: R, the largest score. Default: 4 times the largest --eps.", rich_help_panel=MEASURES
        ),
    ] = None,
    smoothing: options.SmoothingMethod = default(EvaluationSettings, "smoothing"),
    sigma: options.Sigma = default(EvaluationSettings, "sigma"),
    n0: options.N0 = default(EvaluationSettings, "n0"),
    n: options.N = default(EvaluationSettings, "n"),
    alpha: options.Alpha = default(EvaluationSettings, "alpha"),
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Most images a forward: less memory, the same figures to rounding. Default: 250.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "batch_size"),
    memory: Annotated[
        float | None,
        typer.Option(
            help="Most GiB that sound bounds and the audit may take. Default: a quarter of what is free.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    largest: Annotated[
        bool,
        typer.Option(
            help="Sound bounds: seek each image's largest radius too, half of the time and more; a gate needs none.",
            rich_help_panel=MEASURES,
        ),
    ] = default(CertifySettings, "largest"),
    seed: Annotated[
        int, typer.Option(help="Seed of the shuffle, the searches and the noise.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "seed"),
    device: options.MeasuringDevice = default(EvaluationSettings, "device"),
    keep_dir: options.KeepDir = None,
    fresh: options.Fresh = False,
    min_verified_accuracy: Annotated[
        float | None,
        typer.Option(help="Least accuracy verified by sound bounds at the first --eps.", rich_help_panel=GATES),
    ] = None,
    min_certified_accuracy: options.MinCertifiedAccuracy = None,
    gate_on: options.GateOn = default(CertifyGates, "gate_on"),
    report: options.Report = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look at, in one file.", rich_help_panel=OUTPUT)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write a CSV file, a row for each image.", rich_help_panel=OUTPUT)
    ] = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Report certified radii of a model and its teacher, each kind by itself, and audit the paper's propositions.

    Exit code 0: ran, gates met. 1: ran, a gate was missed. 2: could not run.

    Example:

        kdcompress certify student/student.safetensors --data cifar10/ \\
            --teacher teacher.safetensors --eps 1/255,2/255 \\
            --html certificates.html
    """
    with boundary():
        if keep_dir is not None and keep_dir.exists() and not keep_dir.is_dir():
            raise UsageError(f"--keep-dir must be a folder, got the file {keep_dir}")
        first, *more = options.radii(eps)
        settings = CertifySettings.of(
            student=options.optional_model_file(model, arch, arg, mean, std, ""),
            teacher=options.optional_model_file(
                teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"
            ),
            data=DataSettings.of(data=data, data_dir=data_dir, image_size=image_size),
            threat=ThreatSettings.of(norm=norm, eps=first),
            more_eps=tuple(more),
            kinds=tuple(dict.fromkeys(kind.strip() for kind in kinds.split(","))),
            propositions=propositions,
            audit_images=audit_images,
            clever_images=clever_images,
            memory=memory,
            largest=largest,
            clever=CleverSettings.for_radii(
                (first, *more),
                clever_radius=clever_radius,
                clever_batches=clever_batches,
                clever_samples=clever_samples,
                seed=seed,
            ),
            audit=AuditSettings.of(seed=seed, **({} if batch_size is None else {"batch_size": batch_size})),
            evaluation=EvaluationSettings.of(
                attack="none",
                images=images,
                seed=seed,
                device=device,
                batch_size=batch_size,
                keep_dir=None if fresh else keep_dir or options.cache_folder("verdicts"),
                smoothing=smoothing,
                sigma=sigma,
                n0=n0,
                n=n,
                alpha=alpha,
            ),
            gates=CertifyGates.of(
                min_verified_accuracy=min_verified_accuracy,
                min_certified_accuracy=min_certified_accuracy,
                gate_on=gate_on,
            ),
        )
        refuse_places(
            {"--report": report, "--html": html, "--table": table},
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
        files: dict[Path | None, bytes] = {report: f"{text}\n".encode()}
        if html is not None:
            from kdcompress.render.html.certificates import page

            files[html] = page(result).encode()
        if table is not None:
            from kdcompress.render.radii_table import radii_table

            files[table] = radii_table(result, names.ids, names.labels).encode("utf-8", "surrogateescape")
        deliver(text, certification(result), format, files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
