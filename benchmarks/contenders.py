"""The models of the paper's table 3, each with its own way from SMILES to predictions, for speed.py."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from baselines import (
    GRAPH_PRESETS,
    MLP_PRESETS,
    FingerprintMLP,
    GraphNetwork,
    SmilesTransformer,
    code_of_each,
    pack_graphs,
    packed_fingerprints,
    smiles_tokens,
    token_codes,
)
from rdkit import Chem
from torch import Tensor, nn

from stkd_screen.batching import equal_length_batches
from stkd_screen.cpu import CpuStudent
from stkd_screen.errors import StkdError
from stkd_screen.forward import BATCH_TOKENS as STUDENT_TOKENS
from stkd_screen.forward import in_threads
from stkd_screen.smiles import Molecules, pack_smiles, pretransform
from stkd_screen.smiles.tokens import lay_out, token_counts
from stkd_screen.student import PRESETS, Student
from stkd_screen.teach.features import graph_features
from stkd_screen.teach.graphormer import PRESETS as GRAPHORMER_PRESETS
from stkd_screen.teach.graphormer import Graphormer
from stkd_screen.teach.labelled import concatenated
from stkd_screen.teach.structure import graph_batch
from stkd_screen.teach.teacher import BATCH_TOKENS as GRAPHORMER_TOKENS
from stkd_screen.teach.teacher import load_teacher
from stkd_screen.weights import load_weights, shipped_names

TARGETS = 3
# Most molecules of a batch that may hold molecules of any size; on a CPU the best of 16 to 256.
GRAPHS_AT_ONCE = {"cpu": 64, "cuda": 4096}
FINGERPRINTS_AT_ONCE = {"cpu": 256, "cuda": 16_384}


# What processes make of SMILES: arrays of many molecules, one after another.


@dataclass(frozen=True)
class RdkitGraphs:
    """What `pack_graphs` and `graph_batch` read of molecules and of their graphs."""

    atom_offsets: np.ndarray
    bond_offsets: np.ndarray
    bond_atoms: np.ndarray
    atom_features: np.ndarray
    bond_features: np.ndarray


def read_graphs(smiles: Sequence[str]) -> RdkitGraphs:
    graphs = [graph_features(Chem.MolFromSmiles(text)) for text in smiles]
    atoms, ends, bonds = (np.concatenate(arrays) for arrays in zip(*graphs, strict=True))
    atom_offsets, bond_offsets = (offsets(len(graph[k]) for graph in graphs) for k in (0, 2))
    return RdkitGraphs(atom_offsets, bond_offsets, ends, atoms, bonds)


@dataclass(frozen=True)
class Fingerprints:
    packed: np.ndarray  # (R, bits / 8)


def read_fingerprints(smiles: Sequence[str]) -> Fingerprints:
    return Fingerprints(packed_fingerprints(smiles))


@dataclass(frozen=True)
class Texts:
    token_offsets: np.ndarray
    tokens: np.ndarray


def read_texts(code: dict[str, int], smiles: Sequence[str]) -> Texts:
    codes = [token_codes(smiles_tokens(text), code) for text in smiles]
    return Texts(offsets(map(len, codes)), np.array([token for row in codes for token in row], np.int16))


def read_molecules(smiles: Sequence[str]) -> Molecules:
    return pretransform(*pack_smiles(smiles))


def offsets(counts: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *counts])


# The models


@dataclass(frozen=True)
class Contender:
    """A model and its way from SMILES to predictions."""

    model: nn.Module | None  # None: what is read is the result
    read: Callable[[Sequence[str]], Any]
    batches: Callable[[Any, int], Iterable[np.ndarray]]  # from what was read and the molecules: rows of each
    collate: Callable[[Any, np.ndarray], Any]  # from what was read and rows: inputs in memory
    predict: Callable[[nn.Module, Any, torch.device], Tensor] = lambda model, x, device: model(x.to(device))

    def build(self, smiles: list[str], pool: ProcessPoolExecutor | None = None) -> list[Any]:
        """The inputs of all batches, made by this process alone, or by the pool and as many threads."""
        if pool is None:
            data = self.read(smiles)
            return [self.collate(data, rows) for rows in self.batches(data, len(smiles))]
        threads = torch.get_num_threads()
        size = -(-len(smiles) // (4 * threads))
        chunks = [smiles[start : start + size] for start in range(0, len(smiles), size)]
        data = concatenated(list(pool.map(self.read, chunks)))
        return list(in_threads(partial(self.collate, data), self.batches(data, len(smiles)), threads))

    def forward(self, batches: list[Any]) -> Tensor:
        """Predictions, batch after batch. As in `embed`, each thread of a CPU takes batches of its own."""
        assert self.model is not None
        device = next(self.model.parameters()).device
        run = partial(self._run, device=device)
        threads = torch.get_num_threads()
        outputs = map(run, batches) if device.type == "cuda" else in_threads(run, batches, threads)
        return torch.cat(list(outputs)).float().cpu()  # which waits for the GPU

    @torch.inference_mode()
    def _run(self, inputs: Any, device: torch.device) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.predict(self.model, inputs, device)

    def seconds(self, smiles: list[str], pool: ProcessPoolExecutor) -> tuple[float, float, float]:
        """Of the forward pass, of building by one process, and of building by all.

        Raises:
            StkdError: a molecule got no prediction, or one that is not finite.
        """
        start = time.perf_counter()
        self.build(smiles, pool)
        by_all = time.perf_counter()
        batches = self.build(smiles)
        by_one = time.perf_counter()
        if self.model is not None:
            predictions = self.forward(batches)
            if len(predictions) != len(smiles) or not predictions.isfinite().all():
                raise StkdError(f"{len(smiles)} molecules did not give as many finite predictions")
        return time.perf_counter() - by_one, by_one - by_all, by_all - start


def by_length(tokens_of: Callable[[Any], np.ndarray], most: int) -> Callable:
    """Batches of molecules that all have as many tokens, `most` tokens in all: nothing is padded."""
    return lambda data, count: equal_length_batches(
        tokens_of(data), np.arange(count), lambda tokens: max(1, most // tokens)
    )


def mixed(device: torch.device, most: dict[str, int]) -> Callable:
    """Batches of molecules of any sizes, so many that all threads of a CPU have the same to do."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1

    def batches(data: Any, count: int) -> list[np.ndarray]:
        pieces = threads * -(-count // (threads * most[device.type]))
        return np.array_split(np.arange(count), min(count, pieces))

    return batches


def graph_network(name: str, preset: str, smiles: list[str], device: torch.device) -> Contender:
    kind, _, virtual = name.partition("-")
    model = GraphNetwork(kind, GRAPH_PRESETS[preset], bool(virtual), TARGETS)
    batches = mixed(device, GRAPHS_AT_ONCE)
    return Contender(model, read_graphs, batches, lambda data, rows: pack_graphs(data, data, rows))


def graphormer(preset: str, smiles: list[str], device: torch.device) -> Contender:
    shipped = preset in shipped_names("teacher")
    model = load_teacher(preset).model if shipped else Graphormer(GRAPHORMER_PRESETS[preset])
    batches = by_length(lambda data: np.diff(data.atom_offsets) + 1, GRAPHORMER_TOKENS[device.type])
    return Contender(
        model,
        read_graphs,
        batches,
        lambda data, rows: graph_batch(data, data, rows),
        lambda model, inputs, device: model(inputs.to(device)).prediction,
    )


def fingerprint_mlp(preset: str, smiles: list[str], device: torch.device) -> Contender:
    model = FingerprintMLP(MLP_PRESETS[preset], TARGETS) if preset else None
    return Contender(
        model,
        read_fingerprints,
        mixed(device, FINGERPRINTS_AT_ONCE),
        lambda data, rows: torch.from_numpy(np.unpackbits(data.packed[rows], axis=1)),
    )


def st_base(preset: str, smiles: list[str], device: torch.device) -> Contender:
    code = code_of_each(token for text in smiles for token in smiles_tokens(text))

    def collate(data: Texts, rows: np.ndarray) -> Tensor:
        first = data.token_offsets[rows]
        T = data.token_offsets[rows[0] + 1] - first[0]
        return torch.from_numpy(data.tokens[first[:, None] + np.arange(T)])

    batches = by_length(lambda data: np.diff(data.token_offsets), STUDENT_TOKENS[device.type])
    return Contender(
        SmilesTransformer(PRESETS[preset], len(code)), partial(read_texts, code), batches, collate
    )


def student(preset: str, smiles: list[str], device: torch.device) -> Contender:
    model = load_weights(preset).student if preset in shipped_names() else Student(PRESETS[preset])
    surroundings = model.config.surroundings

    def collate(data: Molecules, rows: np.ndarray) -> list[Tensor]:
        return [torch.from_numpy(array) for array in lay_out(data, rows, surroundings=surroundings)]

    # As `embed` computes it, but in float32, as all models here on a CPU.
    run = CpuStudent(model.eval()) if device.type == "cpu" else model
    return Contender(
        model,
        read_molecules,
        by_length(partial(token_counts, surroundings=surroundings), STUDENT_TOKENS[device.type]),
        collate,
        lambda _, inputs, device: run(*(part.to(device) for part in inputs))[1],
    )


# Of each kind: its presets, "" being none, and what makes it.
KINDS = {
    **{name: (GRAPH_PRESETS, partial(graph_network, name)) for name in ("gcn", "gin", "gcn-vn", "gin-vn")},
    "graphormer": ({*GRAPHORMER_PRESETS, *shipped_names("teacher")}, graphormer),
    "mlp-ecfp": (MLP_PRESETS, fingerprint_mlp),
    "morgan": ({""}, fingerprint_mlp),
    "st-base": (PRESETS, st_base),
    "st-kd": ({*PRESETS, *shipped_names()}, student),
}


def contender(name: str, smiles: list[str], device: torch.device) -> Contender:
    """The model of a name such as gin-vn:paper, with random weights unless it is a shipped one.

    Raises:
        StkdError: no such model, or torch-geometric is not installed.
    """
    kind, _, preset = name.partition(":")
    presets, make = KINDS.get(kind, ((), None))
    if preset not in presets:
        known = [f"{kind}:{preset}".rstrip(":") for kind in KINDS for preset in sorted(KINDS[kind][0])]
        raise StkdError(f"no model {name!r}; models: {', '.join(known)}, embed")
    made = make(preset, smiles, device)
    if made.model is not None:
        made.model.to(device).eval()
    return made
