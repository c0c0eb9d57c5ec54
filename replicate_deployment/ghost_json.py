"""Read ghost.json and verify that a folder's files are the ones it lists.

`ghost/artifact.py` writes it. Reading is here because the container needs it and imports nothing from outside this
folder.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .chat_format import RECIPES, Labels, Recipe
from .errors import WeightsError
from .model_folder import ADAPTER_CONFIG, LOADED, path_of, read_json
from .settings import Settings, from_facts

NAME = "ghost.json"
FORMAT = 1
# What the stages write, by suffix; Modelfile has none. ghost.json lists nothing else.
WRITTEN = {
    ".safetensors",
    ".gguf",
    ".json",
    ".jsonl",
    ".jinja",
    ".model",
    ".txt",
    ".yaml",
    ".html",
    ".png",
    ".svg",
    ".md",
}
WITHOUT_SUFFIX = "Modelfile"
WEIGHTS = {".safetensors", ".gguf"}
# Others that hold weights or can run code. None is ever listed.
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".npy", ".h5", ".msgpack", ".joblib", ".onnx"}
CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh"}
MOST_FILES = 10_000
MOST_STOPS, LONGEST_STOP = 64, 200
LONGEST_GOLDEN = 10_000  # characters of the golden prompt, which is computed at every start
# Of facts that later stages read without asking.
KINDS: dict[str, dict[str, type]] = {
    "base": {"repo": str, "revision": str, "weights_sha256": str},
    "data": {"counts": dict, "train_sha256": str, "val_sha256": str},
    "training": {"config": dict},
    "merge": {"adapter_sha256": str, "base_weights": str},
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
            f"{self.folder / NAME}: text.recipe is {named!r:.40}, and only {' and '.join(RECIPES)} are known; "
            "update ghost, or run ghost prepare again"
        )

    @property
    def settings(self) -> Settings:
        """The sampling defaults; for an adapter, which has none yet, those that the merge will record."""
        return from_facts(self.facts.get("sampling", {}))

    def block(self, name: str) -> dict[str, Any]:
        """Return a block. Raises WeightsError when no earlier stage has written it."""
        value = self.facts.get(name)
        if not isinstance(value, dict):
            raise WeightsError(f"{self.folder / NAME}: no '{name}' block; found {', '.join(sorted(self.facts))}")
        return value


def read(folder: Path) -> Ghost:
    """Raises WeightsError when ghost.json is missing, not JSON, of another format, or lists what no stage writes."""
    path = folder / NAME
    if folder.is_file():
        raise WeightsError(f"{folder}: this is a file; name a folder, such as models/merged")
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder; ghost prepare, train and merge (or pull) write one each")
    if not path.exists():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise WeightsError(
            f"{folder}: no {NAME} here (found {found}); name a folder that ghost prepare, train, merge or pull wrote, "
            "or make one from your chats: ghost start"
        )
    facts = read_json(folder, NAME)
    try:
        labels, stops = facts["text"]["labels"], facts["text"]["stop_sequences"]
        Labels(me=labels["me"], other=labels["other"])
        if not (isinstance(stops, list) and len(stops) <= MOST_STOPS):
            raise ValueError(f"stop_sequences must be a list of at most {MOST_STOPS}")
        if not all(isinstance(stop, str) and 0 < len(stop) <= LONGEST_STOP for stop in stops):
            raise ValueError("stop_sequences must be non-empty texts")
        for name, block in facts.items():
            if name != "format" and not isinstance(block, dict):
                raise ValueError(f"{name:.60} is a {type(block).__name__}")
            for key, kind in KINDS.get(name, {}).items():
                if not isinstance(block.get(key), (kind, type(None))):
                    raise ValueError(f"{name}.{key} is a {type(block[key]).__name__}")
        _check_golden(facts.get("golden", {}))
        for name, file in facts["files"].items():
            size, digest = file["size"], file["sha256"]
            if type(size) is not int or not 0 <= size < 2**53 or not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"files: {name:.60} has no size and sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a readable ghost.json ({type(error).__name__}: {error})") from error
    if facts.get("format") != FORMAT:
        raise WeightsError(f"{path}: format {facts.get('format')!r:.60}, this version reads {FORMAT}")
    _check_names(path, [*facts["files"]])
    return Ghost(folder, facts)


def read_merged(folder: Path) -> Ghost:
    """The same of a merged model. Raises WeightsError when another stage wrote the folder, or as `read` does."""
    if (folder / ADAPTER_CONFIG).exists():
        merge = f"ghost merge {shlex.quote(str(folder))}"
        raise WeightsError(f"{folder}: an adapter, not a model; merge it first: {merge}")
    ghost = read(folder)
    if "export" in ghost.facts:
        files = [str(folder / name) for name in ghost.block("files") if name.endswith(".gguf")]
        raise WeightsError(f"{folder}: an export; name its file{f': {files[0]}' if files else ''}")
    if "merge" not in ghost.facts:
        raise WeightsError(
            f"{folder}: not a merged model ({NAME} has no 'merge' block); name a folder that ghost merge or pull wrote"
        )
    return ghost


def _check_golden(block: dict[str, Any]) -> None:
    """Raises ValueError unless it is empty or what `golden.block` returns."""
    if not block:
        return
    prompt, ids, scores = block["prompt"], block["ids"], block["next_top5_logprobs"]
    if not (isinstance(prompt, str) and len(prompt) <= LONGEST_GOLDEN and 0 < block["tolerance"] <= 1):
        raise ValueError("golden: its prompt is too long, or its tolerance not between 0 and 1")
    if not all(type(token) is int and token >= 0 for token in [*ids, *(token for token, _ in scores)]):
        raise ValueError("golden: an id is not a whole number")
    if not all(isinstance(score, (int, float)) for _, score in scores):
        raise ValueError("golden: a log-probability is not a number")


def _check_names(path: Path, names: list[str]) -> None:
    """Raises WeightsError on the name of a file that no stage writes: it may lead outside, or hold code."""
    for name in names:
        there = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in there.parts)  # "..", .git, .gitattributes
        odd = there.is_absolute() or hidden or there.as_posix() != name or not name.isprintable() or {*name} & {*'\\:"'}
        if odd or len(name) > 200 or name == NAME:
            raise WeightsError(f"{path}: lists {name!r:.80}, which no stage writes; the file was altered")
        suffix = there.suffix.lower()
        if suffix in PICKLES | CODE:
            raise WeightsError(f"{path}: lists {name:.80}, which can run code; only safetensors are loaded")
        if suffix not in WRITTEN and there.name != WITHOUT_SUFFIX:
            raise WeightsError(f"{path}: lists {name!r:.80}, which no stage writes; the file was altered")
    if len({name.casefold() for name in names}) < len(names):
        raise WeightsError(f"{path}: lists two files whose names differ in upper and lower case only; it was altered")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(ghost: Ghost, *, hashes: bool = True) -> None:
    """Check that every listed file is present and unchanged, and that the folder holds no unlisted file that loading
    would read, nor unlisted weights, pickles or code.

    `hashes=False` compares sizes only (saves seconds at 14.5 GB). Raises WeightsError naming the first bad file.
    """
    files = ghost.block("files")
    for name, facts in files.items():
        if not (ghost.folder / name).exists():
            raise WeightsError(f"{ghost.folder / name}: listed in {NAME} but missing; copy or pull the folder again")
        path = path_of(ghost.folder, name)
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
    for name in sorted(_names(ghost.folder)):
        if is_guarded(name) and name not in files:
            raise WeightsError(f"{ghost.folder / name}: not listed in {NAME}, so it is refused; remove the file")


def is_guarded(name: str) -> bool:
    """Whether a file can change replies or run code: refused where ghost.json does not list it."""
    return name in LOADED or PurePosixPath(name).suffix.lower() in WEIGHTS | PICKLES | CODE


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of all files of a folder and of the folders in it; links are not followed."""
    left, count = [""], 0
    while left:
        parent = left.pop()
        for entry in os.scandir(folder / parent):
            count += 1
            if count > MOST_FILES:
                raise WeightsError(f"{folder}: more than {MOST_FILES:,} files; name the model's own folder")
            name = f"{parent}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                left.append(f"{name}/")
            else:
                yield name
