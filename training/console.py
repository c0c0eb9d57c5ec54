"""What a person sees while a stage works: one console, progress bars over two seconds, plain text in a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

# File names, senders and errors may hold square brackets: nothing is read as rich markup or highlighted.
console = Console(markup=False, highlight=False, emoji=False)

_running: list[Progress] = []


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator["Bar"]:
    """A progress bar that vanishes when done; below the one it is opened within; silent when stdout is no terminal."""
    if _running:
        bar = _running[-1]
        task = bar.add_task(label, total=total)
        try:
            yield Bar(bar, task)
        finally:
            bar.remove_task(task)
        return
    figures = (kind(table_column=Column(no_wrap=True)) for kind in (_Done, _Ending))
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *figures)  # the bar is what may shrink
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        _running.append(bar)
        try:
            yield Bar(bar, bar.add_task(label, total=total))
        finally:
            _running.pop()


class Bar:
    """One running bar: `advance` by steps done; `describe` replaces the label, `note` the time remaining."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, steps: float = 1) -> None:
        self._bar.advance(self._task, steps)

    def describe(self, label: str) -> None:
        self._bar.update(self._task, description=label)

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)


class _Done(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Ending(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["note"]) if "note" in task.fields else super().render(task)
