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


# The list of commands would cut the first sentence of a docstring at some 45 characters.
app.command("embed", short_help="Embedding, HOMO, LUMO and gap of every molecule of a library.")(embed.embed)
app.command("verify", short_help="Check an output: parts, rows, order, results.")(verify.verify)
app.command("index", short_help="Build a search index from embedded libraries.")(index.index)
app.command("search", short_help="The molecules most like each query.")(search.search)
app.command("distill", short_help="Distil a SMILES student from graph Transformer teachers.")(distill.distill)
app.command("teach", short_help="Train a teacher, a Graphormer, on tables.")(teach.teach)
app.command("train", short_help="Fit or fine-tune a student on tables.")(train.train)
app.command("evaluate", short_help="Errors of a model on tables, by target and split.")(evaluate.evaluate)
app.command("calibrate", short_help="Learn the expected error of each prediction.")(calibrate.calibrate)
app.command("prepare", short_help="Read tables and libraries once, for many trainings.")(prepare.prepare)
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
