"""Read ghost.json and verify that a folder's files are the ones it lists.

`ghost/artifact.py` writes it. Reading is here because the container needs it and imports nothing from outside this
folder.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat_format import RECIPES, Labels, Recipe
from .errors import WeightsError

NAME = "ghost.json"
FORMAT = 1
# Files that can change replies or run code. Those that ghost.json does not list are refused.
GUARDED_SUFFIXES = {
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".npz",
    ".h5",
    ".msgpack",
    ".gguf",
}


@dataclass(frozen=True)
class Ghost:
    """A parsed ghost.json. ARCHITECTURE.md describes the blocks of `facts`."""

    folder: Path
    facts: dict[str, Any]

    @property
    def labels(self) -> Labels:
        labels = self.facts["text"]["labels"]
        return Labels(me=labels["me"], other=labels["other"])

    @property
    def stop_sequences(self) -> list[str]:
        return list(self.facts["text"]["stop_sequences"])

    @property
    def recipe(self) -> Recipe:
        """Raises WeightsError on an unknown recipe: end tokens would be misplaced."""
        named = self.facts["text"].get("recipe")
        for recipe in RECIPES:
            if recipe == named:
                return recipe
        raise WeightsError(
            f"{self.folder / NAME}: text.recipe is {named!r}, and only {' and '.join(RECIPES)} are known; "
            "update ghost, or run ghost prepare again"
        )

    def block(self, name: str) -> dict[str, Any]:
        """Return a block. Raises WeightsError when no earlier stage has written it."""
        value = self.facts.get(name)
        if not isinstance(value, dict):
            raise WeightsError(f"{self.folder / NAME}: no '{name}' block; found {', '.join(sorted(self.facts))}")
        return value


def read(folder: Path) -> Ghost:
    """Raises WeightsError when ghost.json is missing, not JSON, or of another format."""
    path = folder / NAME
    if folder.is_file():
        raise WeightsError(f"{folder}: this is a file; name a folder, such as models/merged")
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder; ghost prepare, train and merge (or pull) write one each")
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise WeightsError(f"{folder}: no {NAME} here (found {found}); is this the folder that a ghost stage wrote?")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        labels, stops = facts["text"]["labels"], facts["text"]["stop_sequences"]
        Labels(me=labels["me"], other=labels["other"])
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError("stop_sequences must be non-empty texts")
        for name, file in facts["files"].items():
            if not isinstance(file["size"], int) or not isinstance(file["sha256"], str):
                raise ValueError(f"files: {name} has no size and sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a readable ghost.json ({type(error).__name__}: {error})") from error
    if facts.get("format") != FORMAT:
        raise WeightsError(f"{path}: format {facts.get('format')!r}, this version reads {FORMAT}")
    return Ghost(folder, facts)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(ghost: Ghost, *, hashes: bool = True) -> None:
    """Check that every listed file is present and unchanged, and that the folder holds no unlisted weights or pickles.

    `hashes=False` compares sizes only (saves seconds at 14.5 GB). Raises WeightsError naming the first bad file.
    """
    files = ghost.block("files")
    for name, facts in files.items():
        path = ghost.folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: listed in {NAME} but missing; copy or pull the folder again")
        size = path.stat().st_size
        if size != facts["size"]:
            raise WeightsError(f"{path}: {size:,} bytes, {NAME} lists {facts['size']:,}; truncated or replaced")
    if hashes:
        with ThreadPoolExecutor() as pool:  # shards in parallel: hashlib releases the GIL
            found = pool.map(sha256, [ghost.folder / name for name in files])
            for (name, facts), digest in zip(files.items(), found, strict=True):
                if digest != facts["sha256"]:
                    path = ghost.folder / name
                    raise WeightsError(f"{path}: its SHA-256 is not the one in {NAME}; the file was altered")
    for path in sorted(ghost.folder.rglob("*")):
        name = path.relative_to(ghost.folder).as_posix()
        if path.suffix in GUARDED_SUFFIXES and name not in files:
            raise WeightsError(f"{path}: weights that {NAME} does not list are refused; remove the file")
