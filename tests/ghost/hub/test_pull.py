"""`ghost pull`: what arrives is what was pushed, or the folder is as it was."""

import errno
import json
import os
import re
import shutil
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ghost.hub import pull, transfer
from ghost.hub.client import connect
from ghost.signals import Stopped
from tests.ghost.hub.conftest import REPO, Ghost, make_model
from tests.ghost.hub.fake_hub import FakeHub
from tests.ghost.hub.fake_repos import Fault

CALLS = {
    "info": "GET /api/models/.*/revision|GET /api/models/noa/ghost$",
    "tree": "/tree/",
    "ghost.json": "/resolve/.*/ghost.json",
    "redirect": "/resolve/.*/model-00001",
    "store": "GET /stored/",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that holds another model."""
    return make_model(tmp_path / "here" / "merged", shards=1, seed=7)


def test_what_was_pushed_arrives(ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "merged"
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 0
    assert contents(out) == contents(pushed)
    assert f"{REPO} at main is commit {hub.repos[REPO].commits[-1].id}" in output
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (out, *out.iterdir())}
    assert modes == {0o700, 0o600}


def test_an_older_version_by_its_tag(ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path, out: Path) -> None:
    ghost("push", make_model(tmp_path / "newer", shards=1, seed=9), REPO)
    found = ghost.figures("pull", REPO, "--revision", "v1", "--out", out)
    assert contents(out) == contents(pushed)
    assert found["commit"] == hub.repos[REPO].tags["v1"]
    assert (found["files"], found["downloaded"]) == (4, True)


def test_the_same_again_downloads_nothing(ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path) -> None:
    ghost("pull", REPO, "--out", tmp_path / "out")
    hub.ranges.clear()
    assert ghost.figures("pull", REPO, "--out", tmp_path / "out")["downloaded"] is False
    assert hub.ranges == []
    (tmp_path / "out" / "model-00001-of-00002.safetensors").write_bytes(b"broken since")
    assert ghost.figures("pull", REPO, "--out", tmp_path / "out")["downloaded"] is True
    assert contents(tmp_path / "out") == contents(pushed)


def test_of_two_at_once_one_waits(
    ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    fetch, waiting, said = transfer.fetch, threading.Event(), list[str]()

    def slow(hub: Any, commit: str, name: str, *rest: Any) -> None:
        if name.endswith("safetensors"):
            waiting.wait(timeout=10)
        fetch(hub, commit, name, *rest)

    def say(line: str) -> None:
        said.append(line)
        if "waiting for it" in line:
            waiting.set()

    monkeypatch.setattr(transfer, "fetch", slow)
    asked = connect(REPO, "again", say)
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(pull.pull, asked, None, tmp_path / "out") for _ in range(2)]
        assert sorted(job.result()["downloaded"] for job in jobs) == [False, True]
    assert len([line for line in said if "another ghost pull is writing" in line]) == 1
    assert hub.ranges == [None, None]  # each shard once, whole
    assert contents(tmp_path / "out") == contents(pushed)
    assert {path.name for path in tmp_path.glob(".*")} == set()


@pytest.mark.parametrize("what", [429, 503, "cut"])
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_that_passes_is_waited_out(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, waits: list[float], call: str, what: int | str
) -> None:
    headers = {"Retry-After": "33"} if what == 429 else {}
    hub.faults = [Fault(CALLS[call], what, headers=headers)]
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert hub.faults[0].times == 0, "the fault was never met"
    assert contents(out) == contents(pushed)
    assert not headers or 33 <= sum(waits) <= 34


def test_a_cut_goes_on_where_it_was(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, waits: list[float]) -> None:
    hub.faults = [Fault(CALLS["store"], "cut", times=3)]  # each sends half of what is left
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert hub.ranges == [None, "bytes=150000-", "bytes=225000-", "bytes=262500-", None]
    assert contents(out) == contents(pushed)


def test_as_long_as_something_arrives_nobody_gives_up(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, waits: list[float]
) -> None:
    hub.faults = [Fault(CALLS["store"], "cut", times=12)]
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert contents(out) == contents(pushed)


def test_the_next_pull_goes_on_after_one_that_gave_up(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, waits: list[float]
) -> None:
    before = contents(out)
    hub.faults = [Fault(CALLS["store"], "cut", times=1), Fault(CALLS["store"], 503, times=99)]
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert re.search(f"the Hub has problems .* Try later: ghost pull {REPO} --out {out}", output)
    assert contents(out) == before
    left = [path for path in out.parent.iterdir() if path != out]
    assert [stat.S_IMODE(path.stat().st_mode) for path in left] == [0o700]
    hub.faults, hub.ranges = [], []
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 0
    assert "0.00 of 0.00 GB were downloaded before" in output
    assert hub.ranges == ["bytes=150000-", None]
    assert contents(out) == contents(pushed)
    assert list(out.parent.iterdir()) == [out]


def test_a_server_that_knows_no_ranges_begins_again(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults = [Fault(CALLS["store"], "cut")]
    from tests.ghost.hub.fake_hub import Handler

    monkeypatch.setattr(Handler, "ranged", lambda self, content, **facts: self.send(content, **facts))
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert contents(out) == contents(pushed)


def test_a_byte_that_changed_on_the_way_is_found(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    before = contents(out)
    hub.faults = [Fault(CALLS["store"], "corrupt")]
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "model-00001-of-00002.safetensors did not match its SHA-256" in output
    assert contents(out) == before
    hub.ranges.clear()
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert hub.ranges == [None], "only the altered file is fetched again"
    assert contents(out) == contents(pushed)


def test_an_altered_ghost_json_is_found(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    before = contents(out)
    hub.faults = [Fault(CALLS["ghost.json"], "corrupt")]
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "ghost.json was altered on the way" in output
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


def test_a_file_that_somebody_replaced_is_refused_before_it_travels(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path
) -> None:
    files = hub.repos[REPO].commits[-1].files
    files["model-00001-of-00002.safetensors"], files["model-00002-of-00002.safetensors"] = (
        files["model-00002-of-00002.safetensors"],
        files["model-00001-of-00002.safetensors"],
    )
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "is not the file that ghost.json lists; somebody replaced it" in output
    assert hub.ranges == []


def test_a_small_file_that_somebody_replaced_is_refused(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    before = contents(out)
    files = hub.repos[REPO].commits[-1].files
    files["tokenizer.json"] = hub.content(REPO, "tokenizer.json").replace(b"1", b"2")
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "tokenizer.json did not match its SHA-256" in output
    assert contents(out) == before


@pytest.mark.parametrize("name", ["../escaped.json", "/tmp/escaped.json", "a/../../escaped.json"])
def test_a_ghost_json_that_leads_elsewhere_is_refused(
    ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path, name: str
) -> None:
    files = hub.repos[REPO].commits[-1].files
    facts = json.loads(hub.content(REPO, "ghost.json"))
    facts["files"][name] = facts["files"].pop("config.json")
    files["ghost.json"] = json.dumps(facts).encode()
    code, output = ghost("pull", REPO, "--out", tmp_path / "here" / "merged")
    assert code == 1
    assert "which no stage writes; the file was altered" in output
    assert list((tmp_path / "here").iterdir()) == []


def test_weights_that_are_not_listed_stay_there(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    hub.repos[REPO].commits[-1].files["pytorch_model.bin"] = b"anything"
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert contents(out) == contents(pushed)


def test_a_missing_file_is_named(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    del hub.repos[REPO].commits[-1].files["config.json"]
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "config.json is missing; push the model again" in output


def test_another_kind_of_repo_is_told(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    del hub.repos[REPO].commits[-1].files["ghost.json"]
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert "no ghost.json, so this is not a model uploaded by ghost push" in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["noa/gost"], "noa/gost: no such repo, or a private one that this token cannot see; check the spelling"),
        ([REPO, "--revision", "v9"], f"{REPO}: no such branch, tag or commit; see"),
    ],
)
def test_what_is_not_there_is_named(ghost: Ghost, pushed: Path, out: Path, words: list[str], told: str) -> None:
    code, output = ghost("pull", *words, "--out", out)
    assert code == 1
    assert told in output


def test_without_a_token(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert f"{REPO}: no such repo, or a private one; if it is yours, type: hf auth login" in output
    hub.repos[REPO].private = False
    assert ghost("pull", REPO, "--out", out)[0] == 0
    assert contents(out) == contents(pushed)


def test_room_is_looked_for_first(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 2
    assert "0.0 GB free, 0.0 GB needed; free some space, or use another disk: --out FOLDER" in output
    assert hub.ranges == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_fills_up_meanwhile(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(out)
    aside = out.parent / f".{out.name}.{hub.repos[REPO].commits[-1].id[:12]}.pull"
    aside.mkdir()
    (aside / "model-00002-of-00002.safetensors").symlink_to("/dev/full")
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 1
    assert re.search(f"the disk of {out.parent} is full; .* is kept. Free some space, then: ghost pull {REPO}", output)
    assert contents(out) == before
    assert (aside / "model-00001-of-00002.safetensors").stat().st_size == 300_000


def test_another_trouble_with_the_disk_is_not_called_full(
    ghost: Ghost, pushed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "models")

    monkeypatch.setattr(transfer, "fetch", refuse)
    code, output = ghost("pull", REPO, "--out", out)
    assert (code, output.splitlines()[-1]) == (1, "ghost pull: models: Read-only file system")


def test_a_stop_says_how_to_go_on(
    ghost: Ghost, hub: FakeHub, pushed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = transfer.fetch

    def stop(hub: object, commit: str, name: str, *rest: object) -> None:
        if name == "model-00002-of-00002.safetensors":
            raise Stopped(15)
        fetch(hub, commit, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "fetch", stop)
    before = contents(out)
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 143
    assert f"stopped; everything transferred so far is kept. Continue with: ghost pull {REPO} --out {out}" in output
    assert contents(out) == before
    monkeypatch.undo()


def test_a_folder_with_other_files_is_left_alone(ghost: Ghost, hub: FakeHub, pushed: Path, out: Path) -> None:
    (out / "diary.txt").write_text("mine")
    hub.seen.clear()
    code, output = ghost("pull", REPO, "--out", out)
    assert code == 2
    assert "diary.txt" in output
    assert hub.seen == []
