"""A stop from outside: Ctrl-C, SIGTERM (a cloud takes its machine back), SIGHUP (the terminal is gone)."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
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


def stop_at_once(number: int) -> None:
    raise Stopped(number)
