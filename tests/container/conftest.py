"""What goes into the image: its files in one flat folder, and an interpreter that has its packages and no others."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ghost.serving import preflight, release, serve
from tests import models
from tests.conftest import OFFLINE
from tests.ghost.serving.conftest import connection, http  # noqa: F401  (fixtures)


@pytest.fixture(scope="session")
def python() -> Path:
    if not (named := os.environ.get("CONTAINER_PYTHON")):
        pytest.skip("CONTAINER_PYTHON names no interpreter with the container's packages; run make test-container")
    return Path(named).absolute()  # unresolved: a virtual environment's python is a link


@pytest.fixture(scope="session")
def wide_merged() -> Path:
    """As tiny_merged, twice as wide: a CPU with AVX512-BF16 has a 4-bit kernel that takes 32 rows at a time."""

    def build(folder: Path) -> None:
        models.write_tiny_merged(folder / "merged", models.write_tiny_base(folder / "base", hidden=128))

    return models.shared("wide-merged", build) / "merged"


def write_context(folder: Path, weights: Path) -> Path:
    """The build context as `ghost release` leaves it, with the schema that the Cog CLI adds."""
    folder.mkdir()
    for path in preflight.PACKAGE.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    release.put_weights(weights, folder / "weights")
    schema = folder / serve.SCHEMA_PATH
    schema.parent.mkdir()
    schema.write_text(json.dumps(serve.openapi()), encoding="utf-8")
    return folder


def environment(python: Path) -> dict[str, str]:
    """Nothing of this process but its empty home; Cog starts its worker as `python` from PATH."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(OFFLINE)}


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **options: object) -> Iterator[str]:
    """Yield the URL of the Cog server that `command` starts once it is READY. At the end it must stop in order."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
    url = f"http://127.0.0.1:{port}"
    try:
        while (health := serve._health(url) or {"status": "STARTING"})["status"] != "READY":
            assert health["status"] != "SETUP_FAILED", log.read_text(encoding="utf-8")
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            code = process.wait(60)
        finally:
            process.kill()
    assert code == 0, log.read_text(encoding="utf-8")
