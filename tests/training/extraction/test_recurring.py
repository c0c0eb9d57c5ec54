"""Messages that look like the app's own by nothing but the way their wording recurs."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from tests.training.extraction.exports import save
from training.extraction.platform import Chat, Kind, Record
from training.extraction.recurring import Recurring

LAKE = Chat("lake", "Lake", is_id=True)


def records(*rows: tuple[str, str]) -> list[Record]:
    return [
        Record(LAKE, "2024-05-01T10:00:00", sender, text, Kind.MESSAGE, number)
        for number, (sender, text) in enumerate(rows, start=1)
    ]


def found(*rows: tuple[str, str]) -> list[tuple[str, int, str | None]]:
    return [(each.text, each.rows, each.shown) for each in Recurring([("lake.json", records(*rows))]).templates]


def test_rows_that_speak_of_their_sender_by_name() -> None:
    names = ("Piet Vos", "Orla Vale", "Ines Roth")
    rows = [(name, f"{name.split()[0]} aliĝis al la voko {minute}") for minute, name in enumerate(names)]
    assert found(*rows) == [("‹name› aliĝis al la voko ‹number›", 3, "‹name› aliĝis al la voko ‹number›")]
    assert found(*rows[:2]) == []
    talk = [(name, f"{name.split()[0]}: {word}") for name in names for word in ("see you", "not me")]
    assert found(*talk, ("Piet Vos", "Orla is late"), ("Ines Roth", "Orla is late"), ("Piet Vos", "Orla is late")) == []


def test_other_names_numbers_and_emoji_are_slots() -> None:
    rows = [("Piet Vos", f"Piet donis al Orla {n} poentojn 😂 hodiaŭ") for n in range(5)] + [("Orla Vale", "no")]
    (template,) = found(*rows)
    assert template == ("‹name› donis al ‹name› ‹number› poentojn ‹emoji› hodiaŭ", 5, None)


def test_a_user_name_that_holds_a_name_is_one() -> None:
    rows = [("Piet Vos", f"piet.v ŝanĝis la temon al {n}") for n in range(3)]
    rows += [("Ines Roth", f"ines_roth ŝanĝis la temon al {n}") for n in range(3)]
    assert found(*rows) == [("‹name› ŝanĝis la temon al ‹number›", 6, "‹name› ŝanĝis la temon al ‹number›")]
    assert found(*[("Piet Vos", f"pieter always was {n} here") for n in range(9)], ("Ines Roth", "pieter who?")) == []


def test_what_one_person_writes_is_not_shown() -> None:
    """Somebody may speak of themselves by name; their words belong in no report."""
    (template,) = found(*[("Piet Vos", "Piet really loves this boat")] * 5)
    assert template[1:] == (5, None)


def test_a_first_name_that_is_a_word_starts_a_sentence() -> None:
    assert found(*[("Will Reed", "Will be there at noon"), ("Mark Low", "Mark be there at noon")] * 5) == []


def test_sentences_that_differ_in_an_emoji_alone() -> None:
    reactions = [("Piet Vos", f"Reagis per {symbol} al via mesaĝo") for symbol in "😂👍😮😢🔥"]
    assert [each[0] for each in found(*reactions)] == ["Reagis per ‹emoji› al via mesaĝo"]
    assert found(*reactions[:4]) == []
    assert found(*[("Piet Vos", f"good night my dear {symbol}") for symbol in "😂👍😮😢🔥"]) == []


def test_a_sentence_that_never_varies() -> None:
    liked = [(name, "Ŝatis unu mesaĝon") for name in ("Piet Vos", "Orla Vale", "Ines Roth")] * 4
    assert found(*liked) == [("Ŝatis unu mesaĝon", 12, "Ŝatis unu mesaĝon")]
    assert found(*liked[:9]) == []
    assert found(*liked, ("Piet Vos", "li diris: ŝatis unu mesaĝon!")) == []
    assert found(*[("Piet Vos", "ok")] * 50, *[("Orla Vale", "haha 😂")] * 50) == []
    assert [each[2] for each in found(*[("Piet Vos", "Ŝatis unu mesaĝon")] * 12)] == [None]


def export(folder: Path) -> Path:
    people = ["Piet Vos", "Orla Vale", "Ines Roth"]
    rows = [(name, f"{name.split()[0]} aliĝis al la voko") for name in people] + [
        ("Piet Vos", "hello"),
        ("Orla Vale", "hi"),
    ]
    messages = [
        {"sender_name": name, "timestamp_ms": 1600000000000 - 1000 * number, "content": text}
        for number, (name, text) in enumerate(rows)
    ]
    thread = {"participants": [{"name": name} for name in people], "messages": messages, "title": "Lake"}
    return save(folder, json.dumps(thread), "inbox/lake_1/message_1.json")


def run(folder: Path, *options: str) -> Any:
    assert main(["extract", str(export(folder)), "--out", str(folder / "out"), "--pii", "off", *options]) == 0
    report = json.loads((folder / "out" / "extraction_report.json").read_text(encoding="utf-8"))
    return report["recurring"], report["totals"], next((folder / "out").glob("*/*.csv")).read_text(encoding="utf-8")


def test_they_are_reported_and_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recurring, totals, written = run(tmp_path)
    (template,) = recurring["templates"]
    assert (template["wording"], template["rows"], template["senders"]) == ("‹name› aliĝis al la voko", 3, 3)
    assert template["first"]["position"] == 3
    assert (totals["message"], totals["system"], written.count("voko")) == (5, 0, 3)
    shown = capsys.readouterr().out
    assert "3 messages look like the app's own" in shown
    assert "hello" not in shown


def test_they_are_left_out_if_asked(tmp_path: Path) -> None:
    recurring, totals, written = run(tmp_path, "--without-app-rows")
    assert recurring["left_out"]
    assert (totals["message"], totals["system"], written.count("voko"), written.count("hello")) == (2, 3, 0, 1)
