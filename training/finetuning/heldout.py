"""The loss on what training never saw: by the same code before, during and after."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.console import progress
from training.errors import TrainingError
from training.finetuning.config import TrainingConfig
from training.finetuning.examples import Example
from training.finetuning.packing import pack
from training.finetuning.processes import Alone
from training.finetuning.segments import Group, Segment, collapse, segment


@dataclass(frozen=True)
class HeldoutLoss:
    """Mean negative log-likelihood in nats a token: over all tokens that count in the loss, and over the replies alone
    (end token included), which tells whether the model sounds more like the person."""

    loss: float
    tokens: int
    reply_loss: float
    reply_tokens: int


def heldout_loss(
    objective: Any, examples: Sequence[Example], budget: int, config: TrainingConfig, processes: Alone | None = None
) -> HeldoutLoss | None:
    """None when there are no examples. Each token counts as it does one example at a time, whatever their order and
    the `budget`, which is the tokens that go through the model at once. Several `processes` share the work.

    No random number is drawn, and the model is left in the mode it was found in. Memory that does not suffice halves
    the budget; raises TrainingError when it does not suffice for one example either.
    """
    if not examples:
        return None
    import torch

    groups: list[Group] = collapse(examples) if config.collapse_nested_windows else [[one] for one in examples]
    replies = {segment(group): _reply_weights(group) for group in groups}
    if processes is None:
        processes = Alone()
        processes.use(objective, bf16=config.bf16)
    sums: list[float] = []
    reply_sums: list[float] = []
    mode = objective.training
    objective.eval()
    try:
        with progress("held-out loss", len(examples)) as bar:
            waiting = pack(list(replies), budget)
            while waiting:
                batches, rest = waiting[: processes.count], waiting[processes.count :]
                try:
                    found = processes.losses(batches)
                except torch.OutOfMemoryError as error:
                    larger = [batch for batch in batches if len(batch) > 1]
                    tokens = max(sum(len(run.ids) for run in batch) for batch in larger or batches)
                    if not larger:
                        raise TrainingError(
                            f"the GPU's memory does not suffice for one held-out example of {tokens:,} tokens: lower "
                            "sequence_len, or rent a larger GPU"
                        ) from error
                    waiting = pack([run for batch in waiting for run in batch], tokens // 2)
                    continue
                waiting = rest
                for batch, losses in zip(batches, found, strict=True):
                    sums.append(float(losses @ np.concatenate([run.weights for run in batch])))
                    reply_sums.append(float(losses @ np.concatenate([replies[run] for run in batch])))
                    bar.advance(sum(run.windows for run in batch))
    finally:
        objective.train(mode)
    tokens = sum(int(example.learnt.sum()) for example in examples)
    reply_tokens = sum(int((example.learnt & example.reply).sum()) for example in examples)
    return HeldoutLoss(math.fsum(sums) / tokens, tokens, math.fsum(reply_sums) / reply_tokens, reply_tokens)


def _reply_weights(group: Group) -> NDArray[np.float32]:
    """For each target of the group's segment, how many examples have it in a reply that counts."""
    whole, alone = (segment(some) for some in (group, [_replies_only(example) for example in group]))
    found = {target: place for place, target in enumerate(_targets(whole))}
    weights = np.zeros(len(whole.labels), dtype=np.float32)
    for target, weight in zip(_targets(alone), alone.weights, strict=True):
        weights[found[target]] += weight
    return weights


def _replies_only(example: Example) -> Example:
    return dataclasses.replace(example, learnt=example.learnt & example.reply)


def _targets(run: Segment) -> list[tuple[int, int]]:
    return list(zip(run.places.tolist(), run.labels.tolist(), strict=True))
