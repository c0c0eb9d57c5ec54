"""A merge that cannot finish leaves nothing, and the model that was there."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from tests import forks
from training.merging import merge
from training.merging.merge import Merging


def command(adapter: Path, base: Path, out: Path) -> list[str]:
    return ["merge", str(adapter), "--base", str(base), "--out", str(out), "--shard-size", "0.0001"]


def merge_until_the_last_tensor(arguments: list[str], number: int) -> None:
    honest = Merging.fp16

    def fp16(self: Merging, name: str, output: Any) -> Any:
        if name == "model.norm.weight":
            os.kill(os.getpid(), number)
        return honest(self, name, output)

    Merging.fp16 = fp16  # type: ignore[method-assign]
    raise SystemExit(main(arguments))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_merge_is_repaired_by_the_next(number: int, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    arguments = command(adapter, tiny_base, tmp_path / "merged")
    code = forks.run(merge_until_the_last_tensor, arguments, number)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert not (tmp_path / "merged").exists()
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_full_disk_leaves_nothing(
    adapter: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = Merging.fp16

    def full(self: Merging, name: str, output: Any) -> Any:
        if name == "model.norm.weight":
            raise OSError(28, "No space left on device")
        return honest(self, name, output)

    monkeypatch.setattr(Merging, "fp16", full)
    assert main(command(adapter, tiny_base, tmp_path / "merged")) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_too_little_disk_is_noticed_before_anything_is_written(
    adapter: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: usage)
    assert main(command(adapter, tiny_base, tmp_path / "merged")) == 1
    assert f"{tmp_path}: 0.0 GB free, the merged model needs 0.0 GB" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
