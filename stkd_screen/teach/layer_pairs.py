"""Which layers of a teacher and of a student are compared."""

import re
from collections.abc import Sequence

from stkd_screen.errors import TrainingError
from stkd_screen.student import Student
from stkd_screen.teach.teacher import Teacher


def layer_pairs(
    teacher: Teacher, student: Student, wanted: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Pairs (teacher's layer, student's layer) that are compared, counted from 0.

    Args:
        wanted: the pairs asked for; None: the student's last biased layers with the teacher's last ones,
            three where there are as many: {(9, 3), (10, 4), (11, 5)} for the sizes of the paper.

    Raises:
        TrainingError: a layer does not exist, or is a standard layer of the student, which has no bias.
    """
    theirs, ours = teacher.model.config.layers, student.config
    layers = ours.standard_layers + ours.biased_layers
    if wanted is None:
        count = min(3, theirs, ours.biased_layers)
        return [(theirs - i, layers - i) for i in range(count, 0, -1)]
    for p, q in wanted:
        if not (0 <= p < theirs and ours.standard_layers <= q < layers):
            raise TrainingError(
                f"layer pair {p}:{q}: teacher {teacher.name!r} has layers 0 to {theirs - 1}, the student's "
                f"biased layers are {ours.standard_layers} to {layers - 1}; mend --layer-pairs"
            )
    return [*wanted]


def parse_layer_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Read `9:3,10:4,11:5`, teacher's layer and student's layer.

    Raises:
        TrainingError: the text is not of that form.
    """
    pairs = re.findall(r"(\d+):(\d+)", text)
    given = text.replace(", ", ",").strip()
    if not pairs or ",".join(map(":".join, pairs)) != given:
        raise TrainingError(
            f"--layer-pairs {text!r} is not of the form TEACHER:STUDENT,... such as 9:3,10:4,11:5"
        )
    return tuple((int(p), int(q)) for p, q in pairs)
