"""A file written past the page cache is the file that was meant, however it was cut and whatever the system allows."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from training.merging import weights
from training.merging.weights import AT_ONCE, DirectFile

SIZES = [0, 1, 4095, 4096, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 4097]


def write(path: Path, content: bytes, pieces: int) -> None:
    with DirectFile(path) as file:
        for start in range(0, len(content), pieces):
            file.write(memoryview(content)[start : start + pieces])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [1_000_003, 2**18, 3 * AT_ONCE])
def test_the_bytes_are_those_given(tmp_path: Path, size: int, pieces: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(b"an older and longer file" * 10)
    write(path, content, pieces)
    assert path.read_bytes() == content


def test_memory_may_change_after_a_write(tmp_path: Path) -> None:
    buffer = bytearray(b"a" * 1000)
    with DirectFile(tmp_path / "file") as file:
        file.write(memoryview(buffer))
        buffer[:] = b"b" * 1000
    assert (tmp_path / "file").read_bytes() == b"a" * 1000


@pytest.mark.parametrize("what", ["no flag", "flag refused", "write refused", "half of a write"])
def test_where_the_cache_cannot_be_passed(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    asked: list[int] = []

    def refuse(file: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & weights.DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return control(file, command, flags)

    def once(file: int, view: Any) -> int:
        asked.append(len(view))
        if len(asked) > 1:
            return put(file, view)
        if what == "write refused":
            raise OSError(errno.EINVAL, "Invalid argument")
        return put(file, view[: len(view) // 2 - 1])

    control, put = fcntl.fcntl, os.write
    if what == "no flag":
        monkeypatch.setattr(weights, "DIRECT", 0)
    elif what == "flag refused":
        monkeypatch.setattr(fcntl, "fcntl", refuse)
    else:
        monkeypatch.setattr(weights, "DIRECT", 0 if what == "half of a write" else weights.DIRECT)
        monkeypatch.setattr(weights.os, "write", once)
    content = os.urandom(AT_ONCE + 1000)
    if what == "write refused" and not weights.DIRECT:
        pytest.skip("this system writes through the cache only")
    write(tmp_path / "file", content, 2**18)
    assert (tmp_path / "file").read_bytes() == content


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, view: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        monkeypatch.setattr(weights.os, "write", full)
        write(tmp_path / "file", b"x" * 10, 10)
