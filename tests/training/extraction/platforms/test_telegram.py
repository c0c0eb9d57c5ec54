import json
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source


def message(text: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"id": 1, "type": "message", "date": "2024-03-10T13:00:00", "from": "Léa", "text": text} | fields


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "Bob", "type": "personal_chat", "id": 7, "messages": list(messages)} | fields


def test_a_single_chat(tmp_path: Path) -> None:
    parts = ["he", {"type": "bold", "text": "llo"}, "\r\n", {"type": "link", "text": "x.org"}]
    read = records(save(tmp_path, chat(message("salut 👩🏽\u200d🚒"), message(parts)), "result.json"))
    assert [(each.chat.title, each.sender, each.text, each.position) for each in read] == [
        ("Bob", "Léa", "salut 👩🏽\u200d🚒", 1),
        ("Bob", "Léa", "hello\nx.org", 2),
    ]


@pytest.mark.parametrize("section", ["chats", "left_chats"])
def test_a_full_account_keeps_chats_with_one_name_apart(tmp_path: Path, section: str) -> None:
    chats = [chat(message("one")), chat(message("two"), id=8), chat(type="saved_messages", id=9)]
    read = records(save(tmp_path, {"about": "x", section: {"list": chats}}))
    assert [(each.chat.title, each.text) for each in read] == [("Bob", "one"), ("Bob", "two")]
    assert read[0].chat.key != read[1].chat.key


@pytest.mark.parametrize(
    ("fields", "timestamp"),
    [
        ({}, "2024-03-10T13:00:00"),
        ({"date_unixtime": "1710072000"}, "2024-03-10T13:00:00+01:00"),
        ({"date_unixtime": "1710072000", "date": None}, "2024-03-10T12:00:00+00:00"),
        ({"date_unixtime": "1710091800"}, "2024-03-10T13:00:00-04:30"),
        ({"date_unixtime": "1"}, "1970-01-01T00:00:01+00:00"),
    ],
)
def test_the_offset_is_what_the_two_clocks_show(tmp_path: Path, fields: dict[str, Any], timestamp: str) -> None:
    (read,) = records(save(tmp_path, chat(message(**fields))))
    assert read.timestamp == timestamp


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (message("", photo="photos/1.jpg"), Kind.MEDIA),
        (message("sunset", photo="photos/1.jpg"), Kind.MESSAGE),
        (message("", media_type="sticker"), Kind.MEDIA),
        (message("", poll={"question": "lunch?"}), Kind.POLL),
        (message("", todo_list={"title": "party"}), Kind.POLL),
        (message("", location_information={"latitude": 1.5, "longitude": 2}), Kind.LOCATION),
        (message("", location_information=None), Kind.LOCATION),
        (message("", place_name="Café", address="1 rue X"), Kind.LOCATION),
        (message("", contact_information={"first_name": "Bob"}), Kind.MEDIA),
        (message("", game_title="chess"), Kind.MEDIA),
        (message("", giveaway_results={"winners": []}), Kind.MEDIA),
        (message("", photo="photos/1.jpg", forwarded_from="Zoé"), Kind.FORWARD),
        (message(forwarded_from="Zoé"), Kind.FORWARD),
        (message(forwarded_from=None), Kind.FORWARD),
        (message(forwarded_from_id="channel9"), Kind.FORWARD),
        (message(via_bot="@gif"), Kind.BOT),
        (message("", via_bot="@gif", media_type="animation"), Kind.BOT),
        (message("", type="service", action="phone_call", actor="Léa"), Kind.CALL),
        (message("", type="service", action="pin_message", actor="Léa"), Kind.SYSTEM),
        (message("I won", type="service", action="send_webview_data"), Kind.SYSTEM),
        ({"id": 1, "type": "unsupported"}, Kind.SYSTEM),
        (message(type="hologram"), Kind.UNREADABLE),
        (message(date="yesterday"), Kind.UNREADABLE),
        ("not an object", Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, entry: Any, kind: Kind) -> None:
    assert records(save(tmp_path, chat(entry)))[0].kind is kind


def test_the_bot_that_a_chat_is_with_is_nobodys_voice(tmp_path: Path) -> None:
    rows = message("/tides", from_id="user1"), message("high water at noon", from_id="user7")
    assert [each.kind for each in records(save(tmp_path, chat(*rows, type="bot_chat")))] == [Kind.MESSAGE, Kind.BOT]
    assert [each.kind for each in records(save(tmp_path, chat(*rows)))] == [Kind.MESSAGE] * 2


@pytest.mark.parametrize("text", [None, "", [], [None], [{"type": "plain", "text": None}]])
def test_no_text_is_empty_text(tmp_path: Path, text: Any) -> None:
    assert records(save(tmp_path, chat(message(text))))[0].text == ""


def test_messages_without_ids_are_not_taken_for_one(tmp_path: Path) -> None:
    read = records(save(tmp_path, chat(message("hi", id=None), message("ho", id=None))))
    assert [each.id for each in read] == ["", ""]


@pytest.mark.parametrize(
    ("fields", "sender"),
    [
        ({"from": None, "from_id": "user12"}, "user12"),
        ({"from": None, "from_id": 12}, "user12"),
        ({"from_id": 12}, "Léa"),
    ],
)
def test_the_sender_is_whose_words_they_are(tmp_path: Path, fields: dict[str, Any], sender: str) -> None:
    (read,) = records(save(tmp_path, chat(message(**fields))))
    assert (read.sender, read.text, read.kind) == (sender, "hi", Kind.MESSAGE)


def test_a_supergroup_brings_the_messages_of_the_group_it_was(tmp_path: Path) -> None:
    group = chat(message("old", id=-999999993), message("new", id=7), type="private_supergroup")
    assert [(each.text, each.id) for each in records(save(tmp_path, group))] == [("old", "-999999993"), ("new", "7")]


@pytest.mark.parametrize("wrap", [lambda made: made, lambda made: {"chats": {"list": [made, made]}}])
def test_a_header_behind_the_messages_counts_all_the_same(tmp_path: Path, wrap: Any) -> None:
    made = {"messages": [message("one"), message("two")], "name": "Bob", "type": "personal_chat", "id": 7}
    read = records(save(tmp_path, wrap(made)))
    assert {(each.chat.title, each.chat.key) for each in read} == {("Bob", "personal_chat 7")}
    assert [each.text for each in read[:2]] == ["one", "two"]


def test_messages_that_wait_for_a_header_are_not_lost_where_the_file_breaks_off(tmp_path: Path) -> None:
    path = save(tmp_path, json.dumps({"messages": [message("one"), message("two"), message("three")]})[:-40])
    stream = PLATFORMS["telegram"].read(Source(path), None).records
    assert [next(stream).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(ExportError, match="not valid JSON after entry 2"):
        next(stream)


def test_entries_are_numbered_through_the_file_and_a_broken_one_is_only_itself(tmp_path: Path) -> None:
    text = json.dumps(chat(*[message(f"{n}") for n in range(4)]), indent=1)
    read = records(save(tmp_path, text.replace('"text": "1"', '"text": "1" or 2"')))
    assert [(each.position, each.text, each.kind) for each in read] == [
        (1, "0", Kind.MESSAGE),
        (2, "", Kind.UNREADABLE),
        (3, "2", Kind.MESSAGE),
        (4, "3", Kind.MESSAGE),
    ]


@pytest.mark.parametrize("odd", [5, None, {"id": 1}, "x"])
def test_what_is_no_list_of_messages_is_an_unreadable_entry(tmp_path: Path, odd: Any) -> None:
    account = {"chats": {"list": [odd, {"id": 1, "messages": odd}, chat(message("read"))]}}
    read = records(save(tmp_path, account))
    assert [each.kind for each in read] == [Kind.UNREADABLE] * (len(read) - 1) + [Kind.MESSAGE]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030"])
def test_what_precedes_bytes_that_are_no_utf_8_is_read(tmp_path: Path, encoding: str) -> None:
    one_chat = chat(*(message(text, **{"from": "Bob"}) for text in ("hi", "café", "yo")))
    source = Source(save(tmp_path, json.dumps(one_chat, ensure_ascii=False).encode(encoding)))
    found = recognise(source)
    assert found is not None
    read = found.platform.read(source, None).records
    assert next(read).text == "hi"
    with pytest.raises(ExportError, match=r"after entry 1 .*not UTF-8; save the file as UTF-8"):
        next(read)


def test_both_defects_of_real_versions_are_repaired(tmp_path: Path) -> None:
    raw = r"""{
 "name": "Bob", "type": "bot_chat", "id": 1,
 "messages": [
  {"id": 1, "type": "message", "date": "2024-03-10T12:00:00", "from": "Bot",
   "text": [
    {
     "text": "page one\x0Cpage two, typed \\x0C, \"document_id\": none",
     "document_id": video_files/sticker (2).webm
    },
    {
     "document_id": "5",
     "text": "!"
    }
   ]}
 ]
}"""
    (read,) = records(save(tmp_path, raw, "result.json"))
    assert read.text == 'page one\x0cpage two, typed \\x0C, "document_id": none!'


def test_half_a_surrogate_pair_does_not_reach_the_csv(tmp_path: Path) -> None:
    raw = json.dumps(chat(message("cut off \ud83d"), name="Bob \ud83d"))
    (read,) = records(save(tmp_path, raw))
    assert read.text.encode().startswith(b"cut off ")
    assert read.chat.title.encode().startswith(b"Bob ")


def test_a_cancelled_export_gives_what_it_holds_and_then_says_so(tmp_path: Path) -> None:
    whole = save(tmp_path, chat(*[message(f"{n}") for n in range(50)])).read_bytes()
    source = Source(save(tmp_path, whole[:-40]))
    recognised = recognise(source)
    assert recognised is not None
    stream = recognised.platform.read(source, None).records
    assert [next(stream).text for _ in range(49)] == [str(n) for n in range(49)]
    with pytest.raises(ExportError, match="not valid JSON after entry 49"):
        next(stream)


def test_more_than_one_json_value_is_said_after_the_first_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, json.dumps(chat(message("one"))) * 2)
    stream = PLATFORMS["telegram"].read(Source(path), None).records
    assert next(stream).text == "one"
    with pytest.raises(ExportError, match=r"not valid JSON after entry 1 \(character"):
        next(stream)


@pytest.mark.parametrize("content", ['{"personal_information": {"user_id": 1}, "contacts": {"list": []}}', "[1]", "x"])
def test_a_file_without_chats_is_said(tmp_path: Path, content: str) -> None:
    with pytest.raises(ExportError, match="no chat in it"):
        list(PLATFORMS["telegram"].read(Source(save(tmp_path, content)), None).records)


def test_html_is_answered_with_how_to_export_json(tmp_path: Path) -> None:
    page = '<!DOCTYPE html><html><body><div class="page_wrap"><div class="page_body chat_page"><div class="history">'
    with pytest.raises(ExportError, match="Machine-readable JSON"):
        records(save(tmp_path, page, "messages.html"))


def test_a_bom_and_an_empty_chat_are_recognised(tmp_path: Path) -> None:
    assert records(save(tmp_path, b"\xef\xbb\xbf" + save(tmp_path, chat()).read_bytes())) == []


@pytest.mark.parametrize(
    ("person", "owner"),
    [
        ({"first_name": "Ada", "last_name": "Lovelace", "phone_number": "+44"}, {"owner": "Ada Lovelace"}),
        ({"first_name": "Ada", "last_name": None}, {"owner": "Ada"}),
        ({}, {}),
        ([], {}),
    ],
)
def test_a_full_export_says_whose_it_is(tmp_path: Path, person: object, owner: dict[str, str]) -> None:
    export = {"about": "x", "personal_information": person, "chats": {"list": []}}
    assert PLATFORMS["telegram"].read(Source(save(tmp_path, export, "result.json")), None).facts == owner
