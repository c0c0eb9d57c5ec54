"""One connection to the Hub: who is asking, what is asked again after a wait, and what a person is told in the end."""

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
LONGEST_WAIT = 900  # the Hub counts requests in windows of five minutes; who must wait longer can come back
ATTEMPTS = len(WAITS) + 1
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Head:
    """What a branch, tag or commit of the repo is."""

    commit: str
    private: bool


@dataclass
class Hub:
    """`again` is what to type to go on after a failure; `say` tells a person what happens meanwhile."""

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
        """`call()`, again after a wait while its fault is a passing one. It must do no harm to do it twice.

        `arrived` tells how much is there of what is being fetched: as long as that grows, nobody gives up. Raises
        HubError.
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
                    self.say(f"the Hub asks for {seconds} s of patience (HTTP {fault.status}); waiting")
                time.sleep(seconds)
                attempt += 1

    def log_in(self) -> None:
        """Raises HubError when there is no token, the Hub does not know it, or it may only read."""
        if not self.token:
            raise HubError(f"no token: make one that may write at {TOKENS}, then type: hf auth login")
        me: dict[str, Any] = self.ask(self.api.whoami)
        self.user = str(me.get("name", ""))
        role = ((me.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise HubError(f"this token of {self.user} may only read: make one that may write at {TOKENS}")

    def head(self, revision: str | None = None) -> Head:
        """Raises huggingface_hub's exceptions; to be asked for through `ask`, or within it."""
        info = self.api.model_info(self.repo, revision=revision, timeout=60)
        return Head(str(info.sha), info.private is True)

    def tree(self, commit: str) -> dict[str, "RepoFile"]:
        """The files at `commit`, by their path. Raises as `head` does."""
        from huggingface_hub.hf_api import RepoFile

        found = self.api.list_repo_tree(self.repo, recursive=True, revision=commit)
        return {entry.path: entry for entry in found if isinstance(entry, RepoFile)}

    def explain(self, fault: Fault) -> str:
        """One line: what is wrong, what the Hub said, what to type."""
        said = self._clean(fault.said)
        told = f"HTTP {fault.status}" + (f": {said}" if said else "")
        who = self.user or ("this token" if self.token else "somebody who is not logged in")
        match fault.status:
            case faults.OFFLINE:
                return "HF_HUB_OFFLINE is set, so nothing may ask the Hub; unset it"
            case faults.BROKEN_LINK:
                return (
                    f"no connection to {self.api.endpoint} ({said}), {ATTEMPTS} times in a row; anything that has "
                    f"arrived is kept. Go on with: {self.again}"
                )
            case faults.NOT_THE_HUB:
                return f"what answers at {self.api.endpoint} is not the Hub (a proxy's page?); then: {self.again}"
            case 401 if self.token:
                return f"the Hub does not accept this token (expired or revoked?): make one at {TOKENS}; hf auth login"
            case 401:
                return f"{self.repo}: no such repo, or a private one; if it is yours, type: hf auth login"
            case _ if fault.storage:
                owner = self.repo.split("/")[0]
                return (
                    f"{self.repo}: the Hub's storage of {owner} is full ({told}). Make room there, or raise its limit "
                    f"(https://huggingface.co/docs/hub/storage-limits); then: {self.again}"
                )
            case 403:
                return f"{self.repo}: {who} may not do that ({told}). Rights of a token: {TOKENS}"
            case 404 if fault.missing == "revision":
                return f"{self.repo}: no such branch, tag or commit; see {self.page}/commits/main"
            case 404 if fault.missing == "file":
                return f"{self.repo}: a file is listed but not there ({told}); push the model again"
            case 404 if fault.missing == "repo":
                return f"{self.repo}: no such repo, or a private one that {who} may not see; check the spelling"
            case 409 | 412:
                return f"{self.repo} was changed by somebody else meanwhile; look at {self.page}, then: {self.again}"
            case 429:
                wait = f"{fault.wait} s" if fault.wait is not None else "some minutes"
                kept = "Anything that has arrived is kept"
                return f"too many requests: the Hub asks to wait {wait}. {kept}; then: {self.again}"
            case status if status in faults.PASSING:
                return f"the Hub is in trouble ({told}), {ATTEMPTS} times in a row. Later: {self.again}"
        return f"{self.repo}: the Hub refuses ({told})"

    def _clean(self, text: str) -> str:
        """One short line in which no token can be."""
        line = " ".join(text.split())[:200]
        line = line.replace(self.token, "…") if self.token else line
        return re.sub(r"hf_\w+|https?://\S*\?\S*", "…", line)


def connect(repo: str, again: str, say: Callable[[str], None]) -> Hub:
    """Opens no connection yet. Raises UsageError for a name that no repo can have."""
    from huggingface_hub import HfApi, constants, get_token, set_client_factory
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id
    from huggingface_hub.utils.tqdm import disable_progress_bars

    try:
        validate_repo_id(repo)
        owner, name = repo.split("/")
    except (HFValidationError, ValueError):
        raise UsageError(f"{repo!r} is not the name of a repo; it must be USER/REPO, as in noa/ghost") from None
    # Xet, the newer protocol, is a native library with connections of its own. A push that was stopped could upload
    # again what had gone up (huggingface_hub issue 3726), and what it does after a cut, a 429 or a wrong byte cannot be
    # shown over plain HTTP, as the tests do for Git LFS. The Hub goes on accepting LFS and moves it to Xet by itself
    # (huggingface.co/docs/hub/xet/legacy-git-lfs).
    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()  # for ours
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings print signed upload addresses
    set_client_factory(_client)
    token = get_token()
    if token and not re.fullmatch(r"[!-~]+", token):  # else the HTTP library refuses the header, and prints it
        raise HubError(f"the token holds characters that no token has; make a new one at {TOKENS}, then: hf auth login")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False)
    return Hub(f"{owner}/{name}", again, say, api, token)


def _client() -> Any:
    """huggingface_hub's own, but one that does not wait for ever on a line that is dead."""
    import httpx2
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.timeout = httpx2.Timeout(60, read=300)  # a store may think for minutes about the last part of a big file
    return client


@contextmanager
def kept(again: str, folder: str) -> Iterator[None]:
    """Says how to go on after a stop or with a full disk."""
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.number, f"stopped; anything that has arrived is kept. Go on with: {again}") from None
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise HubError(
            f"the disk of {folder} is full; anything that has arrived is kept. Make room, then: {again}"
        ) from error
