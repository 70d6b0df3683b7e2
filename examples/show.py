"""Print the molecules of an embedded library with the smallest gaps: python examples/show.py OUT.parquet"""

import sys

import polars as pl

columns = ["id", "smiles", "homo_ev", "lumo_ev", "gap_ev", "gap_ev_err", "error", "warning"]
library = pl.read_parquet(sys.argv[1], columns=columns)
trusted = library.filter(pl.col("error").is_null() & pl.col("warning").is_null()).drop("error", "warning")

pl.Config(
    tbl_rows=20,
    tbl_width_chars=110,
    tbl_hide_dataframe_shape=True,
    tbl_hide_column_data_types=True,
    fmt_str_lengths=40,
    float_precision=2,
)
print("The 20 smallest HOMO-LUMO gaps of molecules like those the model learned from:")
print(trusted.sort("gap_ev").head(20))
print(
    f"{library.height} records: {library['error'].count()} unreadable, "
    f"{library.height - library['error'].count() - trusted.height} more with a warning "
    "(columns `error` and `warning` say why)."
)
