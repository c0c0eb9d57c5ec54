import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind
from training.extraction.platforms import recognise, x
from training.extraction.source import Source

ACCOUNT = 'window.YTD.account.part0 = [\n {"account": {"username": "noa_b", "accountId": "1111111111"%s}}\n]'


def sent(words: str, by: str = "222", second: int = 0, **more: Any) -> dict[str, Any]:
    message = {"id": f"{second}", "senderId": by, "createdAt": f"2021-05-01T10:30:{second:02}.123Z", "text": words}
    return {"messageCreate": message | {"urls": [], "mediaUrls": [], "reactions": []} | more}


def archive(*messages: Any, chat: str = "1111111111-222", name: str = "direct_messages") -> str:
    conversation = {"dmConversation": {"conversationId": chat, "messages": list(messages)}}
    return f"window.YTD.{name}.part0 = {json.dumps([conversation], indent=2)}"


def save_archive(folder: Path, text: str, account: str = ACCOUNT % "") -> Path:
    save(folder, account, "data/account.js")
    return save(folder, text, "data/direct-messages.js")


@pytest.mark.parametrize(
    ("account", "owner"),
    [
        (ACCOUNT % ', "accountDisplayName": "Noa Brind"', "Noa Brind"),
        (ACCOUNT % "", "noa_b"),
        ("window.YTD.account.part0 = [{", "user_1111111111"),
    ],
)
def test_the_owner_has_a_name_and_the_other_a_number(tmp_path: Path, account: str, owner: str) -> None:
    path = save_archive(tmp_path, archive(sent("yo", "1111111111", 2), sent("hi", second=1)), account)
    assert [(one.timestamp, one.sender, one.text, one.id, one.position) for one in records(path)] == [
        ("2021-05-01T10:30:01.123+00:00", "user_222", "hi", "1", 2),
        ("2021-05-01T10:30:02.123+00:00", owner, "yo", "2", 1),
    ]


def test_a_group_is_called_as_it_was_last(tmp_path: Path) -> None:
    at = {"initiatingUserId": "222", "createdAt": "2021-05-01T10:29:00.000Z"}
    newest_first = [
        sent("hi", "333"),
        {"conversationNameUpdate": at | {"name": "Trip to Rome"}},
        {"conversationNameUpdate": at | {"name": "Trip"}},
        {"participantsLeave": at | {"userIds": ["444"]}},
        {"joinConversation": at | {"participantsSnapshot": ["222", "333"]}},
    ]
    found = records(save_archive(tmp_path, archive(*newest_first, chat="9", name="direct_messages_group")))
    assert {(one.chat.key, one.chat.title) for one in found} == {("9", "Trip to Rome")}
    assert [one.kind for one in found] == [Kind.SYSTEM] * 4 + [Kind.MESSAGE]


def link(short: str, typed: str) -> dict[str, str]:
    return {"url": short, "expanded": typed, "display": "cut…"}


@pytest.mark.parametrize(
    ("message", "text", "kind"),
    [
        (sent("a &lt; b &amp; c"), "a < b & c", Kind.MESSAGE),
        (
            sent("see https://t.co/a?", urls=[link("https://t.co/a", "https://example.org")]),
            "see https://example.org?",
            Kind.MESSAGE,
        ),
        (
            sent(
                "me https://t.co/p",
                urls=[link("https://t.co/p", "https://twitter.com/messages/media/5")],
                mediaUrls=["https://ton.twitter.com/dm/5.jpg"],
            ),
            "me",
            Kind.MESSAGE,
        ),
        (
            sent(
                " https://t.co/p",
                urls=[link("https://t.co/p", "https://x.com/messages/media/5")],
                mediaUrls=["https://ton.twitter.com/dm/5.jpg"],
            ),
            "",
            Kind.MEDIA,
        ),
        ({"welcomeMessageCreate": sent("hello")["messageCreate"]}, "", Kind.BOT),
        ({"reactionCreate": {"senderId": "1", "createdAt": "2021-05-01T10:30:00.123Z"}}, "", Kind.REACTION),
        ({"messageCreate": {"text": "no time"}}, "", Kind.UNREADABLE),
        (7, "", Kind.UNREADABLE),
    ],
)
def test_kinds_and_links(tmp_path: Path, message: Any, text: str, kind: Kind) -> None:
    (found,) = records(save_archive(tmp_path, archive(message)))
    assert (found.text, found.kind) == (text, kind)


def test_a_link_is_replaced_once(tmp_path: Path) -> None:
    urls = [link("https://t.co/a", "https://t.co/a?https://t.co/a")] * 64  # each in turn would double the text
    (found,) = records(save_archive(tmp_path, archive(sent("https://t.co/a https://t.co/ab", urls=urls))))
    assert found.text == "https://t.co/a?https://t.co/a https://t.co/ab"


def test_reactions_are_counted(tmp_path: Path) -> None:
    (found,) = records(save_archive(tmp_path, archive(sent("hi", reactions=[{"eventId": "1"}, {"eventId": "2"}]))))
    assert (found.text, found.reactions) == ("hi", 2)


def test_other_files_of_the_archive_are_no_chats(tmp_path: Path) -> None:
    headers = archive(sent(""), name="direct_message_headers")
    assert recognise(Source(save(tmp_path, headers, "direct-message-headers.js"))) is None


def test_a_cut_file_is_one_error(tmp_path: Path) -> None:
    path = save_archive(tmp_path, archive(sent("new"), sent("old"))[:-100])
    reading = x.read(Source(path), None).records
    assert next(reading).text == "new"
    with pytest.raises(ExportError, match=r"after entry 1 .* export it again"):
        next(reading)


def test_a_whole_archive_and_its_numbers_are_not_taken_for_telephones(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twitter-2024.zip", "w") as pack:
        pack.writestr("data/account.js", ACCOUNT % "")
        pack.writestr("data/tweets.js", "window.YTD.tweets.part0 = []")
        pack.writestr("data/direct-messages.js", archive(sent("hi", "4155550136"), chat="1111111111-4155550136"))
        pack.writestr("data/direct-messages-group-part1.js", archive(sent("yo", "5"), chat="9"))
        pack.writestr("data/direct-message-headers.js", archive(sent(""), name="direct_message_headers"))
        pack.writestr("Your archive.html", "<!DOCTYPE html>")
    assert main(["extract", str(tmp_path / "twitter-2024.zip"), "--out", str(tmp_path / "out")]) == 0
    first, second = sorted((tmp_path / "out/x").iterdir())
    assert (first.name, second.name) == ("group_9.csv", "user_4155550136.csv")
    assert second.read_text() == "timestamp,sender,message\n2021-05-01T10:30:00.123+00:00,user_4155550136,hi\n"
