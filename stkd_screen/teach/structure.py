"""Batches of graphs for the teacher: shortest-path distances and the bonds along them (Ying et al. 2021).

They are computed from the bonds when a batch is made: a breadth-first search from each atom costs far less
than a training step, and stored they would outweigh the molecules many times.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stkd_screen.jit import cached
from stkd_screen.smiles import Molecules
from stkd_screen.teach.graphs import Graphs

# Values of `GraphBatch.distance`: 0 the atom itself, then bonds on the shortest path; longer ones share one.
MAX_DISTANCE = 32
UNREACHABLE = MAX_DISTANCE + 1  # in another fragment
PADDING = UNREACHABLE + 1
DISTANCES = PADDING + 1
PATH_BONDS = 5  # bonds of a path that are looked at, from its first atom on
NO_BOND = 0  # bond codes are features + 1


@dataclass(frozen=True)
class GraphBatch:
    """B molecules padded to N atoms."""

    atom_features: Tensor  # (B, N, F) uint8, 0 where padded
    n_atoms: Tensor  # (B,) int32
    distance: Tensor  # (B, N, N) uint8, PADDING where row or column is padded
    path: Tensor  # (B, N, N, PATH_BONDS) uint8, bond features + 1 along the path, NO_BOND beyond its end

    def to(self, device: torch.device) -> "GraphBatch":
        return GraphBatch(
            *(
                t.to(device, non_blocking=True)
                for t in (self.atom_features, self.n_atoms, self.distance, self.path)
            )
        )


def graph_batch(molecules: Molecules, graphs: Graphs, rows: np.ndarray) -> GraphBatch:
    """Collate rows, of any sizes, into a batch.

    Where several shortest paths join two atoms, the order of the bonds decides.
    """
    n_atoms = (molecules.atom_offsets[rows + 1] - molecules.atom_offsets[rows]).astype(np.int32)
    B, N = len(rows), int(n_atoms.max())
    features = np.zeros((B, N, graphs.atom_features.shape[1]), np.uint8)
    distance = np.full((B, N, N), PADDING, np.uint8)
    path = np.zeros((B, N, N, PATH_BONDS), np.uint8)
    _fill(
        molecules.atom_offsets,
        molecules.bond_offsets,
        molecules.bond_atoms,
        graphs.atom_features,
        graphs.bond_features,
        rows,
        features,
        distance,
        path,
    )
    return GraphBatch(*(torch.from_numpy(a) for a in (features, n_atoms, distance, path)))


@cached(nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    atom_offsets, bond_offsets, bond_atoms, atom_features, bond_features, rows, features, distance, path,
):  # fmt: skip
    longest = features.shape[1]
    first_neighbour = np.empty(longest + 1, np.int64)
    neighbour = np.empty(0, np.int64)  # of each atom, one after another, and the bond to it
    bond_code = np.empty(0, np.uint8)
    queue = np.empty(longest, np.int64)
    steps = np.empty(longest, np.int64)
    for b in range(len(rows)):
        row = rows[b]
        first_atom, first_bond = atom_offsets[row], bond_offsets[row]
        n, m = atom_offsets[row + 1] - first_atom, bond_offsets[row + 1] - first_bond
        features[b, :n] = atom_features[first_atom : first_atom + n]
        if len(neighbour) < 2 * m:
            neighbour = np.empty(4 * m, np.int64)
            bond_code = np.empty(4 * m, np.uint8)

        first_neighbour[: n + 1] = 0
        for k in range(first_bond, first_bond + m):
            first_neighbour[bond_atoms[k, 0] + 1] += 1
            first_neighbour[bond_atoms[k, 1] + 1] += 1
        for i in range(n):
            first_neighbour[i + 1] += first_neighbour[i]
        filled = steps  # borrowed as a counter
        filled[:n] = 0
        for k in range(first_bond, first_bond + m):
            for end in range(2):
                u, v = bond_atoms[k, end], bond_atoms[k, 1 - end]
                place = first_neighbour[u] + filled[u]
                neighbour[place] = v
                bond_code[place] = bond_features[k] + 1
                filled[u] += 1

        for source in range(n):
            distance[b, source, :n] = UNREACHABLE
            distance[b, source, source] = 0
            steps[source] = 0
            queue[0] = source
            head, tail = 0, 1
            while head < tail:
                u = queue[head]
                head += 1
                for place in range(first_neighbour[u], first_neighbour[u + 1]):
                    v = neighbour[place]
                    if distance[b, source, v] != UNREACHABLE:
                        continue
                    distance[b, source, v] = min(steps[u] + 1, MAX_DISTANCE)
                    steps[v] = steps[u] + 1
                    path[b, source, v] = path[b, source, u]
                    if steps[u] < PATH_BONDS:
                        path[b, source, v, steps[u]] = bond_code[place]
                    queue[tail] = v
                    tail += 1
