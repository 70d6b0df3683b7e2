"""Print the molecules of an embedded library with the smallest gaps: python examples/show.py OUT.parquet"""

import sys

import polars as pl

library = pl.read_parquet(sys.argv[1], columns=["id", "smiles", "homo_ev", "lumo_ev", "gap_ev", "error"])
predicted = library.filter(pl.col("error").is_null()).drop("error")
pl.Config(tbl_rows=20, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, fmt_str_lengths=34)
print("The 20 smallest HOMO-LUMO gaps:")
print(predicted.sort("gap_ev").head(20))
