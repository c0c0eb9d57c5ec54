"""The plot of a training: its points are those of the report, and it needs nothing but the standard library."""

import dataclasses
import errno
import io
import json
import math
import os
import random
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ghost import console
from ghost.console import duration
from ghost.errors import TrainingError
from ghost.signals import Stopped
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from tests.models import SENTENCES
from tests.training.finetuning.conftest import Ghost
from training.config import TrainingConfig
from training.finetuning import curve
from training.finetuning.base import resolve_base
from training.finetuning.curve import HeldoutLoss, Watch, curve_page, epochs_done, heldout_loss
from training.finetuning.data import Example, Split, encode_turns
from training.finetuning.hardware import Device
from training.finetuning.packing import Plan

EPOCHS = [100, 100, 100]
LOG = [{"step": float(step), "loss": 5 - step / 100} for step in range(1, 301)]
EVALUATIONS = [
    {"step": step, "loss": loss, "reply_loss": reply}
    for step, loss, reply in ((0, 5.0, 6.0), (100, 4.0, 4.5), (200, 3.5, 4.25), (300, 3.75, 4.75))
]


def drawn(
    log: Any, evaluations: Any, epochs: list[int], kept: int | None
) -> tuple[str, list[list[tuple[float, float]]]]:
    """The text that is shown, and the points of each line in the order drawn: (share of the width, value)."""
    page = curve_page(log, evaluations, epochs=epochs, kept=kept)
    plot = page[page.index('class="plot"') :]
    plot = plot[: plot.index("</figure>")]
    axis = [
        (float(value), float(place) + 7)
        for place, value in re.findall(r"margin-top:([-\d.]+)px[^>]*>([-\d.,]+)<", plot)
    ]
    (low, bottom), (high, top) = axis[0], axis[-1]
    shapes = re.findall(r'<path d="M([^"]*)" class="(?:line|faint)', plot)
    points = [[tuple(map(float, point.split())) for point in shape.split("L")] for shape in shapes]
    lines = [[(x / 1000, low + (bottom - y) / (bottom - top) * (high - low)) for x, y in line] for line in points]
    return unescape(re.sub(r"<style>.*</style>|<[^>]*>", " ", page, flags=re.DOTALL)), lines


def test_it_shows_what_was_logged_and_marks_what_is_kept() -> None:
    text, (raw, mean, held_out, replies) = drawn(LOG, EVALUATIONS, EPOCHS, 200)
    assert [x for x, _ in held_out] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert [y for _, y in held_out] == pytest.approx([5.0, 4.0, 3.5, 3.75], abs=0.01)
    assert [y for _, y in replies] == pytest.approx([6.0, 4.5, 4.25, 4.75], abs=0.01)
    assert [y for _, y in raw] == pytest.approx([entry["loss"] for entry in LOG], abs=0.01)
    assert mean[150][1] == pytest.approx(LOG[150]["loss"], abs=0.02)  # the mean around it, not before or after it
    assert (mean[0][0], mean[-1][0]) == pytest.approx((1 / 300, 1), abs=1e-3)
    assert "Dashed: kept, step 200 (4.250)." in text
    assert "training (mean of 10 steps)" in text
    assert re.search(r"\s1\s+2\s+3\s+Nats a token", text)


@pytest.mark.parametrize(("steps", "epochs"), [(1, [1]), (40, [40]), (11, [5, 6])])
def test_short_trainings_without_evaluations_have_a_curve_too(steps: int, epochs: list[int]) -> None:
    text, (training, *others) = drawn(LOG[:steps], [], epochs, steps)
    assert [y for _, y in training] == pytest.approx([entry["loss"] for entry in LOG[:steps]], abs=0.01)
    assert (training[-1][0], others) == (1, [])
    assert "held" not in text


def test_before_the_first_step_and_with_a_loss_of_nan_there_is_a_page() -> None:
    assert drawn([], [], EPOCHS, None)[1] == []
    broken = [EVALUATIONS[0], {"step": 100, "loss": math.nan, "reply_loss": math.inf}]
    _, (_, *heldout) = drawn(LOG[:20], broken, EPOCHS, None)
    assert [len(line) for line in heldout] == [1, 1]


def test_the_same_numbers_are_the_same_bytes() -> None:
    first, again, other = (curve_page(LOG, EVALUATIONS, epochs=EPOCHS, kept=kept) for kept in (200, 200, 100))
    assert first == again != other


def test_sampled_replies_are_below_the_losses() -> None:
    sampled = [{**one, "ended": 0.5, "distinct_2": 0.75} for one in EVALUATIONS]
    page = curve_page(LOG, sampled, epochs=EPOCHS, kept=200)
    assert page.count('class="plot"') == 2
    below = page[page.rindex("<figure") :]
    assert re.findall(r'class="line t(\d)', below) == ["4", "5"]
    assert "replies that end by themselves" in below


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
