import dataclasses

import numpy as np
import pytest

from training.config import TrainingConfig
from training.finetuning import hardware
from training.finetuning.base import Shapes, shapes_of
from training.finetuning.hardware import (
    Device,
    Gpu,
    Load,
    Range,
    Work,
    expectation,
    forward_flops,
    gpu_of,
    measure_core,
    on_cpu,
    on_gpu,
    spell_dollars,
    spell_duration,
    training_flops,
)
from training.finetuning.packing import Segment

HOUR = 3600


@pytest.fixture(scope="module")
def mistral(recipe: TrainingConfig) -> Shapes:
    return shapes_of(recipe.base_model)


@pytest.fixture(scope="module")
def h100() -> Gpu:
    gpu = gpu_of("NVIDIA H100 80GB HBM3")
    assert gpu is not None
    return gpu


def run(length: int) -> Segment:
    nothing = np.zeros(0, dtype=np.int32)
    return Segment(np.zeros(length, dtype=np.int32), nothing, nothing, nothing.astype(np.float32), 1)


def test_operations_a_token_are_the_published_ones(mistral: Shapes, recipe: TrainingConfig) -> None:
    context = 208 / 2  # of windows as long as the published run's
    assert training_flops(mistral, recipe, context, checkpointing=False) / 1e9 == pytest.approx(28.9, abs=0.05)
    assert training_flops(mistral, recipe, context, checkpointing=True) / 1e9 == pytest.approx(43.0, abs=0.05)


def test_operations_are_those_that_torch_counts(mistral: Shapes, recipe: TrainingConfig) -> None:
    """Of a model without LoRA's dropout: forward, and backward to the block's input."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import MistralConfig, MistralForCausalLM

    small = Shapes(64, 224, 2, 4, 2, 16, 96, 128, tied=False)
    model = MistralForCausalLM(
        MistralConfig(
            hidden_size=small.hidden,
            intermediate_size=small.inner,
            num_hidden_layers=small.layers,
            num_attention_heads=small.heads,
            num_key_value_heads=small.kv_heads,
            vocab_size=small.vocabulary,
            attn_implementation="eager",
        )
    )
    tokens = 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(tokens)[None])
    without = dataclasses.replace(recipe, lora_target_modules=())
    # Eager attention multiplies the whole square, masked half included.
    assert counter.get_total_flops() / tokens == pytest.approx(forward_flops(small, without, tokens), rel=1e-3)


def test_the_published_run_is_within_the_range(mistral: Shapes, recipe: TrainingConfig, h100: Gpu) -> None:
    """52,000 windows of 208 tokens × 8 epochs, one window at a time, on an H100: 16 hours."""
    work = Work(tokens=52_000 * 208 * 8, batches=52_000 * 8, evaluated=0, evaluations=0, context=104)
    best, worst = on_gpu(h100, work, mistral, recipe, checkpointing=False)
    assert best / HOUR < 16 < worst / HOUR
    assert worst < 2 * best


def test_larger_batches_cost_less_and_checkpointing_more(mistral: Shapes, recipe: TrainingConfig, h100: Gpu) -> None:
    def seconds(batches: int, *, checkpointing: bool = False) -> float:
        work = Work(tokens=10_000_000, batches=batches, evaluated=0, evaluations=0, context=104)
        return on_gpu(h100, work, mistral, recipe, checkpointing=checkpointing).high

    assert seconds(1_000) < seconds(50_000) / 2
    assert 1.3 < seconds(1_000, checkpointing=True) / seconds(1_000) < 1.5


def test_work_is_counted_from_segments(recipe: TrainingConfig) -> None:
    config = dataclasses.replace(recipe, num_epochs=3, evals_per_epoch=2)
    load = Load([[run(40), run(60)], [run(100)]], [run(30), run(50)], config)
    assert (load.tokens, load.most) == (200, 100)
    work = load.work(100)
    assert (work.tokens, work.batches) == (3 * 200, 3 * 2)
    assert (work.evaluated, work.evaluations) == (7 * 80, 7)  # before the first step and twice an epoch
    assert load.work(60).batches == 3 * 3
    assert work.context == pytest.approx((40 * 41 + 60 * 61 + 100 * 101) / 2 / 200)


def test_measuring_costs_a_forward_pass(mistral: Shapes, recipe: TrainingConfig) -> None:
    work = Work(tokens=0, batches=0, evaluated=1_000_000, evaluations=100, context=104)
    found = on_cpu(1e12, work, mistral, recipe, checkpointing=False)
    assert found.low > 1_000_000 * forward_flops(mistral, recipe, 104) / 1e12
    assert found.high < 10 * found.low


def test_what_else_the_machine_does_is_not_measured() -> None:
    """The product takes a tick, and now and then the core belongs to somebody else for an hour."""

    def rate(interruptions: int) -> float:
        ticks = iter(range(10**9))

        def clock() -> float:
            tick = next(ticks)
            return tick * 1e-5 + (HOUR * (tick // interruptions) if interruptions and tick % 2 else 0)

        return measure_core(clock)

    assert rate(0) == pytest.approx(rate(500))


def test_all_idle_cores_count(mistral: Shapes, recipe: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "measure_core", lambda: 1e11)
    load = Load([[run(40)]], [], dataclasses.replace(recipe, num_epochs=1))
    one, four = (Device("CPU", 10**11, False, None, cores=cores) for cores in (1, 4))
    budget = one.budget(mistral, recipe, load, longest=40)
    alone, together = (device.seconds(load, mistral, recipe, budget) for device in (one, four))
    assert alone is not None
    assert together is not None
    assert 3 < alone.low / together.low <= 4  # what a block costs besides is not shared
    assert expectation(four, together).startswith(f"{spell_duration(together)} on 4 idle cores; computed, not measured")


def test_what_a_person_reads(h100: Gpu) -> None:
    assert spell_duration(Range(30, 70)) == "30 to 70 s"
    assert spell_duration(Range(600, 5000)) == "10 to 83 min"
    assert spell_duration(Range(5.25 * HOUR, 9.5 * HOUR)) == "5.2 to 9.5 h"
    assert spell_duration(Range(40 * 86400, 2000 * 86400)) == "40 to 2,000 days"
    assert spell_dollars(Range(0.5, 12.4)) == "$0.50 to $12"
    assert spell_dollars(Range(0.0001, 0.0002)) == "less than $0.01"
    assert spell_dollars(Range(0.004, 0.034)) == "up to $0.03"
    words = expectation(Device(h100.device, h100.bytes, True, h100), Range(HOUR, 2 * HOUR))
    assert words.startswith(f"1.0 to 2.0 h, ${h100.price:.2f} to ${2 * h100.price:.2f} at ${h100.price:.2f} an hour")
    assert "not measured" in words


def test_an_unknown_gpu_is_said_to_be_one(mistral: Shapes, recipe: TrainingConfig) -> None:
    device = Device("NVIDIA GeForce GTX 1080", 10**10, True, None)
    load = Load([[run(40)]], [], recipe)
    budget = device.budget(mistral, recipe, load, longest=40)
    assert device.price is None
    assert device.seconds(load, mistral, recipe, budget) is None
    assert expectation(device, None) == "unknown: config/gpu_prices.yaml has no entry for NVIDIA GeForce GTX 1080"


def test_gpus_share_a_step_and_are_all_paid(mistral: Shapes, recipe: TrainingConfig, h100: Gpu) -> None:
    load = Load([[run(600)] * 10], [], recipe)
    one, four = (Device(h100.device, h100.bytes, True, h100, count) for count in (1, 4))
    whole, part = (device.budget(mistral, recipe, load, longest=600) for device in (one, four))
    assert (whole.tokens, part.tokens) == (6144, 1536)
    assert four.price == 4 * h100.price
    alone, together = (device.seconds(load, mistral, recipe, part) for device in (one, four))
    assert alone is not None
    assert together == alone.scaled(1 / 4)
    dollars = [
        expectation(device, found).split(", ")[1].split(" at ") for device, found in ((one, alone), (four, together))
    ]
    assert dollars[0][0] == dollars[1][0]  # as much in all
    assert dollars[1][1].startswith(f"${4 * h100.price:.2f} an hour")


def test_the_device_at_hand() -> None:
    import torch

    found = hardware.device_at_hand()
    assert found.cuda == torch.cuda.is_available()
    assert found.free > 10**8
    if not found.cuda:
        assert found.name.startswith("CPU, ")
        assert found.price is None
