"""The SMILES pre-transformation: bytes of many SMILES in, packed molecular graphs out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stkd_screen.smiles.electrons import ATOM_ELECTRONS, find_electrons
from stkd_screen.smiles.elements import AROMATIC_FLAG
from stkd_screen.smiles.rows import Options, read_rows


@dataclass(frozen=True)
class Molecules:
    """R molecules with N atoms and M bonds in all, packed one after another.

    Row i has the atoms `atom_offsets[i]:atom_offsets[i + 1]` and the bonds
    `bond_offsets[i]:bond_offsets[i + 1]`. A row with an error has neither. Atoms stand in the order in
    which the SMILES writes them.
    """

    atom_offsets: np.ndarray  # (R + 1,) int64
    bond_offsets: np.ndarray  # (R + 1,) int64
    element: np.ndarray  # (N,) uint8, atomic number (0: wildcard), + 128 where aromatic
    charge: np.ndarray  # (N,) int8, -15..15
    hydrogens: np.ndarray  # (N,) uint8, implicit, bracket and folded ones; [H] left as atoms not counted
    chirality: np.ndarray  # (N,) uint8, 0 none, 1 @, 2 @@, 3 another class
    bond_atoms: np.ndarray  # (M, 2) int32, indices within the molecule, first < second
    bond_type: np.ndarray  # (M,) uint8, BondType
    fragments: np.ndarray  # (R,) int32, connected components written, 0 where there is an error
    error: np.ndarray  # (R,) uint8, ParseError
    error_column: np.ndarray  # (R,) int32, 1-based column of the offending byte, 0 where OK

    def __len__(self) -> int:
        return len(self.error)

    def heavy_atoms(self) -> np.ndarray:
        """Atoms of each row that are neither hydrogen nor the wildcard. (R,) int64."""
        return self.sums((self.element & (AROMATIC_FLAG - 1)) > 1)

    @property
    def ionic(self) -> np.ndarray:
        """Rows that are ions, or have an atom whose charge no neighbour makes up for: zwitterions and salts,
        not nitro groups. (R,) bool.
        """
        return self._ionic_and_unpaired[0]

    @property
    def unpaired(self) -> np.ndarray:
        """Rows with an unpaired electron on a main-group atom that no metal is bonded to. (R,) bool.

        Of aromatic atoms a neutral carbon with two bonds is told, as in the phenyl radical; how many
        electrons another one gives to its ring is not known here.
        """
        return self._ionic_and_unpaired[1]

    @cached_property
    def _ionic_and_unpaired(self) -> tuple[np.ndarray, np.ndarray]:
        ionic, unpaired = np.empty((2, len(self)), np.bool_)
        of_atoms = np.zeros(len(self.element), ATOM_ELECTRONS)
        find_electrons(
            self.atom_offsets,
            self.bond_offsets,
            self.element,
            self.charge,
            self.hydrogens,
            self.bond_atoms,
            self.bond_type,
            of_atoms,
            ionic,
            unpaired,
        )
        return ionic, unpaired

    def bond_ends(self) -> np.ndarray:
        """(M, 2) the atoms of each bond, counted through all rows."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.bond_offsets))
        return self.bond_atoms + self.atom_offsets[owner][:, None]

    def sums(self, of_atoms: np.ndarray) -> np.ndarray:
        """(N,) -> (R,): the sum over the atoms of each row."""
        before = np.concatenate([[0], np.cumsum(of_atoms, dtype=np.int64)])
        return np.diff(before[self.atom_offsets])


def pack_smiles(smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The data (uint8) and offsets (int64) of `pretransform` for a sequence of strings."""
    encoded = [text.encode() for text in smiles]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def pretransform(
    data: np.ndarray,
    offsets: np.ndarray,
    *,
    fold_hydrogens: bool = True,
    largest_fragment: bool = False,
    single_between_rings: bool = True,
) -> Molecules:
    """Read many SMILES into packed atoms and bonds (ST-KD, section 3.2), without the GIL.

    A SMILES that cannot be read is data, not an exception: see `Molecules.error` and `describe_error`.

    Args:
        data: (n_bytes,) uint8. SMILES one after another, such as the buffer of an Arrow large_string.
        offsets: (R + 1,) int64. Row i is `data[offsets[i]:offsets[i + 1]]`.
        fold_hydrogens: count plain [H] atoms at their heavy neighbour instead of keeping them as atoms.
        largest_fragment: keep only the component with the most heavy atoms, the first of several.
        single_between_rings: the unwritten bond between two aromatic rings, as in c1ccccc1c1ccccc1,
            is a single bond, as if written "-"; otherwise it is aromatic.

    Raises:
        ValueError: the arrays themselves are malformed.
    """
    data, offsets = _read_only(data), _read_only(offsets)
    if data.ndim != 1 or data.dtype != np.uint8:
        raise ValueError(f"data must be one-dimensional uint8, not {data.dtype} of shape {data.shape}")
    if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) == 0:
        raise ValueError(f"offsets must be (rows + 1,) int64, not {offsets.dtype} of shape {offsets.shape}")
    lengths = np.diff(offsets)
    if offsets[0] < 0 or offsets[-1] > len(data) or (lengths < 0).any():
        raise ValueError(f"offsets must rise from 0 to at most {len(data)}, the number of bytes")

    rows, size = len(lengths), int(offsets[-1] - offsets[0])
    molecules = Molecules(
        atom_offsets=np.zeros(rows + 1, np.int64),
        bond_offsets=np.zeros(rows + 1, np.int64),
        element=np.empty(size, np.uint8),  # every atom and every bond takes a byte or more
        charge=np.empty(size, np.int8),
        hydrogens=np.empty(size, np.uint8),
        chirality=np.empty(size, np.uint8),
        bond_atoms=np.empty((size, 2), np.int32),
        bond_type=np.empty(size, np.uint8),
        fragments=np.zeros(rows, np.int32),
        error=np.zeros(rows, np.uint8),
        error_column=np.zeros(rows, np.int32),
    )
    out = tuple(vars(molecules).values())
    longest = int(lengths.max(initial=0))
    read_rows(data, offsets, longest, out, Options(fold_hydrogens, largest_fragment, single_between_rings))
    atoms, bonds = molecules.atom_offsets[-1], molecules.bond_offsets[-1]
    return replace(
        molecules,
        element=molecules.element[:atoms],
        charge=molecules.charge[:atoms],
        hydrogens=molecules.hydrogens[:atoms],
        chirality=molecules.chirality[:atoms],
        bond_atoms=molecules.bond_atoms[:bonds],
        bond_type=molecules.bond_type[:bonds],
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written: one kind of array, so that the parser is compiled once."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view
