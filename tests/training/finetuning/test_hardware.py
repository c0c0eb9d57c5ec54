"""Memory, speed and price of each device: the formulas beside what PyTorch keeps, and what others computed for a 7B."""

import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghost.errors import ConfigError, TrainingError
from ghost.installed import SHIPPED
from training.config import TrainingConfig
from training.finetuning import hardware
from training.finetuning.base import Shapes, shapes_of
from training.finetuning.hardware import (
    HEADROOM,
    Budget,
    Device,
    Gpu,
    Load,
    Range,
    Work,
    expectation,
    forward_flops,
    free_memory,
    gpu_of,
    load_prices,
    measure_core,
    needed,
    on_cpu,
    on_gpu,
    resolve_budget,
    saved_by_block,
    spell_dollars,
    spell_duration,
    training_flops,
)
from training.finetuning.packing import Segment

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


# What memory a training may take: the machine's, within the limits of the groups it runs in.


def write(system: Path, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: {64 * GB // 1024} kB\nMemAvailable: {48 * GB // 1024} kB\n",
        **files,
    }.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(text, encoding="ascii")
    return system


def group(version: int, limit: str, usage: int, cache: int = 0) -> dict[str, str]:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"anon 1\ninactive_file {cache}\n" if version == 2 else f"inactive_file 0\ntotal_inactive_file {cache}\n"
    return {names[0]: f"{limit}\n", names[1]: f"{usage}\n", "memory.stat": stat}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"sys/fs/cgroup/{folder}{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 48 * GB),
        ({"proc/self/cgroup": "0::/\n"}, 48 * GB),  # no memory controller
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, f"{16 * GB}", 5 * GB, cache=2 * GB))}, 13 * GB),
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, "max", 5 * GB))}, 48 * GB),
        (
            {
                "proc/self/cgroup": "0::/batch/job\n",
                **below("batch/job/", group(2, f"{32 * GB}", 1 * GB)),
                **below("batch/", group(2, f"{16 * GB}", 6 * GB)),  # shared with other jobs
            },
            10 * GB,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/a\n2:name=systemd:/\n4:memory:/docker/1f\n0::/\n",
                **below("memory/docker/1f/", group(1, f"{8 * GB}", 3 * GB, cache=GB)),
            },
            6 * GB,
        ),
        # A container of version 1 is told a path that it does not see: its own group is the root.
        (
            {"proc/self/cgroup": "4:memory:/docker/1f\n", **below("memory/", group(1, f"{8 * GB}", 3 * GB))},
            5 * GB,
        ),
        ({"proc/self/cgroup": "4:memory:/\n", **below("memory/", group(1, "9223372036854771712", GB))}, 48 * GB),
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, f"{GB}", 2 * GB))}, 0),
    ],
)
def test_free_memory_is_what_the_tightest_limit_leaves(files: dict[str, str], left: int, tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, files)) == pytest.approx(left, abs=1024)


def test_without_linux_it_is_all_there_is(tmp_path: Path) -> None:
    assert free_memory(tmp_path) > GB


HOUR = 3600


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
    assert spell_dollars(Range(0.0151, 0.0249)) == "$0.02"
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


ENTRY = "{gpu: X, device: NVIDIA X, sold: 24, memory: 23, tflops: 100, bandwidth: 1.0, price: 0.5, provider: P, "
ENTRY += "read: 2026-01-02}"


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the current folder may have prices of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    return tmp_path / "config" / hardware.NAME


def test_the_file_in_the_clone() -> None:
    found = load_prices()
    assert len({gpu.device for gpu in found.gpus}) == len({gpu.gpu for gpu in found.gpus}) == len(found.gpus) > 10
    for gpu in found.gpus:
        assert gpu.device.startswith("NVIDIA ")
        assert date(2026, 1, 1) < gpu.read <= found.as_of
        assert 8 < gpu.memory < 300
        assert 0.9 < gpu.memory / gpu.sold < 1
        assert 50 < gpu.tflops < 5000  # dense: with sparsity it would be twice as much
        assert 0.1 < gpu.price < 20


def test_every_provider_has_a_source() -> None:
    text = (SHIPPED / hardware.NAME).read_text(encoding="utf-8")
    for provider in {gpu.provider for gpu in load_prices().gpus}:
        assert f"  {provider}: https://" in text


@pytest.mark.parametrize("device", ["NVIDIA H100 80GB HBM3", "nvidia h100 80gb hbm3"])
def test_a_device_is_known_by_the_name_that_torch_gives_it(device: str) -> None:
    gpu = gpu_of(device)
    assert gpu is not None
    assert gpu.gpu == "H100"


@pytest.mark.parametrize("device", ["CPU, 2 threads", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100", ""])
def test_others_are_not_known(device: str) -> None:
    assert gpu_of(device) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("as_of: 2026-01-02\ngpus: [", "not YAML"),
        ("as_of: 2026-01-02\ngpus: []", "gpus: expected a list of length >= 1"),
        ("- 1", "expected keys, found a list"),
        (f"as_of: soon\ngpus:\n  - {ENTRY}", "as_of: expected a date such as 2024-02-29, found 'soon'"),
        ("as_of: 2026-01-02\ngpus: [H100]", r"gpus\[0\]: expected keys, found 'H100'"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('price', 'prize')}", r"prize; did you mean gpus\[0\].price"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('}', ', watts: 3}')}", r"unknown key gpus\[0\].watts"),
        (
            f"as_of: 2026-01-02\ngpus:\n  - {ENTRY}\n  - {ENTRY.replace('0.5', '0')}",
            r"gpus\[1\].price: expected a number > 0.0, found 0",
        ),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('0.5', 'cheap')}", "price: expected a number, found 'cheap'"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('2026-01-02', 'today')}", "read: expected a date"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('gpu: X', 'gpu: 5')}", "gpu: expected text, found 5"),
    ],
)
def test_a_slip_in_the_file_is_named(prices: Path, text: str, why: str) -> None:
    prices.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=why):
        load_prices()


def test_whole_numbers_are_numbers(prices: Path) -> None:
    prices.write_text(f"as_of: 2026-01-02\ngpus:\n  - {ENTRY}", encoding="utf-8")
    gpu = gpu_of("NVIDIA X")
    assert gpu is not None
    assert (gpu.bytes, gpu.tflops) == (23 * 2**30, 100.0)
