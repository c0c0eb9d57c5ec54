"""Find the merged folder to serve: a named one, the one next to predict.py, or a private Hub repo at a fixed revision.

A container has nobody to ask, so this tries once and reports why it failed; `ghost/hub/` does more for `ghost push` and
`ghost pull`. Like those, it downloads over Git LFS rather than Xet.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ghost_json
from .errors import SettingsError, WeightsError
from .ghost_json import NAME, Ghost

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("ghost")
COMMIT = re.compile(r"[0-9a-f]{40}")


def weights_folder(beside: Path, environment: Mapping[str, str]) -> Path:
    """Return GHOST_WEIGHTS, else `beside` if it holds a model, else GHOST_REPO at GHOST_REVISION.

    Downloads the repo to GHOST_CACHE (default: ~/.cache/ghost) with the token in HF_TOKEN. Raises WeightsError.
    """
    if named := environment.get("GHOST_WEIGHTS"):
        return Path(named)
    if (beside / NAME).is_file():
        return beside
    repo, revision = environment.get("GHOST_REPO"), environment.get("GHOST_REVISION")
    if not repo:
        raise WeightsError(
            f"{beside} holds no model (no {NAME}): copy a merged folder there, or name a Hub repo in GHOST_REPO"
        )
    if not revision:
        raise WeightsError(f"GHOST_REPO is {repo}, but GHOST_REVISION is not set: set it to a tag or a commit")
    cache = Path(environment.get("GHOST_CACHE") or Path.home() / ".cache" / "ghost")
    return fetch(repo, revision, cache, environment.get("HF_TOKEN"))


def switch(environment: Mapping[str, str], name: str) -> bool:
    """Read a yes/no environment variable; unset is no. Raises SettingsError on anything else."""
    value = environment.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"", "0", "false", "no", "off"}:
        return False
    raise SettingsError(f"{name} is {value!r}: set it to 1 or 0")


def fetch(repo: str, revision: str, cache: Path, token: str | None) -> Path:
    """Return the folder in `cache` with `repo` at `revision`, a tag or full commit id; download it unless present.

    The folder is renamed into place once every file has the SHA-256 listed in ghost.json. An interrupted download
    resumes.

    Raises WeightsError when the Hub refuses, the disk is too small or a file does not match ghost.json.
    """
    from filelock import FileLock
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    constants.HF_HUB_DISABLE_XET = True
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings contain signed URLs
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False)
    with _translate_errors(repo, revision, token, cache):
        commit = revision if COMMIT.fullmatch(revision) else _commit_of_tag(api, repo, revision)
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / f"{repo.replace('/', '--')}--{commit}"
    if folder.is_dir():
        return folder
    partial = cache / f".{folder.name}.part"
    # When two servers start on one cache, the second waits here and then uses the first one's download. The lock of a
    # killed process is released.
    with _translate_errors(repo, revision, token, cache), FileLock(cache / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        partial.mkdir(mode=0o700, exist_ok=True)
        api.hf_hub_download(repo, NAME, revision=commit, local_dir=partial)
        ghost = ghost_json.read(partial)
        _check_disk_space(ghost, repo, cache)
        log.info("fetching %s at %s: %d files", repo, commit, len(ghost.block("files")))
        for name in ghost.block("files"):
            api.hf_hub_download(repo, name, revision=commit, local_dir=partial)
        try:
            ghost_json.verify(ghost)
        except WeightsError:
            shutil.rmtree(partial)  # otherwise the next attempt would reuse the wrong bytes
            raise
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # huggingface_hub's bookkeeping
        os.replace(partial, folder)
    return folder


def _commit_of_tag(api: "HfApi", repo: str, revision: str) -> str:
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo).tags}
    if revision not in tags:
        known = ", ".join(sorted(tags)[:5]) or "none"
        raise WeightsError(
            f"GHOST_REVISION is {revision!r}, which is neither a commit of 40 digits nor a tag of {repo} (tags: "
            f"{known}); set it to one of these (branches move, so they are refused)"
        )
    return str(tags[revision])


def _check_disk_space(ghost: Ghost, repo: str, cache: Path) -> None:
    missing = sum(facts["size"] for name, facts in ghost.block("files").items() if not (ghost.folder / name).is_file())
    free = shutil.disk_usage(cache).free
    if free < missing:
        raise WeightsError(
            f"{cache}: {free / 1e9:.1f} GB free, and {repo} needs {missing / 1e9:.1f} GB more; free some space, or set "
            "GHOST_CACHE to another folder"
        )


@contextmanager
def _translate_errors(repo: str, revision: str, token: str | None, cache: Path) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into one line, without their own text, which contains signed URLs."""
    from httpx2 import HTTPError  # huggingface_hub's HTTP client
    from huggingface_hub import errors

    try:
        yield
    except (errors.HfHubHTTPError, errors.HFValidationError, HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        who = "the token in HF_TOKEN" if token else "nobody (HF_TOKEN is not set)"
        causes: dict[Any, str] = {
            errors.HFValidationError: "not a repo name; set GHOST_REPO to USER/REPO, as in noa/ghost",
            errors.RevisionNotFoundError: f"GHOST_REVISION {revision} does not exist",
            errors.RemoteEntryNotFoundError: "a file of the merged model is missing; push it again: ghost push",
            errors.RepositoryNotFoundError: f"no such repo, or a private one that {who} may not see",
        }
        reason = next((text for kind, text in causes.items() if isinstance(error, kind)), None)
        if reason is None and status in (401, 403):
            reason = f"the Hub refuses {who} (HTTP {status})"
        if reason is None and isinstance(error, OSError) and error.strerror and not status:
            reason = f"{error.strerror}, in {cache}"
        reason = reason or (f"the Hub answers HTTP {status}" if status else f"no download ({type(error).__name__})")
        raise WeightsError(f"{repo}: {reason}; fix this and start again: the download resumes") from error
