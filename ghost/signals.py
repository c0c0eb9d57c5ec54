"""A stop from outside: Ctrl-C, SIGTERM (a cloud takes its machine back), SIGHUP (the terminal is gone)."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
RETRY_SECONDS = 0.05
STOPPED = "stopped; nothing half-written is left, and what was there before is untouched"


class Stopped(KeyboardInterrupt):
    """Raised where a stop takes effect, with what is left to say about it. The exit code is the one that shells give:
    128 + the signal's number."""

    def __init__(self, number: int, message: str = STOPPED) -> None:
        self.number = number
        super().__init__(message)

    @property
    def exit_code(self) -> int:
        return 128 + self.number


@contextmanager
def handled_by(handler: Callable[[int], None]) -> Iterator[None]:
    """Within the block a stop calls `handler(number)`. What is ignored, as under nohup, stays so; blocks can nest."""
    numbers = [number for name in NAMES if (number := getattr(signal, name, None))]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, before in previous.items():
        if before is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: handler(number))
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def stop_at_once(number: int, within: FrameType | None = None) -> None:
    """Raises Stopped; if a module is being imported in a call by the frame `within`, only when that is done.

    Raised during an import the stop could be lost, in a callback or in a package that goes on without what it failed
    to import, or could end the process: torch's native code aborts.
    """
    frame: FrameType | None = sys._getframe() if within else None
    while frame and frame is not within:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            again = threading.Timer(RETRY_SECONDS, _interrupt, [number])
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    raise Stopped(number)


def _interrupt(number: int) -> None:
    """The main thread, also where it waits for the system."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
