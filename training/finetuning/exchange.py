"""What the processes of one training say to each other. All of them call each function, in the same order.

Objects travel through gloo, which notices at once when a process is gone; tensors on GPUs through NCCL, which does not.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from training.errors import TrainingError


class ProcessLost(TrainingError):
    """Another process failed or is gone. The first one still has the training, as of its last finished step."""


@dataclass(frozen=True)
class Outcome:
    """What a process made of an order: its `value`, or None when memory did not suffice; or why it failed."""

    value: Any
    failure: str | None = None


@contextmanager
def lost() -> Iterator[None]:
    """What PyTorch raises where another process is gone, in words."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process of this training is gone") from error


def order(what: Any) -> Any:
    """What the first process orders, in each."""
    import torch.distributed as dist

    box = [what]
    with lost():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def outcomes(mine: Outcome) -> list[Any]:
    """The value of each process, by rank. Raises ProcessLost when one failed."""
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    with lost():
        dist.all_gather_object(found, mine)
    for rank, outcome in enumerate(found):
        if outcome.failure is not None:
            raise ProcessLost(f"process {rank} of {len(found)} failed: {outcome.failure}")
    return [outcome.value for outcome in found]


def spread(parameters: Sequence[Any]) -> None:
    """Make the first process' parameters everybody's."""
    import torch
    import torch.distributed as dist

    with torch.no_grad(), lost():
        flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
        dist.broadcast(flat, src=0)
        if dist.get_rank():
            for parameter, piece in _pieces(flat, parameters):
                parameter.copy_(piece)


def sum_gradients(parameters: Sequence[Any]) -> None:
    """Make the first process' gradients the sum of all, and leave the others none."""
    import torch
    import torch.distributed as dist

    given = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    with lost():
        flat = torch.cat([gradient.reshape(-1) for gradient in given])
        dist.reduce(flat, dst=0)
        for parameter, piece in _pieces(flat, parameters):
            parameter.grad = None if dist.get_rank() else piece


def _pieces(flat: Any, parameters: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each parameter with its part of a flat tensor, in its shape."""
    pieces = flat.split([parameter.numel() for parameter in parameters])
    return [(parameter, piece.view_as(parameter)) for parameter, piece in zip(parameters, pieces, strict=True)]
