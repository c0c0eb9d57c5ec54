"""One file up, one file down. Each can be cut off anywhere and asked for again."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from training.errors import HubError
from training.hub.client import Hub
from training.hub.manifest import Entry

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


class _Metered(io.FileIO):
    """A file that tells how far it has been read. huggingface_hub sends it back to the start when it tries again."""

    def __init__(self, path: Path, read_to: Callable[[int], None]) -> None:
        super().__init__(path)
        self._read_to = read_to

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(-1 if size is None else size)
        self._read_to(self.tell())
        return piece or b""


def addition(entry: Entry, read_to: Callable[[int], None]) -> "CommitOperationAdd":
    """`entry` as huggingface_hub uploads it, with its SHA-256 known: 14.5 GB need no second reading."""
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
    """`name` at `commit` into `part`, going on where that ends. `arrived` is told of pieces, in bytes.

    huggingface_hub's own download gives its temporary file a new name each time, and begins again. Raises its and
    httpx2's exceptions, OSError, and HubError when more comes than `size`.
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
                arrived(len(piece))  # written as they come: what has arrived is not lost with what has not
    if have > size:
        part.unlink()
        raise HubError(f"{hub.repo}: more than the {size:,} bytes of {name} came; push the model again")
    if have < size:
        import httpx2

        raise httpx2.RemoteProtocolError("the answer ended early")


@contextmanager
def opened(hub: Hub, commit: str, name: str, start: int = 0) -> Iterator[Any]:
    """The answer that holds `name` at `commit` from byte `start` on. Raises huggingface_hub's exceptions."""
    from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

    url = hf_hub_url(hub.repo, name, revision=commit, endpoint=hub.api.endpoint)
    headers = {"Accept-Encoding": "identity"}  # of what travels compressed, no range can be asked for
    if hub.token:
        headers["Authorization"] = f"Bearer {hub.token}"
    if start:
        headers["Range"] = f"bytes={start}-"
    # Files in LFS are on other hosts, to which the client forwards the request without the token.
    with get_session().stream("GET", url, headers=headers) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response
