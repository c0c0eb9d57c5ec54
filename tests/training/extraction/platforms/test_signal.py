"""Signal: its own export, Desktop's rows, signal-export's files; an encrypted backup is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind
from training.extraction.platforms import evidence_of, recognise, signal
from training.extraction.source import Source

FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "signal"

ME = {"recipient": {"id": "1", "self": {}}}
ADA = {"recipient": {"id": "2", "contact": {"aci": "QURB", "systemGivenName": "Ada", "systemFamilyName": "Lovelace"}}}
GROUP = {"recipient": {"id": "3", "group": {"masterKey": "S0VZ", "snapshot": {"title": {"title": "Trip"}}}}}
CHATS = [{"chat": {"id": "10", "recipientId": "2"}}, {"chat": {"id": "11", "recipientId": "3"}}]


def jsonl(folder: Path, *frames: Any, name: str = "main.jsonl") -> Path:
    text = "".join(frame if isinstance(frame, str) else json.dumps(frame) + "\n" for frame in frames)
    return save(folder, text, name)


def item(**fields: Any) -> dict[str, Any]:
    return {"chatItem": {"chatId": "10", "authorId": "2", "dateSent": "1699000000000", **fields}}


def said(body: Any, **fields: Any) -> dict[str, Any]:
    return item(standardMessage={"text": {"body": body}}, **fields)


def export(folder: Path, *items: Any) -> Path:
    header = {"version": 1, "backupTimeMs": "1", "mediaRootBackupKey": "AA=="}
    return jsonl(folder, header, {"account": {"givenName": "Kay"}}, GROUP, ME, ADA, *CHATS, *items)


def test_own_export(tmp_path: Path) -> None:
    path = export(
        tmp_path,
        said("hello"),
        said("hi\r\nback", authorId="1", outgoing={}),
        said("all of you", chatId="11", revisions=[item()["chatItem"]]),
    )
    hello, back, group = records(path)
    assert hello[1:7] == ("2023-11-03T08:26:40.000+00:00", "Ada Lovelace", "hello", Kind.MESSAGE, 8, hello.id)
    assert (hello.chat.title, hello.chat.key, hello.chat.is_id) == ("Ada Lovelace", "QURB", True)
    assert (back.sender, back.text) == ("Kay", "hi\nback")
    assert (group.chat.title, group.chat.is_id) == ("Trip", True)


def test_each_item_is_one_kind(tmp_path: Path) -> None:
    items = {
        Kind.DELETED: [item(remoteDeletedMessage={})],
        Kind.MEDIA: [
            item(viewOnceMessage={}, revisions=[item(viewOnceMessage={})["chatItem"]]),
            item(stickerMessage={"sticker": {"emoji": "🙂"}}),
            item(contactMessage={}),
            item(standardMessage={"attachments": [{"pointer": {"contentType": "image/jpeg"}}]}),
        ],
        Kind.POLL: [item(poll={"question": "when?"})],
        Kind.CALL: [item(updateMessage={"individualCall": {}}), item(updateMessage={"groupCall": {}})],
        Kind.SYSTEM: [
            item(updateMessage={"simpleUpdate": {"type": "IDENTITY_UPDATE"}}, directionless={}),
            item(updateMessage=None),
            item(giftBadge={}),
            item(paymentNotification={}),
        ],
        Kind.REACTION: [item(directStoryReplyMessage={"emoji": "❤"})],
        Kind.MESSAGE: [
            item(standardMessage={"text": {"body": "look"}, "attachments": [{}]}),
            item(directStoryReplyMessage={"textReply": {"text": {"body": "nice"}}}),
            item(paymentNotification={"note": "for lunch"}),
        ],
        Kind.UNREADABLE: [item(dateSent="soon"), item(dateSent="0"), {"chatItem": 3}],
    }
    path = export(tmp_path, *(each for kind in items for each in items[kind]))
    assert Counter(record.kind for record in records(path)) == {kind: len(items[kind]) for kind in items}


def test_a_line_that_is_no_json_is_unreadable_by_its_number(tmp_path: Path) -> None:
    path = export(tmp_path, "nonsense\n", "\n", said("one"), "null\n", '{"chatItem":{"chatId":"10","auth')
    kinds = [(record.kind, record.position) for record in records(path)]
    assert kinds == [(Kind.UNREADABLE, 8), (Kind.MESSAGE, 10), (Kind.UNREADABLE, 11), (Kind.UNREADABLE, 12)]


@pytest.mark.parametrize(
    ("contact", "name"),
    [
        ({"nickname": {"given": "Addie"}, "systemGivenName": "Ada"}, "Addie"),
        ({"profileGivenName": "Ada", "profileFamilyName": None}, "Ada"),
        ({"e164": "15550001111"}, "+15550001111"),
        ({"e164": 15550001111}, "+15550001111"),
        ({"username": "ada.01"}, "ada.01"),
        ({}, "Unknown 2"),
    ],
)
def test_names_of_contacts(tmp_path: Path, contact: dict[str, Any], name: str) -> None:
    path = jsonl(tmp_path, ME, {"recipient": {"id": "2", "contact": contact}}, CHATS[0], said("hello"))
    (record,) = records(path)
    assert (record.sender, record.chat.title) == (name, name)


def test_mentions_by_utf_16_units(tmp_path: Path) -> None:
    mentions = [{"start": 3, "length": 1, "mentionAci": "QURB"}, {"length": 1, "mentionAci": "QURB"}, {"start": "x"}]
    text = {"body": "\ufffc😀\ufffc!", "bodyRanges": mentions}
    (record,) = records(export(tmp_path, item(standardMessage={"text": text})))
    assert record.text == "@Ada Lovelace😀@Ada Lovelace!"


def test_numbers_where_strings_are_expected(tmp_path: Path) -> None:
    (record,) = records(export(tmp_path, said(5, chatId=10, authorId=2, dateSent=1699000000000)))
    assert (record.chat.title, record.sender, record.text) == ("Ada Lovelace", "Ada Lovelace", "5")


def test_two_exports_of_one_chat_merge(tmp_path: Path) -> None:
    export(tmp_path / "a", said("one"), said("two", dateSent="1699000001000"))
    renamed = {"recipient": {"id": "7", "contact": {"aci": "QURB", "systemGivenName": "Addie"}}}
    frames = [said("two", chatId="5", authorId="7", dateSent="1699000001000"), said("three", chatId="5", authorId="7")]
    frames[1]["chatItem"]["dateSent"] = "1699000002000"
    jsonl(tmp_path / "b", ME, renamed, {"chat": {"id": "5", "recipientId": "7"}}, *frames)
    save(tmp_path / "b", "{}", "metadata.json")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    assert [record.text for record in conversation.messages] == ["one", "two", "three"]
    assert not account.problems


def test_sigtop(tmp_path: Path) -> None:
    row = {"conversationId": "c1", "sent_at": 1699000000000, "type": "incoming"}
    content = [
        {**row, "id": "m1", "body": "hello"},
        {**row, "id": "m2", "body": "hi", "type": "outgoing"},
        {**row, "attachments": [{}]},
        {**row, "type": "call-history"},
        {**row, "type": "keychange"},
        {**row, "deletedForEveryone": True, "body": ""},
        {**row, "poll": {"question": "when?"}},
        {"body": "when?"},
        4,
    ]
    path = save(tmp_path, json.dumps(content), "Ada (+15550001111).json")
    found = records(path)
    assert [record.sender for record in found[:2]] == ["Ada", "Me"]
    assert found[0].chat.title == "Ada"
    assert found[0].chat.is_id
    unread = [Kind.UNREADABLE, Kind.UNREADABLE]
    rest = [Kind.MEDIA, Kind.CALL, Kind.SYSTEM, Kind.DELETED, Kind.POLL, *unread]
    assert [record.kind for record in found] == [Kind.MESSAGE, Kind.MESSAGE, *rest]


def test_sigtop_group_and_a_file_that_breaks_off(tmp_path: Path) -> None:
    row = {"conversationId": "g", "sent_at": 1, "type": "incoming", "source": "+15550002222", "body": "hey"}
    path = save(tmp_path, json.dumps([row, row])[:-9], "Trip (group).json")
    reading = iter(signal.read(Source(path), None).records)
    first = next(reading)
    assert (first.sender, first.chat.title) == ("+15550002222", "Trip")
    with pytest.raises(ExportError, match="after entry 1"):
        next(reading)


OLD = "[2019-12-24, 12:23] Jane Doe: Hello\nJohn!\n[2020-01-17, 21:49] John: Doe: a\n\n[sic] b\n"


def test_old_text(tmp_path: Path) -> None:
    found = records(save(tmp_path, OLD.replace("\n", "\r\n"), "Jane.txt"))
    assert [record[1:6] for record in found] == [
        ("2019-12-24T12:23:00", "Jane Doe", "Hello\nJohn!", Kind.MESSAGE, 1),
        ("2020-01-17T21:49:00", "John", "Doe: a\n\n[sic] b", Kind.MESSAGE, 3),
    ]
    broken = records(save(tmp_path, "\n[2019-13-24, 12:23] Jane Doe: x\n", "b.txt"))
    assert [record.kind for record in broken] == [Kind.UNREADABLE]


@pytest.mark.parametrize(
    "head",
    [
        "[2019-12-24, 12:23:08] Jane: \u200eMessages are end-to-end encrypted\n",
        "[2019-12-24, 12:23] Jane: \u200eimage omitted\n",
        "[24.12.2019, 12:23] Jane: hello\n",
        "[2019-12-24 12:23] Jane: hello\n",
    ],
)
def test_text_that_may_be_whatsapps_is_left_to_it(tmp_path: Path, head: str) -> None:
    assert signal.recognise(Source(save(tmp_path, head)), evidence_of(head.encode())) is None


MARKDOWN = """[2023-01-01 12:23:45] Jane: Hello **you**
two  

[2023-01-01 12:24:00] Me: 

> Hello **you**
> two

yes  
(- Jane: ❤ -)

[2023-01-01 12:25:00] Me:   ![a (1).jpg](./media/a%20(1).jpg)  [b](./media/b.pdf)  

[2023-01-01 12:26:00] Jane: (This message was deleted)

"""  # noqa: W291  # Markdown's line break is two blanks


def test_markdown(tmp_path: Path) -> None:
    found = records(save(tmp_path / "Jane", MARKDOWN, "chat.md"))
    assert [(record.sender, record.text, record.kind) for record in found] == [
        ("Jane", "Hello **you**\ntwo", Kind.MESSAGE),
        ("Me", "yes", Kind.MESSAGE),
        ("Me", "", Kind.MEDIA),
        ("Jane", "", Kind.DELETED),
    ]
    assert found[0].timestamp == "2023-01-01T12:23:45"
    assert found[0].chat.title == "Jane"


def test_json_lines_are_read_instead_of_the_pages_beside_them(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "date": "2023-01-01T12:23:45.678000",
        "sender": "Jane",
        "body": "Hello  ",
        "quote": "",
        "sticker": None,
    }
    row |= {"reactions": [], "attachments": []}
    rows = [row, {**row, "deleted": True}, {**row, "call": True}, {**row, "body": "  ", "attachments": [{}]}, {}]
    jsonl(tmp_path / "Jane", *rows, "[1]\n", name="data.json")
    save(tmp_path / "Jane", MARKDOWN, "chat.md")
    save(tmp_path / "Jane", "<!doctype html><link href='../style.css'>", "index.html")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    (hello,) = conversation.messages
    assert (hello.timestamp, hello.sender, hello.text) == ("2023-01-01T12:23:45", "Jane", "Hello")
    assert sorted(file.records for file in account.files) == [0, 0, 6]
    assert not account.refused
    assert next(file for file in account.files if file.records).unreadable == [5, 6]


def test_an_encrypted_backup_is_refused(tmp_path: Path) -> None:
    frame = b"\0\0\0\x38\x0a\x36\x0a\x10" + b"i" * 16 + b"\x12\x20" + b"s" * 32 + b"rest"
    for name, content in (("whatever", frame), ("signal-2024-01-01.backup", b"x")):
        with pytest.raises(ExportError, match="encrypted backup"):
            recognise(Source(save(tmp_path, content, name)))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, OLD.encode() + b"\xff", "Jane.txt")
    with pytest.raises(ExportError, match="not UTF-8 at byte"):
        records(path)


# Upstream's own tests: SignalToTelegram counts 3 in the note to self, of which one is a picture, and 1 elsewhere.
SAMPLES = {
    "joweich_chat-miner/test/signal/test_export.txt": {Kind.MESSAGE: 2},
    "kotozute_id67329969004/minimal/main.jsonl": {Kind.MESSAGE: 2, Kind.DELETED: 1, Kind.SYSTEM: 1},
    "kotozute_id67329969004/group_quote_attachment/main.jsonl": {Kind.MESSAGE: 2, Kind.MEDIA: 1},
    "SignalToTelegram_id55249039756/note-to-self.jsonl": {Kind.MESSAGE: 2 + 1, Kind.MEDIA: 1, Kind.SYSTEM: 1},
    "signalapp_libsignal_id68822350781/view_once_line.jsonl": {Kind.MEDIA: 1},
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_upstreams_expectation(name: str) -> None:
    assert Counter(record.kind for record in records(FORMATS / name)) == SAMPLES[name]
