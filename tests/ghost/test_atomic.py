"""A stage that dies leaves the old artifact or the new one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ghost.atomic import discard, refuse_foreign_files, replace_folder
from ghost.errors import UsageError


def test_a_folder_is_swapped_whole(tmp_path: Path) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "stale").touch()
    with replace_folder(final) as temporary:
        (temporary / "fresh").touch()
        assert (final / "stale").exists()
    assert [path.name for path in final.iterdir()] == ["fresh"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(FileExistsError) as caught, replace_folder(out):
        pass
    assert caught.value.filename == str(out)


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").touch()
    with pytest.raises(KeyboardInterrupt), replace_folder(final) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert [path.name for path in final.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    final = tmp_path / "model"
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "kept").touch()
    with pytest.raises(RuntimeError), replace_folder(final):
        raise RuntimeError
    assert (final / "kept").exists()


def test_a_discarded_folder_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    discard(tmp_path / "none")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").touch()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        discard(folder)
    assert not folder.exists()
    folder.mkdir()
    discard(folder)
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    stale = tmp_path / f".model.{int(dead.stdout)}.abc.part"
    running = tmp_path / f".model.{os.getpid()}.abc.part"
    other = tmp_path / f".model2.{int(dead.stdout)}.abc.part"
    for folder in (stale, running, other):
        folder.mkdir()
    with replace_folder(tmp_path / "model"):
        pass
    assert (stale.exists(), running.exists(), other.exists()) == (False, True, True)


def test_an_artifact_is_its_owners_only(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "model") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "weights").touch(0o666)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "model", tmp_path / "model" / "sub")} == {"0o700"}
    assert oct((tmp_path / "model" / "sub" / "weights").stat().st_mode & 0o777) == "0o600"


def test_gitkeep_stays(tmp_path: Path) -> None:
    final = tmp_path / "cleaned"
    final.mkdir()
    (final / ".gitkeep").touch()
    with replace_folder(final):
        pass
    assert (final / ".gitkeep").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    refuse_foreign_files(tmp_path / "nowhere", [])
    for name in ("own.txt", ".gitkeep"):
        (tmp_path / name).touch()
    refuse_foreign_files(tmp_path, ["own.txt"])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "letter.txt").touch()
    with pytest.raises(UsageError, match=r"holds other files: sub, sub/letter\.txt"):
        refuse_foreign_files(tmp_path, ["own.txt"])
    with pytest.raises(UsageError, match="is a file"):
        refuse_foreign_files(tmp_path / "own.txt", [])
