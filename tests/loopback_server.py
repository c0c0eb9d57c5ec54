"""What the servers that stand in for others in tests have in common: this machine only, silent, faults on request."""

import re
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar


class LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        """Answer, until `shutdown`."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up, or was killed, is what many tests are about."""


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement of its head

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Matching(Protocol):
    where: str
    """A regular expression over what is asked."""
    times: int
    skip: int
    """Requests that are let through first."""


F = TypeVar("F", bound=Matching)


def due(faults: Iterable[F], asked: str, matches: Callable[[str, str], object] = re.search) -> F | None:
    """The fault that this request meets; it is counted."""
    for fault in faults:
        if matches(fault.where, asked) and fault.times:
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            return fault
    return None
