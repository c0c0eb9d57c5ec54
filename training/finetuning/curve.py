"""The held-out loss, progress output and the plot of the losses."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ghost.console import LINE_EVERY, Bar, console, duration, progress
from ghost.errors import TrainingError
from ghost.page import Line, document, element, figure, lines
from training.config import TrainingConfig
from training.finetuning.data import Example
from training.finetuning.packing import Group, Plan, Segment, collapse, pack, segment
from training.finetuning.processes import Alone

# Measure the held-out loss, by the same code before, during and after training.


@dataclass(frozen=True)
class HeldoutLoss:
    """Mean negative log-likelihood in nats per token: over all tokens that count in the loss, and over the replies
    alone (end token included), which shows whether the model sounds more like the person."""

    loss: float
    tokens: int
    reply_loss: float
    reply_tokens: int


def heldout_loss(
    segment_loss: Any, examples: Sequence[Example], budget: int, config: TrainingConfig, processes: Alone | None = None
) -> HeldoutLoss | None:
    """Measure the held-out loss; None if there are no examples. The order of examples and the `budget`, the tokens that
    go through the model at once, do not change it. Several `processes` share the work.

    Draws no random number, and leaves the model in the mode that it was in. Halves the budget when memory runs out;
    raises TrainingError if even one example does not fit.
    """
    if not examples:
        return None
    import torch

    groups: list[Group] = collapse(examples) if config.collapse_nested_windows else [[one] for one in examples]
    replies = {segment(group): _reply_weights(group) for group in groups}
    if processes is None:
        processes = Alone()
        processes.use(segment_loss, bf16=config.bf16)
    sums: list[float] = []
    reply_sums: list[float] = []
    mode = segment_loss.training
    segment_loss.eval()
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
                            f"the GPU has too little memory for one held-out example of {tokens:,} tokens: lower "
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
        segment_loss.train(mode)
    tokens = sum(int(example.learnt.sum()) for example in examples)
    reply_tokens = sum(int((example.learnt & example.reply).sum()) for example in examples)
    return HeldoutLoss(math.fsum(sums) / tokens, tokens, math.fsum(reply_sums) / reply_tokens, reply_tokens)


def _reply_weights(group: Group) -> NDArray[np.float32]:
    """For each target of the group's segment, count the examples that have it in a learnt reply."""
    replies = [dataclasses.replace(example, learnt=example.learnt & example.reply) for example in group]
    whole, alone = segment(group), segment(replies)
    found = {target: place for place, target in enumerate(_targets(whole))}
    weights = np.zeros(len(whole.labels), dtype=np.float32)
    for target, weight in zip(_targets(alone), alone.weights, strict=True):
        weights[found[target]] += weight
    return weights


def _targets(run: Segment) -> list[tuple[int, int]]:
    return list(zip(run.places.tolist(), run.labels.tolist(), strict=True))


# Show progress, losses, remaining time and cost while training.

SPEED_OVER = 60.0  # average the speed over so many seconds


class Watch:
    """Show a bar in a terminal; elsewhere, as under nohup or in a cloud's log, print a line after the first step and
    then every three minutes.

    start   steps done before, in a resumed training
    price   dollars per hour of the machine's GPUs; None: show no cost
    spent   seconds that the training took before this run
    output  where to print; if printing fails, training continues
    """

    def __init__(
        self,
        plan: Plan,
        start: int,
        price: float | None,
        *,
        spent: float = 0.0,
        output: Console = console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._total, self._start = plan.epochs, len(plan), start
        self._price, self._spent, self._output, self._clock = price, spent, output, clock
        self._bar: Bar | None = None
        self._speeds: deque[tuple[int, float]] = deque()  # (tokens, seconds) of the last steps
        self._first: tuple[int, float] | None = None  # this run's first step, and when it was done
        self._printed: float | None = None
        self._opened = clock()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self._bar = self._resources.enter_context(progress("training", self._total, logged=False))
        self._bar.advance(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._resources.close()

    def step(self, number: int, loss: float, tokens: int, seconds: float) -> None:
        """Report step `number` (from 1): `loss` in nats per label, `tokens` through the model in `seconds`."""
        now = self._clock()
        self._speeds.append((tokens, seconds))
        while sum(took for _, took in self._speeds) - self._speeds[0][1] > SPEED_OVER:
            self._speeds.popleft()
        speed = sum(count for count, _ in self._speeds) / max(sum(took for _, took in self._speeds), 1e-9)
        self._first = self._first or (number, now)
        # Leave out the first step: it waits for kernels and memory.
        steps = number - self._first[0]
        pace = (now - self._first[1]) / steps if steps else seconds
        figures = [f"loss {loss:.3f}", f"{speed:,.0f} tokens/s", f"{duration((self._total - number) * pace)} left"]
        if self._price is not None:
            figures.append(f"${self._price * (self._spent + now - self._opened) / 3600:,.2f} so far")
        if self._bar:
            self._bar.advance()
            self._bar.note(", ".join(figures).removesuffix(" so far"))
        if not console.is_terminal and (self._printed is None or now - self._printed >= LINE_EVERY):
            self._printed = now
            self._print(number, *figures)

    def evaluated(self, number: int, heldout: HeldoutLoss, sampled: Mapping[str, float] | None = None) -> None:
        """Report the held-out loss after `number` steps, and the figures of the sampled replies
        (report.SampledReplies) and of held-out preferences (preferences.Objective)."""
        sampled = sampled or {}
        figures = [f"{sampled['ended']:.0%} of replies end by themselves"] if "ended" in sampled else []
        if "distinct_2" in sampled:
            figures.append(f"distinct-2 {sampled['distinct_2']:.2f}")
        if "margin" in sampled:
            figures.append(f"margin of held-out preferences {sampled['margin']:.3f}")
        losses = (f"held-out loss {heldout.loss:.3f}", f"of replies alone {heldout.reply_loss:.3f}")
        self._print(number, *losses, *figures)

    def _print(self, number: int, *figures: str) -> None:
        done = f"step {number:,} of {self._total:,}, epoch {epochs_done(number, self._epochs):.1f}"
        with suppress(OSError):
            self._output.print(f"{done}: {', '.join(figures)}")


def epochs_done(step: int, epochs: Sequence[int]) -> float:
    """Convert `step` to epochs. `epochs` holds the number of steps of each epoch."""
    done = 0.0
    for count in epochs:
        if step < count:
            return done + step / count
        done, step = done + 1, step - count
    return done


CURVE = "loss_curve.html"
TRAINING, HELD_OUT, REPLIES, ENDED, DISTINCT = 1, 3, 2, 4, 5  # tones
POINTS = 30  # average the training loss to so many points: single steps are noisy
TICKS = 8  # labels at most


def curve_page(
    log: Sequence[Mapping[str, float]],
    evaluations: Sequence[Mapping[str, float]],
    *,
    epochs: Sequence[int],
    kept: int | None = None,
) -> str:
    """Plot the training loss, the held-out loss and that of replies alone, by epoch, and mark the step `kept`. Below,
    if replies were sampled, plot the share that end by themselves and their distinct-2.

    `log` and `evaluations` are those of training_report.json, `epochs` the steps of each epoch.
    """
    counts = [sum(epochs[:number]) for number in range(len(epochs))]
    total, every = sum(epochs), -(-len(epochs) // TICKS)
    ticks = {count / total: f"{number + 1}" for number, count in enumerate(counts) if number % every == 0}

    def line(entries: Sequence[Mapping[str, float]], key: str, tone: int) -> Line:
        return Line([(entry["step"] / total, entry[key]) for entry in entries if key in entry], tone)

    raw = line(log, "loss", TRAINING)
    span = max(1, round(len(log) / POINTS))
    averaged = _averaged([loss for _, loss in raw.points], span)
    mean = raw._replace(points=[(x, loss) for (x, _), loss in zip(raw.points, averaged, strict=True)], style="plain")
    losses = [mean, line(evaluations, "loss", HELD_OUT), line(evaluations, "reply_loss", REPLIES)]
    steps = round((log[-1]["step"] - log[0]["step"]) / (len(log) - 1) * span) if span > 1 else 1
    tones = {"training" if span == 1 else f"training (mean of {steps:,} steps)": TRAINING}
    if evaluations:
        tones |= {"held out": HELD_OUT, "held-out replies": REPLIES}
    found = [f" ({entry['reply_loss']:.3f})" for entry in evaluations if entry["step"] == kept]
    figures = [
        figure(
            "Loss by epoch",
            lines(
                "Loss by epoch",
                losses if span == 1 else [raw._replace(style="faint"), *losses],
                ticks=ticks,
                mark=None if kept is None else kept / total,
            ),
            "Nats a token; lower is better."
            + ("" if kept is None else f" Dashed: kept, step {kept:,}{''.join(found)}."),
            tones=tones,
            wide=True,
        )
    ]
    if any("ended" in entry for entry in evaluations):
        shares = [line(evaluations, "ended", ENDED), line(evaluations, "distinct_2", DISTINCT)]
        tones = {"replies that end by themselves": ENDED, "distinct-2 of them": DISTINCT}
        plot = lines("Shares of sampled replies by epoch", shares, ticks=ticks, percent=True)
        figures.append(figure("Sampled replies by epoch", plot, tones=tones, wide=True))
    return document("The training", element("div", *figures, class_="cards"))


def _averaged(values: Sequence[float], span: int) -> list[float]:
    """The mean of the `span` values around each one, of fewer at the ends."""
    if not values:
        return []
    ones = np.ones(span)
    found: list[float] = (np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")).tolist()
    return found
