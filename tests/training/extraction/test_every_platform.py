"""One folder that mixes every platform, through the command line: everything is read, and every sum is equal."""

import csv
import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from ghost.cli import main
from tests.training.extraction.exports import save
from tests.training.extraction.seeds import BESIDE, SEEDS, content
from training.extraction.platform import Kind
from training.extraction.platforms import PLATFORMS


def test_one_folder_of_all_platforms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*SEEDS, *BESIDE):
        save(tmp_path / "raw", content(name), name)
    assert main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "extraction_report.json").read_text("utf-8"))
    assert {file["platform"] for file in report["files"]} == set(PLATFORMS)
    assert len(report["files"]) == len(SEEDS)
    assert report["attachments_passed_over"] == len(BESIDE)
    assert report["refused"] == []

    totals = Counter[str]()
    for file in report["files"]:
        assert file["records"] == sum(file["kinds"].values()) > 0, file["file"]
        totals.update(file["kinds"])
    assert {str(kind): totals[kind] for kind in Kind} == {kind: report["totals"][kind] for kind in map(str, Kind)}
    assert report["totals"]["records"] == sum(totals.values())
    assert totals[Kind.UNREADABLE] == 0

    rows = 0
    for conversation in report["conversations"]:
        with (tmp_path / "out" / conversation["file"]).open(encoding="utf-8", newline="") as stream:
            written = list(csv.DictReader(stream))
        assert len(written) == conversation["messages"] == sum(conversation["senders"].values())
        assert all(datetime.fromisoformat(row["timestamp"]) and row["sender"] and row["message"] for row in written)
        rows += len(written)
    assert rows == totals[Kind.MESSAGE]
    assert set(json.loads((tmp_path / "out" / "languages.json").read_text())["conversations"]) == {
        conversation["file"] for conversation in report["conversations"]
    }


def test_reading_it_again_from_its_own_output_changes_nothing(tmp_path: Path) -> None:
    for name in (*SEEDS, *BESIDE):
        save(tmp_path / "raw", content(name), name)
    assert main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "first")]) == 0
    assert main(["extract", str(tmp_path / "first"), "--out", str(tmp_path / "second")]) == 0
    first = sorted(path.read_bytes() for path in (tmp_path / "first").rglob("*.csv"))
    assert first == sorted(path.read_bytes() for path in (tmp_path / "second").rglob("*.csv"))


ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?")
EPOCH = re.compile(r"\b\d{10,18}\b")


@pytest.mark.parametrize(
    ("pattern", "time"),
    [
        *((ISO_TIME, time) for time in ("0001-01-01T00:00:00+14:00", "0001-01-01T00:15:00+00:30")),
        *((ISO_TIME, time) for time in ("9999-12-31T23:59:59-12:00", "9999-12-31T23:45:00.123456-00:30")),
        *((EPOCH, str(10**digits)) for digits in (11, 12, 14, 18)),
        *((EPOCH, time) for time in ("-62135596800", "-62135596800000", "253402300800", "253402300800000")),
    ],
)
def test_times_at_the_end_of_the_calendar_are_read_or_unreadable(
    pattern: re.Pattern[str], time: str, tmp_path: Path
) -> None:
    for name in (*SEEDS, *BESIDE):
        text = content(name).decode("utf-8", "surrogateescape")
        save(tmp_path / "raw", pattern.sub(time, text).encode("utf-8", "surrogateescape"), name)
    assert main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--date-order", "dmy"]) in (0, 1)
    report = json.loads((tmp_path / "out" / "extraction_report.json").read_text("utf-8"))
    for file in report["files"]:
        assert file["records"] == sum(file["kinds"].values()), file["file"]
