"""Writes ghost.json: each stage copies its predecessor's facts, adds its own block and lists its files.

ARCHITECTURE.md lists the blocks and who writes each.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghost.errors import ArtifactError
from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError


def write(
    folder: Path,
    predecessor: dict[str, Any] | None,
    hashes: Mapping[str, str] | None = None,
    /,
    **blocks: dict[str, Any],
) -> None:
    """Write `folder/ghost.json`: the predecessor's facts, these blocks, and the hash of every file in the folder.

    `hashes` maps file names to the SHA-256 computed while writing them; other files are read again. Call this last,
    in the temporary folder. Raises ArtifactError if a block already exists: only one stage writes a block.
    """
    facts = dict(predecessor or {})
    facts.pop("files", None)
    facts["format"] = ghost_json.FORMAT
    for name, block in blocks.items():
        if name in facts:
            raise ArtifactError(f"{folder}: the '{name}' block was written by an earlier stage and is not overwritten")
        facts[name] = block
    known = hashes or {}
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    facts["files"] = {
        name: {"sha256": known.get(name) or ghost_json.sha256(path), "size": path.stat().st_size}
        for name, path in names.items()
        if path.name != ghost_json.NAME
    }
    text = json.dumps(facts, ensure_ascii=False, indent=2) + "\n"
    (folder / ghost_json.NAME).write_text(text, encoding="utf-8")


def own_files(folder: Path, block: str) -> set[str]:
    """Files in `folder` written by the stage that adds `block`; empty if another stage, or none, wrote the folder."""
    try:
        ghost = ghost_json.read(folder)
    except WeightsError:
        return set()
    author = [name for name in ("data", "training", "merge", "export") if name in ghost.facts][-1:]
    return {ghost_json.NAME, *ghost.block("files")} if author == [block] else set()
