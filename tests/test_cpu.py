"""The forward pass on a CPU: against PyTorch's own operators, and what they would do with bad numbers."""

import ctypes
import itertools
import math
import mmap
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit
from numba.core.errors import TypingError
from students import int8_case, student_of

from stkd_screen.cpu import CpuStudent, attention, kernels, vectors
from stkd_screen.cpu.loops import helper_by_type
from stkd_screen.cpu.products import Product
from stkd_screen.cpu.rows import put_rows, value_of
from stkd_screen.cpu.space import Space
from stkd_screen.cpu.vectors import (
    EIGHT,
    LANES,
    ROWS,
    load,
    load_all,
    load_same,
    narrowed,
    store,
    store_all,
    widened,
)
from stkd_screen.forward import in_threads
from stkd_screen.precision import int8_products_are_exact
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.smiles.tokens import lay_out
from stkd_screen.student import PRESETS, Student, StudentConfig
from stkd_screen.weights import load_weights

ODD = StudentConfig(width=30, heads=3, feed_forward=7, standard_layers=1, biased_layers=2, targets=5)
CONFIGS = {
    "mini": PRESETS["mini"],
    "small": PRESETS["small"],
    "odd": ODD,
    "odd, beyond": replace(ODD, surroundings=True, fingerprint=11),
    "odd, late environments": replace(ODD, surroundings=True, fingerprint=11, late_environments=True),
    "heads of 17": replace(ODD, width=51),
    "heads of 32": replace(ODD, width=64, heads=2),
    "two groups of heads": replace(ODD, width=60, heads=12, surroundings=True, fingerprint=11),
    "two whole groups": replace(ODD, width=48, heads=16),
    "one layer": replace(ODD, standard_layers=0, biased_layers=1, surroundings=True, fingerprint=11),
}
MOLECULES = {
    "one atom": ["C"] * 3,
    "one token count": ["CCCCCC", "C1CC2C1C2"],  # with different numbers of atoms
    "usual": ["CC(=O)Oc1ccccc1C(=O)O"] * 40,
    "256 atoms": ["C" * 256] * 2,
}


def batch_of(student: Student, smiles: list[str]) -> tuple[torch.Tensor, ...]:
    molecules = pretransform(*pack_smiles(smiles))
    surroundings = student.config.surroundings
    rows = np.arange(len(smiles))
    if surroundings:  # one number of atoms to a batch
        rows = rows[np.diff(molecules.atom_offsets) == np.diff(molecules.atom_offsets)[0]]
    return tuple(map(torch.from_numpy, lay_out(molecules, rows, surroundings=surroundings)))


@pytest.mark.parametrize("molecules", MOLECULES.values(), ids=MOLECULES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_gives_what_the_student_gives(config, molecules):
    student = student_of(config)
    batch = batch_of(student, molecules)
    with torch.inference_mode():
        expected = student(*batch)
    for ours, theirs in zip(CpuStudent(student)(*batch), expected, strict=True):
        scale = float(theirs.abs().max())  # embeddings of 256 atoms are sums up to 217, taken one by one
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=5e-5 + 1e-6 * scale)


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.01), int8_case(torch.int8, 0.03)])
@pytest.mark.parametrize("molecules", MOLECULES.values(), ids=MOLECULES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_in_fewer_bits_it_gives_the_same_but_for_rounding(config, molecules, dtype, share):
    student = student_of(config)
    batch = batch_of(student, molecules)
    with torch.inference_mode():
        expected = student(*batch)
    for ours, exact in zip(CpuStudent(student, dtype)(*batch), expected, strict=True):
        assert 0 < (ours - exact).abs().mean() < share * exact.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, int8_case(torch.int8)])
def test_in_fewer_bits_batch_mates_do_not_matter(dtype):
    student = load_weights("small").student.eval()
    ours = CpuStudent(student, dtype)
    batch = batch_of(student, ["CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)N", "CCCCCCCCCCCCO"] * 20)
    for one, other in zip(ours(*(part[:1] for part in batch)), ours(*batch), strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-4)


def test_the_shipped_weights_give_the_same_to_a_hundredth_of_a_millielectronvolt():
    weights = load_weights("small")
    student = weights.student.eval()
    unit = torch.tensor([target.std for target in weights.targets])
    for molecules in MOLECULES.values():
        batch = batch_of(student, molecules)
        with torch.inference_mode():
            embedding, prediction = student(*batch)
        our_embedding, our_prediction = CpuStudent(student)(*batch)
        assert ((our_prediction - prediction).abs() * unit).max() < 1e-5  # eV
        assert F.cosine_similarity(our_embedding, embedding).min() > 1 - 1e-6


@njit
def put(rows, matrix, steps):
    put_rows(rows, matrix, steps, 0)


@njit
def take(product, row_steps, column_steps, values):
    for i in range(len(values)):
        for d in range(values.shape[1]):
            values[i, d] = value_of(product, row_steps, column_steps, i, d)


@pytest.mark.skipif(not int8_products_are_exact(), reason="no instructions for int8 here")
def test_an_int8_product_is_that_of_rounded_rows_and_columns():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(50, 40, generator=generator), torch.randn(40, 24, generator=generator)
    x[3], weight[:, 5], x[7, 2], x[8, 2] = 0.0, 0.0, math.nan, math.inf
    whole = torch.arange(50) % 10 < 7  # rows 7 and 8 are not
    space, values = Space(), np.empty((50, 24), np.float32)

    def rounded(matrix: torch.Tensor, axis: int) -> torch.Tensor:
        steps = matrix.abs().amax(axis, keepdim=True).clamp_min(1e-30) / 127
        return (matrix / steps).round() * steps

    expected = rounded(x[whole], 1).double() @ rounded(weight, 0).double()
    read = space.matrix("read", 50, 40, torch.int8)
    put(x.numpy(), read.array, read.steps)
    take(*Product(weight, torch.int8)(read, space, "result"), values)
    ours = torch.from_numpy(values)
    torch.testing.assert_close(ours[whole].double(), expected, rtol=1e-5, atol=1e-5)
    assert not ours[3].any() and not ours[:7, 5].any()
    assert not ours[7:9].isfinite().any()


def test_what_depends_on_types_is_for_compiled_functions():
    @helper_by_type
    def nothing(x):
        return lambda x: 0

    with pytest.raises(NotImplementedError, match="but in compiled ones"):
        nothing(1)
    assert njit(lambda x: nothing(x))(1) == 0


PAGE = mmap.PAGESIZE
TOLERANCES = {
    torch.float32: {"rtol": 2e-5, "atol": 5e-5},
    torch.bfloat16: {"rtol": 0.1, "atol": 0.1},
    torch.int8: {"rtol": 0.3, "atol": 0.3},
}


class GuardedSpace(Space):
    """Work space that ends where no memory is, filled with NaN."""

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = math.prod(shape)
        if name not in self._tensors or len(self._tensors[name]) != size:
            self._tensors[name] = self.guarded(size, dtype)
        return self._tensors[name].view(shape)

    def guarded(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        width = dtype.itemsize
        pages = -(-width * size // PAGE)
        memory = mmap.mmap(-1, (pages + 1) * PAGE)
        end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(end), ctypes.c_size_t(PAGE), 0):
            pytest.skip("memory cannot be protected here")
        tensor = torch.frombuffer(memory, dtype=dtype, count=size, offset=pages * PAGE - width * size)
        return tensor.fill_(math.nan if dtype.is_floating_point else torch.iinfo(dtype).max)


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, int8_case(torch.int8)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_tile_reaches_beyond_its_memory(config, dtype):
    student = student_of(config)
    ours = CpuStudent(student, dtype)
    tolerance = TOLERANCES[dtype]
    for atoms in (1, 2, 5, 6, 7, 14, 15, 16, 30, 31, 32, 33):
        batch = batch_of(student, ["C" * atoms] * (1 + atoms % 3))
        ours._spaces = [GuardedSpace()]
        with torch.inference_mode():
            expected = student(*batch)
        for one, other in zip(ours(*batch), expected, strict=True):
            torch.testing.assert_close(one, other, **tolerance)


def test_a_batch_whose_atoms_or_pairs_are_of_other_molecules_is_refused():
    student = student_of(CONFIGS["small"])
    tokens, n_atoms, pairs = batch_of(student, ["CCO"] * 6)
    for batch in ((tokens, n_atoms[:3], pairs), (tokens, n_atoms, pairs[:3])):
        with pytest.raises(RuntimeError, match="invalid for input of size"):
            CpuStudent(student)(*batch)


@pytest.mark.parametrize("by_processor", [True, False])
def test_bfloat16_is_rounded_as_pytorch_rounds_it(by_processor, monkeypatch):
    """By one instruction where there is one, or by whole numbers."""
    if not by_processor:
        monkeypatch.setattr(vectors, "_ROUNDS_TO_BFLOAT16", False)

    @njit
    def copy(source, copies):
        for i in range(len(source)):
            for j in range(source.shape[1]):
                copies[i, j] = narrowed(copies, widened(source[i, j]))

    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31 - 1, (20_000, 16), generator=generator, dtype=torch.int32)
    bits[0, :4] = torch.tensor([0x3F808000, 0x3F818000, 0x7F800000, 0x7FC00000])  # two ties, infinity, NaN
    bits[1, :3] = torch.tensor([0x7FFFFFFF, 0x7F800001, -1])  # NaN that rounding would make a number
    numbers = bits.view(torch.float32)
    narrow = torch.empty(numbers.shape, dtype=torch.bfloat16)
    copy(numbers.numpy(), narrow.view(torch.int16).numpy())
    expected = numbers.bfloat16().nan_to_num(1.5)
    tiny = numbers.abs() < torch.finfo(torch.float32).tiny  # some processors make zeros of these
    ours = narrow.nan_to_num(1.5)
    assert torch.equal(ours[~tiny], expected[~tiny])
    assert ((ours == expected) | (ours == 0))[tiny].all()
    wide = torch.empty(numbers.shape)
    copy(narrow.view(torch.int16).numpy(), wide.numpy())
    assert torch.equal(wide.nan_to_num(1.5), narrow.float().nan_to_num(1.5))


def test_vectors_are_of_matrices_by_rows_alone():
    @njit
    def copy(matrix, copied):
        store(copied, 0, 1, 2, load(matrix, 1, 3, 1))
        store(copied, 2, 3, 2, load_same(matrix, 2, 1))
        store_all(copied, 4, 0, load_all(matrix, 0, 1))

    matrix = np.arange(4 * 3 * EIGHT, dtype=np.float32).reshape(4, 3 * EIGHT)
    copied, expected = np.zeros((2, 5, 2 + LANES), np.float32)
    copy(matrix, copied)
    eight = slice(1, 1 + EIGHT)
    for k in range(ROWS):
        expected[k, 2 : 2 + EIGHT], expected[2 + k, 2 : 2 + EIGHT] = (
            matrix[1 + 2 * k, eight],
            matrix[2, eight],
        )
    expected[4, :LANES] = matrix[0, 1 : 1 + LANES]
    np.testing.assert_array_equal(copied, expected)
    for other in (matrix.T, matrix.astype(np.float64), matrix[0], matrix[:, ::2], matrix.astype(np.int16)):
        with pytest.raises(TypingError):
            copy(other, copied)


def test_results_are_the_callers_to_keep():
    student = student_of(CONFIGS["small"])
    ours = CpuStudent(student)
    first = ours(*batch_of(student, ["CCO"]))
    kept = [part.clone() for part in first]
    ours(*batch_of(student, ["CCN"]))
    assert all(torch.equal(part, copy) for part, copy in zip(first, kept, strict=True))


def test_work_space_is_used_again_and_grows():
    student = student_of(CONFIGS["small"])
    ours = CpuStudent(student)
    for smiles in ("CCO", "CCN", "C" * 40, "CCO"):
        ours(*batch_of(student, [smiles]))
    assert len(ours._spaces) == 1


def test_threads_do_not_disturb_each_other():
    student = student_of(CONFIGS["small"])
    ours = CpuStudent(student)
    batches = [batch_of(student, [f"{'C' * (k % 20 + 1)}O"] * 30) for k in range(60)]
    alone = [ours(*batch)[0] for batch in batches]
    together = in_threads(lambda batch: ours(*batch)[0], batches, 4)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert 1 <= len(ours._spaces) <= 4


def test_a_value_that_is_not_finite_reaches_the_results():
    """`embed` makes an error row of such a molecule; a finite number would hide it."""
    student = student_of(CONFIGS["small"])
    batch = batch_of(student, ["CCO"])
    for bad, dtype in itertools.product((math.nan, math.inf), (torch.float32, torch.bfloat16)):
        broken = student_of(CONFIGS["small"])
        with torch.no_grad():
            broken.table[int(batch[0][0, 2, 0])] = bad
        assert not any(part.isfinite().any() for part in CpuStudent(broken, dtype)(*batch))


def test_a_value_that_is_not_finite_stays_in_its_molecule():
    """All molecules of a batch are rows of the same matrices."""
    student = student_of(CONFIGS["small"])
    batch = batch_of(student, ["CCO", "CCN", "CCO", "CCO"])
    nitrogen = set(batch[0][1, 3].tolist()) - set(batch[0][0].flatten().tolist())
    expected = CpuStudent(student)(*batch)
    with torch.no_grad():
        student.table[list(nitrogen)] = math.nan
    for ours, theirs in zip(CpuStudent(student)(*batch), expected, strict=True):
        assert torch.equal(ours.isfinite().all(1), torch.tensor([True, False, True, True]))
        assert torch.equal(ours[[0, 2, 3]], theirs[[0, 2, 3]])


def test_scores_far_apart_are_no_fault():
    student = student_of(CONFIGS["small"])
    with torch.no_grad():
        for layer in student.layers:
            layer.attention.project.weight *= 30
    batch = batch_of(student, ["CCOC(=O)c1ccccc1"])
    with torch.inference_mode():
        expected = student(*batch)
    for ours, theirs in zip(CpuStudent(student)(*batch), expected, strict=True):
        assert theirs.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 7e-5)])
def test_gelu_everywhere(dtype, error):
    x = torch.linspace(-30, 30, 600_000).to(dtype).view(-1, 1000)
    read = x.view(torch.int16) if dtype == torch.bfloat16 else x
    ours, rows, none = (
        torch.empty(x.shape),
        np.empty((kernels.BLOCK, 1000), np.float32),
        np.empty(0, np.float32),
    )
    kernels.gelu(read.numpy(), none, none, np.zeros(1000, np.float32), rows, ours.numpy(), none)
    assert ((ours - F.gelu(x.double())).abs() < error * x.abs().clamp_min(1)).all()


def test_softmax_of_any_row():
    @njit
    def softmax(scores, largest):
        most = load_all(largest, 0, 0), load_all(largest, 1, 0), load_all(largest, 2, 0)
        x, y, z = attention._exponentials(scores, most)
        for j in range(0, len(scores), 3):
            store_all(scores, j, 0, load_all(scores, j, 0) * x)
            store_all(scores, j + 1, 0, load_all(scores, j + 1, 0) * y)
            store_all(scores, j + 2, 0, load_all(scores, j + 2, 0) * z)

    generator = np.random.default_rng(0)
    for tokens in (1, 2, 7, 8, 9, 26, 257):
        for scale in (1.0, 50.0, 1e4):
            scores = generator.normal(scale=scale, size=(tokens, attention.QUERIES, LANES)).astype(np.float32)
            logits = torch.from_numpy(scores.copy()).double() * math.log(2)
            softmax(scores.reshape(-1, LANES), scores.max(0))
            np.testing.assert_allclose(scores, logits.softmax(0), rtol=1e-6, atol=1e-7)
