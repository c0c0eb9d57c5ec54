import json
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind
from training.extraction.platforms import hangouts
from training.extraction.source import Source

LEA, NOA, LOST = "100000000000000000001", "100000000000000000002", "100000000000000000003"


def event(by: str = LEA, second: int = 0, kind: str = "REGULAR_CHAT_MESSAGE", **content: Any) -> dict[str, Any]:
    row = {"sender_id": {"gaia_id": by, "chat_id": by}, "timestamp": f"14200722{second:02}123456"}
    row |= {"event_id": f"e{second}", "event_type": kind}
    return row | ({"chat_message": {"message_content": content}} if content else {})


def says(text: str, by: str = LEA, second: int = 0) -> dict[str, Any]:
    return event(by, second, segment=[{"type": "TEXT", "text": text}])


def export(*events: Any, is_old: bool = False, **about: Any) -> dict[str, Any]:
    people = [{"id": {"gaia_id": LEA}, "fallback_name": "Lea"}, {"id": {"gaia_id": NOA}, "fallback_name": "Noa"}]
    conversation = {"id": {"id": "C"}, "type": "STICKY_ONE_TO_ONE", "participant_data": people}
    conversation |= {"self_conversation_state": {"self_read_state": {"participant_id": {"gaia_id": NOA}}}} | about
    if is_old:
        state = {"conversation_id": {"id": "C"}, "conversation": conversation, "event": list(events)}
        return {"conversation_state": [{"conversation_id": {"id": "C"}, "conversation_state": state}]}
    return {"conversations": [{"conversation": {"conversation": conversation}, "events": list(events)}]}


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("is_backwards", [True, False])
def test_both_forms_in_either_order(tmp_path: Path, is_old: bool, is_backwards: bool) -> None:
    events = [says("hi", LEA, 1), says("yo", NOA, 2)]
    found = records(save(tmp_path, export(*(events[::-1] if is_backwards else events), is_old=is_old), "Hangouts.json"))
    assert [(one.timestamp, one.sender, one.text, one.id) for one in found] == [
        ("2015-01-01T00:30:01.123+00:00", "Lea", "hi", "e1"),
        ("2015-01-01T00:30:02.123+00:00", "Noa", "yo", "e2"),
    ]
    assert {(one.chat.key, one.chat.title) for one in found} == {("C", "Lea")}


def test_a_group_has_a_name_and_a_person_without_one_a_number(tmp_path: Path) -> None:
    (found,) = records(save(tmp_path, export(says("hi", LOST), type="GROUP", name="Trip")))
    assert (found.chat.title, found.sender) == ("Trip", f"user_{LOST}")


def test_segments_are_joined(tmp_path: Path) -> None:
    segments = [
        {"type": "TEXT", "text": "a < b &amp; "},
        {"type": "LINK", "text": "https://example.org", "link_data": {"link_target": "https://google.com/url?q=x"}},
        {"type": "LINE_BREAK", "text": "\n"},
        {"type": "TEXT", "text": "c", "formatting": {"bold": True}},
    ]
    (found,) = records(save(tmp_path, export(event(segment=segments))))
    assert found.text == "a < b &amp; https://example.org\nc"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (event(attachment=[{"embed_item": {"type": ["PLUS_PHOTO"]}}]), Kind.MEDIA),
        (event(attachment=[{"embed_item": {"type": ["PLACE_V2", "THING_V2", "THING"]}}]), Kind.LOCATION),
        (event(kind="SMS", segment=[{"type": "TEXT", "text": "hi"}]), Kind.MESSAGE),
        (event(kind="HANGOUT_EVENT"), Kind.CALL),
        (event(kind="VOICEMAIL"), Kind.CALL),
        (event(kind="ADD_USER"), Kind.SYSTEM),
        (event(kind="RENAME_CONVERSATION"), Kind.SYSTEM),
        (event() | {"timestamp": "soon"}, Kind.UNREADABLE),
        ("x", Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, row: Any, kind: Kind) -> None:
    (found,) = records(save(tmp_path, export(row)))
    assert found.kind is kind


def test_a_cut_file_is_one_error(tmp_path: Path) -> None:
    text = json.dumps(export(says("one"), says("two")))
    reading = hangouts.read(Source(save(tmp_path, text[:-60])), None).records
    assert next(reading).text == "one"
    with pytest.raises(ExportError, match=r"after entry 1 .* export it again"):
        next(reading)
