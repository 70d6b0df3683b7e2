"""Students for tests."""

import pytest
import torch

from stkd_screen.precision import int8_products_are_exact
from stkd_screen.student import Student, StudentConfig


def student_of(config: StudentConfig) -> Student:
    """A student all of whose parameters matter, as after training."""
    torch.manual_seed(0)
    student = Student(config).eval()
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name == "table" or parameter.ndim == 1:
                parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.5)
        if student.pair_bias is not None:
            student.pair_bias.normal_()
        if student.fingerprint is not None:
            student.fingerprint.molecule.weight.normal_(std=0.3)
    return student


def int8_case(*values: object) -> object:
    """A case of a test that takes a processor with instructions for int8."""
    lacking = not int8_products_are_exact()
    return pytest.param(*values, marks=pytest.mark.skipif(lacking, reason="no instructions for int8 here"))
