"""One connection to the Hub: the account, which requests are retried, and the messages for what fails."""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ghost.errors import HubError, UsageError
from ghost.hub import faults
from ghost.hub.faults import Fault
from ghost.signals import Stopped
from replicate_deployment.errors import GhostError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

T = TypeVar("T")
WAITS = (1, 2, 4, 8)  # seconds between the attempts, where the Hub does not say
LONGEST_WAIT = 900  # the Hub counts requests in windows of five minutes; give up rather than wait longer
ATTEMPTS = len(WAITS) + 1
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Head:
    """The commit that a branch, tag or commit name resolves to."""

    commit: str
    private: bool


@dataclass
class Hub:
    """`again` is the command that resumes after a failure; `say` prints progress for the user."""

    repo: str
    again: str
    say: Callable[[str], None]
    api: "HfApi"
    token: str | None
    user: str = ""

    @property
    def page(self) -> str:
        return f"{self.api.endpoint}/{self.repo}"

    def ask(self, call: Callable[[], T], arrived: Callable[[], int] | None = None) -> T:
        """Call `call()`; retry after a wait while its fault is temporary, so it must be safe to repeat.

        `arrived` returns the number of bytes downloaded so far: while it grows, keep retrying. Raises HubError.
        """
        attempt, before = 0, arrived() if arrived else 0
        while True:
            try:
                return call()
            except GhostError:
                raise
            except Exception as error:
                fault = faults.read(error)
                if fault is None:
                    raise
                if arrived and arrived() > before:
                    attempt, before = 0, arrived()
                if not fault.passing or attempt == len(WAITS) or (fault.wait or 0) > LONGEST_WAIT:
                    raise HubError(self.explain(fault)) from error
                seconds = WAITS[attempt] if fault.wait is None else fault.wait
                if fault.wait is not None:
                    self.say(f"the Hub asks to wait {seconds} s (HTTP {fault.status}); waiting")
                time.sleep(seconds)
                attempt += 1

    def log_in(self) -> None:
        """Raises HubError when there is no token, the Hub does not know it, or it is read-only."""
        if not self.token:
            raise HubError(f"no token: create one with write access at {TOKENS}, then type: hf auth login")
        me: dict[str, Any] = self.ask(self.api.whoami)
        self.user = str(me.get("name", ""))
        role = ((me.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise HubError(f"the token of {self.user} is read-only: create one with write access at {TOKENS}")

    def head(self, revision: str | None = None) -> Head:
        """Raises huggingface_hub's exceptions, so call it through `ask`, or inside a call that `ask` makes."""
        info = self.api.model_info(self.repo, revision=revision, timeout=60)
        return Head(str(info.sha), info.private is True)

    def tree(self, commit: str) -> dict[str, "RepoFile"]:
        """The files at `commit`, by path. Raises as `head` does."""
        from huggingface_hub.hf_api import RepoFile

        found = self.api.list_repo_tree(self.repo, recursive=True, revision=commit)
        return {entry.path: entry for entry in found if isinstance(entry, RepoFile)}

    def explain(self, fault: Fault) -> str:
        """One line: what is wrong, what the Hub answered, what to type."""
        said = self._clean(fault.said)
        answer = f"HTTP {fault.status}" + (f": {said}" if said else "")
        who = self.user or ("this token" if self.token else "someone who is not logged in")
        match fault.status:
            case faults.OFFLINE:
                return "HF_HUB_OFFLINE is set, which blocks requests to the Hub; unset it"
            case faults.BROKEN_LINK:
                return (
                    f"no connection to {self.api.endpoint} ({said}), {ATTEMPTS} times in a row; everything transferred "
                    f"so far is kept. Continue with: {self.again}"
                )
            case faults.NOT_THE_HUB:
                return f"{self.api.endpoint} does not answer like the Hub (a proxy's page?); then: {self.again}"
            case 401 if self.token:
                return f"the Hub does not accept this token (expired or revoked?): make one at {TOKENS}; hf auth login"
            case 401:
                return f"{self.repo}: no such repo, or a private one; if it is yours, type: hf auth login"
            case _ if fault.storage:
                owner = self.repo.split("/")[0]
                return (
                    f"{self.repo}: the Hub storage of {owner} is full ({answer}). Free some, or raise its limit "
                    f"(https://huggingface.co/docs/hub/storage-limits); then: {self.again}"
                )
            case 403:
                return f"{self.repo}: {who} has no permission for this ({answer}). Token permissions: {TOKENS}"
            case 404 if fault.missing == "revision":
                return f"{self.repo}: no such branch, tag or commit; see {self.page}/commits/main"
            case 404 if fault.missing == "file":
                return f"{self.repo}: a listed file is missing ({answer}); push the model again"
            case 404 if fault.missing == "repo":
                return f"{self.repo}: no such repo, or a private one that {who} cannot see; check the spelling"
            case 409 | 412:
                return f"{self.repo} was changed by someone else meanwhile; look at {self.page}, then: {self.again}"
            case 429:
                wait = f"{fault.wait} s" if fault.wait is not None else "some minutes"
                kept = "Everything transferred so far is kept"
                return f"too many requests: the Hub asks to wait {wait}. {kept}; then: {self.again}"
            case status if status in faults.PASSING:
                return f"the Hub has problems ({answer}), {ATTEMPTS} times in a row. Try later: {self.again}"
        return f"{self.repo}: the Hub refuses ({answer})"

    def _clean(self, text: str) -> str:
        """The text as one short line with tokens and signed addresses removed."""
        line = " ".join(text.split())[:200]
        line = line.replace(self.token, "…") if self.token else line
        return re.sub(r"hf_\w+|https?://\S*\?\S*", "…", line)


def connect(repo: str, again: str, say: Callable[[str], None]) -> Hub:
    """Prepare the client; open no connection yet. Raises UsageError for an invalid repo name."""
    from huggingface_hub import HfApi, constants, get_token, set_client_factory
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id
    from huggingface_hub.utils.tqdm import disable_progress_bars

    try:
        validate_repo_id(repo)
        owner, name = repo.split("/")
    except (HFValidationError, ValueError):
        raise UsageError(f"{repo!r} is not the name of a repo; it must be USER/REPO, as in noa/ghost") from None
    # Xet, the newer protocol, is a native library with connections of its own. A stopped push could upload again what
    # it had uploaded (huggingface_hub issue 3726), and unlike Git LFS its behaviour after a cut, a 429 or a wrong byte
    # cannot be tested over plain HTTP. The Hub still accepts LFS and migrates it to Xet by itself
    # (huggingface.co/docs/hub/xet/legacy-git-lfs).
    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()  # we show our own
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings print signed upload addresses
    set_client_factory(_client)
    token = get_token()
    if token and not re.fullmatch(r"[!-~]+", token):  # else the HTTP library rejects the header and prints the token
        raise HubError(f"the token holds invalid characters; create a new one at {TOKENS}, then: hf auth login")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False)
    return Hub(f"{owner}/{name}", again, say, api, token)


def _client() -> Any:
    """huggingface_hub's own client, with timeouts for dead connections."""
    import httpx2
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.timeout = httpx2.Timeout(60, read=300)  # storage may take minutes to accept the last part of a big file
    return client


@contextmanager
def resumable(again: str, folder: str) -> Iterator[None]:
    """Add the command that resumes to the message of a stop or a full disk."""
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.number, f"stopped; everything transferred so far is kept. Continue with: {again}") from None
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise HubError(
            f"the disk of {folder} is full; everything transferred so far is kept. Free some space, then: {again}"
        ) from error
