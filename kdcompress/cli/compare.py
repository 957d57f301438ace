"""kdcompress compare."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import GATES, MEASURES, Format, default
from kdcompress.cli.output import add_to_job_summary, deliver
from kdcompress.cli.places import refuse_places
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import CompareSettings


def compare(
    reports: Annotated[
        list[Path],
        typer.Argument(help="JSON reports of kdcompress evaluate; the first is the baseline.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Which network: student, teacher or another's name. Default: the student, or the only one.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    max_clean_drop: Annotated[
        float | None,
        typer.Option(
            help="Most clean accuracy lost against the baseline, a fraction: the interval's upper end decides.",
            rich_help_panel=GATES,
        ),
    ] = None,
    max_robust_drop: Annotated[
        float | None,
        typer.Option(
            help="Most robust accuracy lost against the baseline, a fraction: the interval's upper end decides.",
            rich_help_panel=GATES,
        ),
    ] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(help="Most latency, over the baseline's.", rich_help_panel=GATES)
    ] = None,
    allow_untrusted: Annotated[
        bool,
        typer.Option(
            "--allow-untrusted",
            help="Judge robust accuracy even where a sign of gradient masking was found.",
            rich_help_panel=GATES,
        ),
    ] = default(CompareSettings, "allow_untrusted"),
    report: options.Report = None,
    markdown: options.Markdown = None,
    junit: options.Junit = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Put reports side by side, and each against the first: what was lost, with its interval; judge gates.

    Exit code 0: ran, gates met. 1: ran, a gate was missed. 2: could not run.

    Example:

        kdcompress compare main.json branch.json --max-robust-drop 0.03 \\
            --max-clean-drop 0.01
    """
    with boundary():
        settings = CompareSettings.of(
            reports=tuple(reports),
            model=model,
            max_clean_drop=max_clean_drop,
            max_robust_drop=max_robust_drop,
            max_latency_ratio=max_latency_ratio,
            allow_untrusted=allow_untrusted,
        )
        outputs = {"--report": report, "--markdown": markdown, "--junit": junit}
        refuse_places(outputs, {f"the report {path}": path for path in reports})
        from kdcompress.evaluation.baseline import compare as compared
        from kdcompress.render.comparison import side_by_side
        from kdcompress.render.junit import comparison_junit
        from kdcompress.render.markdown import comparison_markdown

        result = compared(settings)
        text, summary = result.model_dump_json(indent=2), comparison_markdown(result)
        files: dict[Path | None, bytes] = {report: f"{text}\n".encode(), markdown: summary.encode()}
        files[junit] = comparison_junit(result).encode()
        add_to_job_summary(summary)
        deliver(text, side_by_side(result), format, files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
