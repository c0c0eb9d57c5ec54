"""One loaded engine for all tests of this folder."""

import shutil
from pathlib import Path

import pytest

from replicate_deployment.engine import Engine


@pytest.fixture(scope="session")
def engine(tiny_merged: Path) -> Engine:
    return Engine.load(tiny_merged, device="cpu")


@pytest.fixture
def merged_copy(tiny_merged: Path, tmp_path: Path) -> Path:
    """A merged folder that a test may break."""
    return Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
