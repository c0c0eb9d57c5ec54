"""The GPU's benchmark, run through on a CPU with a tiny shape: every row, so that none is dead code."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu_rows, training_gpu
from benchmarks.gpu_rows import NESTED, Row
from benchmarks.random_base import DENSE, EACH, FLASH, attending, checkpointed, random_base
from ghost.demo import starter
from replicate_deployment.tokenization import load_tokenizer
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning.base import resolve_base
from training.finetuning.data import Example
from training.finetuning.loss import SegmentLoss
from training.finetuning.model import adapted, trainable
from training.finetuning.packing import Segment, collapse, flatten, segment

BUDGETS = (64, 128, 256)
Bench = Callable[..., list[list[str]]]


@pytest.fixture
def small() -> TrainingConfig:
    recipe = training_config.load(training_gpu.CONFIG)
    return dataclasses.replace(
        recipe, bf16=False, lora_dropout=0.0, sequence_len=128, micro_batch_size=1, gradient_accumulation_steps=8
    )


@pytest.fixture
def bench(tiny_base: Path, small: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Runs the command; gives the rows of its tables."""
    monkeypatch.setattr(starter, "RECIPE", dataclasses.replace(starter.RECIPE, tokenizer_windows=100))
    config, result = tmp_path / "config.yaml", tmp_path / "result.md"
    config.write_text(training_config.dump(small))
    paths = ["--config", str(config), "--base", str(tiny_base), "--result", str(result)]

    def run(*arguments: str) -> list[list[str]]:
        budgets = ["--budgets", *map(str, BUDGETS)]
        training_gpu.main([*paths, *budgets, "--conversations", "4", "--seconds", "0", *arguments])
        rows = [line.strip("| ").split(" | ") for line in result.read_text().splitlines() if line.startswith("| ")]
        return [row for row in rows if row[0] != "way"]

    return run


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_every_row_is_measured_by_the_training_loop(bench: Bench) -> None:
    rows = bench("--device", "cpu")
    assert len(rows) == len(gpu_rows.rows(BUDGETS)) + 2  # two stand beside the other kinds of attention once more
    assert all(number(row[4]) > 0 for row in rows)
    nested, _, apart = rows[:3]
    assert apart[0] == "one window at a time, nf4"
    assert number(apart[6]) / number(apart[5]) == pytest.approx(1, abs=0.03)  # end tokens are not computed
    assert number(nested[6]) / number(nested[5]) > 1.2


def test_without_a_gpu_rows_read_not_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row[5] for row in bench("--unmeasured")} == {"not measured"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU here"):
        bench()


def test_memory_that_runs_out_is_a_row_and_the_next_is_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SegmentLoss.forward

    def limited(self: SegmentLoss, **batch: Any) -> torch.Tensor:
        if batch["input_ids"].numel() > 128:
            raise torch.OutOfMemoryError
        return forward(self, **batch)

    monkeypatch.setattr(SegmentLoss, "forward", limited)
    rows = [Row(NESTED, True, FLASH, False, budget) for budget in (256, 128)]
    monkeypatch.setattr(training_gpu, "rows", lambda _: rows)
    large, little = bench("--device", "cpu")[:2]
    assert large[5] == "out of memory"
    assert number(little[5]) > 0


@pytest.mark.parametrize("bf16", [False, True])
def test_the_random_base_is_built_as_a_real_one_is_loaded(tiny_base: Path, small: TrainingConfig, bf16: bool) -> None:
    config = dataclasses.replace(small, bf16=bf16)
    facts = json.loads((tiny_base / "config.json").read_text())
    models = (
        adapted(random_base(facts, config, "cpu"), config, "tiny"),
        trainable(resolve_base(str(tiny_base), None), config, load_tokenizer(tiny_base)),
    )
    made, loaded = (
        {
            **{name: (item.dtype, item.shape, item.requires_grad) for name, item in model.named_parameters()},
            **{name: (item.dtype, item.shape) for name, item in model.named_buffers()},
            **{name: type(module) for name, module in model.named_modules()},
        }
        for model in models
    )
    assert made == loaded


def test_all_ways_compute_the_same_loss(tiny_base: Path, small: TrainingConfig) -> None:
    facts = json.loads((tiny_base / "config.json").read_text())
    model = adapted(random_base(facts, small, "cpu"), small, "tiny")
    segment_loss = SegmentLoss(model)
    row = flatten(_segments(facts["vocab_size"]), "cpu")
    losses = []
    for backend in (FLASH, EACH, DENSE):
        for checkpointing in (False, True):
            with attending(model, backend), checkpointed(model, checkpointing):
                losses.append(float(segment_loss(**row).detach()))
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-5)


def _segments(vocabulary: int) -> list[Segment]:
    rng = np.random.default_rng(0)
    examples = [
        Example(rng.integers(3, vocabulary, length).astype(np.int32), np.arange(length) > 0, np.arange(length) > 0)
        for length in (5, 30, 17)
    ]
    return [segment(group) for group in collapse(examples)]
