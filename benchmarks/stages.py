"""Where the time of `stkd-screen embed` goes on a CPU: the stages one after another, each by its CPU time.

    python benchmarks/stages.py library.smi.gz [--molecules 4096] [--model small]

One thread does it all, so that the shares are those of the work; `embed` does reading, encoding and writing
in threads beside each other. Below them, the forward pass by operators of torch. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from stkd_screen.batching import equal_length_batches
from stkd_screen.encoder import WINDOW, smiles_buffers
from stkd_screen.forward import BATCH_TOKENS
from stkd_screen.output import OutputOptions, result_table, schema
from stkd_screen.parts.parquet import ParquetPart
from stkd_screen.records import RecordReader
from stkd_screen.smiles import pretransform
from stkd_screen.smiles.tokens import lay_out, token_counts
from stkd_screen.weights import Weights, in_units, load_weights

OPERATORS = {"aten::addmm": "linear", "aten::mm": "linear", "aten::gelu": "GELU", "aten::cat": "cat and copy"}
OPERATORS |= {"aten::_scaled_dot_product_flash_attention_for_cpu": "attention", "aten::copy_": "cat and copy"}
OPERATORS |= {"aten::native_layer_norm": "layer norm", "aten::_embedding_bag": "table"}


class Stages:
    """CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.seconds[name] += time.thread_time() - start


@torch.inference_mode()
def embed(library: Path, windows: int, weights: Weights, stage: Stages) -> int:
    """The main path of `embed`; gives the molecules it was done for."""
    student, options, rows = weights.student, OutputOptions().checked(weights), 0
    surroundings = student.config.surroundings
    batches = iter(RecordReader([library], batch_size=WINDOW["cpu"]))
    with tempfile.TemporaryFile() as file, ParquetPart(file, schema(weights, options)) as part:
        for _ in range(windows):
            with stage("read"):
                records = next(batches, None)
            if records is None:
                break
            with stage("SMILES to graphs"):
                molecules = pretransform(*smiles_buffers(records.smiles))
            counts = token_counts(molecules, surroundings=surroundings)
            embedding = np.full((len(molecules), student.config.embedding_width), np.nan, np.float32)
            prediction = np.full((len(molecules), student.config.targets), np.nan, np.float32)
            usable = np.flatnonzero(counts)
            for batch in equal_length_batches(counts, usable, lambda T: max(1, BATCH_TOKENS["cpu"] // T)):
                with stage("tokens"):
                    arrays = lay_out(molecules, batch, surroundings=surroundings)
                with stage("forward pass"):
                    states, predicted = student(*map(torch.from_numpy, arrays))
                embedding[batch], prediction[batch] = states.numpy(), predicted.numpy()
            values = in_units(prediction, weights.targets)
            with stage("table"):
                table, _ = result_table(records, molecules, embedding, values, weights, options, rows)
            with stage("Parquet"):
                part.write(table)
            rows += len(records)
        with stage("Parquet"):
            part.finish()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("library", type=Path, help="any file that stkd-screen embed reads")
    parser.add_argument("--molecules", type=int, default=4096, help="in whole windows (default %(default)s)")
    parser.add_argument("--model", default="small")
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = load_weights(options.model)
    embed(options.library, 1, weights, Stages())  # compiles, fills caches
    stages = Stages()
    windows = -(-options.molecules // WINDOW["cpu"])
    molecules = embed(options.library, windows, weights, stages)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        embed(options.library, 1, weights, Stages())
    operators: Counter[str] = Counter()
    for event in profiler.key_averages():
        operators[OPERATORS.get(event.key, "other")] += event.self_cpu_time_total
    whole = stages.seconds.total()
    for name, seconds in stages.seconds.most_common():
        print(f"{name:20s} {1e6 * seconds / molecules:10.1f} us a molecule {seconds / whole:7.1%}")
    shares = {name: time / operators.total() for name, time in operators.most_common()}
    for name, share in shares.items():
        print(f"    {name:16s} {share:30.1%} of the forward pass")
    us = {name: 1e6 * seconds / molecules for name, seconds in stages.seconds.items()}
    print(json.dumps({"benchmark": "stages", "molecules": molecules, "us": us, "forward_shares": shares}))


if __name__ == "__main__":
    main()
