"""One loaded engine for all tests of this folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from replicate_deployment.engine import Engine


@pytest.fixture(scope="session")
def engine(tiny_merged: Path) -> Iterator[Engine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on two busy cores take ten times as long
    yield Engine.load(tiny_merged, device="cpu")
    torch.set_num_threads(threads)


@pytest.fixture
def merged_copy(tiny_merged: Path, tmp_path: Path) -> Path:
    """A merged folder that a test may break."""
    return Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
