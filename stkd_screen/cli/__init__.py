"""The command line: one thin module a command. Only this layer prints, and only it exits."""

import sys
import warnings
from typing import TextIO

import typer

from stkd_screen import __version__
from stkd_screen.cli import (
    bench,
    calibrate,
    distill,
    embed,
    evaluate,
    index,
    prepare,
    search,
    teach,
    train,
    verify,
)
from stkd_screen.cli.interrupts import Interrupted, interrupts_raise
from stkd_screen.cli.text import printable
from stkd_screen.errors import StkdError, StkdWarning

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
app.command("calibrate")(calibrate.calibrate)
app.command("prepare")(prepare.prepare)
app.add_typer(bench.app, name="bench")


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, StkdWarning):
        typer.secho(printable(f"warning: {message}"), fg="yellow", err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        typer.echo(printable(text), err=True, nl=False)


def main() -> None:
    """Run the program; an error made for the user is printed in red and exits 1, an interrupt exits 130.

    Warnings made for the user are printed in yellow, each as it comes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", StkdWarning)
        warnings.showwarning = _print_warning
        _run()


def _run() -> None:
    try:
        with interrupts_raise():
            app()
    except StkdError as error:
        typer.secho(printable(f"error: {error}"), fg="red", err=True)
        sys.exit(1)
    except Interrupted as interrupt:
        sys.exit(128 + interrupt.args[0])
