"""Which files belong to a model, and whether the Hub holds the same bytes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import GUARDED_SUFFIXES, Ghost
from training.errors import ArtifactError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

CARD = "README.md"
PICKLES = GUARDED_SUFFIXES - {".safetensors"}


@dataclass(frozen=True)
class Entry:
    """One file as it shall be on the Hub; `source` is where it lies, or its bytes."""

    name: str
    size: int
    sha256: str
    source: Path | bytes

    def is_at(self, remote: "RepoFile | None") -> bool:
        """Whether `remote` is this file, by size and by the hash that the Hub keeps: SHA-256 of a file in LFS, git's
        own of a small one."""
        if remote is None or remote.size != self.size:
            return False
        if remote.lfs is not None:
            return remote.lfs.sha256 == self.sha256
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return remote.blob_id == git_blob_id(content)


def git_blob_id(content: bytes) -> str:
    """SHA-1 over a header and the content (git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def listed(ghost: Ghost) -> dict[str, dict[str, Any]]:
    """The files of a merged model by name, with size and sha256, as its ghost.json has them.

    Raises ArtifactError when it is another artifact (data/processed has a ghost.json too, and holds chats), or lists a
    name that would leave the folder, or a pickle.
    """
    where = ghost.folder / ghost_json.NAME
    if "merge" not in ghost.facts:
        last = next((name for name in ("training", "data") if name in ghost.facts), "text")
        raise ArtifactError(f"{where}: not a merged model, its last block is '{last}'; type: ghost merge ADAPTER")
    files: dict[str, dict[str, Any]] = ghost.block("files")
    for name in files:
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in path.parts)  # "..", .git, .gitattributes
        if path.is_absolute() or hidden or path.as_posix() != name or set(name) & set('\\:\n\r\0"') or not path.parts:
            raise ArtifactError(f"{where}: lists {name!r}, which no stage writes; the file was altered")
        if path.suffix in PICKLES:
            raise ArtifactError(
                f"{where}: lists {name}; only safetensors are pushed and pulled, as pickles can run code"
            )
    if ghost_json.NAME in files:
        raise ArtifactError(f"{where}: lists itself; the file was altered")
    return files


def entries(ghost: Ghost, card: str) -> list[Entry]:
    """All that a push uploads: what ghost.json lists, itself, and a card. Your own README.md goes before `card`."""
    found = [Entry(name, f["size"], f["sha256"], ghost.folder / name) for name, f in listed(ghost).items()]
    own = ghost.folder / CARD
    contents = {ghost_json.NAME: (ghost.folder / ghost_json.NAME).read_bytes()}
    if all(entry.name != CARD for entry in found):
        contents[CARD] = own.read_bytes() if own.is_file() else card.encode()
    for name, content in contents.items():
        found.append(Entry(name, len(content), hashlib.sha256(content).hexdigest(), content))
    return sorted(found, key=lambda entry: entry.name)


def left_out(ghost: Ghost) -> list[str]:
    """Files in the folder that no push uploads."""
    files = {*listed(ghost), ghost_json.NAME, CARD, ".gitkeep"}
    names = (path.relative_to(ghost.folder).as_posix() for path in ghost.folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in files)
