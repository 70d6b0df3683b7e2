"""A trained student made wider without changing what it computes (Net2Net, Chen et al., ICLR 2016).

Every unit of the small student has the same number of copies in the large one, and what reads a unit reads
its copies in unequal parts that add up to the same. So all answers stay, norms included, and as the parts
differ, so do the gradients of the copies: in training they go ways of their own.
"""

from dataclasses import replace

import torch
from torch import Tensor

from stkd_screen.errors import TrainingError
from stkd_screen.student import PRESETS, Student, StudentConfig

UNEVENNESS = 0.5  # of the parts, as a standard deviation: times the weight that an even part would have


def grown(student: Student, preset: str) -> Student:
    """A student as wide as the preset, with the answers and the embedding of the one given.

    Args:
        student: on the CPU.
        preset: its width, heads and feed-forward are taken, and its dropout; each must be a multiple of the
            student's. All else, what enters where, stays the student's own.

    Raises:
        TrainingError: the student does not fit into it.
    """
    large = _configuration(student.config, preset)
    of = _Copies(student.config, large)
    tensors = {name: of.parameter(name, tensor) for name, tensor in student.state_dict().items()}
    result = Student(large)
    result.load_state_dict(tensors)
    return result


def _configuration(small: StudentConfig, preset: str) -> StudentConfig:
    wanted = PRESETS[preset]
    large = replace(
        small,
        width=wanted.width,
        heads=wanted.heads,
        feed_forward=wanted.feed_forward,
        dropout=wanted.dropout,
    )
    multiples = {
        "width": (small.width, large.width),
        "heads": (small.heads, large.heads),
        "width of a head": (small.width // small.heads, large.width // large.heads),
        "feed-forward": (small.feed_forward, large.feed_forward),
    }
    equals = {
        "standard layers": (small.standard_layers, wanted.standard_layers),
        "biased layers": (small.biased_layers, wanted.biased_layers),
        "surroundings": (small.surroundings, wanted.surroundings),
    }
    unfit = {name: sizes for name, sizes in multiples.items() if sizes[1] % sizes[0]}
    unfit |= {name: sizes for name, sizes in equals.items() if sizes[0] != sizes[1]}
    for name, (ours, theirs) in unfit.items():
        raise TrainingError(
            f"{name}: {ours} cannot grow to the {theirs} of preset {preset!r}; choose another preset, or "
            "leave --grow out"
        )
    return large


class _Copies:
    """Which unit of the small student each unit of the large one is a copy of."""

    def __init__(self, small: StudentConfig, large: StudentConfig) -> None:
        self.width = torch.arange(large.width) % small.width
        self.hidden = torch.arange(large.feed_forward) % small.feed_forward
        K, wide = small.width // small.heads, large.width // large.heads
        heads, keys = torch.arange(large.heads) % small.heads, torch.arange(wide) % K
        self.heads, self.head_units = heads, (heads[:, None] * K + keys).flatten()
        # A product of queries and keys has this many terms for one; that with biases is not scaled (eq. 10).
        self.terms = wide // K

    def parameter(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter of the large student, by its name."""
        kind = name.removeprefix("layers.").lstrip("0123456789.")
        if kind == "attention.project.weight":
            scales = [self.terms**-0.25] * 2 + [1.0] + [self.terms**-0.5] * 2  # of Q, K, V, Qb, Kb
            parts = zip(tensor.split(tensor.shape[1]), scales, strict=False)
            return torch.cat([_read(part[self.head_units], self.width) * scale for part, scale in parts])
        if kind == "pair_bias":
            return tensor[:, self.heads]
        if kind == "attention.out.weight":
            return _read(tensor[self.width], self.head_units)
        if kind == "feed_forward.0.weight":
            return _read(tensor[self.hidden], self.width)
        if kind == "feed_forward.0.bias":
            return tensor[self.hidden]
        if kind == "feed_forward.2.weight":
            return _read(tensor[self.width], self.hidden)
        if kind == "readout.0.weight":
            return _read(tensor[self.width], self.width)
        if kind in ("readout.2.weight", "fingerprint.token.weight"):
            return _read(tensor, self.width)
        if kind in ("readout.2.bias", "fingerprint.token.bias") or kind.startswith("fingerprint.molecule"):
            return tensor
        return tensor[..., self.width]  # the table, norms, and what adds to the width


def _read(weight: Tensor, copies: Tensor) -> Tensor:
    """A weight matrix (outputs, inputs) that reads copies of its inputs: (outputs, len(copies))."""
    by_input = copies.argsort(stable=True).view(weight.shape[1], -1)  # a line for each input: its copies
    count = by_input.shape[1]
    noise = torch.randn(*weight.shape, count)
    shares = (1 + UNEVENNESS * (noise - noise.mean(-1, keepdim=True))) / count
    large = weight.new_empty(len(weight), len(copies))
    large[:, by_input] = weight[:, :, None] * shares
    return large
