"""What a model that goes on from a trained one takes over."""

from collections.abc import Sequence

from torch import nn

from stkd_screen.targets import Target
from stkd_screen.teach.targets import TargetColumn


def take_over(
    model: nn.Module,
    trained: nn.Module,
    readout: str,
    columns: Sequence[TargetColumn],
    known: Sequence[Target],
) -> None:
    """Give a new model what a trained one of its size has learned.

    Args:
        model: changed in place; what the trained one lacks stays as it is.
        trained: parameters that the new one lacks are left out.
        readout: name of the last linear layer, a row for each target; those of targets of the same name,
            level and unit are taken over.
        columns: targets of the new model.
        known: targets of the trained one.
    """
    tensors = model.state_dict()  # sharing their memory with the model
    rows = {(target.full_name, target.unit): k for k, target in enumerate(known)}
    pairs = [(k, rows.get((column.full_name, column.output_unit))) for k, column in enumerate(columns)]
    for name, tensor in trained.state_dict().items():
        if name.rpartition(".")[0] == readout:
            for k, row in pairs:
                if row is not None:
                    tensors[name][k] = tensor[row]
        elif name in tensors:
            tensors[name].copy_(tensor)
