"""What a message answers is written to replies.json, for every platform whose export tells. Reactions are counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from tests.training.extraction.exports import save
from training.extraction import csv_file


def telegram(number: int, text: str, sender: str = "Lea", **fields: Any) -> dict[str, Any]:
    date = f"2024-05-01T10:{number:02}:00"
    return {"id": number, "type": "message", "date": date, "from": sender, "text": text} | fields


def chat(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Bob", "type": "personal_chat", "id": 7, "messages": list(messages)}


def extracted(folder: Path, *options: str) -> Any:
    assert main(["extract", str(folder / "in"), "--out", str(folder / "out"), *options]) == 0
    path = folder / "out" / csv_file.REPLIES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def texts(folder: Path, replies: Any) -> list[tuple[str, str]]:
    """The text of each reply and of what it answers, looked up as the page on exports says."""
    found = []
    for file, pairs in replies.items():
        columns = csv_file.read(folder / "out" / file)
        said = dict(zip(zip(columns.timestamps, columns.senders, strict=True), columns.messages, strict=True))
        found += [
            tuple(said[pair[end]["timestamp"], pair[end]["sender"]] for end in ("reply", "answers")) for pair in pairs
        ]
    return found


DISCORD = {"guild": {"id": "0"}, "channel": {"id": "5", "name": "Lake"}}
SIGNAL = [
    {"version": 1, "backupTimeMs": "1"},
    {"account": {"givenName": "Kay"}},
    {"recipient": {"id": "1", "self": {}}},
    {"recipient": {"id": "2", "contact": {"aci": "QURB", "profileGivenName": "Ada"}}},
    {"chat": {"id": "10", "recipientId": "2"}},
]


def discord(number: int, text: str, **fields: Any) -> dict[str, Any]:
    author = {"id": "1", "name": "lea"}
    time = f"2024-05-01T10:0{number}:00+00:00"
    return {"id": f"{number}", "type": "Default", "timestamp": time, "content": text, "author": author} | fields


def signal(sent: int, text: str, **fields: Any) -> dict[str, Any]:
    message = {"text": {"body": text}} | fields
    return {
        "chatItem": {"chatId": "10", "authorId": "2", "dateSent": f"{sent}", "incoming": {}, "standardMessage": message}
    }


def slack(ts: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "user": "U1", "ts": ts, "text": text} | fields


def google(minute: int, text: str, name: str, **fields: Any) -> dict[str, Any]:
    date = f"Friday, May 29, 2026 at 3:{minute:02}:29 AM UTC"
    return {"message_id": f"m{minute}", "created_date": date, "creator": {"name": name}, "text": text} | fields


EXPORTS: dict[str, tuple[str, Any]] = {
    "telegram": (
        "result.json",
        chat(telegram(1, "tea?"), telegram(2, "no"), telegram(3, "yes", "Bob", reply_to_message_id=1)),
    ),
    "discord": (
        "lake.json",
        DISCORD
        | {
            "messages": [
                discord(1, "tea?"),
                discord(2, "no"),
                discord(3, "yes", type="Reply", reference={"messageId": "1"}),
            ]
        },
    ),
    "signal": (
        "main.jsonl",
        "\n".join(
            map(
                json.dumps,
                [
                    *SIGNAL,
                    signal(1700000000000, "tea?"),
                    signal(1700000001000, "no"),
                    signal(1700000002000, "yes", quote={"targetSentTimestamp": "1700000000000", "authorId": "2"}),
                ],
            )
        ),
    ),
    "sigtop": (
        "Ada.json",
        [
            {"id": key, "conversationId": "c", "type": "incoming", "sent_at": sent, "body": text} | fields
            for key, sent, text, fields in (
                ("a", 1700000000000, "tea?", {}),
                ("b", 1700000001000, "no", {}),
                ("c", 1700000002000, "yes", {"quote": {"id": 1700000000000}}),
            )
        ],
    ),
    "slack": (
        "general/2025-01-10.json",
        [
            slack("1736500001.000100", "tea?", thread_ts="1736500001.000100"),
            slack("1736500002.000100", "no"),
            slack("1736500003.000100", "yes", thread_ts="1736500001.000100"),
        ],
    ),
    "google_chat": (
        "messages.json",
        {
            "messages": [
                google(1, "tea?", "Kay"),
                google(2, "no", "Kay"),
                google(3, "yes", "Ada", quoted_message_metadata={"creator": {"name": "Kay"}, "text": "tea?"}),
            ]
        },
    ),
    "imessage": (
        "Ada.txt",
        "May 07, 2022  5:29:42 PM\nAda\ntea?\n    May 07, 2022  5:31:00 PM\n    Me\n    yes\n\n\n"
        "May 07, 2022  5:30:00 PM\nAda\nno\n\n"
        "May 07, 2022  5:31:00 PM\nMe\nyes\nThis message responded to an earlier message.\n\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("platform", EXPORTS)
def test_a_reply_names_what_it_answers(tmp_path: Path, platform: str) -> None:
    name, content = EXPORTS[platform]
    save(tmp_path / "in", content, name)
    assert texts(tmp_path, extracted(tmp_path)) == [("yes", "tea?")]


def test_a_reply_to_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    """A picture has no row; an id may be another chat's."""
    save(
        tmp_path / "in",
        chat(
            telegram(1, "", photo="1.jpg"),
            telegram(2, "nice", reply_to_message_id=1),
            telegram(3, "what?", reply_to_message_id=99),
            telegram(4, "there", reply_to_message_id=2, reply_to_peer_id="channel3"),
        ),
        "result.json",
    )
    assert extracted(tmp_path) == {}


def test_messages_of_one_instant_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    same = "2024-05-01T10:00:00"
    rows = telegram(1, "one", date=same), telegram(2, "two", date=same), telegram(3, "yes", reply_to_message_id=2)
    save(tmp_path / "in", chat(*rows), "result.json")
    assert extracted(tmp_path) == {}


def test_replies_call_people_what_the_csv_calls_them(tmp_path: Path) -> None:
    rows = telegram(1, "tea?", "+33 6 12 34 56 78"), telegram(2, "yes", reply_to_message_id=1)
    save(tmp_path / "in", chat(*rows), "result.json")
    replies = extracted(tmp_path)
    assert texts(tmp_path, replies) == [("yes", "tea?")]
    assert "12 34" not in json.dumps(replies)


def test_what_was_written_is_read_again_and_written_over(tmp_path: Path) -> None:
    save(tmp_path / "in", EXPORTS["telegram"][1], "result.json")
    extracted(tmp_path)
    (replies,) = extracted(tmp_path).values()
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "out").rename(again / "in")
    assert list(extracted(again).values()) == [replies]


REACTED: dict[str, tuple[str, Any]] = {
    "telegram": ("result.json", chat(telegram(1, "hi", reactions=[{"type": "emoji", "emoji": "👍", "count": 2}, {}]))),
    "discord": ("lake.json", DISCORD | {"messages": [discord(1, "hi", reactions=[{"emoji": {}, "count": 3}])]}),
    "signal": (
        "main.jsonl",
        "\n".join(map(json.dumps, [*SIGNAL, signal(1700000000000, "hi", reactions=[{"emoji": "x"}] * 3)])),
    ),
    "slack": ("general/2025-01-10.json", [slack("1736500001.000100", "hi", reactions=[{"name": "x", "count": 3}])]),
    "google_chat": (
        "messages.json",
        {"messages": [google(1, "hi", "Kay", reactions=[{"emoji": {}, "reactor_emails": ["a", "b", "c"]}])]},
    ),
    "messenger": (
        "message_1.json",
        {
            "participants": [{"name": "Lea"}, {"name": "Bob"}],
            "messages": [
                {
                    "sender_name": "Lea",
                    "timestamp_ms": 1600000000000,
                    "content": "hi",
                    "reactions": [{"reaction": "x", "actor": "Bob"}] * 3,
                }
            ],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("platform", REACTED)
def test_reactions_are_counted_and_no_text(tmp_path: Path, platform: str) -> None:
    name, content = REACTED[platform]
    save(tmp_path / "in", content, name)
    extracted(tmp_path)
    report = json.loads((tmp_path / "out" / "extraction_report.json").read_text(encoding="utf-8"))
    assert (report["files"][0]["reactions"], report["totals"]["message"]) == (3, 1)
    (written,) = (tmp_path / "out").glob("*/*.csv")
    assert csv_file.read(written).messages == ["hi"]
