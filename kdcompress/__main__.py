"""`kdcompress` and `python -m kdcompress`."""

from importlib.metadata import version

import typer

from kdcompress.cli.bench import bench
from kdcompress.cli.commands import Commands
from kdcompress.cli.demo import demo
from kdcompress.cli.distill import distill
from kdcompress.cli.evaluate import evaluate
from kdcompress.cli.train import train

app = typer.Typer(
    name="kdcompress",
    cls=Commands,
    help="Compress a robust network into a small timm student, and prove what was kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(distill)
app.command()(train)
app.command()(evaluate)
app.command()(demo)
app.command()(bench)


@app.callback(invoke_without_command=True)
def root(
    show_version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    """Options before a command."""
    if show_version:
        typer.echo(f"kdcompress {version('kdcompress')}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
