"""Invented messages for the benchmarks, any number of them, and the export files that hold them.

Words and lengths are drawn from the sample's messages. The headers are spelled here, never from the parsers' tables.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ghost.demo.chats import Kind, noa_chats
from ghost.demo.chats import messages as sample_messages

ZONE = ZoneInfo("Europe/Paris")
START = int(datetime(2018, 1, 8, 9, tzinfo=ZONE).timestamp())
NAMES = ("Noa Brindelune", "Priya Wexmoor")
CORPUS = 4000  # sample messages whose words and lengths are drawn from, in each language
EMOJI = ("😂", "❤️", "👍🏽", "😭", "🥲", "👩🏽‍🚒", "🏳️‍🌈", "😅😅", "🙏", "🇫🇷")

# Share of a chat's messages. The first four have no words; of the rest, what a message has besides its words.
WITHOUT_WORDS = {"media": 0.06, "deleted": 0.006, "call": 0.004, "notice": 0.002}
ADDED = {
    "emoji": 0.12,
    "another line": 0.04,
    "a number": 0.05,
    "a link": 0.02,
    "a phone number": 0.003,
    "an e-mail address": 0.001,
    "edited": 0.015,
}


class Message(NamedTuple):
    time: int  # Unix seconds
    sender: int  # an index of NAMES
    kind: str  # "words" or a key of WITHOUT_WORDS
    text: str
    has: frozenset[str]  # keys of ADDED


def conversation(count: int, seed: int) -> Iterator[Message]:
    """`count` messages between two people: bursts and pauses over years, French and English by the day."""
    rng = Random(seed)
    words: list[list[str]] = []
    lengths: list[list[int]] = []
    for title in ("Malo Cendreval", "Priya Wexmoor"):
        sample = sample_messages(noa_chats()[title], seed=seed, count=CORPUS)
        texts = [message.text.split() for message in sample if message.kind is Kind.TEXT]
        words.append([word for text in texts for word in text])
        lengths.append([len(text) for text in texts])
    kinds, weights = (
        ("words", *WITHOUT_WORDS),
        [*accumulate((1 - sum(WITHOUT_WORDS.values()), *WITHOUT_WORDS.values()))],
    )
    clock, sender, language = START, 0, 0
    for _ in range(count):
        pause = rng.random()
        clock += int(rng.expovariate(1 / (25 if pause < 0.8 else 400 if pause < 0.97 else 20_000)))
        if pause >= 0.97:
            language = rng.random() < 0.5
        sender = rng.random() < 0.5
        (kind,) = rng.choices(kinds, cum_weights=weights)
        text, has = "", frozenset[str]()
        if kind == "words":
            text = " ".join(rng.choices(words[language], k=rng.choice(lengths[language])))
            has = frozenset(name for name, share in ADDED.items() if rng.random() < share)
            if has:
                text = _with(text, has, rng)
        yield Message(clock, sender, kind, text, has)


def _with(text: str, has: frozenset[str], rng: Random) -> str:
    additions = {
        "emoji": " " + rng.choice(EMOJI),
        "another line": "\n" + " ".join(sorted(text.split())),
        "a number": f" {rng.randint(2, 900)}",
        "a link": f" https://www.example.org/{rng.getrandbits(40):x}?page={rng.randint(1, 9)}",
        "a phone number": f" 06 {' '.join(f'{rng.randint(0, 99):02}' for _ in range(4))}",
        "an e-mail address": f" noa{rng.randint(1, 99)}@example.org",
        "edited": "",
    }
    return text + "".join(addition for name, addition in additions.items() if name in has)


def write_whatsapp(path: Path, messages: Iterator[Message]) -> None:
    """Android, 24 hours, day first: `18/03/2022, 14:56 - Name: text`."""
    bodies = {
        "media": "<Media omitted>",
        "deleted": "This message was deleted",
        "call": "Missed voice call",
    }
    with path.open("w", encoding="utf-8", newline="") as stream:
        for message in messages:
            stamp = f"{datetime.fromtimestamp(message.time, ZONE):%d/%m/%Y, %H:%M}"
            if message.kind == "notice":
                stream.write(f"{stamp} - Your security code with Priya Wexmoor changed. Tap to learn more.\n")
                continue
            edited = " <This message was edited>" if "edited" in message.has else ""
            body = message.text + edited if message.kind == "words" else bodies[message.kind]
            stream.write(f"{stamp} - {NAMES[message.sender]}: {body}\n")


def write_telegram(path: Path, messages: Iterator[Message]) -> None:
    """Telegram Desktop's layout, indented by blanks. A link is an entity, and so the text is a list."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write('{\n "name": "Priya Wexmoor",\n "type": "personal_chat",\n "id": 4242,\n "messages": [')
        separator = "\n"
        for number, message in enumerate(messages, start=1):
            is_event = message.kind in ("call", "notice")
            who = "actor" if is_event else "from"
            entry: dict[str, object] = {
                "id": number,
                "type": "service" if is_event else "message",
                "date": f"{datetime.fromtimestamp(message.time, ZONE):%Y-%m-%dT%H:%M:%S}",
                "date_unixtime": str(message.time),
                who: NAMES[message.sender],
                f"{who}_id": f"user{message.sender + 1000}",
            }
            if message.kind in ("media", "deleted"):  # what is deleted is gone from an export
                entry |= {"photo": "(File not included. Change data exporting settings to download.)", "width": 1280}
            elif is_event:
                entry["action"] = "phone_call" if message.kind == "call" else "pin_message"
            if "edited" in message.has:
                entry |= {"edited": entry["date"], "edited_unixtime": entry["date_unixtime"]}
            entities = [
                {"type": "link" if piece.startswith("https:") else "plain", "text": piece}
                for piece in re.split(r"(https:\S+)", message.text)
                if piece
            ]
            entry |= {"text": entities if "a link" in message.has else message.text, "text_entities": entities}
            row = json.dumps(entry, ensure_ascii=False, indent=1).replace("\n", "\n  ")
            stream.write(f"{separator}  {row}")
            separator = ",\n"
        stream.write("\n ]\n}")


def distribution(messages: Iterator[Message]) -> tuple[int, list[str]]:
    """How many of the messages have words, and what they are like, as lines of Markdown."""
    kinds, has, total = Counter[str](), Counter[str](), 0
    lengths, first, last = [], 0, 0
    for message in messages:
        total += 1
        kinds[message.kind] += 1
        has.update(message.has)
        first, last = first or message.time, message.time
        if message.text:
            lengths.append(len(message.text))
    lengths.sort()
    shares = [f"{name} {number / total:.1%}" for name, number in (kinds + has).most_common()]
    at = [f"{share}: {lengths[int(share / 100 * (len(lengths) - 1))]}" for share in (5, 25, 50, 75, 95, 100)]
    days = [f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}" for time in (first, last)]
    return kinds["words"], [
        f"- {total:,} messages of two people, {days[0]} to {days[1]}, French and English by the conversation",
        f"- share of messages: {', '.join(shares)}",
        f"- characters of a message with words, by percentile: {', '.join(at)}",
    ]
