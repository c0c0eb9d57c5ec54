"""Stops from outside: Ctrl-C, SIGTERM (a cloud provider takes its machine back), SIGHUP (the terminal is gone)."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
RETRY_SECONDS = 0.05
STOPPED = "stopped; no partial output is left, and earlier output is unchanged"


class Stopped(KeyboardInterrupt):
    """Raised when a stop takes effect, with a message for the user. The exit code is the one that shells use: 128 +
    the signal number."""

    def __init__(self, number: int, message: str = STOPPED) -> None:
        self.number = number
        super().__init__(message)

    @property
    def exit_code(self) -> int:
        return 128 + self.number


@contextmanager
def handled_by(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler(number)` on a signal within the block. Ignored signals (under nohup) stay ignored. Nests.

    Python ignores what is raised in a destructor or a weak reference's callback. A Stopped that is lost there is sent
    again.
    """
    report = sys.unraisablehook

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        if isinstance(ignored.exc_value, Stopped):
            _interrupt_soon(ignored.exc_value.number)
        else:
            report(ignored)

    sys.unraisablehook = send_again
    numbers = [number for name in NAMES if (number := getattr(signal, name, None))]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, before in previous.items():
        if before is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: handler(number))
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, before in previous.items():
            signal.signal(number, before)


def stop_at_once(number: int, within: FrameType | None = None) -> None:
    """Raise Stopped; if the frame `within` is importing a module, wait until the import is done.

    Raised during an import, the exception could be swallowed by a callback or by a package that continues without the
    module, or abort the process in torch's native code.
    """
    frame: FrameType | None = sys._getframe() if within else None
    while frame and frame is not within:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            _interrupt_soon(number)
            return
        frame = frame.f_back
    raise Stopped(number)


def _interrupt_soon(number: int) -> None:
    again = threading.Timer(RETRY_SECONDS, _interrupt, [number])
    again.daemon = True
    again.start()


def _interrupt(number: int) -> None:
    """Interrupt the main thread, also while it waits in a system call."""

    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
