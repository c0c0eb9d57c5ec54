"""A stage that dies leaves the old artifact or the new one."""

from pathlib import Path

import pytest

from training.aside import replace_file, replace_folder


def test_a_file_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "report.json"
    with replace_file(final) as temporary:
        temporary.write_text("new")
        assert not final.exists()
    assert final.read_text() == "new"
    assert [path.name for path in final.parent.iterdir()] == ["report.json"]


def test_a_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "report.json"
    final.write_text("old")
    with pytest.raises(RuntimeError), replace_file(final) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_swapped_whole(tmp_path: Path) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "stale").touch()
    with replace_folder(final) as temporary:
        (temporary / "fresh").touch()
        assert (final / "stale").exists()
    assert [path.name for path in final.iterdir()] == ["fresh"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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
