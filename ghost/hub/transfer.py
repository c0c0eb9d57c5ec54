"""Which files belong in a repo, which are there, and upload and download of one file."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ghost.errors import HubError
from ghost.hub.client import Hub
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import Ghost

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

# Which files belong to a model, and whether the Hub holds the same bytes.

CARD = "README.md"
MEGABYTE = 10**6


@dataclass(frozen=True)
class Entry:
    """One file for the Hub; `source` is its path, or its bytes."""

    name: str
    size: int
    sha256: str
    source: Path | bytes

    def is_at(self, remote: "RepoFile | None") -> bool:
        """Whether `remote` is this file, by size and hash: the Hub keeps the SHA-256 of files in LFS, and git's own
        hash of small ones."""
        if remote is None or remote.size != self.size:
            return False
        if remote.lfs is not None:
            return remote.lfs.sha256 == self.sha256
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return remote.blob_id == git_blob_id(content)


def git_blob_id(content: bytes) -> str:
    """SHA-1 over a header and the content (git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def entries(ghost: Ghost, card: str) -> list[Entry]:
    """All files to upload: those in ghost.json, itself, and a model card. Your own README.md replaces `card`."""
    found = [Entry(name, f["size"], f["sha256"], ghost.folder / name) for name, f in ghost.block("files").items()]
    own = ghost.folder / CARD
    contents = {ghost_json.NAME: (ghost.folder / ghost_json.NAME).read_bytes()}
    if all(entry.name != CARD for entry in found):
        contents[CARD] = own.read_bytes() if own.is_file() else card.encode()
    for name, content in contents.items():
        found.append(Entry(name, len(content), hashlib.sha256(content).hexdigest(), content))
    return sorted(found, key=lambda entry: entry.name)


def left_out(ghost: Ghost) -> list[str]:
    """Files in the folder that a push does not upload."""
    files = {*ghost.block("files"), ghost_json.NAME, CARD, ".gitkeep"}
    names = (path.relative_to(ghost.folder).as_posix() for path in ghost.folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in files)


class _Metered(io.FileIO):
    """Reports how far it has been read. huggingface_hub seeks back to the start when it retries."""

    def __init__(self, path: Path, read_to: Callable[[int], None]) -> None:
        super().__init__(path)
        self._read_to = read_to

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(-1 if size is None else size)
        self._read_to(self.tell())
        return piece or b""


def addition(entry: Entry, read_to: Callable[[int], None]) -> "CommitOperationAdd":
    """`entry` as huggingface_hub uploads it, with its SHA-256 set, so that 14.5 GB are not hashed again."""
    from huggingface_hub import CommitOperationAdd

    class Addition(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
            if isinstance(entry.source, bytes):
                yield io.BytesIO(entry.source)
            else:
                with _Metered(entry.source, read_to) as stream:
                    yield stream

    made = Addition(path_in_repo=entry.name, path_or_fileobj=entry.source)
    made.upload_info.sha256 = bytes.fromhex(entry.sha256)
    return made


def fetch(hub: Hub, commit: str, name: str, size: int, part: Path, arrived: Callable[[int], None]) -> None:
    """Download `name` at `commit` into `part`, resuming at its end. Call `arrived` with the bytes of each piece.

    huggingface_hub's own download uses a new temporary file each time and starts over. Raises its and httpx2's
    exceptions, OSError, and HubError when more than `size` bytes arrive.
    """
    have = part.stat().st_size if part.exists() else 0
    if have == size and part.exists():
        return
    if have > size:
        have = 0
    with opened(hub, commit, name, have) as response:
        goes_on = response.status_code == 206
        if not goes_on:
            arrived(-have)
            have = 0
        with part.open("ab" if goes_on else "wb") as stream:
            for piece in response.iter_bytes():
                have += len(piece)
                if have > size:
                    break
                stream.write(piece)
                arrived(len(piece))  # written piece by piece, so that an interrupted download can resume
    if have > size:
        part.unlink()
        raise HubError(f"{hub.repo}: {name} has more than its {size:,} bytes; push the model again")
    if have < size:
        import httpx2

        raise httpx2.RemoteProtocolError("the answer ended early")


@contextmanager
def opened(hub: Hub, commit: str, name: str, start: int = 0) -> Iterator[Any]:
    """The HTTP response with `name` at `commit` from byte `start` on. Raises huggingface_hub's exceptions."""
    from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

    url = hf_hub_url(hub.repo, name, revision=commit, endpoint=hub.api.endpoint)
    headers = {"Accept-Encoding": "identity"}  # a compressed response cannot be resumed by range
    if hub.token:
        headers["Authorization"] = f"Bearer {hub.token}"
    if start:
        headers["Range"] = f"bytes={start}-"
    # LFS files are on other hosts; the client follows the redirect without the token.

    with get_session().stream("GET", url, headers=headers) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response
