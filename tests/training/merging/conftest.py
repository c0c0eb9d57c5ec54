"""A random adapter on the tiny base, written by peft itself, and its merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.training.merging.forms import write_adapter, write_base

Recipe = Callable[..., Path]


@pytest.fixture(scope="session")
def make_base(tiny_base: Path) -> Recipe:
    """`make_base(kind, dtype=...)`: see `write_base`; made once."""

    def make(kind: str, dtype: str = "float32") -> Path:
        if (kind, dtype) == ("mistral", "float32"):
            return tiny_base
        return models.shared(f"base-{kind}-{dtype}", lambda folder: write_base(folder, kind, dtype, tiny_base))

    return make


@pytest.fixture(scope="session")
def make_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """`make_adapter(edit=..., base=..., **lora)`: see `write_adapter`."""

    def make(*edits: Any, base: Path = tiny_base, **lora: Any) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        write_adapter(folder, base, *edits, **lora)
        return folder

    return make


@pytest.fixture(scope="session")
def adapter(tiny_base: Path) -> Path:
    return models.shared("adapter", lambda folder: write_adapter(folder, tiny_base))


@pytest.fixture(scope="session")
def merged(adapter: Path, tiny_base: Path) -> Path:
    """The adapter merged, once for all tests that only read it."""
    from ghost.cli import main

    def merge(folder: Path) -> None:
        assert main(["merge", str(adapter), "--base", str(tiny_base), "--out", str(folder / "merged")]) == 0

    return models.shared("merge", merge) / "merged"
