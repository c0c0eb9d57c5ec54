"""`ghost pull`: download a model at one commit, verify it against its ghost.json, then rename it into place."""

import argparse
import glob
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost import artifact
from ghost.atomic import mend, put_in_place, refuse_foreign_files
from ghost.console import console, progress
from ghost.errors import HubError, UsageError
from ghost.hub import transfer
from ghost.hub.client import Hub, connect, resumable
from ghost.hub.transfer import MEGABYTE, Entry
from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

# A ghost.json has some kilobytes, and a model a dozen files; anything larger is not one.
LARGEST_GHOST_JSON = 16 * MEGABYTE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", metavar="USER/REPO")
    parser.add_argument("--revision", help="a tag, branch or commit (default: the newest)")
    parser.add_argument("--out", type=Path, default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    given = {"--revision": args.revision, "--out": None if args.out == Path("models/merged") else str(args.out)}
    flags = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    again = shlex.join(["ghost", "pull", args.repo, *flags, *(["--json"] if args.json else [])])
    refuse_foreign_files(args.out, artifact.own_files(args.out, "merge"))
    hub = connect(args.repo, again, lambda line: None if args.json else console.print(line))
    with resumable(again, str(args.out.parent)):
        pulled = pull(hub, args.revision, args.out)
    print(json.dumps(pulled, indent=2)) if args.json else console.print(summary(pulled))
    return 0


def summary(pulled: dict[str, Any]) -> str:
    news = "" if pulled["downloaded"] else "already here, "
    return (
        f"{pulled['out']}: {news}{pulled['files']} files, {pulled['bytes'] / 1e9:.2f} GB, each matching its SHA-256 in "
        f"ghost.json\nghost.json itself has SHA-256 {pulled['ghost_json_sha256']}; next: ghost check "
        f"{shlex.quote(pulled['out'])}"
    )


def pull(hub: Hub, revision: str | None, out: Path) -> dict[str, Any]:
    """Make `out` a copy of the repo at `revision`; return facts for the user.

    Raises HubError or WeightsError; `out` is then unchanged, and the partial download stays beside it
    for the next call.
    """
    commit = hub.ask(lambda: hub.head(revision)).commit
    hub.say(f"{hub.repo} at {revision or 'main'} is commit {commit}")
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(hub, out):
        return _fetch(hub, commit, out)


@contextmanager
def _locked(hub: Hub, out: Path) -> Iterator[None]:
    """Allow one process at a time: two would overwrite each other's partial files. The lock of a killed process is
    released."""
    from filelock import FileLock, Timeout

    path = out.parent / f".{out.name}.pull.lock"
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        hub.say(f"another ghost pull is writing {out}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _fetch(hub: Hub, commit: str, out: Path) -> dict[str, Any]:
    mend(out)
    partial = out.parent / f".{out.name}.{commit[:12]}.pull"
    remote = hub.ask(lambda: hub.tree(commit))
    try:
        ghost = _ghost(hub, commit, remote, partial)
        files = ghost.block("files")
        downloaded = not _is_here(ghost, out)
        if downloaded:
            _refuse_other_files(hub, commit, remote, files)
            _download(hub, commit, files, partial)
            _verify(hub, ghost)
            put_in_place(partial, out)
    finally:
        if partial.is_dir() and {path.name for path in partial.iterdir()} <= {ghost_json.NAME}:
            shutil.rmtree(partial)  # holds nothing that would save a download
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.pull"):  # of this commit, or of one that was abandoned
        shutil.rmtree(left)
    return {
        "repo": hub.repo,
        "commit": commit,
        "out": str(out),
        "files": len(files),
        "bytes": sum(file["size"] for file in files.values()),
        "downloaded": downloaded,
        "ghost_json_sha256": ghost_json.sha256(out / ghost_json.NAME),
    }


def _ghost(hub: Hub, commit: str, remote: "dict[str, RepoFile]", partial: Path) -> Ghost:
    """ghost.json at `commit`, written to `partial`; its file names are checked to stay within the folder."""
    listed = remote.get(ghost_json.NAME)
    if listed is None or listed.size > LARGEST_GHOST_JSON:
        raise HubError(
            f"{hub.repo} at {commit[:12]}: no {ghost_json.NAME}, so this is not a model uploaded by ghost push"
        )
    partial.mkdir(mode=0o700, exist_ok=True)
    path = partial / ghost_json.NAME
    path.unlink(missing_ok=True)
    hub.ask(lambda: transfer.fetch(hub, commit, ghost_json.NAME, listed.size, path, lambda _: None))
    if not Entry(ghost_json.NAME, path.stat().st_size, ghost_json.sha256(path), path).is_at(listed):
        raise HubError(f"{hub.repo}: {ghost_json.NAME} was altered on the way; type again: {hub.again}")
    return ghost_json.read_merged(partial)


def _is_here(ghost: Ghost, out: Path) -> bool:
    """Whether `out` already holds this model, byte for byte."""
    try:
        same = (out / ghost_json.NAME).read_bytes() == (ghost.folder / ghost_json.NAME).read_bytes()
    except FileNotFoundError:
        return False
    if not same:
        return False
    try:
        with progress("hashing"):
            ghost_json.verify(ghost_json.read(out))
    except WeightsError:
        return False
    return True


def _refuse_other_files(
    hub: Hub, commit: str, remote: "dict[str, RepoFile]", files: dict[str, dict[str, object]]
) -> None:
    """Compare the Hub's file list with ghost.json before 14.5 GB are downloaded: find missing or replaced files."""
    for name, file in files.items():
        found = remote.get(name)
        if found is None:
            raise HubError(f"{hub.repo} at {commit[:12]}: {name} is missing; push the model again, or use --revision")
        if found.size != file["size"] or (found.lfs and found.lfs.sha256 != file["sha256"]):
            raise HubError(
                f"{hub.repo} at {commit[:12]}: {name} is not the file that {ghost_json.NAME} lists; somebody "
                "replaced it. Use another --revision, or push the model again"
            )


def _download(hub: Hub, commit: str, files: dict[str, dict[str, int]], partial: Path) -> None:
    def here() -> int:
        return sum(path.stat().st_size for name in files if (path := partial / name).exists())

    total, have = sum(file["size"] for file in files.values()), here()
    free = shutil.disk_usage(partial).free
    if free < total - have:
        raise UsageError(
            f"{partial.parent}: {free / 1e9:.1f} GB free, {(total - have) / 1e9:.1f} GB needed; free some space, or "
            "use another disk: --out FOLDER"
        )
    if have:
        hub.say(f"{have / 1e9:.2f} of {total / 1e9:.2f} GB were downloaded before")
    with progress("downloading, MB", total=total // MEGABYTE) as bar:
        bar.advance(have / MEGABYTE)
        for name, file in files.items():
            bar.describe(f"{name}, MB")
            path, size = partial / name, file["size"]
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

            def fetch(name: str = name, path: Path = path, size: int = size) -> None:
                transfer.fetch(hub, commit, name, size, path, lambda count: bar.advance(count / MEGABYTE))

            hub.ask(fetch, arrived=here)


def _verify(hub: Hub, ghost: Ghost) -> None:
    """Raises HubError when a file differs from ghost.json; the file is deleted, so that the next call fetches it."""
    with progress("hashing"):
        try:
            ghost_json.verify(ghost)
            return
        except WeightsError as error:
            unlisted = str(error)
        wrong = [
            name for name, f in ghost.block("files").items() if ghost_json.sha256(ghost.folder / name) != f["sha256"]
        ]
    for name in wrong:
        os.unlink(ghost.folder / name)
    if not wrong:
        shutil.rmtree(ghost.folder)
        raise HubError(unlisted)
    raise HubError(
        f"{hub.repo}: {', '.join(wrong)} did not match its SHA-256 in ghost.json and was deleted; the output folder is "
        f"unchanged. To download it again: {hub.again}. If that does not help, push the model again"
    )
