"""What a stop leaves of a merge, and how the next one goes on from it."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import MergeError
from ghost.signals import Stopped
from tests import forks
from training.merging import merge
from training.merging.merge import PROGRESS, Merging, unfinished_folder

SHARD_SIZE = "0.0001"  # GB: some shards of 100 kB


def command(adapter: Path, base: Path, out: Path, *more: str) -> list[str]:
    return ["merge", str(adapter), "--base", str(base), "--out", str(out), "--shard-size", SHARD_SIZE, *more]


def merge_until_the_third_shard(arguments: list[str]) -> None:
    """Kill this process then, as a power cut would."""
    merge.WRITERS = 1  # one after the other
    honest, begun = merge.write_shard, []

    def write_shard(path: Path, *rest: Any) -> str:
        begun.append(path)
        if len(begun) == 3:
            path.write_bytes(b"half a shard")
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(path, *rest)

    merge.write_shard = write_shard
    main(arguments)


class PowerCut(BaseException):
    pass


@pytest.fixture
def interrupt(adapter: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`interrupt(stop)` merges in this process, and calls `stop` when the third shard begins."""

    def run(stop: Callable[[], object]) -> int:
        honest, begun = merge.write_shard, []

        def write_shard(path: Path, *rest: Any) -> str:
            begun.append(path)
            if len(begun) == 3:
                path.write_bytes(b"half a shard")
            if len(begun) == 3 or (len(begun) > 3 and stop is cut):  # nothing is written once the power is gone
                stop()
            return honest(path, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(merge, "WRITERS", 1)
            patch.setattr(merge, "write_shard", write_shard)
            return main(command(adapter, tiny_base, tmp_path / "merged"))

    return run


def cut() -> None:
    raise PowerCut


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that the merges of this process begin to write."""
    names: list[str] = []
    honest = merge.write_shard

    def write_shard(path: Path, *rest: Any) -> str:
        names.append(path.name.removesuffix(".part"))
        return honest(path, *rest)

    monkeypatch.setattr(merge, "write_shard", write_shard)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_merge_goes_on_where_it_was(
    adapter: Path, tiny_base: Path, tmp_path: Path, started: list[str]
) -> None:
    whole, out, left = tmp_path / "whole", tmp_path / "merged", tmp_path / ".merged.unfinished"
    assert main(command(adapter, tiny_base, whole)) == 0
    shards, started[:] = sorted(started), []
    assert forks.run(merge_until_the_third_shard, command(adapter, tiny_base, out)) == -signal.SIGKILL
    assert not out.exists()
    assert {*json.loads((left / PROGRESS).read_text())["finished"]} == {*shards[:2]}
    kept = {shard: (left / shard).stat() for shard in shards[:2]}
    assert main(command(adapter, tiny_base, out)) == 0
    assert sorted(started) == shards[2:]
    for shard, before in kept.items():  # the very files
        assert ((out / shard).stat().st_ino, (out / shard).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "whole"]


def test_a_stop_says_what_is_kept(interrupt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert interrupt(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 128 + signal.SIGTERM
    left = tmp_path / ".merged.unfinished"
    error = capsys.readouterr().err  # more may be finished before the stop is seen
    assert re.fullmatch(
        rf"ghost merge: stopped; \d+ finished shards are kept in {left}; run the same command to continue\n",
        error,
    )
    assert [*tmp_path.iterdir()] == [left]


def test_a_damaged_shard_is_written_again(
    interrupt: Any, adapter: Path, tiny_base: Path, tmp_path: Path, started: list[str]
) -> None:
    out, left = tmp_path / "merged", tmp_path / ".merged.unfinished"
    with pytest.raises(PowerCut):
        interrupt(cut)
    started.clear()
    first, second = sorted(left.glob("*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    assert main(command(adapter, tiny_base, out)) == 0
    assert first.name in started
    assert second.name not in started


@pytest.mark.parametrize("change", ["adapter", "base weights", "size"])
def test_another_merge_keeps_nothing(
    change: str,
    interrupt: Any,
    make_adapter: Any,
    adapter: Path,
    tiny_base: Path,
    tmp_path: Path,
    started: list[str],
) -> None:
    out = tmp_path / "merged"
    with pytest.raises(PowerCut):
        interrupt(cut)
    started.clear()
    if change == "adapter":
        adapter = make_adapter(lora_alpha=7)
    more = {"base weights": ["--base-weights", "dequantized"], "size": ["--shard-size", "0.0002"]}.get(change, [])
    assert main(command(adapter, tiny_base, out, *more)) == 0
    assert sorted(started) == sorted(path.name for path in out.glob("*.safetensors"))


def test_a_full_disk_keeps_what_is_finished(
    adapter: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(merge, "WRITERS", 1)
    honest = Merging.fp16

    def full(self: Merging, name: str, output: Any) -> Any:
        if name == "model.norm.weight":  # the last one
            raise OSError(28, "No space left on device")
        return honest(self, name, output)

    monkeypatch.setattr(Merging, "fp16", full)
    assert main(command(adapter, tiny_base, tmp_path / "merged")) == 1
    error = capsys.readouterr().err
    left = tmp_path / ".merged.unfinished"
    assert error.startswith(f"ghost merge: {left}: No space left on device; ")
    assert "finished shards are kept" in error
    monkeypatch.undo()
    assert main(command(adapter, tiny_base, tmp_path / "merged")) == 0


def test_too_little_disk_is_said_before_anything_is_written(
    adapter: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: usage)
    assert main(command(adapter, tiny_base, tmp_path / "merged")) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}: 0.0 GB free, the merged model needs 0.0 GB more; no shard was finished" in error
    assert [*tmp_path.iterdir()] == []


def test_too_little_disk_for_the_rest_keeps_what_is_finished(
    interrupt: Any, adapter: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PowerCut):
        interrupt(cut)
    left = sorted((tmp_path / ".merged.unfinished").glob("*.safetensors"))
    assert left
    with monkeypatch.context() as patch:
        patch.setattr(merge.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        assert main(command(adapter, tiny_base, tmp_path / "merged")) == 1
    assert sorted((tmp_path / ".merged.unfinished").glob("*.safetensors")) == left


def test_two_merges_do_not_write_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with unfinished_folder(tmp_path / "merged", {}) as one:
        with pytest.raises(MergeError, match="another merge writes there"), unfinished_folder(tmp_path / "merged", {}):
            pass
        (one.folder / "x").touch()
    assert (tmp_path / "merged" / "x").exists()


def test_nothing_finished_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(Stopped, match="no shard was finished, so nothing is kept"),
        unfinished_folder(tmp_path / "merged", {}),
    ):
        raise Stopped(signal.SIGINT)
    assert [*tmp_path.iterdir()] == []


def test_files_of_nobody_are_not_kept(tmp_path: Path) -> None:
    """Whatever lies in the folder, only what this plan finished is taken over; a broken record is none."""
    folder = tmp_path / ".merged.unfinished"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"from where?")
    (folder / PROGRESS).write_text("{")
    with unfinished_folder(tmp_path / "merged", {}) as unfinished:
        unfinished.keep({"model.safetensors"})
        assert unfinished.finished == {}
        assert os.listdir(folder) == [PROGRESS]
        unfinished.seal()
    assert [*(tmp_path / "merged").iterdir()] == []
