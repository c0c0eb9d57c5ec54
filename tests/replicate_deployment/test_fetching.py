"""Weights from a Hub on the loopback: pinned, private, verified, and never half."""

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from replicate_deployment import fetching
from replicate_deployment.errors import SettingsError, WeightsError
from replicate_deployment.fetching import fetch, switch, weights_folder
from tests.ghost.hub.conftest import make_model
from tests.ghost.hub.fake_hub import FakeHub
from tests.ghost.hub.fake_repos import TOKEN, Fault, Repo

REPO = "noa/ghost"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """One that holds a model, private and tagged v1."""
    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    put(server, make_model(tmp_path / "model"))
    yield server
    server.shutdown()
    server.server_close()


def put(hub: FakeHub, model: Path) -> str:
    files: dict[str, bytes | str] = {}
    for path in model.iterdir():
        content = path.read_bytes()
        files[path.name] = content
        if path.suffix == ".safetensors":
            digest = fetching.ghost_json.sha256(path)
            hub.store[digest], files[path.name] = content, digest
    repo = hub.repos.setdefault(REPO, Repo(private=True))
    commit = repo.commit(files).id
    repo.tags["v1"] = commit
    return commit


def test_a_tag_is_fetched_once_and_whole(hub: FakeHub, tmp_path: Path) -> None:
    folder = fetch(REPO, "v1", tmp_path / "cache", TOKEN)
    assert folder.name == f"noa--ghost--{hub.repos[REPO].commits[-1].id}"
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "model").iterdir()}
    fetching.ghost_json.verify(fetching.ghost_json.read(folder))
    before = len(hub.seen)
    assert fetch(REPO, "v1", tmp_path / "cache", TOKEN) == folder
    assert len(hub.seen) == before + 1  # what the tag is
    assert all(TOKEN not in str(seen) for host, seen in hub.tokens if host.startswith("localhost"))


def test_a_commit_that_is_there_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.repos[REPO].commits[-1].id
    folder = fetch(REPO, commit, tmp_path / "cache", TOKEN)
    hub.seen.clear()
    assert fetch(REPO, commit, tmp_path / "cache", None) == folder
    assert not hub.seen


def test_what_was_interrupted_is_never_loaded_and_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /stored", "cut", times=100, skip=1))
    with pytest.raises(WeightsError, match="the download resumes"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)
    assert all(path.name.startswith(".") for path in (tmp_path / "cache").iterdir())
    hub.faults.clear()
    hub.seen.clear()
    fetching.ghost_json.verify(fetching.ghost_json.read(fetch(REPO, "v1", tmp_path / "cache", TOKEN)))
    assert hub.count("GET /stored") == 1  # the first shard was there


def test_two_processes_fetch_one_revision_once(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins while the first is about to give its folder the final name."""
    found: list[Path] = []
    second = threading.Thread(target=lambda: found.append(fetch(REPO, "v1", tmp_path / "cache", TOKEN)))
    verify = fetching.ghost_json.verify

    def verify_beside_another(ghost: Any, **options: Any) -> None:
        if second.ident is None:
            second.start()
            second.join(0.5)  # it waits for us; without the lock it would be done by then
        verify(ghost, **options)

    monkeypatch.setattr(fetching.ghost_json, "verify", verify_beside_another)
    folder = fetch(REPO, "v1", tmp_path / "cache", TOKEN)
    second.join()
    assert found == [folder]
    assert hub.count("GET /stored") == 2  # the model's shards, each once
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [folder]


def test_a_disk_that_fills_up_is_told_with_its_folder(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
    with pytest.raises(WeightsError, match=f"No space left on device, in {tmp_path / 'cache'};"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)


def test_a_wrong_byte_is_found_and_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /stored", "corrupt"))
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    fetch(REPO, "v1", tmp_path / "cache", TOKEN)


@pytest.mark.parametrize(
    ("repo", "revision", "token", "said"),
    [
        (REPO, "main", TOKEN, r"'main', which is neither a commit of 40 digits nor a tag of noa/ghost \(tags: v1\)"),
        (
            REPO,
            "v1",
            None,
            r"noa/ghost: no such repo, or a private one that nobody \(HF_TOKEN is not set\) may not see",
        ),
        ("noa/other", "v1", TOKEN, "no such repo, or a private one that the token in HF_TOKEN may not see"),
        (REPO, "0" * 40, TOKEN, "GHOST_REVISION 0000000000000000000000000000000000000000 does not exist"),
        ("a/b/c", "v1", TOKEN, "not a repo name"),
    ],
)
def test_what_the_hub_does_not_give_is_told(
    hub: FakeHub, tmp_path: Path, repo: str, revision: str, token: str | None, said: str
) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        fetch(repo, revision, tmp_path / "cache", token)
    assert TOKEN not in str(caught.value)


def test_a_hub_in_trouble_is_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /api", 500, times=100))
    with pytest.raises(WeightsError, match="noa/ghost: the Hub answers HTTP 500"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)


def test_a_disk_that_is_too_small_is_told_before_the_download(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=100_000))
    with pytest.raises(WeightsError, match=r"0\.0 GB free, and noa/ghost needs 0\.0 GB more.*GHOST_CACHE"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)
    assert not hub.count("GET /stored")


def test_a_name_outside_of_the_folder_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "model" / "ghost.json"
    facts: dict[str, Any] = json.loads(path.read_text())
    facts["files"]["../escaped"] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(facts))
    put(hub, tmp_path / "model")
    with pytest.raises(WeightsError, match="which no stage writes"):
        fetch(REPO, "v1", tmp_path / "cache", TOKEN)


def test_the_nearest_weights_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(fetching, "fetch", lambda *asking: asked.append(asking) or tmp_path)
    beside = tmp_path / "weights"
    hub = {"GHOST_REPO": REPO, "GHOST_REVISION": "v1", "GHOST_CACHE": "/c", "HF_TOKEN": "t"}
    assert weights_folder(beside, hub) == tmp_path
    assert asked == [(REPO, "v1", Path("/c"), "t")]
    make_model(beside)
    assert weights_folder(beside, hub) == beside
    assert weights_folder(beside, hub | {"GHOST_WEIGHTS": "elsewhere"}) == Path("elsewhere")


def test_no_weights_and_no_revision_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights holds no model .*GHOST_REPO"):
        weights_folder(tmp_path / "weights", {})
    with pytest.raises(WeightsError, match="GHOST_REVISION is not set"):
        weights_folder(tmp_path / "weights", {"GHOST_REPO": REPO})


def test_a_switch_is_on_off_or_an_error() -> None:
    assert [switch({"S": value}, "S") for value in ("1", "True", "0", "", "no")] == [True, True, False, False, False]
    assert not switch({}, "S")
    with pytest.raises(SettingsError, match="S is 'maybe'"):
        switch({"S": "maybe"}, "S")
