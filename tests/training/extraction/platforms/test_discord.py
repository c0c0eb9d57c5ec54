import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind

ADAM = {"id": "1", "name": "adam", "discriminator": "0000", "nickname": "Adam"}


def message(content: Any = "hi", number: Any = "900", author: Any = ADAM, **fields: Any) -> dict[str, Any]:
    fixed: dict[str, Any] = {"attachments": [], "embeds": [], "stickers": [], "reactions": [], "mentions": []}
    row = {"id": number, "type": "Default", "timestamp": "2023-01-06T14:26:58.031+00:00", "content": content}
    return row | {"author": author} | fixed | fields


def channel(*messages: Any, **fields: Any) -> dict[str, Any]:
    guild = {"id": "7", "name": "Guild"}
    place = {"id": "77", "type": "GuildTextChat", "category": "Text", "name": "general"}
    return {"guild": guild, "channel": place, "messages": list(messages), "messageCount": 99} | fields


def test_a_channel(tmp_path: Path) -> None:
    (read,) = records(save(tmp_path, channel(message("a\r\nb 👩🏽\u200d🚒"))))
    assert (read.sender, read.text, read.timestamp) == ("Adam", "a\nb 👩🏽\u200d🚒", "2023-01-06T14:26:58.031+00:00")
    assert (read.chat.key, read.chat.title, read.chat.is_id, read.id) == ("77", "Guild - general", True, "900")


def test_a_direct_chat_is_called_like_the_other(tmp_path: Path) -> None:
    place = {"id": "5", "type": "DirectTextChat", "name": "Zoë"}
    fields = {"guild": {"id": "0", "name": "Direct Messages"}, "channel": place}
    (read,) = records(save(tmp_path, channel(message(), **fields)))
    assert read.chat.title == "Zoë"


def test_keys_in_any_order(tmp_path: Path) -> None:
    turned = dict(reversed(channel(message()).items()))
    assert records(save(tmp_path, turned))[0].chat.key == "77"


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2023-01-06T14:26:58+00:00", "2023-01-06T14:26:58.000+00:00"),
        ("2023-01-06T14:27:11.85+00:00", "2023-01-06T14:27:11.850+00:00"),
        ("2023-01-06T14:27:11.1234567-05:30", "2023-01-06T14:27:11.123-05:30"),
        ("2023-01-06T14:27:11.5", "2023-01-06T14:27:11"),
    ],
)
def test_timestamps(tmp_path: Path, timestamp: str, expected: str) -> None:
    assert records(save(tmp_path, channel(message(timestamp=timestamp))))[0].timestamp == expected


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (message(type="Reply", reference={"messageId": None}), Kind.MESSAGE),
        (message(type="20"), Kind.BOT),
        (message("", attachments=[{"fileName": "x.png"}]), Kind.MEDIA),
        (message("sunset", attachments=[{"fileName": "x.png"}]), Kind.MESSAGE),
        (message("", stickers=[{"name": "Laugh"}]), Kind.MEDIA),
        (message("", embeds=[{"title": "x"}]), Kind.MEDIA),
        (message("", forwardedMessage={"content": "not mine"}), Kind.FORWARD),
        (message("look", forwardedMessage={"content": "not mine"}), Kind.MESSAGE),
        (message(author={"id": "9", "name": "Tuner", "isBot": True}), Kind.BOT),
        (message("joined", type="GuildMemberJoin", author={"id": "9", "name": "Tuner", "isBot": True}), Kind.SYSTEM),
        (message("Started a call that lasted 1 minutes.", type="Call"), Kind.CALL),
        (message("Pinned a message.", type="ChannelPinnedMessage"), Kind.SYSTEM),
        (message("Joined the server.", type="GuildMemberJoin"), Kind.SYSTEM),
        (message("boosted", type=8), Kind.SYSTEM),
        (message("", poll={"question": {"text": "lunch?"}}), Kind.POLL),
        (message("", type="46"), Kind.POLL),
        (message(""), Kind.EMPTY),
        (message(None), Kind.EMPTY),
        (message(author=None), Kind.MESSAGE),
        (message(author={"name": "Lea"}), Kind.MESSAGE),
        (message(timestamp="yesterday"), Kind.UNREADABLE),
        (message(timestamp=0), Kind.UNREADABLE),
        (message(timestamp="0001-01-01T00:00:00+14:00"), Kind.UNREADABLE),
        (message(["hi"]), Kind.UNREADABLE),
        (7, Kind.UNREADABLE),
        (None, Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, entry: Any, kind: Kind) -> None:
    read = records(save(tmp_path, channel(entry, message("after", 901))))
    assert [each.kind for each in read] == [kind, Kind.MESSAGE]


def test_a_message_written_twice_counts_once(tmp_path: Path) -> None:
    rows = [message(), message(), message("edited since"), message("next", "901")]
    read = records(save(tmp_path, channel(*rows)))
    assert [each.kind for each in read] == [Kind.MESSAGE, Kind.DUPLICATE, Kind.MESSAGE, Kind.MESSAGE]


def test_parts_of_a_channel_are_one_conversation(tmp_path: Path) -> None:
    save(tmp_path, channel(message("2", "902"), message("1", "901")), "Guild - Text - general [77] [part 2].json")
    save(tmp_path, channel(message("0", "900"), message("1", "901")), "Guild - Text - general [77] [part 1].json")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    assert sorted(each.text for each in conversation.messages) == ["0", "1", "2"]
    assert sum(file.kinds[Kind.DUPLICATE] for file in account.files) == 1


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"id": "2", "name": "zoe", "nickname": "Zoë", "discriminator": "0000"}, ("Adam", "Zoë")),
        ({"id": "2", "name": "adam2", "nickname": "Adam", "discriminator": "0"}, ("adam", "adam2")),
        ({"id": "2", "name": "adam", "nickname": "Adam", "discriminator": "0007"}, ("adam", "adam#0007")),
        ({"id": "2", "name": "adam", "nickname": "Adam", "discriminator": "0000"}, ("adam (1)", "adam (2)")),
        ({"id": 2, "name": "Adam"}, ("adam", "Adam (2)")),
        ({"id": "1", "name": "adam"}, ("Adam", "adam")),
    ],
)
def test_two_people_of_one_name_are_told_apart(tmp_path: Path, other: Any, names: tuple[str, str]) -> None:
    read = records(save(tmp_path, channel(message(), message(number="901", author=other))))
    assert tuple(each.sender for each in read) == names


def test_raw_tokens_are_written_as_the_exporter_would(tmp_path: Path) -> None:
    zoe = {"id": "2", "name": "zoe", "nickname": "Zoë"}
    author = ADAM | {"roles": [{"id": "8", "name": "mods"}]}
    words = "<@2> <@!1> <@3> <@&8> <:wave:55> <a:dance:56> <t:1600000000:R> <3 a<b>c <#77> <@x>"
    (read,) = records(save(tmp_path, channel(message(words, author=author, mentions=[zoe, None]))))
    assert read.text == "@Zoë @Adam <@3> @mods :wave: :dance: 2020-09-13 12:26 <3 a<b>c <#77> <@x>"


@pytest.mark.parametrize("messages", [None, {}, "none"])
def test_no_list_of_messages_is_one_line(tmp_path: Path, messages: Any) -> None:
    with pytest.raises(ExportError, match="no list of messages"):
        records(save(tmp_path, channel() | {"messages": messages}))


def test_an_empty_channel_with_a_bom(tmp_path: Path) -> None:
    assert records(save(tmp_path, b"\xef\xbb\xbf" + json.dumps(channel()).encode())) == []


def test_half_a_surrogate_pair_does_not_reach_the_csv(tmp_path: Path) -> None:
    raw = json.dumps(channel(message("cut off \ud83d"), message("\udc00", "901"), message("whole", "902")))
    read = records(save(tmp_path, raw))
    assert read[0].text.encode().startswith(b"cut off ")
    assert [each.kind for each in read] == [Kind.MESSAGE] * 3


def test_a_file_that_breaks_off_gives_what_it_holds_and_then_says_so(tmp_path: Path) -> None:
    whole = json.dumps(channel(*[message(f"{n}", f"{n}") for n in range(50)]), indent=2).encode()
    path = save(tmp_path, whole[: whole.index(b'"content": "40"')], "c.json")
    account, (conversation,) = gather([path], None, None, 1)
    assert [each.text for each in conversation.messages] == [f"{n}" for n in range(40)]
    (problem,) = account.problems
    assert "not valid JSON after entry 40" in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    "package",
    [
        '[{"ID": 123, "Timestamp": "2023-01-06 14:26:58", "Contents": "hi", "Attachments": ""}]',
        "ID,Timestamp,Contents,Attachments\n123,2023-01-06 14:26:58.031000+00:00,hi,\n",
    ],
)
def test_the_data_package_has_one_side_only(tmp_path: Path, package: str) -> None:
    with pytest.raises(ExportError, match=r"none of the replies; .*DiscordChatExporter"):
        records(save(tmp_path, package, "messages.json"))


FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "discord" / "slatinsky_DiscordChatExporter-frontend"


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("thread_GuildPublicThread.json", {Kind.MESSAGE: 5}),
        ("chill_talk_wrong_count.json", {Kind.MESSAGE: 6}),  # its messageCount says 35
        (
            "release/exports/example_guild/Example guild - Text Channels - general [1012224565567721552].json",
            {Kind.MESSAGE: 1},
        ),
    ],
)
def test_samples(name: str, kinds: dict[Kind, int]) -> None:
    assert Counter(each.kind for each in records(FORMATS / name)) == kinds
