"""The platform that CONTRIBUTING.md shows is one file, and works as it stands there."""

import json
import re
import sys
from pathlib import Path

import pytest

from ghost.cli import main
from tests.training.extraction.exports import save
from training.extraction import extract, platforms

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


def test_one_new_file_is_a_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match = re.search(r'```python\n("""Pager.*?)```', CONTRIBUTING.read_text("utf-8"), re.DOTALL)
    assert match is not None
    save(tmp_path, match[1], "new/pager.py")
    monkeypatch.setattr(platforms, "__path__", [*platforms.__path__, str(tmp_path / "new")])
    monkeypatch.delitem(sys.modules, "training.extraction.platforms.pager", raising=False)
    found = platforms._found()
    assert set(found) == {*platforms.PLATFORMS, "pager"}
    monkeypatch.setattr(platforms, "PLATFORMS", found)
    monkeypatch.setattr(extract, "PLATFORMS", found)

    pages = "pager 1.0\n2024-05-01 10:30|Ada|on my way\n2024-05-01 10:31|Bob|[picture]\n2024-05-01 10:32|Bob\n"
    save(tmp_path, pages, "raw/Ada.pager")
    save(tmp_path, "volume=3\n", "raw/pager.cfg")
    assert main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 1  # line 4 is unreadable
    assert (tmp_path / "out/pager/Ada.csv").read_text() == (
        "timestamp,sender,message\n2024-05-01T10:30:00,Ada,on my way\n"
    )
    (file,) = json.loads((tmp_path / "out/extraction_report.json").read_text())["files"]
    assert (file["records"], file["unreadable"], file["kinds"]["media"]) == (3, [4], 1)
