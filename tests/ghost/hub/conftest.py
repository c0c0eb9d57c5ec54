"""A model folder of some kilobytes, the fake Hub, and the two verbs pointed at it."""

import functools
import json
import random
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact, cli
from tests.ghost.hub.fake_hub import FakeHub
from tests.ghost.hub.fake_repos import TOKEN

REPO = "noa/ghost"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # huggingface_hub passes an upload's stream as `data=`, for which its HTTP library has a newer word.
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client reads all the certificates of the world first, a third of a test's time; the fake Hub has none."""
    monkeypatch.setattr("ssl.create_default_context", _SSL_CONTEXT)


_SSL_CONTEXT = functools.cache(ssl.create_default_context)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in seconds; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def make_model(folder: Path, *, shards: int = 2, size: int = 300_000, seed: int = 0) -> Path:
    """What a push must not tell from a merged model: the files and facts of one, around bytes of no meaning."""
    folder.mkdir(parents=True)
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        (folder / name).write_bytes(random.Random(100 * seed + number).randbytes(size))
    (folder / "config.json").write_text('{"model_type": "mistral"}\n')
    (folder / "tokenizer.json").write_text(json.dumps({"seed": seed, "vocab": list(range(500))}))
    artifact.write(
        folder,
        None,
        text={
            "labels": {"me": "A:", "other": "B:"},
            "recipe": "windows",
            "stop_sequences": ["\nB:", "\n<", "\n\n", "\nA:"],
        },
        data={"counts": {"messages": 3000, "windows": 512}, "train_sha256": "", "val_sha256": ""},
        base={"repo": "mistralai/Mistral-7B-v0.3", "revision": "c" * 40, "weights_sha256": "d" * 64},
        training={
            "config": {"lora_r": 16, "learning_rate": 5e-5, "datasets": [{"path": "/home/noa/secret-folder"}]},
            "steps": 64,
            "kept_step": 48,
            "heldout": {"before": {"loss": 3.25, "reply_loss": 3.5}, "after": {"loss": 2.125, "reply_loss": 2.5}},
        },
        merge={"dtype": "F16", "base_weights": "dequantized", "parity": {"limit": 0.002, "mean": 0.0001}},
    )
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "models" / "merged")


class Ghost:
    """The command line. Whatever a test does, no output of it ever holds the token or a signed address."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *words: str | Path) -> tuple[int, str]:
        """The exit code, and stdout and stderr together."""
        code = cli.main([str(word) for word in words])
        out, err = self.capfd.readouterr()
        assert TOKEN not in out + err
        assert "Signature" not in out + err
        if code:
            assert len(err.strip().splitlines()) == 1, err
        return code, out + err

    def figures(self, *words: str | Path) -> Any:
        code, output = self(*words, "--json")
        assert code == 0, output
        return json.loads(output)


@pytest.fixture
def logged_in(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The Hub of this process is the fake one."""
    from huggingface_hub import close_session, constants

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # Read when huggingface_hub was imported; a login on the machine that runs the tests is none of their business.
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    close_session()


@pytest.fixture
def ghost(logged_in: None, capfd: pytest.CaptureFixture[str]) -> Ghost:
    return Ghost(capfd)


@pytest.fixture
def pushed(ghost: Ghost, model: Path) -> Path:
    code, output = ghost("push", model, REPO)
    assert code == 0, output
    return model
