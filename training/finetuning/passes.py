"""One micro-batch's run through the model: with its gradient, or without."""

from collections.abc import Sequence
from typing import Any

from training.finetuning.packing import flatten
from training.finetuning.segments import Segment

MicroBatch = Sequence[Segment]


def backward(objective: Any, batch: MicroBatch, labels: float, *, bf16: bool) -> Any:
    """Add the micro-batch's gradient to the parameters. Gives its part of the step's loss, a float32 scalar: the sum of
    its weighted negative log-likelihoods in nats, divided by the `labels` of the whole step."""
    import torch

    device = next(objective.parameters()).device
    row = flatten(batch, device)
    row["weights"] /= labels  # in float32; a quotient of the loss would reach bfloat16 gradients rounded by up to 0.2%
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = objective(**row)
    loss.backward()
    return loss.detach()


def losses(objective: Any, batch: MicroBatch, *, bf16: bool) -> Any:
    """The negative log-likelihood of each target, unweighted and without gradient: (targets,) float64, on the CPU."""
    import torch

    device = next(objective.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return objective.losses(**flatten(batch, device)).double().cpu().numpy()
