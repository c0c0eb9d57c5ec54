"""What a person sees while it trains: how far it is, how well it learns, how long it will take, what it has cost."""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from rich.console import Console

from training.console import LINE_EVERY, Bar, console, duration, progress
from training.finetuning.config import TrainingConfig
from training.finetuning.events import EventFile
from training.finetuning.heldout import HeldoutLoss
from training.finetuning.plan import Plan

SPEED_OVER = 60.0  # seconds over which the speed is averaged


class Watch:
    """A bar in a terminal; elsewhere, as under nohup or in a cloud's log, a line after the first step and then every
    three minutes. And curves for TensorBoard in `<out>.tensorboard`, where the config wants them.

    start  steps done before: of a resumed training
    price  dollars an hour of the machine's GPUs; None where nobody knows, and then no cost is shown
    spent  seconds that the training took before this run
    voice  where lines go; a terminal that is gone, or a log on a full disk, costs the lines and not the training
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
        voice: Console = console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._total, self._start = plan.epochs, len(plan), start
        self._price, self._spent, self._voice, self._clock = price, spent, voice, clock
        self._curves = out.with_name(out.name + ".tensorboard") if config.use_tensorboard else None
        self._events: EventFile | None = None
        self._bar: Bar | None = None
        self._speeds: deque[tuple[int, float]] = deque()  # (tokens, seconds) of the last steps
        self._first: tuple[int, float] | None = None  # number of this run's first step, and when it was done
        self._said: float | None = None
        self._opened = clock()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        if self._curves:
            try:
                self._events = EventFile(self._curves, self._start)
            except OSError as error:
                self._no_curves(error)
        self._bar = self._resources.enter_context(progress("training", self._total, logged=False))
        self._bar.advance(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._resources.close()

    def step(self, number: int, loss: float, grad_norm: float, rate: float, tokens: int, seconds: float) -> None:
        """Step `number` (from 1) is done: its loss in nats a label, its tokens through the model in so many seconds."""
        now = self._clock()
        self._speeds.append((tokens, seconds))
        while sum(took for _, took in self._speeds) - self._speeds[0][1] > SPEED_OVER:
            self._speeds.popleft()
        speed = sum(count for count, _ in self._speeds) / max(sum(took for _, took in self._speeds), 1e-9)
        self._first = self._first or (number, now)
        # The first step waits for kernels and memory, so it says nothing of the others.
        steps = number - self._first[0]
        pace = (now - self._first[1]) / steps if steps else seconds
        figures = [f"loss {loss:.3f}", f"{speed:,.0f} tokens/s", f"{duration((self._total - number) * pace)} left"]
        if self._price is not None:
            figures.append(f"${self._price * (self._spent + now - self._opened) / 3600:,.2f} so far")
        if self._bar:
            self._bar.advance()
            self._bar.note(", ".join(figures).removesuffix(" so far"))
        if not console.is_terminal and (self._said is None or now - self._said >= LINE_EVERY):
            self._said = now
            self._say(number, *figures)
        self._record(
            number,
            {
                "loss/training": loss,
                "training/gradient norm": grad_norm,
                "training/learning rate": rate,
                "training/tokens per second": speed,
            },
        )

    def evaluated(self, number: int, heldout: HeldoutLoss, said: Mapping[str, float] | None = None) -> None:
        """The held-out loss after `number` steps, and the figures of the sampled replies (samples.Answered)."""
        said = said or {}
        figures = [f"{said['ended']:.0%} of replies end by themselves"] if "ended" in said else []
        if "distinct_2" in said:
            figures.append(f"distinct-2 {said['distinct_2']:.2f}")
        losses = (f"held-out loss {heldout.loss:.3f}", f"of replies alone {heldout.reply_loss:.3f}")
        self._say(number, *losses, *figures)
        curves = {"loss/held out": heldout.loss, "loss/held-out replies": heldout.reply_loss}
        self._record(number, curves | {f"replies/{name}": value for name, value in said.items()})

    def _say(self, number: int, *figures: str) -> None:
        done = f"step {number:,} of {self._total:,}, epoch {epochs_done(number, self._epochs):.1f}"
        with suppress(OSError):
            self._voice.print(f"{done}: {', '.join(figures)}", soft_wrap=True)

    def _record(self, number: int, values: Mapping[str, float]) -> None:
        try:
            if self._events:
                self._events.add(number, values)
        except OSError as error:
            self._no_curves(error)

    def _no_curves(self, error: OSError) -> None:
        """What is nice to look at must not cost what takes hours."""
        self._events = None
        print(f"ghost train: no more curves in {self._curves}: {error.strerror or error}", file=sys.stderr)


def epochs_done(step: int, epochs: Sequence[int]) -> float:
    """How many epochs `step` steps are, when the epochs have so many steps."""
    done = 0.0
    for count in epochs:
        if step < count:
            return done + step / count
        done, step = done + 1, step - count
    return done
