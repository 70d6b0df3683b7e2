"""The command line: one thin module a command. Only this layer prints, and only it exits."""

import sys

import typer

from stkd_screen import __version__
from stkd_screen.cli import distill, embed, evaluate, index, prepare, search, teach, train, verify
from stkd_screen.cli.interrupts import Interrupted, interrupts_raise
from stkd_screen.errors import StkdError

app = typer.Typer(
    name="stkd-screen",
    help="Screen molecule libraries: embeddings and HOMO / LUMO / gap straight from SMILES.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stkd-screen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, help="Print the version."),
) -> None:
    pass


app.command("embed")(embed.embed)
app.command("verify")(verify.verify)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("distill")(distill.distill)
app.command("teach")(teach.teach)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("prepare")(prepare.prepare)


def main() -> None:
    """Run the program; an error made for the user is printed in red and exits 1, an interrupt exits 130."""
    try:
        with interrupts_raise():
            app()
    except StkdError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
    except Interrupted as interrupt:
        sys.exit(128 + interrupt.args[0])
