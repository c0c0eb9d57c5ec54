"""The container's files, flat, in an environment with its packages alone: `make test-container`.

All tests of the server are imported below and run on a server in that environment. Some compare its replies with
those of the engine in this process, which has another torch.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from ghost.serving import preflight, serve
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine
from tests.conftest import OFFLINE
from tests.container.conftest import environment, running, write_context
from tests.ghost.serving.cog_server import post, shared
from tests.ghost.serving.test_server import *  # noqa: F403

pytestmark = pytest.mark.container
REPLIES = Path(__file__).with_name("replies.py")


def serving(python: Path, folder: Path, log: Path, **variables: str) -> AbstractContextManager[str]:
    """Cog's server as the image starts it."""
    port = serve.free_port("127.0.0.1", 0)
    variables |= environment(python) | {"PORT": str(port), "COG_PREDICT_TYPE_STUB": "predict.py:Predictor"}
    return running(["python", "-m", "cog.server.http"], port, log, cwd=folder, env=variables)


@pytest.fixture(scope="session")
def url(python: Path, tiny_merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("container")

    def running_here(weights: Path, log: Path) -> AbstractContextManager[str]:
        return serving(python, write_context(folder / "src", weights), log)

    yield shared.start(tiny_merged, folder / "server.log", running_here)
    shared.stop()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, wide_merged: Path) -> Path:
    return write_context(tmp_path_factory.mktemp("replies") / "src", wide_merged)


def asked(python: Path, folder: Path, weights: Path, **variables: str) -> dict[str, Any]:
    variables = environment(python) | variables
    done = subprocess.run(
        [python, REPLIES, weights], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def here(sources: Path) -> dict[str, Any]:
    path = os.pathsep.join([str(OFFLINE), str(preflight.PACKAGE.parent)])
    return asked(Path(sys.executable), preflight.PACKAGE, sources / "weights", PYTHONPATH=path)


@pytest.fixture(scope="module")
def there(python: Path, sources: Path) -> dict[str, Any]:
    return asked(python, sources, sources / "weights")


def test_only_what_is_pinned_is_installed(there: dict[str, Any], sources: Path) -> None:
    cog = yaml.safe_load((sources / "cog.yaml").read_text(encoding="utf-8"))["build"]["sdk_version"]
    lines = (sources / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#")) | {"cog": cog, "coglet": cog}
    found = {name: version.partition("+")[0] for name, version in there["packages"].items()}
    assert {name: found.get(name) for name in pins} == pins
    # CUDA's libraries come with torch, at its versions; pip and setuptools with the virtual environment.
    rest = [name for name in set(found) - set(pins) if not re.match("nvidia-|cuda-|triton$|pip$|setuptools$", name)]
    assert rest == []


def test_replies_are_those_of_this_environment_in_every_way(
    here: dict[str, Any], there: dict[str, Any], sources: Path
) -> None:
    assert Path(there["source"]) == sources
    assert Path(here["source"]) == preflight.PACKAGE
    assert there["replies"] == here["replies"]
    said = here["replies"]
    assert said["static cache"] == said["dynamic cache"]
    assert said["4 bits"] != said["dynamic cache"]


def test_four_bits_are_served(python: Path, sources: Path, tmp_path: Path) -> None:
    with (
        serving(python, sources, tmp_path / "server.log", GHOST_LOAD_IN_4BIT="1") as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=120) as client,
    ):
        answer = post(client, prompt="hey", max_new_tokens=12, temperature=0).json()
    rounded = Engine.load(sources / "weights", device="cpu", load_in_4bit=True)
    greedy = rounded.settings.replace(max_new_tokens=12, temperature=0)
    assert "".join(answer["output"]) == "".join(rounded.reply([Turn("B:", "hey")], greedy))
