"""Every module in `platforms/` is a platform, found without a list."""

import zipfile
from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import save
from training.extraction import platforms
from training.extraction.platform import Platform
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source


def test_every_module_of_platforms_is_one() -> None:
    assert platforms.__file__ is not None
    files = {path.stem for path in Path(platforms.__file__).parent.glob("*.py")} - {"__init__"}
    assert len(PLATFORMS) == len(files)
    for platform in PLATFORMS.values():
        assert isinstance(platform, Platform), platform


def test_two_claims_are_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("telegram", "messenger"):
        monkeypatch.setattr(PLATFORMS[name], "recognise", lambda source, evidence: "it looks like one")
    with pytest.raises(ExportError, match=r"--platform messenger .* or --platform telegram"):
        recognise(Source(save(tmp_path, "x")))


def test_a_sibling_is_found_beside_and_above_in_folders_and_zips(tmp_path: Path) -> None:
    save(tmp_path, "x", "users.json")
    source = Source(save(tmp_path, "x", "general/2025-01-10.json"))
    assert str(source.sibling("../users.json")).endswith("users.json")
    assert source.sibling("nobody.json") is None
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("users.json", "x")
        archive.writestr("general/2025-01-10.json", "x")
    member = Source(tmp_path / "export.zip", "general/2025-01-10.json")
    assert member.sibling("../users.json") == Source(tmp_path / "export.zip", "users.json")
    assert member.sibling("../../users.json") is None
