import dataclasses
import errno
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ghost import console
from ghost.console import duration
from ghost.signals import Stopped
from replicate_deployment import ghost_json
from tests.training.finetuning.conftest import Ghost
from training.config import TrainingConfig
from training.finetuning import curve
from training.finetuning.curve import HeldoutLoss, Watch, curve_page, epochs_done
from training.finetuning.data import Example, Split
from training.finetuning.hardware import Device
from training.finetuning.packing import Plan

LOSS = HeldoutLoss(2.25, 1000, 2.125, 100)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(recipe: TrainingConfig, clock: Clock) -> Callable[..., Watch]:
    """A watch on a training of 8 epochs, 50 steps each."""
    ids = np.arange(5, dtype=np.int32)
    example = Example(ids, ids > 0, ids > 2)
    config = dataclasses.replace(recipe, micro_batch_size=2, gradient_accumulation_steps=1)
    plan = Plan(Split("windows", [example] * 100, 100, 0, 0), config)

    def make(start: int = 0, price: float | None = None, **keys: Any) -> Watch:
        return Watch(plan, start, price, clock=clock, **keys)

    return make


def run(watch: Watch, clock: Clock, steps: range, seconds: float = 10.0, tokens: int = 1_000) -> None:
    for number in steps:
        clock.now += seconds
        watch.step(number, 3.0 - number / 1000, tokens, seconds)


def test_a_log_gets_a_line_at_once_and_then_every_three_minutes(
    watch: Callable[..., Watch], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch() as looking:
        run(looking, clock, range(1, 40))
        assert capsys.readouterr().out.splitlines() == [
            "step 1 of 400, epoch 0.0: loss 2.999, 100 tokens/s, 66 min left",
            "step 19 of 400, epoch 0.4: loss 2.981, 100 tokens/s, 64 min left",
            "step 37 of 400, epoch 0.7: loss 2.963, 100 tokens/s, 60 min left",
        ]
        looking.evaluated(50, LOSS)
    assert capsys.readouterr().out == "step 50 of 400, epoch 1.0: held-out loss 2.250, of replies alone 2.125\n"


def test_the_cost_counts_what_a_resumed_training_had_spent(
    watch: Callable[..., Watch], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch(start=300, price=3.6, spent=7200.0) as looking:
        run(looking, clock, range(301, 302))
    line = "step 301 of 400, epoch 6.0: loss 2.699, 100 tokens/s, 16 min left, $7.21 so far\n"
    assert capsys.readouterr().out == line


def test_the_time_left_learns_from_what_measuring_and_checkpoints_take(
    watch: Callable[..., Watch], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch() as looking:
        run(looking, clock, range(1, 2), seconds=100.0)  # kernels are compiled
        run(looking, clock, range(2, 102), seconds=1.0)
        clock.now += 250  # the held-out loss
        capsys.readouterr()
        run(looking, clock, range(102, 103), seconds=1.0)
    # 101 steps in 351 s since the first; the speed is that of the last minute of training alone.
    assert capsys.readouterr().out.endswith(f"1,000 tokens/s, {duration(298 * 351 / 101)} left\n")


def test_a_terminal_has_a_bar_and_keeps_what_was_measured(
    watch: Callable[..., Watch], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = io.StringIO()
    terminal = Console(file=sent, force_terminal=True, width=100, color_system=None, markup=False, highlight=False)
    for module in (console, curve):
        monkeypatch.setattr(module, "console", terminal)
    with watch(start=100, price=3.6, output=terminal) as looking:
        run(looking, clock, range(101, 151))
        console._running[0].refresh()
        shown = sent.getvalue().splitlines()[-1]
        looking.evaluated(150, LOSS)
    assert "150/400 loss 2.850, 100 tokens/s, 42 min left, $0.50" in shown
    said = re.findall(r"step \d.*", sent.getvalue())
    assert said == ["step 150 of 400, epoch 3.0: held-out loss 2.250, of replies alone 2.125"]


def test_a_terminal_that_is_gone_costs_the_lines_and_not_the_training(
    watch: Callable[..., Watch], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    sent = io.StringIO()
    terminal = Console(file=sent, force_terminal=True, width=100, color_system=None)
    for module in (console, curve):
        monkeypatch.setattr(module, "console", terminal)
    gone = Gone()
    with pytest.raises(Stopped), watch(output=terminal) as looking:  # and not the OSError of closing the bar
        terminal.file = gone
        run(looking, clock, range(1, 3))
        looking.evaluated(2, LOSS)
        raise Stopped(1)
    assert gone.tries > 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.data())
def test_epochs_done_grows_evenly_within_each_epoch(epochs: list[int], data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, len(epochs) - 1))
    inside = data.draw(st.integers(0, epochs[epoch]))
    assert epochs_done(sum(epochs[:epoch]) + inside, epochs) == pytest.approx(epoch + inside / epochs[epoch])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (99 * 60, "99 min"),
        (100 * 60, "1 h 40 min"),
        (86_400, "24 h 0 min"),
    ],
)
def test_durations_are_in_a_persons_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_whole_training_leaves_its_curves_and_its_price(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Device, "price", 3.6)
    assert ghost_train(num_epochs=2, evals_per_epoch=2) == 0
    lines, out = capsys.readouterr().out.splitlines(), tmp_path / "adapter"
    said = [line.split(":")[0] for line in lines if line.startswith("step ")]
    assert said == [
        "step 0 of 4, epoch 0.0",
        "step 1 of 4, epoch 0.5",  # the first step's line, and what was measured after it
        "step 1 of 4, epoch 0.5",
        "step 2 of 4, epoch 1.0",
        "step 3 of 4, epoch 1.5",
        "step 4 of 4, epoch 2.0",
    ]
    report = json.loads((out / "training_report.json").read_text(encoding="utf-8"))
    page = curve_page(report["log"], report["evaluations"], epochs=[2, 2], kept=report["kept_step"])
    assert (out / "loss_curve.html").read_text(encoding="utf-8") == page
    assert "loss_curve.html" in ghost_json.read(out).block("files")
    assert f"curve     {out / 'loss_curve.html'}" in lines
    assert report["dollars_per_hour"] == 3.6
    assert sum("$0.0" in line for line in lines if line.startswith("step 1 of 4")) == 1
    assert lines[[line.startswith("trained") for line in lines].index(True)].endswith(" at $3.60 an hour")
