"""Terminal output of the stages: one console; progress bars in a terminal, occasional lines in a log."""

import re
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

Item = TypeVar("Item")

# C0 but tab and newline, DEL, C1: terminals obey them. A text shows them as JSON's escapes, so JSON stays as it is.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Spell control characters out: senders, replies and servers' errors may hold escape sequences.

    Everything printed goes through here, by `console` or by `echo`.
    """
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def echo(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Print text that needs no console: JSON, pieces of a reply, one line on stderr."""
    print(visible(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)


class PlainConsole(Console):
    """Prints text as it is: square brackets in file names, senders and errors are not rich markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def print(self, *objects: Any, **how: Any) -> None:
        """Leave long lines whole, so that paths and commands can be copied; tables keep to the terminal's width."""
        super().print(*objects, **{"soft_wrap": all(isinstance(one, str) for one in objects)} | how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Every string passes here: those that are printed, and the cells of tables."""
        return super().render_str(visible(text), **how)

    def on_broken_pipe(self) -> None:
        """Override rich, which would exit here and skip the verb's clean-up."""
        raise  # re-raise the BrokenPipeError that rich is handling


console = PlainConsole()

LINE_EVERY = 180.0  # seconds between two lines when there is no terminal to show a bar

_running: list[Progress] = []


class Lines:
    """Replaces bars in a log (under nohup, say): every LINE_EVERY seconds, one line about the current work.

    Writes to stderr, since stdout may be a report in JSON. Work shorter than LINE_EVERY prints nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._said: float | None = None

    def say(self, line: Callable[[float], str]) -> None:
        """Print `line(now)` if a line is due; `line` is not called otherwise."""
        now = self.clock()
        if self._said is None:
            self._said = now
        if now - self._said >= LINE_EVERY:
            self._said = now
            with suppress(OSError):  # a log on a full disk must not stop the work
                echo(line(now), error=True)


lines = Lines()


@contextmanager
def progress(label: str, total: int | None = None, *, logged: bool = True) -> Iterator["Bar"]:
    """A progress bar that vanishes when done; nested calls show it below the outer one. Without a terminal, print
    `lines` instead, unless `logged` is False (for callers that print lines of their own)."""
    label, logged = visible(label), logged and not console.is_terminal
    if _running:
        bar = _running[-1]
        task = bar.add_task(label, total=total)
        try:
            yield Bar(bar, task, label, total, logged)
        finally:
            bar.remove_task(task)
        return
    figures = (kind(table_column=Column(no_wrap=True)) for kind in (_Done, _Ending))
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *figures)  # only the bar shrinks
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        _running.append(bar)
        try:
            yield Bar(bar, bar.add_task(label, total=total), label, total, logged)
        finally:
            _running.pop()


def tracked(items: Collection[Item], label: str) -> Iterator[Item]:
    """The items, under a progress bar that counts those that are done."""
    with progress(label, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()


class Bar:
    """One running bar: `advance` adds finished steps; `describe` sets the label, `note` replaces the time left."""

    def __init__(self, bar: Progress, task: TaskID, label: str, total: int | None, logged: bool) -> None:
        self._bar, self._task = bar, task
        self._label, self._total, self._logged = label, total, logged
        self._done, self._note, self._began = 0.0, "", lines.clock()
        self._log()

    def advance(self, steps: float = 1) -> None:
        self._done += steps
        self._bar.advance(self._task, steps)
        self._log()

    def describe(self, label: str) -> None:
        label = visible(label)
        self._label = label
        self._bar.update(self._task, description=label)

    def note(self, text: str) -> None:
        self._note = text
        self._bar.update(self._task, note=text)

    def _log(self) -> None:
        if self._logged:
            lines.say(self._line)

    def _line(self, now: float) -> str:
        if self._total is None:
            return f"{self._label} …"
        left = self._note
        if not left and self._done:
            left = f"{duration((now - self._began) * (self._total - self._done) / self._done)} left"
        return f"{self._label}: {self._done:,.0f} of {self._total:,}" + (f", {left}" if left else "")


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """To within about 1%, as a person would say it: `50 s`, `41 min`, `3 h 12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Done(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Ending(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["note"]) if "note" in task.fields else super().render(task)
