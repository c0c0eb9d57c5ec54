"""An image of the container's files: `make test-image`, where a Docker daemon answers.

Its Dockerfile ends as Cog's does. The packages are those of the container's environment, mounted, since an image with
CUDA's is 17 GB.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import pytest

from ghost.serving import preflight, serve
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine
from tests.container.conftest import running, write_context
from tests.ghost.serving.cog_server import ASYNC, ENDLESS, post, streamed, wait_until

pytestmark = pytest.mark.container
TAG = "ghost-test"
TAIL = """\
FROM {base}
WORKDIR /src
EXPOSE 5000
ENV COG_PREDICT_TYPE_STUB=predict.py:Predictor
CMD ["python", "-m", "cog.server.http"]
COPY . /src
"""
Serving = Callable[..., AbstractContextManager[httpx2.Client]]


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)


def base(version: str, folder: Path) -> str:
    """An image with this Python: Python's own, which Cog builds on without a GPU, or a Debian made here.

    Docker keeps either for the next run.
    """
    name = f"python:{version}-slim"
    if docker("image", "inspect", name).returncode and docker("pull", name).returncode:
        name = f"{TAG}-python:{version}"
        if docker("image", "inspect", name).returncode == 0:
            return name
        if version != "3.11" or os.geteuid() or not shutil.which("debootstrap"):
            pytest.skip(f"python:{version}-slim cannot be pulled; root makes a base with Python 3.11 by debootstrap")
        packages = "--include=python3,python-is-python3"
        subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", folder], check=True)
        packed = subprocess.Popen(["tar", "--create", "--directory", folder, "."], stdout=subprocess.PIPE)
        subprocess.run(["docker", "import", "-", name], stdin=packed.stdout, check=True)
        assert packed.wait() == 0
        shutil.rmtree(folder)
    return name


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, wide_merged: Path) -> Path:
    """The build context, with what must not get into an image."""
    folder = write_context(tmp_path_factory.mktemp("context") / "src", wide_merged)
    for name in (".env", "__pycache__/old.pyc", "weights/optimizer.pt", ".weights.inductor/compiled.pkl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    return folder


@pytest.fixture(scope="module")
def image(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not shutil.which("docker") or docker("info").returncode:
        pytest.skip("no Docker daemon answers `docker info`")
    version = str(preflight.read_build(sources)["python_version"])
    folder = tmp_path_factory.mktemp("image")
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(TAIL.format(base=base(version, folder / "root")), encoding="utf-8")
    built = docker("build", "--tag", TAG, "--file", str(dockerfile), str(sources))
    assert built.returncode == 0, built.stderr
    yield TAG
    docker("image", "rm", "--force", TAG)


@pytest.fixture
def serving(image: str, python: Path, tmp_path: Path) -> Serving:
    """Start a container of the image with these flags of `docker run`; it must stop in order."""
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")

    @contextmanager
    def start(*flags: str) -> Iterator[httpx2.Client]:
        port, name = serve.free_port("127.0.0.1", 0), f"{TAG}-{os.getpid()}"
        command = ["docker", "run", "--rm", "--init", "--name", name, f"--publish=127.0.0.1:{port}:5000"]
        command += [f"--volume={packages}:/packages:ro", "--env=PYTHONPATH=/packages", "--env=OMP_NUM_THREADS=1"]
        try:
            with (
                running([*command, *flags, image], port, tmp_path / "server.log") as url,
                httpx2.Client(base_url=url, trust_env=False, timeout=120) as client,
            ):
                yield client
        finally:
            docker("rm", "--force", name)

    return start


def greedy(weights: Path, **options: bool) -> str:
    engine = Engine.load(weights, device="cpu", hashes=False, **options)
    return "".join(engine.reply([Turn("B:", "hey")], engine.settings.replace(max_new_tokens=12, temperature=0)))


def asked(client: httpx2.Client) -> str:
    return "".join(post(client, prompt="hey", max_new_tokens=12, temperature=0).json()["output"])


def test_the_image_has_what_dockerignore_leaves(image: str, sources: Path) -> None:
    found = docker("run", "--rm", image, "find", "/src", "-type", "f", "-printf", "%P\n").stdout.split()
    files = {path.relative_to(sources).as_posix() for path in preflight.contents(sources)}
    assert set(found) == files - {".env", "weights/optimizer.pt"} | {serve.SCHEMA_PATH}


def test_it_replies_streams_and_cancels(serving: Serving, wide_merged: Path) -> None:
    with serving() as client:
        assert asked(client) == greedy(wide_merged)
        pieces = [event for event in streamed(client, prompt="hey", max_new_tokens=8, seed=4) if event.name == "output"]
        assert len(pieces) > 1
        wait_until(client, "READY")
        assert client.put("/predictions/long", json={"input": ENDLESS}, headers=ASYNC).status_code == 202
        assert client.post("/predictions/long/cancel").status_code == 200
        wait_until(client, "READY")
        assert asked(client) == greedy(wide_merged)


def test_another_user_than_root_can_run_it(serving: Serving, wide_merged: Path) -> None:
    with serving("--user=1234:1234") as client:
        assert asked(client) == greedy(wide_merged)


def test_it_loads_in_four_bits(serving: Serving, wide_merged: Path) -> None:
    with serving("--env=GHOST_LOAD_IN_4BIT=1") as client:
        assert asked(client) == greedy(wide_merged, load_in_4bit=True)
