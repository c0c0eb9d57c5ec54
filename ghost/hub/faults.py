"""Classifies errors from the Hub by what to do: wait, try later, or change something. Never repeats an exception's
text: the HTTP library puts signed addresses and header values in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

BROKEN_LINK = 0  # the `status` when no answer arrived
NOT_THE_HUB = -1  # when the answer is not JSON: a proxy's or a hotel's page
OFFLINE = -2
# Temporary: slow down (429), unavailable (5xx, 408).
PASSING = {BROKEN_LINK, NOT_THE_HUB, 408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fault:
    """`status` is HTTP's or one of the above; `wait` is how many seconds the Hub asks to wait; `said` is its own text,
    not yet safe to print; `missing` is "repo", "revision", "file" or ""."""

    status: int
    said: str = ""
    wait: int | None = None
    missing: str = ""

    @property
    def passing(self) -> bool:
        return self.status in PASSING

    @property
    def storage(self) -> bool:
        """Whether the Hub's storage is full: it answers 403, as for a token without permission, and only the text
        differs ("Private repository storage limit reached", "Your storage patterns tripped our internal systems")."""
        words = ("storage", "quota")
        return self.status in {402, 403, 413, 507} and any(word in self.said.lower() for word in words)


def read(error: BaseException) -> Fault | None:
    """The fault behind an exception of huggingface_hub; None if the exception is unrelated to the Hub."""
    import httpx2  # huggingface_hub's HTTP library
    from huggingface_hub import errors

    for cause in _causes(error):
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return Fault(OFFLINE)
        if isinstance(cause, errors.HfHubHTTPError):
            return _answer(cause)
        if isinstance(cause, httpx2.RequestError):
            return Fault(BROKEN_LINK, type(cause).__name__)
        if isinstance(cause, JSONDecodeError):
            return Fault(NOT_THE_HUB)
        if isinstance(cause, ValueError) and str(cause).startswith(("LFS batch API", "Invalid metadata")):
            return Fault(422, str(cause).partition("\n")[2])
    return None


def _answer(error: "HfHubHTTPError") -> Fault:
    from huggingface_hub import errors
    from huggingface_hub.utils._http import parse_ratelimit_headers

    headers = error.response.headers
    after, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    wait = int(after) if after.isdigit() else limit.reset_in_seconds if limit and limit.remaining == 0 else None
    kinds = {
        errors.RepositoryNotFoundError: "repo",
        errors.RevisionNotFoundError: "revision",
        errors.EntryNotFoundError: "file",
    }
    missing = next((what for kind, what in kinds.items() if isinstance(error, kind)), "")
    return Fault(error.response.status_code, error.server_message or "", wait, missing)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes: huggingface_hub wraps errors during an upload."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
