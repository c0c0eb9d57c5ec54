import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghost.errors import TrainingError
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from tests.models import SENTENCES
from training.config import TrainingConfig
from training.finetuning.base import resolve_base
from training.finetuning.curve import HeldoutLoss, heldout_loss
from training.finetuning.data import Example, encode_turns


@pytest.fixture(scope="module")
def config(recipe: TrainingConfig) -> TrainingConfig:
    return dataclasses.replace(recipe, bf16=False)


@pytest.fixture(scope="module")
def segment_loss(tiny_base: Path, config: TrainingConfig) -> Any:
    """An nf4 base with an adapter that does something, and dropout that must not."""
    import torch

    from training.finetuning.loss import SegmentLoss
    from training.finetuning.model import trainable

    torch.manual_seed(0)
    model = trainable(resolve_base(str(tiny_base), None), config, load_tokenizer(tiny_base))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return SegmentLoss(model)


def windows(tiny_base: Path, *, replies_only: bool = False) -> list[Example]:
    """Nested ones of 2 to 8 turns, two that are equal, and lone ones."""
    dice = random.Random(5)
    tokenizer = load_tokenizer(tiny_base)
    talks = [
        [Turn(DEFAULT_LABELS.other if i % 2 == 0 else DEFAULT_LABELS.me, dice.choice(SENTENCES)) for i in range(8)]
        for _ in range(3)
    ]
    cut = [talks[0][:2], talks[0][:4], talks[0][:8], talks[0][:4], talks[1][2:4], talks[1][:6], talks[2][:4]]
    return [
        encode_turns(tokenizer, turns, DEFAULT_LABELS, recipe="windows", replies_only=replies_only) for turns in cut
    ]


def one_at_a_time(model: Any, examples: list[Example]) -> HeldoutLoss:
    """By transformers' own attention and PyTorch's own cross-entropy, a window a forward pass."""
    import torch

    model.eval()
    model.set_attn_implementation("eager")
    found: list[tuple[float, bool]] = []
    with torch.no_grad():
        for example in examples:
            ids = torch.from_numpy(example.ids.astype(np.int64))[None]
            losses = torch.nn.functional.cross_entropy(
                model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
            )
            places = np.flatnonzero(example.learnt)
            found += zip(losses.numpy()[places - 1].tolist(), example.reply[places].tolist(), strict=True)
    model.set_attn_implementation("segments")
    replies = [loss for loss, reply in found if reply]
    return HeldoutLoss(float(np.mean([loss for loss, _ in found])), len(found), float(np.mean(replies)), len(replies))


@pytest.mark.parametrize("replies_only", [False, True])
@pytest.mark.parametrize("collapse", [False, True])
def test_every_token_counts_as_it_does_one_window_at_a_time(
    segment_loss: Any, tiny_base: Path, config: TrainingConfig, collapse: bool, replies_only: bool
) -> None:
    examples = windows(tiny_base, replies_only=replies_only)
    expected = one_at_a_time(segment_loss.model.get_base_model(), examples)
    assert (expected.tokens == expected.reply_tokens) == replies_only
    assert abs(expected.loss - expected.reply_loss) > 1e-3 or replies_only
    config = dataclasses.replace(config, collapse_nested_windows=collapse)
    for budget, order in ((1, examples), (100, examples[::-1]), (100_000, examples[3:] + examples[:3])):
        found = heldout_loss(segment_loss, order, budget, config)
        assert found is not None
        assert (found.tokens, found.reply_tokens) == (expected.tokens, expected.reply_tokens)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.reply_loss == pytest.approx(expected.reply_loss, rel=1e-5)


def test_it_leaves_no_trace(segment_loss: Any, tiny_base: Path, config: TrainingConfig) -> None:
    """What training computes after a measurement is what it would have computed without."""
    import torch

    assert config.lora_dropout > 0
    for mode in (True, False):
        segment_loss.train(mode)
        generator = torch.get_rng_state()
        assert heldout_loss(segment_loss, windows(tiny_base), 100, config) is not None
        assert segment_loss.training == segment_loss.model.training == mode
        assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in segment_loss.parameters())


def test_nothing_held_out_is_no_loss(segment_loss: Any, config: TrainingConfig) -> None:
    assert heldout_loss(segment_loss, [], 100, config) is None


class Small:
    """An segment_loss on a device that holds so many tokens at a time."""

    def __init__(self, segment_loss: Any, room: int) -> None:
        self.segment_loss, self.room, self.computed = segment_loss, room, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.segment_loss, name)

    def losses(self, **batch: Any) -> Any:
        import torch

        if sum(batch["lengths"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.computed += sum(batch["lengths"])
        return self.segment_loss.losses(**batch)


def test_exhausted_memory_halves_the_budget_and_counts_nothing_twice(
    segment_loss: Any, tiny_base: Path, config: TrainingConfig
) -> None:
    examples = windows(tiny_base)
    longest = max(len(example.ids) for example in examples)
    roomy, small = Small(segment_loss, 100_000), Small(segment_loss, longest)
    expected, found = (heldout_loss(device, examples, 100_000, config) for device in (roomy, small))
    assert expected is not None
    assert found is not None
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.reply_loss == pytest.approx(expected.reply_loss, rel=1e-6)
    assert small.computed == roomy.computed

    segment_loss.train()
    with pytest.raises(TrainingError, match=f"one held-out example of {longest - 1:,} tokens: lower sequence_len"):
        heldout_loss(Small(segment_loss, longest - 2), examples, 100_000, config)
    assert segment_loss.training
