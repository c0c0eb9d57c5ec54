"""What `ghost extract` writes, and where: no number, address or secret in any file, name or report."""

import csv
import json
import stat
from pathlib import Path

import pytest

from tests.training.extraction.exports import save
from training.cli import main

NUMBER = "+33 6 39 98 12 34"
CHAT = f"""13/03/2022, 14:56 - \u202a{NUMBER}\u202c: call me on 06 39 98 12 34 or lea@example.org
13/03/2022, 14:57 - Zoé: ok @33639981234, ask Bob Martin
13/03/2022, 14:58 - Bob Martin: Bob here, the code is 4412
13/03/2022, 14:59 - Zoé: salut
"""


def extract(folder: Path, *options: str) -> tuple[dict[str, list[list[str]]], dict[str, object]]:
    """Every CSV by its path within --out, header row left out, and the report."""
    source = save(folder, CHAT, f"WhatsApp Chat with {NUMBER}.txt")
    assert main(["extract", str(source), "--out", str(folder / "out"), *options]) == 0
    rows = {}
    for path in folder.joinpath("out").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows[path.relative_to(folder / "out").as_posix()] = list(csv.reader(stream))[1:]
    return rows, json.loads((folder / "out" / "extraction_report.json").read_text("utf-8"))


def test_by_default_numbers_become_contacts_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = extract(tmp_path)
    assert [row[1:] for row in rows["whatsapp/Contact 1.csv"]] == [
        ["Contact 1", "call me on [phone] or [email]"],
        ["Zoé", "ok @Contact 1, ask Bob Martin"],
        ["Bob Martin", "Bob here, the code is 4412"],
        ["Zoé", "salut"],
    ]
    assert report["masked"] == {"phone": 1, "email": 1}
    written = "".join(path.read_text("utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file())
    for place in (written, "".join(map(str, (tmp_path / "out").rglob("*"))), capsys.readouterr().out):
        assert not any(part in place for part in ("39 98", "3998", "+33", "12 34"))
        assert "example.org" not in place


def test_a_group_that_is_called_by_its_numbers(tmp_path: Path) -> None:
    mms = '<mms date="1647615360000" address="81234567~91234567" msg_box="2"><parts><part ct="text/plain" text="yo"/>'
    source = save(tmp_path, f"<smses>{mms}</parts></mms></smses>", "sms.xml")
    assert main(["extract", str(source), "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out" / "sms").iterdir()] == ["Contact 1, Contact 2.csv"]
    assert "1234567" not in (tmp_path / "out" / "extraction_report.json").read_text("utf-8").replace(str(tmp_path), "")


def test_off_leaves_everything_as_it_was(tmp_path: Path) -> None:
    rows, report = extract(tmp_path, "--pii", "off")
    ((name, messages),) = rows.items()
    assert name == f"whatsapp/{NUMBER}.csv"
    assert messages[0][1:] == [NUMBER, "call me on 06 39 98 12 34 or lea@example.org"]
    assert report["masked"] == {}


def test_pseudonyms_leave_nobody_but_me(tmp_path: Path) -> None:
    rows, _ = extract(tmp_path, "--pseudonyms", "--me", "zoé")
    ((name, messages),) = rows.items()
    senders = [row[1] for row in messages]
    assert senders[1] == senders[3] == "Zoé"
    assert len(set(senders)) == 3
    assert name == f"whatsapp/{senders[0]}.csv"
    assert messages[1][2] == f"ok @{senders[0]}, ask {senders[2]}"
    assert "Martin" not in str(rows)
    assert extract(tmp_path, "--pseudonyms", "--me", "Zoé")[0] == rows


def test_pseudonyms_need_to_know_who_is_who(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path, CHAT)
    assert main(["extract", str(source), "--out", str(tmp_path / "out"), "--pseudonyms"]) == 1
    assert "--me" in capsys.readouterr().err
    assert main(["extract", str(source), "--out", str(tmp_path / "out"), "--me", "Leo"]) == 1
    assert "--me 'Leo' sent none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unreadable_file_is_named_as_it_must_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "%PDF-1.7", f"{NUMBER}.bin")
    save(tmp_path, CHAT, "chat.txt")
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"{NUMBER}.bin: no chat export" in capsys.readouterr().out.replace("\n", "")
    report = (tmp_path / "out" / "extraction_report.json").read_text("utf-8")
    assert not any(part in report for part in ("39 98", "3998", "+33"))


def test_reports_are_their_owners(tmp_path: Path) -> None:
    extract(tmp_path)
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
