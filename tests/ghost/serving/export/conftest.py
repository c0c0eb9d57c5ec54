"""What exports are made of and read back with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact
from replicate_deployment import ghost_json

Change = Callable[[Path], None]


@pytest.fixture
def merged(tiny_merged: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_merged, tmp_path / "merged"))


def rewrite(folder: Path, change: Change, facts: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Change a model folder and list its files again, as if a merge had written it so."""
    ghost = json.loads((folder / ghost_json.NAME).read_text())
    change(folder)
    if facts is not None:
        facts(ghost)
    artifact.write(folder, ghost)


def edit_config(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def edit_tokenizer(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))

    return change


def edit_weights(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change
