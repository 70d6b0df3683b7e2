"""Options that several commands share."""

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
SmilesColumn = Annotated[
    str | None, typer.Option(help="SMILES column, by name or number from 1. [default: found by name]")
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with train, valid, test. [default: split; without it 8:1:1 by a hash of the SMILES]"
    ),
]
