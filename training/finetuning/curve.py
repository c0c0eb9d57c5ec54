"""The held-out loss, TensorBoard curves, progress output and the plot of the losses."""

import dataclasses
import io
import math
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ghost.console import LINE_EVERY, Bar, console, duration, progress
from ghost.errors import ConfigError, TrainingError
from ghost.installed import install_command
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


# Write TensorBoard's event files: `tensorboard --logdir FOLDER`.
#
# torch's SummaryWriter writes from a thread, which ends in a traceback when the disk is full, and puts the host name
# into the file name. EventFile writes each record in `add`, and figures only, no messages.


def require_tensorboard(*, wanted: bool) -> None:
    """Raises ConfigError, before hours of training, if curves are wanted and tensorboard is not installed."""
    if wanted and find_spec("tensorboard") is None:
        raise ConfigError(
            f"use_tensorboard: true, but tensorboard is not installed; set it to false, or type: "
            f"{install_command('train')}"
        )


class EventFile:
    """One file of scalars in a run's folder below `parent`.

    A training that starts at step 0 gets a new folder, named by its time, so that runs can be compared. A resumed one
    continues in the newest folder and hides what the interrupted one wrote after `start` steps.
    """

    def __init__(self, parent: Path, start: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._records = Event, Summary, RecordWriter
        runs = sorted(path for path in parent.glob("*") if path.is_dir()) if start else []
        folder = runs[-1] if runs else parent / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        # TensorBoard expects "tfevents" in the name, and reads files in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._write(file_version="brain.Event:2")
        # Hide the points of earlier files of this folder from this step on.
        self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve in `values`. Raises OSError, for example on a full disk."""
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=points))

    def _write(self, **fields: Any) -> None:
        # Open for each record, so that every point is on disk however the training ends.
        with self.path.open("ab") as stream:
            self._records(stream).write(self._event(wall_time=time.time(), **fields).SerializeToString())


# Show progress, losses, remaining time and cost while training.

SPEED_OVER = 60.0  # average the speed over so many seconds


class Watch:
    """Show a bar in a terminal; elsewhere, as under nohup or in a cloud's log, print a line after the first step and
    then every three minutes. Write TensorBoard curves to `<out>.tensorboard` if the config asks for them.

    start   steps done before, in a resumed training
    price   dollars per hour of the machine's GPUs; None: show no cost
    spent   seconds that the training took before this run
    output  where to print; if printing fails, training continues
    """

    def __init__(
        self,
        plan: Plan,
        config: TrainingConfig,
        out: Path,
        start: int,
        price: float | None,
        *,
        spent: float = 0.0,
        output: Console = console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._total, self._start = plan.epochs, len(plan), start
        self._price, self._spent, self._output, self._clock = price, spent, output, clock
        self._curves = out.with_name(out.name + ".tensorboard") if config.use_tensorboard else None
        self._events: EventFile | None = None
        self._bar: Bar | None = None
        self._speeds: deque[tuple[int, float]] = deque()  # (tokens, seconds) of the last steps
        self._first: tuple[int, float] | None = None  # this run's first step, and when it was done
        self._printed: float | None = None
        self._opened = clock()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        if self._curves:
            try:
                self._events = EventFile(self._curves, self._start)
            except OSError as error:
                self._stop_curves(error)
        self._bar = self._resources.enter_context(progress("training", self._total, logged=False))
        self._bar.advance(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._resources.close()

    def step(self, number: int, loss: float, grad_norm: float, rate: float, tokens: int, seconds: float) -> None:
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
        self._record(
            number,
            {
                "loss/training": loss,
                "training/gradient norm": grad_norm,
                "training/learning rate": rate,
                "training/tokens per second": speed,
            },
        )

    def evaluated(self, number: int, heldout: HeldoutLoss, sampled: Mapping[str, float] | None = None) -> None:
        """Report the held-out loss after `number` steps, and the figures of the sampled replies
        (report.SampledReplies)."""
        sampled = sampled or {}
        figures = [f"{sampled['ended']:.0%} of replies end by themselves"] if "ended" in sampled else []
        if "distinct_2" in sampled:
            figures.append(f"distinct-2 {sampled['distinct_2']:.2f}")
        losses = (f"held-out loss {heldout.loss:.3f}", f"of replies alone {heldout.reply_loss:.3f}")
        self._print(number, *losses, *figures)
        curves = {"loss/held out": heldout.loss, "loss/held-out replies": heldout.reply_loss}
        self._record(number, curves | {f"replies/{name}": value for name, value in sampled.items()})

    def _print(self, number: int, *figures: str) -> None:
        done = f"step {number:,} of {self._total:,}, epoch {epochs_done(number, self._epochs):.1f}"
        with suppress(OSError):
            self._output.print(f"{done}: {', '.join(figures)}", soft_wrap=True)

    def _record(self, number: int, values: Mapping[str, float]) -> None:
        try:
            if self._events:
                self._events.add(number, values)
        except OSError as error:
            self._stop_curves(error)

    def _stop_curves(self, error: OSError) -> None:
        """Stop writing curves and continue training."""
        self._events = None
        print(f"ghost train: no more curves are written to {self._curves}: {error.strerror or error}", file=sys.stderr)


def epochs_done(step: int, epochs: Sequence[int]) -> float:
    """Convert `step` to epochs. `epochs` holds the number of steps of each epoch."""
    done = 0.0
    for count in epochs:
        if step < count:
            return done + step / count
        done, step = done + 1, step - count
    return done


CURVE = "loss_curve.png"
# Okabe and Ito's colours, chosen for colour blindness (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PURPLE, YELLOW = "#CC79A7", "#E69F00"
POINTS = 30  # average the training loss to so many points: single steps are noisy


def draw_curve(
    log: Sequence[Mapping[str, float]],
    evaluations: Sequence[Mapping[str, float]],
    path: Path,
    *,
    epochs: Sequence[int],
    kept: int,
) -> None:
    """Plot the training loss, the held-out loss and that of replies alone, by epoch, and mark the step `kept`. Below,
    if replies were sampled, plot the share that end by themselves and their distinct-2.

    `log` and `evaluations` are those of training_report.json, `epochs` the steps of each epoch. If anything fails,
    print so on stderr and write no plot.
    """
    try:
        with _matplotlib():
            picture = _render(log, evaluations, epochs, kept)
        path.write_bytes(picture)
    except Exception as error:  # missing or broken packages, fonts, memory, disk
        why = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"ghost train: {path.name} was not drawn: {why}", file=sys.stderr)


def _render(
    log: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]], epochs: Sequence[int], kept: int
) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    def place(step: float) -> float:
        return step if len(epochs) == 1 else epochs_done(int(step), epochs)

    sampled = [entry for entry in evaluations if "ended" in entry]
    figure = Figure(figsize=(8, 6 if sampled else 4.5), dpi=150, layout="constrained")
    ratios = (3, 1) if sampled else (1,)
    axes, *below = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    at, losses = [place(entry["step"]) for entry in log], [entry["loss"] for entry in log]
    span = max(1, round(len(losses) / POINTS))
    if span > 1:
        axes.plot(at, losses, color=BLUE, alpha=0.15, linewidth=0.75)
    steps = round((log[-1]["step"] - log[0]["step"]) / (len(log) - 1) * span) if span > 1 else 1
    label = f"training (mean of {steps:,} steps)" if span > 1 else "training"
    axes.plot(at, _averaged(losses, span), color=BLUE, label=label, marker="" if len(at) > 1 else "o")
    for key, label, colour in (("loss", "held out", GREEN), ("reply_loss", "held-out replies", ORANGE)):
        if evaluations:
            heights = [entry[key] for entry in evaluations]
            axes.plot([place(entry["step"]) for entry in evaluations], heights, "o-", color=colour, ms=4, label=label)
    found = [entry["reply_loss"] for entry in evaluations if entry["step"] == kept]
    axes.plot([place(kept)] * len(found), found, "o", color=ORANGE, ms=10, fillstyle="none", markeredgewidth=2)
    words = f"kept: step {kept:,}" + "".join(f" ({loss:.3f})" for loss in found)
    axes.axvline(place(kept), color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0, label=words)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    each = f"{epochs[0]:,}" if len(set(epochs)) == 1 else f"about {sum(epochs) / len(epochs):,.0f}"
    figure.axes[-1].set_xlabel("optimiser step" if len(epochs) == 1 else f"epoch ({each} optimiser steps each)")
    axes.set_ylabel("loss (nats a token; lower is better)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in below:
        _replies(axis, sampled, place)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})  # same bytes on every machine
    return picture.getvalue()


def _replies(axes: Any, sampled: Sequence[Mapping[str, float]], place: Callable[[float], float]) -> None:
    """Plot the shares of report.SampledReplies below the losses."""
    for key, label, colour in (("ended", "replies that end", PURPLE), ("distinct_2", "distinct-2 of them", YELLOW)):
        some = [entry for entry in sampled if key in entry]
        at = [place(entry["step"]) for entry in some]
        axes.plot(at, [entry[key] for entry in some], "s-", color=colour, ms=4, label=label)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("share")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _averaged(values: Sequence[float], span: int) -> Any:
    """Return (len(values),): the mean of the `span` values around each one, of fewer at the ends."""
    ones = np.ones(span)
    return np.convolve(values, ones, mode="same") / np.convolve(np.ones(len(values)), ones, mode="same")


@contextmanager
def _matplotlib() -> Iterator[None]:
    """Use matplotlib's default style, ignore the user's configuration, and keep its font cache out of their home."""
    with tempfile.TemporaryDirectory(prefix="ghost-matplotlib-") as folder:
        chosen = os.environ.get("MPLCONFIGDIR")
        os.environ.setdefault("MPLCONFIGDIR", folder)
        try:
            import matplotlib.font_manager
            import matplotlib.style

            with matplotlib.style.context("default"):
                yield
        finally:
            if chosen is None:
                os.environ.pop("MPLCONFIGDIR")
