"""Slack: a workspace export as a folder and as a zip."""

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind, Record
from training.extraction.platforms import slack
from training.extraction.source import Source, discover

FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "slack" / "rusq_slackdump"

USERS: list[dict[str, Any]] = [
    {"id": "U1", "team_id": "T1", "name": "ada", "profile": {"display_name": "Ada", "real_name": "Ada Lovelace"}},
    {"id": "U2", "name": "kay", "real_name": "Kay Example", "profile": {"display_name": ""}},
    {"id": "U3", "name": "bo"},
]
INDEXES: dict[str, list[dict[str, Any]]] = {
    "users.json": USERS,
    "channels.json": [{"id": "C0000001", "name": "general", "members": ["U1", "U2"]}],
    "groups.json": [],
    "dms.json": [
        {"id": "D0000001", "members": ["U1", "U2"]},
        {"id": "D0000002", "members": ["U3", "U1"]},
        {"id": "D0000003", "members": ["U1", "U1"]},
    ],
    "mpims.json": [{"id": "G0000001", "name": "mpdm-ada--kay--bo-1", "members": ["U1", "U2", "U3"]}],
    "integration_logs.json": [],
}


def index(folder: Path, **changed: Any) -> None:
    for name, rows in INDEXES.items():
        save(folder, json.dumps(changed.get(name.removesuffix(".json"), rows)), name)


def row(text: Any = "hello", number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "user": "U1", "text": text, "ts": f"173650000{number}.123459", **fields}


def day(folder: Path, *rows: Any, name: str = "2025-01-10.json") -> Path:
    return save(folder, json.dumps(list(rows)), name)


def one(folder: Path, **fields: Any) -> Record:
    index(folder)
    (record,) = records(day(folder / "general", {**row(), **fields}))
    return record


def test_a_channel(tmp_path: Path) -> None:
    record = one(tmp_path)
    assert record[1:7] == ("2025-01-10T09:06:41.123459+00:00", "Ada", "hello", Kind.MESSAGE, 1, "1736500001.123459")
    assert (record.chat.key, record.chat.title, record.chat.is_id) == ("C0000001", "general", True)


@pytest.mark.parametrize(
    ("folder", "title", "key"),
    [
        ("D0000001", "Kay Example", "D0000001"),  # Ada is in each of the conversations: it is her export
        ("D0000003", "Ada", "D0000003"),
        ("mpdm-ada--kay--bo-1", "Kay Example, bo", "G0000001"),
        ("C0000001", "general", "C0000001"),
        ("left-channel", "left-channel", "T1 left-channel"),
    ],
)
def test_titles(tmp_path: Path, folder: str, title: str, key: str) -> None:
    index(tmp_path)
    (record,) = records(day(tmp_path / folder, row()))
    assert (record.chat.title, record.chat.key) == (title, key)


def test_one_direct_conversation_does_not_tell_whose_export_it_is(tmp_path: Path) -> None:
    index(tmp_path, dms=INDEXES["dms.json"][:1])
    (record,) = records(day(tmp_path / "D0000001", row()))
    assert record.chat.title == "Ada, Kay Example"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<@U1> and <@U2|kay>: <@U9> <@U8|zoe>", "@Ada and @Kay Example: @U9 @zoe"),
        ("<#C0000001|general> <#C0000001> <#C0000001|> <#C9>", "#general #general #general #C9"),
        ("<!here> <!channel> <!subteam^S1|@devs> <!subteam^S1>", "@here @channel @devs S1"),
        ("<!date^1392734382^{date}|Feb 18, 2014>", "Feb 18, 2014"),
        ("<https://a.example/?x=1&amp;y=2> <http://a.example|a.example>", "https://a.example/?x=1&y=2 a.example"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("I &lt;3 you &amp;amp; &lt;@U1&gt; &quot;", "I <3 you &amp; <@U1> &quot;"),
        ("a <3 b> c", "a <3 b> c"),
        ("one\r\ntwo", "one\ntwo"),
        (5, "5"),
    ],
)
def test_tokens_then_escapes(tmp_path: Path, text: Any, plain: str) -> None:
    assert one(tmp_path, text=text).text == plain


def test_text_from_blocks(tmp_path: Path) -> None:
    line = {
        "type": "rich_text_section",
        "elements": [
            {"type": "text", "text": "look & "},
            {"type": "user", "user_id": "U2"},
            {"type": "emoji", "name": "tada"},
            {"type": "link", "url": "https://a.example"},
            {"type": "text", "text": "\n"},
        ],
    }
    item = {"type": "rich_text_section", "elements": [{"type": "text", "text": "item"}]}
    quote = {"type": "rich_text_quote", "elements": [{"type": "broadcast", "range": "here"}]}
    rich = {"type": "rich_text", "elements": [line, {"type": "rich_text_list", "elements": [item, item]}, quote]}
    record = one(tmp_path, text="", blocks=[rich, {"type": "divider"}, 3])
    assert record.text == "look & @Kay Example:tada:https://a.example\nitem\nitem\n@here"
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "&lt;3 <@U1>"}, "fields": None}
    assert one(tmp_path, text=None, blocks=[section]).text == "<3 @Ada"
    nested: dict[str, Any] = {"type": "rich_text", "elements": []}
    for _ in range(200):
        nested = {"type": "rich_text", "elements": [nested]}
    assert one(tmp_path, text="", blocks=[nested]).text == ""


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"subtype": "channel_join"}, Kind.SYSTEM),
        ({"subtype": "channel_topic"}, Kind.SYSTEM),
        ({"subtype": "tombstone", "hidden": True}, Kind.DELETED),
        ({"subtype": "message_deleted"}, Kind.DELETED),
        ({"subtype": "huddle_thread", "room": {}}, Kind.CALL),
        ({"subtype": "me_message"}, Kind.MESSAGE),
        ({"subtype": "thread_broadcast", "root": {}}, Kind.MESSAGE),
        ({"subtype": "some_future_one"}, Kind.SYSTEM),
        ({"subtype": "some_future_one", "client_msg_id": "x"}, Kind.MESSAGE),
        ({"files": [{"id": "F1"}]}, Kind.MESSAGE),  # a caption
        ({"text": "", "files": [{"id": "F1"}]}, Kind.MEDIA),
        ({"text": "", "attachments": [{"text": "a link's page"}]}, Kind.MEDIA),
        ({"text": "", "attachments": [{"text": "high water at noon", "is_share": True}]}, Kind.FORWARD),
        ({"text": "look", "attachments": [{"text": "high water at noon", "is_share": True}]}, Kind.MESSAGE),
        ({"subtype": "bot_message", "bot_id": "B1"}, Kind.BOT),
        ({"subtype": "bot_message", "text": "", "attachments": [{"text": "build passed"}]}, Kind.BOT),
        ({"bot_id": "B1"}, Kind.BOT),
        ({"bot_id": "B1", "subtype": "channel_join"}, Kind.SYSTEM),
        ({"user": "USLACKBOT"}, Kind.BOT),
        ({"ts": "yesterday"}, Kind.UNREADABLE),
        ({"ts": None}, Kind.UNREADABLE),
        ({"type": "presence_change"}, Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, fields: dict[str, Any], kind: Kind) -> None:
    # A second row shows what the file is, whatever the first one looks like.
    index(tmp_path)
    found = records(day(tmp_path / "general", row(**fields) if "text" not in fields else {**row(), **fields}, row()))
    assert found[0].kind is kind


def test_old_uploads_keep_the_words_and_not_slacks_sentence(tmp_path: Path) -> None:
    sentence = "<@U1|ada> uploaded a file: <https://a.example|a.txt>"
    file = {"initial_comment": {"comment": "see &amp; say"}}
    record = one(tmp_path, subtype="file_share", text=f"{sentence} and commented: see &amp; say", file=file)
    assert (record.text, record.kind) == ("see & say", Kind.MESSAGE)
    assert one(tmp_path, subtype="file_share", text=sentence, file={}, upload=True).kind is Kind.MEDIA
    comment = {"user": "U2", "comment": "nice"}
    text = "<@U2> commented on <@U1>’s file <https://a.example|a.txt>: nice"
    record = one(tmp_path, subtype="file_comment", text=text, comment=comment, user=None)
    assert (record.sender, record.text) == ("Kay Example", "nice")


@pytest.mark.parametrize(
    ("fields", "sender"),
    [
        ({"user": "U2"}, "Kay Example"),
        ({"user": "U3"}, "bo"),
        ({"user": "USLACKBOT"}, "Slackbot"),
        ({"user": "U9"}, "U9"),
        ({"user": 9}, "9"),
        ({"user": "U9", "user_profile": {"display_name": "", "real_name": "Guest"}}, "Guest"),
        ({"user": None, "bot_id": "B1", "username": "poll", "bot_profile": {"name": "Polls"}}, "poll"),
        ({"user": None, "bot_id": "B1", "bot_profile": {"name": "Polls"}}, "Polls"),
        ({"user": None, "bot_id": "B1"}, "B1"),
    ],
)
def test_senders(tmp_path: Path, fields: dict[str, Any], sender: str) -> None:
    assert one(tmp_path, **fields).sender == sender


def test_without_users_json_ids_stand_for_names(tmp_path: Path) -> None:
    path = day(tmp_path / "general", row("<@U2>"))
    reading = slack.read(Source(path), None)
    assert "no readable users.json" in reading.facts["names"]
    assert [(record.sender, record.text) for record in reading.records] == [("U1", "@U2")]


def test_a_later_users_json_is_read_again(tmp_path: Path) -> None:
    assert one(tmp_path).sender == "Ada"
    index(tmp_path, users=[{"id": "U1", "name": "somebody else"}])
    assert [record.sender for record in records(tmp_path / "general" / "2025-01-10.json")] == ["somebody else"]


def test_what_stands_twice_is_counted_once(tmp_path: Path) -> None:
    """A reply that was also sent to the channel, and a second export of the same days."""
    for export in ("first", "second"):
        index(tmp_path / export)
        general = tmp_path / export / "general"
        day(general, row("one"), row("also sent", 2, subtype="thread_broadcast"), row("also sent", 2))
        day(general, row("two", 3), name="2025-01-11.json")
    day(tmp_path / "second" / "general", row("three", 4), name="2025-01-12.json")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    assert [record.text for record in conversation.messages] == ["one", "also sent", "two", "three"]
    assert sum(file.kinds[Kind.DUPLICATE] for file in account.files) == 5
    assert not account.problems


@pytest.mark.parametrize("stamp", [b"1e99999999999999999999", b"1" * 9999, b'"a" "b"', b"[" * 9999 + b"]" * 9999])
def test_a_damaged_entry_costs_itself(tmp_path: Path, stamp: bytes) -> None:
    text = json.dumps([row("one", 1), row("two", 2), row("three", 3)])
    content = text.encode().replace(b'"1736500002.123459"', stamp)
    reading = slack.read(Source(save(tmp_path / "general", content, "2025-01-10.json")), None)
    assert [record.kind for record in reading.records] == [Kind.MESSAGE, Kind.UNREADABLE, Kind.MESSAGE]


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    text = json.dumps([row("one", 1), row("two", 2)])
    content = text[: text.rindex('"173650')].encode()
    reading = iter(slack.read(Source(save(tmp_path / "general", content, "2025-01-10.json")), None).records)
    assert next(reading).text == "one"
    with pytest.raises(ExportError, match="after entry 1") as caught:
        next(reading)
    assert "general/2025-01-10.json: not valid JSON after entry 1 (" in str(caught.value)
    assert "message" not in str(caught.value)  # nothing of the file is quoted


def test_empty_and_odd_arrays(tmp_path: Path) -> None:
    index(tmp_path)
    assert records(day(tmp_path / "general")) == []
    found = records(day(tmp_path / "general", 3, None, [], {}, row(), row(number=2, blocks=3, files={}, comment="x")))
    assert [record.kind for record in found] == [Kind.UNREADABLE] * 4 + [Kind.MESSAGE] * 2


def test_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for name, rows in INDEXES.items():
            archive.writestr(name, json.dumps(rows))
        archive.writestr("D0000001/2025-01-10.json", json.dumps([row("<@U2> hi")]))
        archive.writestr("general/2025-01-10.json", "[]")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    assert conversation.chat.title == "Kay Example"
    assert conversation.messages[0].text == "@Kay Example hi"
    assert not account.problems


# slackdump's test suite states the day files (four) and no counts; these were counted by hand.
SAMPLES = {
    "2025-01-10.json": {Kind.MESSAGE: 2},
    "2025-01-11.json": {Kind.MESSAGE: 8, Kind.SYSTEM: 1, Kind.DELETED: 1, Kind.MEDIA: 1},
    "2025-01-18.json": {Kind.BOT: 1},
    "2025-01-24.json": {Kind.MESSAGE: 2},
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize("place", ["source_export_dir", "source_export.zip"])
def test_slackdumps_sample(place: str) -> None:
    found = {}
    for source in discover([FORMATS / place]):
        assert isinstance(source, Source)
        if source.name not in slack.COMPANIONS:
            found[source.name] = Counter(record.kind for record in slack.read(source, None).records)
    assert found == SAMPLES
