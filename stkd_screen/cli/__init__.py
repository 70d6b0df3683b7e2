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
    rich_markup_mode=None,  # rich's tables of options cut their names at 80 columns
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


_COMMANDS = (
    (embed.embed, "Embedding, HOMO, LUMO and gap of every molecule of a library."),
    (verify.verify, "Check an output: parts, rows, order, results."),
    (index.index, "Build a search index from embedded libraries."),
    (search.search, "The molecules most like each query."),
    (distill.distill, "Distil a SMILES student from graph Transformer teachers."),
    (teach.teach, "Train a teacher, a Graphormer, on tables."),
    (train.train, "Fit or fine-tune a student on tables."),
    (evaluate.evaluate, "Errors of a model on tables, by target and split."),
    (calibrate.calibrate, "Learn the expected error of each prediction."),
    (prepare.prepare, "Read tables and libraries once, for many trainings."),
)
for command, summary in _COMMANDS:
    app.command(command.__name__, short_help=summary)(command)
app.add_typer(bench.app, name="bench", short_help="How fast this machine embeds, and how good a search is.")


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
