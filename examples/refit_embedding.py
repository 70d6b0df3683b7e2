"""Fit the embedding of trained weights to the ECFP4 fingerprints of a library; the energies stay as they are.

    stkd-screen prepare mine.csv --unlabelled library.smi.gz -o mine.prepared
    python refit_embedding.py weights/mine mine.prepared -o weights/refitted
    stkd-screen calibrate weights/refitted mine.csv

In a student of the preset `small`, `medium` or `large` the fingerprint head and the hashed environments of
atoms serve the embedding alone. This trains these two on the training molecules of a prepared file: all those
without labels, to whose fingerprints new principal components are fitted, and at most as many of the others.
What the layers give is computed once and kept in memory, about 7 kB for a drug-like molecule (twice as much
for `medium`). The expected errors look at the embedding, so `calibrate` comes after it.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stkd_screen.batching import equal_length_batches
from stkd_screen.encoder import choose_device
from stkd_screen.precision import autocast, choose_precision
from stkd_screen.smiles.tokens import ENVIRONMENT_ENTRIES, lay_out, token_counts
from stkd_screen.student import Student
from stkd_screen.teach.card import student_card
from stkd_screen.teach.fingerprints import fingerprint_loss, fingerprint_targets, fit_fingerprint_basis
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.prepared import load_prepared
from stkd_screen.weights import FingerprintBasis, load_weights, save_weights

BATCH_TOKENS, STEP_TOKENS = 16_384, 8192  # of a forward pass, and of a step of the optimizer


class States:
    """What the last layer reads of some molecules, and their environments, in memory."""

    def __init__(self, student: Student, data: LabelledMolecules, rows: np.ndarray) -> None:
        self.counts = token_counts(data.molecules, surroundings=True)
        self.first = np.zeros(len(self.counts), np.int64)
        total = int(self.counts[rows].sum())
        self.states = torch.empty(total, student.config.width, dtype=torch.bfloat16)
        self.environments = torch.empty(total, 2, dtype=torch.int16)
        done, device = 0, student.table.device
        for batch in equal_length_batches(self.counts, rows, lambda T: max(1, BATCH_TOKENS // T)):
            laid_out = map(torch.from_numpy, lay_out(data.molecules, batch, surroundings=True))
            tokens, n_atoms, pairs = (part.to(device) for part in laid_out)
            B, T, _ = tokens.shape
            end = done + B * T
            with torch.no_grad(), autocast(device, choose_precision("auto", device)):
                states = student.before_the_last_layer(tokens, n_atoms, student.bias_between(pairs))
            self.states[done:end] = states.flatten(0, 1).cpu()
            self.environments[done:end] = tokens[..., ENVIRONMENT_ENTRIES].reshape(B * T, 2).cpu()
            self.first[batch] = np.arange(done, end, T)
            done = end

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, T, 2) of rows with one token count."""
        places = torch.from_numpy(self.first[rows][:, None] + np.arange(self.counts[rows[0]]))
        return self.states[places], self.environments[places]


def refit(
    student: Student,
    data: LabelledMolecules,
    basis: FingerprintBasis,
    rows: np.ndarray,
    epochs: int,
    learning_rate: float,
) -> None:
    """Train the head and the environments of a student, in place."""
    device, graphs, head = student.table.device, data.needed_graphs(), student.fingerprint
    valid = data.rows("valid")
    states = States(student, data, np.concatenate([rows, valid]))
    generator = np.random.default_rng(0)
    # Without weight decay the rows of the table that are no environments stay as they are.
    parameters = [student.table, *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def loss_of(batch: np.ndarray) -> Tensor:
        x, environments = (part.to(device) for part in states.batch(batch))
        bits = (torch.from_numpy(part).to(device) for part in graphs.set_bits(batch))
        embedding = head(x.float() + student.sum_of_entries(environments))
        return fingerprint_loss(embedding, fingerprint_targets(basis, *bits))

    def batches(of: np.ndarray) -> list[np.ndarray]:
        shuffled = generator.permutation(of)
        found = list(equal_length_batches(states.counts, shuffled, lambda T: max(1, STEP_TOKENS // T)))
        return [found[i] for i in generator.permutation(len(found))]

    step, steps = 0, epochs * len(batches(rows))
    for epoch in range(epochs):
        for batch in batches(rows):
            warmup, cosine = min(1, (step + 1) / 200), 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
            optimizer.param_groups[0]["lr"] = learning_rate * warmup * cosine
            loss_of(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        with torch.no_grad():
            parts = [(loss_of(batch) * len(batch)).item() for batch in batches(valid)]
        share = sum(parts) / len(valid)
        print(f"epoch {epoch + 1}  not explained on the valid split: {share:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("weights", help="a folder, or the name of shipped weights")
    parser.add_argument("data", type=Path, help="what `stkd-screen prepare` wrote, with --unlabelled")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights folder to write")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the molecules")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    weights, data = load_weights(arguments.weights), load_prepared(arguments.data)
    if not (weights.student.config.late_environments and weights.student.fingerprint):
        raise SystemExit(
            f"{arguments.weights}: environments are part of its energies, or it has no fingerprint head; "
            "give weights trained with --preset small, medium or large and --fingerprint above 0"
        )
    rows = data.rows("train")
    labelled = np.isfinite(data.targets[rows]).any(axis=1)
    if labelled.all():
        raise SystemExit(f"{arguments.data}: no molecule without labels; name a library with --unlabelled")
    library, others = rows[~labelled], rows[labelled]
    others = np.random.default_rng(0).permutation(others)[: len(library)]
    basis = fit_fingerprint_basis(data.needed_graphs(), library, weights.student.config.fingerprint)
    student = weights.student.to(choose_device(arguments.device)).eval()
    refit(student, data, basis, np.concatenate([library, others]), arguments.epochs, arguments.learning_rate)
    training = weights.training | {"embedding": {"data": data.files, "epochs": arguments.epochs}}
    refitted = replace(weights, student=student.cpu(), fingerprints=basis, training=training)
    arguments.output.mkdir(parents=True, exist_ok=True)
    saved = save_weights(refitted, arguments.output, half=training["options"].get("half", False))
    (arguments.output / "README.md").write_text(student_card(saved), encoding="utf-8")


if __name__ == "__main__":
    main()
