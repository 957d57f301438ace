"""kdcompress evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import GATES, MEASURES, STUDENT, TEACHER, Format, default
from kdcompress.cli.output import deliver, refuse_unwritable, stderr
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import DataSettings, EvaluateSettings, EvaluationSettings, GateSettings, ThreatSettings


def evaluate(
    data: options.Data,
    eps: options.Eps,
    model: Annotated[
        Path | None, typer.Argument(help="The model file to judge: student.safetensors, or any that --arch explains.")
    ] = None,
    norm: options.NormOption = "Linf",
    arch: Annotated[
        str | None,
        typer.Option(help="MODEL's architecture, as --teacher-arch. Default: from the file.", rich_help_panel=STUDENT),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="key=value for MODEL's builder; repeat for more.", rich_help_panel=STUDENT)
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="MODEL's normalisation, as --teacher-mean. Default: from the file.", rich_help_panel=STUDENT),
    ] = None,
    std: Annotated[str | None, typer.Option(help="See --mean.", rich_help_panel=STUDENT)] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher to compare with on the same images.", rich_help_panel=TEACHER)
    ] = None,
    teacher_arch: options.TeacherArch = None,
    teacher_arg: options.TeacherArg = None,
    teacher_mean: options.TeacherMean = None,
    teacher_std: options.TeacherStd = None,
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
        str, typer.Option(help="autoattack (standard), pgd-N or none.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "attack"),
    certify_images: Annotated[
        int,
        typer.Option(
            help="Images for the first-order estimate and for smoothing; 0 skips both.", rich_help_panel=MEASURES
        ),
    ] = default(EvaluationSettings, "certify_images"),
    sigma: Annotated[
        float, typer.Option(help="Smoothing: standard deviation of the noise.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "sigma"),
    n0: Annotated[
        int, typer.Option("--n0", help="Smoothing: draws that choose the class.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "n0"),
    n: Annotated[
        int, typer.Option("--n", help="Smoothing: draws that bound its probability.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "n"),
    alpha: Annotated[
        float, typer.Option(help="Smoothing: probability of a wrong certificate.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "alpha"),
    batch_size: Annotated[
        int, typer.Option(help="Images a forward, and an attack's chunk.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "batch_size"),
    seed: Annotated[
        int, typer.Option(help="Seed of the shuffle, the attacks and the noise.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "seed"),
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", rich_help_panel=MEASURES)] = default(
        EvaluationSettings, "device"
    ),
    min_clean_accuracy: Annotated[
        float | None, typer.Option(help="Least clean accuracy, a fraction.", rich_help_panel=GATES)
    ] = None,
    min_robust_accuracy: Annotated[
        float | None, typer.Option(help="Least robust accuracy, a fraction.", rich_help_panel=GATES)
    ] = None,
    max_robust_drop: Annotated[
        float | None,
        typer.Option(help="Most robust accuracy lost against the teacher, a fraction.", rich_help_panel=GATES),
    ] = None,
    max_params: Annotated[int | None, typer.Option(help="Most parameters.", rich_help_panel=GATES)] = None,
    gate_on: Annotated[
        str,
        typer.Option(
            help="point: the estimate decides; bound: the conservative end of its interval.", rich_help_panel=GATES
        ),
    ] = default(GateSettings, "gate_on"),
    report: options.Report = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Report clean, robust (AutoAttack) and certified accuracy of a model, beside its teacher if named; judge gates.

    Exit code 0: ran, gates met. 1: ran, a gate was missed. 2: could not run.

    Example: kdcompress evaluate student/student.safetensors --teacher robust.pt --data cifar10/ --eps 8/255
    --images 1000 --max-robust-drop 0.03 --report report.json
    """
    with boundary():
        refuse_unwritable(report)
        settings = EvaluateSettings.of(
            student=None if model is None else options.model_file(model, arch, arg, mean, std, ""),
            teacher=None
            if teacher is None
            else options.model_file(teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"),
            data=DataSettings.of(data=data, data_dir=data_dir, image_size=image_size),
            threat=ThreatSettings.of(norm=norm, eps=eps),
            evaluation=EvaluationSettings.of(
                attack=attack,
                images=images,
                seed=seed,
                device=device,
                batch_size=batch_size,
                sigma=sigma,
                n0=n0,
                n=n,
                alpha=alpha,
                certify_images=certify_images,
            ),
            gates=GateSettings.of(
                min_clean_accuracy=min_clean_accuracy,
                min_robust_accuracy=min_robust_accuracy,
                max_robust_drop=max_robust_drop,
                max_params=max_params,
                gate_on=gate_on,
            ),
        )
        from kdcompress.evaluation.evaluate import evaluate as measured
        from kdcompress.render.console import evaluation
        from kdcompress.render.progress import listening

        with listening(stderr()) as listener:
            result = measured(settings, listener=listener)
        text = result.model_dump_json(indent=2)
        deliver(text, evaluation(result), format, {report: f"{text}\n".encode()})
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
