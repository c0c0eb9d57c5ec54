"""What the formulas say, beside what PyTorch keeps of a model, and beside what others computed for a 7B."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghost.errors import TrainingError
from training.config import TrainingConfig
from training.finetuning import hardware
from training.finetuning.base import Shapes, shapes_of
from training.finetuning.hardware import HEADROOM, Budget, needed, resolve_budget, saved_by_block

GB = 10**9
GIB = 2**30


@pytest.fixture(scope="module")
def mistral(recipe: TrainingConfig) -> Shapes:
    return shapes_of(recipe.base_model)


def test_what_does_not_grow_with_tokens(mistral: Shapes, recipe: TrainingConfig) -> None:
    fixed = needed(mistral, recipe, 0, checkpointing=True)
    assert fixed.base == pytest.approx(6_979_321_856 * (4 + 8 / 64 + 32 / 64 / 256) / 8, rel=1e-6)  # bits of QLoRA
    assert (fixed.gradients, fixed.optimizer) == (4 * 41_943_040, 8 * 41_943_040)
    assert fixed.activations == fixed.working == 0
    # The published 5.3 GB leave out the loss and the bfloat16 copy of the adapter.
    assert (fixed.total - fixed.loss - 2 * 41_943_040) / GB == pytest.approx(5.3, abs=0.05)


@pytest.mark.parametrize(
    ("checkpointing", "published"),
    [(True, {4096: 7.7, 8192: 9.7, 16384: 13.6, 32768: 21.5}), (False, {4096: 35, 8192: 63, 16384: 121})],
)
def test_totals_of_a_7b_beside_published_ones(
    mistral: Shapes, recipe: TrainingConfig, checkpointing: bool, published: dict[int, float]
) -> None:
    for tokens, total in published.items():
        found = needed(mistral, recipe, tokens, checkpointing=checkpointing)
        # They were computed without dropout's masks and without gradients on their way through a block.
        masks = saved_by_block(mistral, recipe, width=2) - saved_by_block(mistral, recipe, width=2, mask=0)
        masks *= 1 if checkpointing else mistral.layers
        assert (found.total - found.working - tokens * masks) / GB == pytest.approx(total, rel=0.025)
        assert 1 < found.total / GB / total < 1.2


def test_a_thousand_tokens_fit_a_small_card(mistral: Shapes, recipe: TrainingConfig) -> None:
    assert needed(mistral, recipe, 1024, checkpointing=True).total <= 7.5 * GIB


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_a_block_keeps_what_the_formula_says(
    tmp_path: Path, recipe: TrainingConfig, monkeypatch: pytest.MonkeyPatch, dropout: float, bf16: bool
) -> None:
    """On a CPU, but with the dropout of CUDA and with LoRA inputs in the precision that CUDA's autocast gives them."""
    config = dataclasses.replace(recipe, lora_dropout=dropout, bf16=bf16, gradient_checkpointing=False)
    # The first block's input has no gradient, and some things are kept once: so blocks and tokens are differences.
    few, many = (saved(tmp_path, config, layers, monkeypatch) for layers in (2, 3))
    found = (many(256) - few(256) - many(128) + few(128)) / 128
    shapes = shapes_of(str(tmp_path / "3"))
    width = 2 if bf16 else 4
    # The CPU's attention lays its segments together once more; what o_proj's dropout makes of that is kept instead.
    copied = 0 if dropout else width * shapes.queries
    assert found == saved_by_block(shapes, config, width=width) + copied


def test_checkpointing_keeps_the_inputs_of_blocks(
    tmp_path: Path, recipe: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(recipe, bf16=False, gradient_checkpointing=True)
    few, many = (saved(tmp_path, config, layers, monkeypatch) for layers in (2, 3))
    shapes = shapes_of(str(tmp_path / "3"))
    assert (many(256) - few(256)) / 256 == 4 * shapes.hidden
    one, two = (needed(shapes, config, tokens, checkpointing=True).activations for tokens in (1, 2))
    assert two - one == 4 * shapes.hidden * shapes.layers + saved_by_block(shapes, config, width=4)


def test_the_nf4_base_is_as_large_as_its_tensors(tmp_path: Path, recipe: TrainingConfig) -> None:
    from bitsandbytes.nn import Linear4bit

    model, shapes = build(tmp_path, dataclasses.replace(recipe, bf16=False), 2, hidden=256)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    kept = sum(
        tensor.numel() * tensor.element_size()
        for layer in layers
        for tensor in (layer.weight, layer.weight.quant_state.absmax, layer.weight.quant_state.state2.absmax)
    )
    assert needed(shapes, recipe, 0, checkpointing=True).base == pytest.approx(kept, rel=0.01)


def saved(folder: Path, config: TrainingConfig, layers: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """Bytes that autograd keeps of a row of so many tokens, without parameters and inputs."""
    import torch

    from training.finetuning.loss import SegmentLoss
    from training.finetuning.packing import Segment, flatten

    class CudasDropout(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept: torch.Tensor = torch.native_dropout(x, config.lora_dropout, True)[0]
            return kept

    model, _ = build(folder, config, layers)
    if config.lora_dropout:
        for module in model.modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = CudasDropout()
    segment_loss = SegmentLoss(model).train()
    asked = torch.is_autocast_enabled
    # peft asks whether CUDA's autocast is on, and else makes LoRA's inputs float32.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: asked(*device) if device else config.bf16)

    def measure(tokens: int) -> int:
        ids = np.arange(64, dtype=np.int32) % 50
        places = np.arange(4, dtype=np.int32)
        run = Segment(ids, places, ids[1:5], np.ones(4, dtype=np.float32), 1)
        row = flatten([run] * (tokens // 64), "cpu")
        given = [*model.parameters(), *model.buffers(), *(part for part in row.values() if torch.is_tensor(part))]
        known = {tensor.untyped_storage().data_ptr() for tensor in given}
        kept: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage
            return tensor

        with (
            torch.autocast("cpu", torch.bfloat16, enabled=config.bf16),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            loss = segment_loss(**row)
        assert loss.requires_grad
        return sum(storage.nbytes() for storage in kept.values())

    return measure


def build(folder: Path, config: TrainingConfig, layers: int, hidden: int = 64) -> tuple[Any, Shapes]:
    from ghost.demo import starter
    from training.finetuning.base import resolve_base
    from training.finetuning.model import trainable

    base = folder / str(layers)
    tokenizer = starter.make_tokenizer(["hey tu fais quoi"], vocab_size=360)
    starter.save_base(base, starter.make_model(tokenizer, seed=0, hidden=hidden, layers=layers, heads=4), tokenizer)
    return trainable(resolve_base(str(base), None), config, tokenizer), shapes_of(str(base))


def fits(budget: Budget, free: int) -> bool:
    return budget.memory.total <= free * HEADROOM


def test_a_large_card_needs_no_checkpointing(mistral: Shapes, recipe: TrainingConfig) -> None:
    free = 80 * GIB
    budget = resolve_budget(mistral, recipe, free, longest=700)
    assert not budget.checkpointing
    assert budget.tokens % 512 == 0
    assert fits(budget, free)
    more = needed(mistral, recipe, budget.tokens + 512, checkpointing=False)
    assert more.total > free * HEADROOM


def test_a_small_card_does(mistral: Shapes, recipe: TrainingConfig) -> None:
    budget = resolve_budget(mistral, recipe, 12 * GIB, longest=700)
    assert budget.checkpointing
    assert budget.tokens % 512 == 0
    assert fits(budget, 12 * GIB)
    assert not fits(dataclasses.replace(budget, memory=needed(mistral, recipe, 1024, checkpointing=False)), 12 * GIB)


@pytest.mark.parametrize("asked", [True, False])
def test_checkpointing_is_as_the_config_says(mistral: Shapes, recipe: TrainingConfig, asked: bool) -> None:
    config = dataclasses.replace(recipe, gradient_checkpointing=asked)
    assert resolve_budget(mistral, config, 40 * GIB, longest=700).checkpointing is asked


def test_no_more_is_taken_than_a_step_has(mistral: Shapes, recipe: TrainingConfig) -> None:
    assert resolve_budget(mistral, recipe, 140 * GIB, longest=700, most=6021).tokens == 6144
    assert resolve_budget(mistral, recipe, 40 * GIB, longest=300, most=500) == Budget(
        512, False, needed(mistral, recipe, 512, checkpointing=False)
    )


def test_a_number_stands_and_memory_decides_on_checkpointing(mistral: Shapes, recipe: TrainingConfig) -> None:
    config = dataclasses.replace(recipe, micro_batch_tokens=5000)
    found = [resolve_budget(mistral, config, gib * GIB, longest=700) for gib in (80, 16)]
    assert [(budget.tokens, budget.checkpointing) for budget in found] == [(5000, False), (5000, True)]


def test_a_number_that_fits_is_taken_however_small(mistral: Shapes, recipe: TrainingConfig) -> None:
    free = int(needed(mistral, recipe, 600, checkpointing=True).total / HEADROOM)
    budget = resolve_budget(mistral, dataclasses.replace(recipe, micro_batch_tokens=512), free, longest=500)
    assert (budget.tokens, budget.checkpointing) == (512, True)


def test_a_segment_is_never_cut(mistral: Shapes, recipe: TrainingConfig) -> None:
    config = dataclasses.replace(recipe, micro_batch_tokens=100)
    assert resolve_budget(mistral, config, 40 * GIB, longest=700).tokens == 700
    tight = next(gib / 8 for gib in range(200) if _goes(mistral, recipe, int(gib / 8 * GIB), longest=1030))
    assert resolve_budget(mistral, recipe, int(tight * GIB), longest=1030).tokens == 1030


def _goes(mistral: Shapes, config: TrainingConfig, free: int, longest: int) -> bool:
    try:
        resolve_budget(mistral, config, free, longest=longest)
    except TrainingError:
        return False
    return True


def test_a_cpu_takes_little_at_once(mistral: Shapes, recipe: TrainingConfig) -> None:
    assert resolve_budget(mistral, recipe, 64 * GIB, longest=700, cuda=False).tokens == hardware.CPU_TOKENS
    assert resolve_budget(mistral, recipe, 64 * GIB, longest=3000, cuda=False).tokens == 3000
    assert resolve_budget(mistral, recipe, 64 * GIB, longest=700, cuda=False).memory.context == 0


@pytest.mark.parametrize(
    ("changes", "gib", "advice"),
    [
        ({}, 4, "use a device with more memory, or a smaller base_model"),
        ({"micro_batch_tokens": 60_000}, 24, "lower micro_batch_tokens to at most "),
        ({"gradient_checkpointing": False}, 11, "set gradient_checkpointing: null"),
    ],
)
def test_what_cannot_fit_says_what_to_change(
    mistral: Shapes, recipe: TrainingConfig, changes: dict[str, Any], gib: int, advice: str
) -> None:
    config = dataclasses.replace(recipe, **changes)
    with pytest.raises(TrainingError, match=advice) as refusal:
        resolve_budget(mistral, config, gib * GIB, longest=900)
    assert f"{gib * GIB / GB:.1f} GB are free" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_advice_is_right(mistral: Shapes, recipe: TrainingConfig) -> None:
    for key, config in (("micro_batch_tokens", dataclasses.replace(recipe, micro_batch_tokens=99_999)), ("x", recipe)):
        with pytest.raises(TrainingError) as refusal:
            resolve_budget(mistral, config, 20 * GIB, longest=500 if key == "micro_batch_tokens" else 99_999)
        most = int(str(refusal.value).split("at most ")[1].split(";")[0].split(" or")[0].replace(",", ""))
        followed = dataclasses.replace(recipe, micro_batch_tokens=most)
        assert fits(resolve_budget(mistral, followed, 20 * GIB, longest=500), 20 * GIB)
        with pytest.raises(TrainingError):
            resolve_budget(mistral, dataclasses.replace(recipe, micro_batch_tokens=most + 1), 20 * GIB, longest=500)
