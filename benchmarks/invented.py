"""Invented messages for the benchmarks, any number of them, and the export files that hold them.

Words and lengths are drawn from the sample's messages. The headers are spelled here, never from the parsers' tables.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate, chain
from pathlib import Path
from random import Random
from typing import NamedTuple
from xml.sax.saxutils import quoteattr
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
    sender: int  # an index of the chat's names
    kind: str  # "words" or a key of WITHOUT_WORDS
    text: str
    has: frozenset[str]  # keys of ADDED


def conversation(
    count: int, seed: int, people: int = 2, english: float = 0.5, start: int = START, pause: int = 20_000
) -> Iterator[Message]:
    """`count` messages of a chat: bursts and pauses over years, French or English after each pause.

    english  share of the pauses after which they write English
    pause    mean seconds between two conversations
    """
    rng = Random(seed)
    samples = _sample()
    kinds, weights = (
        ("words", *WITHOUT_WORDS),
        [*accumulate((1 - sum(WITHOUT_WORDS.values()), *WITHOUT_WORDS.values()))],
    )
    clock, words, lengths = start, *samples[rng.random() < english]
    for _ in range(count):
        draw = rng.random()
        clock += int(rng.expovariate(1 / (25 if draw < 0.8 else 400 if draw < 0.97 else pause)))
        if draw >= 0.97:
            words, lengths = samples[rng.random() < english]
        sender = rng.randrange(people)
        (kind,) = rng.choices(kinds, cum_weights=weights)
        text, has = "", frozenset[str]()
        if kind == "words":
            text = " ".join(rng.choices(words, k=rng.choice(lengths)))
            has = frozenset(name for name, share in ADDED.items() if rng.random() < share)
            if has:
                text = _with(text, has, rng)
        yield Message(clock, sender, kind, text, has)


@cache
def _sample() -> list[tuple[list[str], list[int]]]:
    """The words, and the number of words by message, of the sample's French and English chats."""
    found = []
    for title in ("Malo Cendreval", "Priya Wexmoor"):
        texts = [
            message.text.split()
            for message in sample_messages(noa_chats()[title], seed=0, count=CORPUS)
            if message.kind is Kind.TEXT
        ]
        found.append(([word for text in texts for word in text], [len(text) for text in texts]))
    return found


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


WHATSAPP_BODIES = {
    "media": ("<Media omitted>", "\u200eimage omitted"),
    "deleted": ("This message was deleted", "\u200eThis message was deleted."),
    "call": ("Missed voice call", "\u200eMissed voice call. \u200eTap to call back"),
}


def write_whatsapp(path: Path, messages: Iterable[Message], names: Sequence[str] = NAMES, ios: bool = False) -> None:
    """Android: `18/03/2022, 14:56 - Name: text`. iOS: `[18/03/2022, 14:56:01] Name: text`, CRLF after each message."""
    layout, newline = ("[{:%d/%m/%Y, %H:%M:%S}] ", "\r\n") if ios else ("{:%d/%m/%Y, %H:%M} - ", "\n")
    edit = " \u200e<This message was edited>" if ios else " <This message was edited>"
    with path.open("w", encoding="utf-8", newline="") as stream:
        for message in messages:
            stamp = layout.format(datetime.fromtimestamp(message.time, ZONE))
            if message.kind == "notice":
                who = f"{names[-1]}: \u200e" if ios else ""
                body = f"{who}Your security code with {names[-1]} changed. Tap to learn more."
            elif message.kind == "words":
                body = f"{names[message.sender]}: {message.text}{edit if 'edited' in message.has else ''}"
            else:
                body = f"{names[message.sender]}: {WHATSAPP_BODIES[message.kind][ios]}"
            stream.write(f"{stamp}{body}{newline}")


def write_telegram(path: Path, messages: Iterable[Message]) -> None:
    """One chat as Telegram Desktop writes it."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(_telegram_chat(NAMES, 4242, messages))


def write_telegram_account(path: Path, chats: Iterable[tuple[Sequence[str], Iterable[Message]]]) -> None:
    """Every chat of an account in one file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write('{\n "about": "Here is the data you requested.",\n "chats": {\n  "list": [')
        for number, (names, messages) in enumerate(chats):
            stream.write(",\n" if number else "\n")
            stream.writelines(_telegram_chat(names, 4242 + number, messages))
        stream.write("\n  ]\n }\n}")


def _telegram_chat(names: Sequence[str], chat: int, messages: Iterable[Message]) -> Iterator[str]:
    """Indented by blanks. A link is an entity, and so the text is a list."""
    kind = "personal_chat" if len(names) == 2 else "private_group"
    yield f'{{\n "name": {json.dumps(names[-1])},\n "type": "{kind}",\n "id": {chat},\n "messages": ['
    separator = "\n"
    for number, message in enumerate(messages, start=1):
        is_event = message.kind in ("call", "notice")
        who = "actor" if is_event else "from"
        entry: dict[str, object] = {
            "id": number,
            "type": "service" if is_event else "message",
            "date": f"{datetime.fromtimestamp(message.time, ZONE):%Y-%m-%dT%H:%M:%S}",
            "date_unixtime": str(message.time),
            who: names[message.sender],
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
        yield f"{separator}  {row}"
        separator = ",\n"
    yield "\n ]\n}"


def write_meta(folder: Path, messages: Iterable[Message], names: Sequence[str]) -> None:
    """A thread of Messenger or Instagram, newest first; every byte of UTF-8 is a character of its own."""

    def written(text: str) -> str:
        return text.encode().decode("latin-1")

    rows = []
    for message in messages:
        row: dict[str, object] = {
            "sender_name": written(names[message.sender]),
            "timestamp_ms": message.time * 1000,
            "is_geoblocked_for_viewer": False,
        }
        if message.kind == "words":
            row["content"] = written(message.text)
        elif message.kind == "media":
            row["photos"] = [{"uri": f"messages/photos/{message.time}.jpg", "creation_timestamp": message.time}]
        elif message.kind == "deleted":
            row["is_unsent"] = True
        else:
            row |= {"content": f"{written(names[message.sender])} called you.", "call_duration": 0}
        rows.append(row)
    thread = {
        "participants": [{"name": written(name)} for name in names],
        "messages": rows[::-1],
        "title": written(names[-1]),
        "is_still_participant": True,
        "thread_path": f"inbox/{folder.name}",
    }
    folder.mkdir(parents=True)
    (folder / "message_1.json").write_text(json.dumps(thread, indent=2), encoding="utf-8")


def write_sms(path: Path, chats: Iterable[tuple[Sequence[str], Iterable[Message]]]) -> None:
    """SMS Backup & Restore's XML: texts alone, of every chat."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write("<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<smses>\n")
        for number, (names, messages) in enumerate(chats):
            for message in messages:
                stream.write(
                    f'  <sms address="+336399800{number:02}" date="{message.time * 1000}" type="{2 - message.sender}"'
                    f" body={quoteattr(message.text)} contact_name={quoteattr(names[-1])} />\n"
                )
        stream.write("</smses>\n")


# A person's folder: chats by platform. Telegram and SMS keep all of theirs in one file.
CHATS = {"whatsapp": 44, "whatsapp ios": 10, "messenger": 32, "instagram": 20, "telegram": 30, "sms": 6}
FIRST = ("Ama", "Bel", "Cor", "Dil", "Elo", "Fen", "Gia", "Hale", "Ivo", "Jori", "Kai", "Lune")
LAST = ("Brockwind", "Cendrelac", "Dormeval", "Ferrowby", "Grisolde", "Hallowick", "Marquenoir", "Tarnspel")


def write_folder(folder: Path, count: int, seed: int) -> tuple[int, list[str]]:
    """Write a person's exports: `count` messages in CHATS. How many have words, and what they are like, as Markdown.

    A few chats hold most of the messages, as in real accounts: sizes are log-normal. One chat in eight is a group.
    """
    rng = Random(seed)
    platforms = [platform for platform, number in CHATS.items() for _ in range(number)]
    rng.shuffle(platforms)
    weights = [rng.lognormvariate(0, 1.2) for _ in platforms]
    sizes = [max(4, int(count * weight / sum(weights))) for weight in weights]
    sizes[sizes.index(max(sizes))] += count - sum(sizes)
    others = [f"{first} {last}" for last in LAST for first in FIRST]
    accounts: dict[str, list[tuple[list[str], list[Message]]]] = {"telegram": [], "sms": []}
    written: list[list[Message]] = []
    for number, (platform, size) in enumerate(zip(platforms, sizes, strict=True)):
        partner = others[number % len(others)] + ("" if number < len(others) else " (2)")
        is_group = rng.random() < 0.125 and platform != "sms"
        names = [NAMES[0], *(rng.sample(others, rng.randint(2, 7)) if is_group else ()), partner]
        start = START + rng.randrange(5 * 365) * 24 * 3600
        pause = max(20_000, 2 * 365 * 24 * 3600 * 33 // size)  # two years in all
        english = rng.choice((0, 0.2, 0.5, 0.9, 1))
        messages = list(conversation(size, seed + number, len(names), english, start, pause))
        if platform == "sms":
            messages = [message._replace(kind="words", text=message.text or "👍") for message in messages]
        written.append(messages)
        if platform in accounts:
            accounts[platform].append((names, messages))
        elif platform == "whatsapp":
            write_whatsapp(folder / f"WhatsApp Chat with {partner}.txt", messages, names)
        elif platform == "whatsapp ios":
            inside = folder / f"WhatsApp Chat - {partner}"
            inside.mkdir()
            write_whatsapp(inside / "_chat.txt", messages, names, ios=True)
        else:
            root = "your_facebook_activity" if platform == "messenger" else "your_instagram_activity"
            write_meta(
                folder / root / "messages" / "inbox" / f"{partner.replace(' ', '').lower()}_{number}", messages, names
            )
    write_telegram_account(folder / "result.json", accounts["telegram"])
    write_sms(folder / "sms-20240101.xml", accounts["sms"])
    words, described = distribution(chain.from_iterable(written))
    files = sum(path.is_file() for path in folder.rglob("*"))
    sizes.sort()
    at = ", ".join(f"{share}: {sizes[int(share / 100 * (len(sizes) - 1))]:,}" for share in (5, 25, 50, 75, 95, 100))
    return words, [
        f"- {count:,} messages in {files} files of {len(sizes)} chats: "
        + ", ".join(f"{number} {platform}" for platform, number in CHATS.items())
        + "; Telegram's and the SMS are a file each",
        f"- messages of a chat, by percentile: {at}",
        *described[1:],
    ]


def distribution(messages: Iterable[Message]) -> tuple[int, list[str]]:
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
