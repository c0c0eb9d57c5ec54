"""A stop from outside takes effect wherever the program is."""

import signal
import threading
import weakref

import pytest

from ghost.signals import Stopped, handled_by, stop_at_once


class Short:
    def __init__(self, stopped_in_destructor: bool) -> None:
        self.stopped = stopped_in_destructor

    def __del__(self) -> None:
        if self.stopped:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("where", ["destructor", "callback"])
def test_a_stop_that_python_ignores_is_sent_again(where: str) -> None:
    with handled_by(stop_at_once), pytest.raises(Stopped) as stop:
        one = Short(where == "destructor")
        reference = weakref.ref(one, lambda _: signal.raise_signal(signal.SIGTERM) if where == "callback" else None)
        del one
        assert reference() is None
        threading.Event().wait(20)
    assert stop.value.exit_code == 128 + signal.SIGTERM
