"""What a person deletes from the CSV files, or excludes by a pattern, stays out of the next extraction."""

import csv
import json
from pathlib import Path

import pytest

from ghost.cli import main

ZOE = """\
13/03/2022, 14:56 - Zoé: tu viens à la piscine ?
13/03/2022, 14:57 - Bob: ok
13/03/2022, 14:57 - Bob: ok
13/03/2022, 14:58 - Zoé: ne le dis à personne, 06 12 34 56 78
13/03/2022, 14:59 - Bob: à demain alors
"""
MIA = """\
13/03/2022, 14:57 - Bob: ok
13/03/2022, 14:58 - Mia: the garden was lovely today
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    write("Zoé", ZOE)
    write("Mia", MIA)
    assert extract() == 0
    return tmp_path


def write(name: str, text: str) -> None:
    Path("raw", f"WhatsApp Chat with {name}.txt").write_text(text, encoding="utf-8")


def extract(*options: str) -> int:
    return main(["extract", "raw", "--out", "out", *options])


def rows(name: str) -> list[str]:
    with Path("out", "whatsapp", f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return [row["message"] for row in csv.DictReader(stream)]


def delete(name: str, *words: str) -> None:
    """Delete the first row with each of these words, as an editor of text does."""
    path = Path("out", "whatsapp", f"{name}.csv")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for word in words:
        lines.remove(next(line for line in lines if word in line))
    path.write_text("".join(lines), encoding="utf-8")


def totals() -> dict[str, int]:
    found: dict[str, int] = json.loads(Path("out/extraction_report.json").read_text(encoding="utf-8"))["totals"]
    assert found["records"] == sum(found.values()) - found["records"]
    return found


KEPT = ["tu viens à la piscine ?", "ok", "à demain alors"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("options", [(), ("--pii", "off"), ("--pseudonyms", "--me", "Bob")])
def test_deleted_rows_stay_out_whatever_the_options(options: tuple[str, ...]) -> None:
    delete("Zoé", "personne", "ok")
    assert extract(*options) == 0
    assert totals()["removed"] == 2
    assert extract() == 0  # and again: nothing was deleted since
    assert rows("Zoé") == KEPT
    assert rows("Mia") == ["ok", "the garden was lovely today"]


@pytest.mark.usefixtures("folder")
def test_a_later_export_brings_new_messages_and_no_deleted_one() -> None:
    delete("Zoé", "personne", "ok")
    write("Mia", MIA)
    Path("raw", "WhatsApp Chat with Zoé.txt").unlink()
    assert extract() == 0  # of other exports: what was deleted is remembered
    write("Zoé", ZOE + "14/03/2022, 09:00 - Zoé: bien dormi ?\n")
    assert extract() == 0
    assert rows("Zoé") == [*KEPT, "bien dormi ?"]


@pytest.mark.usefixtures("folder")
def test_a_deleted_file_stays_out_with_what_is_said_there_later() -> None:
    Path("out/whatsapp/Mia.csv").unlink()
    write("Mia", MIA + "14/03/2022, 09:00 - Mia: and the roses\n")
    assert extract() == 0
    assert totals()["removed"] == 3
    assert not Path("out/whatsapp/Mia.csv").exists()
    assert len(rows("Zoé")) == 5


@pytest.mark.usefixtures("folder")
def test_of_two_chats_of_one_name_only_the_deleted_one_stays_out() -> None:
    again = "13/03/2023, 10:00 - Mia: another person writes here\n"
    write("Mia (1)", again)
    Path("raw/other").mkdir()
    Path("raw", "WhatsApp Chat with Mia (1).txt").rename("raw/other/WhatsApp Chat with Mia.txt")
    assert extract() == 0
    names = {path.stem for path in Path("out/whatsapp").glob("Mia*.csv")}
    other = next(name for name in names if "another person writes here" in rows(name))
    Path("out/whatsapp", f"{other}.csv").unlink()
    assert extract() == 0
    assert rows("Mia") == ["ok", "the garden was lovely today"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("edit", [("piscine", "plage"), ("Bob,ok\n", "Bob,ok\n2022-03-13T14:57:00,Bob,new\n")])
def test_rows_that_were_changed_or_added_are_refused(edit: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("out/whatsapp/Zoé.csv")
    path.write_text(path.read_text(encoding="utf-8").replace(*edit, 1), encoding="utf-8")
    before = path.read_bytes()
    assert extract() == 2
    error = capsys.readouterr().err
    assert "changed or added" in error
    assert f"Zoé.csv:{2 if 'plage' in edit else 4}" in error
    assert "plage" not in error
    assert path.read_bytes() == before


@pytest.mark.usefixtures("folder")
def test_when_nothing_is_left_the_error_says_how_to_have_it_back(capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("out/whatsapp").iterdir():
        path.unlink()
    assert extract() == 1
    assert "rows.json" in capsys.readouterr().err
    Path("out/rows.json").unlink()
    assert extract() == 0
    assert len(rows("Zoé")) == 5


@pytest.mark.usefixtures("folder")
def test_an_unreadable_memory_is_an_error() -> None:
    Path("out/rows.json").write_text("{", encoding="utf-8")
    assert extract() == 2
    assert len(rows("Zoé")) == 5


@pytest.mark.usefixtures("folder")
def test_a_row_edited_by_a_program_with_other_line_ends_is_the_same_row() -> None:
    path = Path("out/whatsapp/Zoé.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    delete("Mia", "garden")
    assert extract() == 0
    assert totals()["removed"] == 1


def configure(*patterns: str) -> None:
    Path("config").mkdir(exist_ok=True)
    Path("config/user_config.json").write_text(json.dumps({"exclude_messages": patterns}), encoding="utf-8")


@pytest.mark.usefixtures("folder")
def test_messages_that_a_pattern_excludes_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    configure("PISCINE", r"06 ?12", "giraffe")
    assert extract() == 0
    assert rows("Zoé") == ["ok", "ok", "à demain alors"]
    assert totals()["excluded"] == 2
    report = json.loads(Path("out/extraction_report.json").read_text(encoding="utf-8"))
    assert report["exclude_messages"] == [1, 1, 0]
    assert "no message matches pattern 3" in capsys.readouterr().out
    configure()
    assert extract() == 0
    assert len(rows("Zoé")) == 5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("pattern", ["(", "x*", ""])
def test_a_pattern_that_is_none_or_matches_everything_is_refused(pattern: str) -> None:
    configure(pattern)
    assert extract() == 1


def test_the_hashes_of_senders_have_the_same_order_in_every_run(folder: Path) -> None:
    lines = (f"13/03/2022, 14:{minute} - Guest {minute}: here is number {minute}\n" for minute in range(10, 40))
    write("Party", "".join(lines))
    assert extract() == 0
    senders = json.loads(Path("out/rows.json").read_text(encoding="utf-8"))["files"]["whatsapp/Party.csv"]["senders"]
    pieces = [senders[start : start + 12] for start in range(0, len(senders), 12)]
    assert len(pieces) == 30
    assert pieces == sorted(pieces)
