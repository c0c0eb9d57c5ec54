"""When a stop from outside takes effect while training: where nothing is half-done, and never inside of a step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from training.signals import Stopped, handled_by


class Interruption:
    """Within `held()` a stop waits for the next `check()`; within `at_once()`, for work that nothing depends on, it
    does not wait. Further stops change nothing: a service that repeats itself must not cost the checkpoint.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._waits = True

    def held(self) -> AbstractContextManager[None]:
        return handled_by(self._note)

    def check(self) -> None:
        """Raises Stopped when somebody asked for it."""
        if self._number is not None:
            raise Stopped(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self._waits = False
        try:
            self.check()
            yield
        finally:
            self._waits = True

    def _note(self, number: int) -> None:
        first = self._number is None
        self._number = self._number or number
        if first and not self._waits:
            self.check()
