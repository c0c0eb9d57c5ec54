"""The loss on windows that training never saw: by the same code before and after."""

from dataclasses import dataclass
from typing import Any

from training.console import progress
from training.errors import TrainingError
from training.finetuning.config import TrainingConfig
from training.finetuning.data import IGNORED, Example, collate


@dataclass(frozen=True)
class HeldoutLoss:
    """Mean negative log-likelihood in nats a token: over all tokens with a label, and over the replies alone (end
    token included), which tells whether the model sounds more like the person."""

    loss: float
    tokens: int
    reply_loss: float
    reply_tokens: int


def heldout_loss(model: Any, examples: list[Example], config: TrainingConfig) -> HeldoutLoss | None:
    """None when there are no examples. The order of the examples does not matter; neither does `eval_batch_size`.

    Raises TrainingError when the GPU's memory is exhausted.
    """
    if not examples:
        return None
    import torch

    device = next(model.parameters()).device
    total, tokens, reply_total, reply_tokens = 0.0, 0, 0.0, 0
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # so batches hold little padding
    model.eval()
    with torch.no_grad(), progress("held-out loss", len(examples)) as bar:
        for start in range(0, len(by_length), config.eval_batch_size):
            some = by_length[start : start + config.eval_batch_size]
            batch = {name: tensor.to(device) for name, tensor in collate(some).items()}
            labels = batch.pop("labels")[:, 1:]
            try:
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                    logits = model(**batch).logits[:, :-1]
                # (examples, length - 1); zero where the label is ignored
                losses = torch.nn.functional.cross_entropy(
                    logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
                )
            except torch.OutOfMemoryError as error:
                raise TrainingError("the GPU's memory is exhausted: lower eval_batch_size") from error
            learnt = labels != IGNORED
            places = torch.arange(1, labels.shape[1] + 1, device=device)
            replies = learnt & (places >= torch.tensor([[example["reply"]] for example in some], device=device))
            total += losses.sum(dtype=torch.float64).item()
            tokens += int(learnt.sum())
            reply_total += losses[replies].sum(dtype=torch.float64).item()
            reply_tokens += int(replies.sum())
            bar.advance(len(some))
    return HeldoutLoss(total / tokens, tokens, reply_total / reply_tokens, reply_tokens)
