"""Reading molecule files: .smi, .csv, .tsv and .parquet, compressed or not, folders and standard input."""

from stkd_screen.records.batch import Records
from stkd_screen.records.reader import RecordReader
from stkd_screen.records.streams import TextStream, open_text

__all__ = ["RecordReader", "Records", "TextStream", "open_text"]
