"""What a person sees while a stage works: one console, progress bars over two seconds, plain text in a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# File names, senders and errors may hold square brackets: nothing is read as rich markup or highlighted.
console = Console(markup=False, highlight=False, emoji=False)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator["Bar"]:
    """A progress bar that vanishes when done; silent when stdout is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bar(bar, bar.add_task(label, total=total))


class Bar:
    """One running bar: `advance` by steps done; `describe` replaces the label."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, steps: float = 1) -> None:
        self._bar.advance(self._task, steps)

    def describe(self, label: str) -> None:
        self._bar.update(self._task, description=label)
