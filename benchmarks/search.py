"""How fast the similarity search is; how good it is, `stkd-screen bench search` tells.

    python benchmarks/search.py out.parquet [--rows 100000] [--draw] [--kind ivf] [--fpsim2]

Builds an index in a process of its own and searches it. With --draw vectors beyond those of the file are
drawn around them; with --fpsim2 the same queries go to FPSim2 (pip install fpsim2). The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen import __version__
from stkd_screen.search.build import BuildOptions, build_index
from stkd_screen.search.hits import SearchOptions, search
from stkd_screen.search.index import Index
from stkd_screen.search.library import Library
from stkd_screen.search.queries import Queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("library", type=Path, help="Parquet file that stkd-screen embed wrote")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--draw", action="store_true", help="draw what the file lacks to --rows")
    parser.add_argument("--kind", help="by default what the index would choose")
    parser.add_argument("--memory", type=float, default=2.0, help="GB")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--fpsim2", action="store_true")
    result = run(parser.parse_args())
    about = {"machine": platform.processor() or platform.machine(), "version": __version__}
    print(json.dumps(about | result))


def run(arguments: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STKD_SCREEN_HOME"] = folder
        library = Path(folder) / "library.parquet"
        write_library(arguments.library, library, arguments.rows, arguments.draw)
        options = BuildOptions(arguments.kind, int(arguments.memory * 1e9))
        with multiprocessing.get_context("spawn").Pool(1) as process:  # so that the peak is the build's own
            built = process.apply(timed_build, (library, Path(folder) / "index", options))
        index = Index(Path(folder) / "index")
        result = {"benchmark": "speed", "rows": len(index), "kind": index.manifest.kind} | built
        result |= {
            "recall_at_10": index.manifest.recall,
            "bytes_per_molecule": index.manifest.bytes / len(index),
        }
        result |= timed_search(index, arguments.queries)
        if arguments.fpsim2:
            result |= timed_fpsim2(index, Path(folder) / "fpsim2.h5")
    for name, value in result.items():
        print(f"{name:36s} {value:,.4g}" if isinstance(value, float) else f"{name:36s} {value}")
    return result


def write_library(source: Path, path: Path, rows: int, draw: bool) -> None:
    """The first rows of an embedded library; beyond its end, if wanted, its vectors with noise on them."""
    random = np.random.default_rng(0)
    written = 0
    file = pq.ParquetFile(source)
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        while written < rows and (draw or not written):
            for batch in file.iter_batches(32_768):
                batch = batch.slice(0, rows - written)
                if written >= file.metadata.num_rows:
                    batch = with_noise(batch, random)
                writer.write_batch(batch)
                written += len(batch)


def with_noise(batch: pa.RecordBatch, random: np.random.Generator) -> pa.RecordBatch:
    """Vectors as far from those given as a typical nearest neighbour is: a cosine of about 0.99."""
    column = batch.column("embedding")
    width = column.type.list_size
    vectors = column.values.to_numpy().reshape(-1, width)[column.offset :][: len(column)].astype(np.float32)
    noise = random.normal(size=vectors.shape).astype(np.float32)
    noise *= 0.14 * np.linalg.norm(vectors, axis=1, keepdims=True) / width**0.5
    values = pa.array((vectors + noise).astype(np.float16).ravel())
    drawn = pa.FixedSizeListArray.from_arrays(values, width, mask=column.is_null())
    return batch.set_column(batch.schema.get_field_index("embedding"), batch.schema.field("embedding"), drawn)


def timed_build(library: Path, folder: Path, options: BuildOptions) -> dict:
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not done.wait(0.05):
            memory = process.memory_info()
            peak[0] = max(peak[0], memory.rss - memory.shared)  # without pages of mapped files

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    build_index(Library([library]), folder, options)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"build_seconds": seconds, "build_peak_MB": peak[0] / 1e6, "with_mapped_files_MB": whole / 1e6}


def timed_search(index: Index, count: int) -> dict:
    """Latency of single queries, and queries a second of a batch, for molecules of the library."""
    rows = np.random.default_rng(2).choice(len(index), min(count, len(index)), replace=False)
    vectors = index.store.vectors(rows).astype(np.float32)
    records = pl.DataFrame(pl.from_arrow(index.store.records(rows)))
    about = records.select(
        (pl.int_range(pl.len()) + 1).alias("query"),
        pl.col("id").alias("query_id"),
        pl.col("smiles").alias("query_smiles"),
        pl.lit(None, pl.String).alias("error"),
    )
    queries = Queries(about, vectors)
    index.nearest(vectors[:1], 10)
    neighbours = [seconds(lambda i=i: index.nearest(vectors[i : i + 1], 10)) for i in range(100)]
    tables = [
        seconds(lambda i=i: search(index, Queries(about[i : i + 1], vectors[i : i + 1]), SearchOptions()))
        for i in range(100)
    ]
    exact = [seconds(lambda i=i: index.nearest(vectors[i : i + 1], 10, exact=True)) for i in range(5)]
    return {
        "neighbours_ms": 1000 * statistics.median(neighbours),
        "table_of_hits_ms": 1000 * statistics.median(tables),
        "exact_neighbours_ms": 1000 * statistics.median(exact),
        "batch_neighbours_per_second": len(rows) / seconds(lambda: index.nearest(vectors, 10)),
        "batch_tables_per_second": len(rows) / seconds(lambda: search(index, queries, SearchOptions())),
    }


def timed_fpsim2(index: Index, path: Path) -> dict:
    """The peer: exact Tanimoto over ECFP4, and how many of its 10 best are among ours."""
    from FPSim2 import FPSim2Engine
    from FPSim2.io import create_db_file

    smiles = [text for _, records in index.store.batches() for text in records["smiles"].to_pylist()]
    molecules = [[text, i] for i, text in enumerate(smiles)]
    fingerprints = {"radius": 2, "fpSize": 2048}
    made = seconds(lambda: create_db_file(molecules, str(path), "smiles", "Morgan", fingerprints))
    engine = FPSim2Engine(str(path))
    rows = np.random.default_rng(2).choice(len(index), 100, replace=False)
    engine.top_k(smiles[rows[0]], 10, 0.0)
    times, shared = [], []
    for row in rows:
        started = time.perf_counter()
        best = engine.top_k(smiles[row], 10, 0.0)
        times.append(time.perf_counter() - started)
        ours, _ = index.nearest(index.store.vectors(np.array([row])).astype(np.float32), 10)
        shared.append(len(set(best["mol_id"].tolist()) & set(ours[0].tolist())))
    return {
        "fpsim2_build_seconds": made,
        "fpsim2_ms": 1000 * statistics.median(times),
        "of_10_of_fpsim2_found": statistics.mean(shared),
    }


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
