"""Options that several commands share."""

from typing import Annotated

import typer

_DATA = typer.Argument(
    help="CSV, TSV or Parquet tables (.csv.gz too), or data sets by name: qm9, qm8, hiv, ..."
)
Data = Annotated[list[str], _DATA]
OptionalData = Annotated[list[str] | None, _DATA]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the matrix products: float32, bfloat16, or auto: bfloat16 where the device is faster in it."
    ),
]
StudentPrecision = Annotated[
    str,
    typer.Option(
        help="Of the matrix products: float32, bfloat16, int8 (on a CPU), or auto: bfloat16 where the device "
        "is faster in it, else int8 where it is faster in that."
    ),
]
SmilesColumn = Annotated[
    str | None, typer.Option(help="SMILES column, by name or number from 1. [default: found by name]")
]
SplitColumn = Annotated[str | None, typer.Option(help="Column with train, valid, test. [default: split]")]
SplitBy = Annotated[
    str | None,
    typer.Option(
        help="column, hash, random or scaffold. [default: the split column or OGB's split dictionary of a "
        "table that has one, else hash]"
    ),
]
SplitSeed = Annotated[int, typer.Option(min=0, help="Seed of --split-by random.")]
