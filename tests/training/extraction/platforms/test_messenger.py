import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.extraction.exports import records, save
from training.errors import ExportError
from training.extraction.record import Kind


def row(content: str | None = "hi", sender: str = "Lea", ms: int = 1600000000000, **fields: Any) -> dict[str, Any]:
    text = {} if content is None else {"content": content}
    return {"sender_name": sender, "timestamp_ms": ms, **text, **fields}


def thread(*rows: Any, **fields: Any) -> dict[str, Any]:
    people = [{"name": "Lea"}, {"name": "Bob"}]
    return {"participants": people, "messages": list(rows), "title": "Bob", "thread_path": "inbox/bob_1"} | fields


def broken(text: str) -> str:
    """As Facebook writes it: every UTF-8 byte as a character of its own."""
    return text.encode().decode("latin-1")


def test_newest_first_becomes_oldest_first(tmp_path: Path) -> None:
    read = records(save(tmp_path, thread(row("new", ms=1600000000001), row("old")), "message_1.json"))
    assert [(each.timestamp, each.text, each.position) for each in read] == [
        ("2020-09-13T12:26:40.000+00:00", "old", 2),
        ("2020-09-13T12:26:40.001+00:00", "new", 1),
    ]
    assert (read[0].chat.key, read[0].chat.title) == ("bob_1", "Bob")


def test_the_box_is_no_part_of_a_threads_identity(tmp_path: Path) -> None:
    keys = {records(save(tmp_path, thread(row(), thread_path=f"{box}/bob_1")))[0].chat.key for box in ("inbox", "e2ee")}
    assert len(keys) == 1


WORDS = ["café 😂", "j’ai l'été", "œuvre – ça", "plain"]


def test_mojibake_is_repaired_in_every_string(tmp_path: Path) -> None:
    rows = [row(broken(words), sender=broken("Zoë")) for words in WORDS]
    read = records(save(tmp_path, thread(*rows, title=broken("Équipe"))))
    assert [each.text for each in reversed(read)] == WORDS
    assert {(each.sender, each.chat.title) for each in read} == {("Zoë", "Équipe")}


@pytest.mark.parametrize("words", [["Ã©", "😂"], ["café", "été", "Ã©"]], ids=["above U+00FF", "outvoted"])
def test_clean_text_is_left_alone(tmp_path: Path, words: list[str]) -> None:
    """`Ã©` alone could be a damaged é; the other strings of the file show that nothing is damaged."""
    read = records(save(tmp_path, thread(*map(row, words))))
    assert [each.text for each in reversed(read)] == words


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (row(None, sticker={"uri": "x"}), Kind.MEDIA),
        (row(None, photos=[{"uri": "x"}]), Kind.MEDIA),
        (row("sunset", photos=[{"uri": "x"}]), Kind.MESSAGE),
        (row(None, share={"link": "https://x.org"}), Kind.MEDIA),
        (row("Lea called you.", call_duration=3), Kind.CALL),
        (row("Bob left", type="Unsubscribe"), Kind.SYSTEM),
        (row("Reacted 😆 to your message "), Kind.SYSTEM),
        (row("oops", is_unsent=True), Kind.DELETED),
        (row(ms="soon"), Kind.UNREADABLE),  # type: ignore[arg-type]
        (None, Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, entry: Any, kind: Kind) -> None:
    assert records(save(tmp_path, thread(entry)))[0].kind is kind


def test_a_thread_without_participants_is_recognised_by_its_rows(tmp_path: Path) -> None:
    assert [each.text for each in records(save(tmp_path, {"messages": [row()]}))] == ["hi"]


def test_damaged_json_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not valid JSON") as caught:
        records(save(tmp_path, json.dumps(thread(row()))[:-5]))
    assert "\n" not in str(caught.value)


def test_html_is_answered_with_how_to_export_json(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Format: JSON"):
        records(save(tmp_path, '<!DOCTYPE html><html><div class="_a6-g">', "message_1.html"))


def test_the_encrypted_export_is_answered_with_what_can_be_read(tmp_path: Path) -> None:
    rows = [{"senderName": "Lea", "text": "hi", "timestamp": 1600000000000, "type": "text"}]
    with pytest.raises(ExportError, match=r"not read yet.*Download your information, Format: JSON"):
        records(save(tmp_path, {"participants": ["Lea", "Bob"], "threadName": "Bob_1", "messages": rows}))
