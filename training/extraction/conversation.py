"""Conversations put together from their exports: overlap removed once, time order restored, one CSV each."""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter, le
from pathlib import Path

from training.extraction.record import Chat, Record

COLUMNS = ("timestamp", "sender", "message")
NAIVE = len("2022-03-18T14:56:00")
MINUTE = len("2022-03-18T14:56")
OFFSET = len("+01:00")
ROWS = 10_000  # written at a time
HOUR = len("2022-03-18T14")
DATE = len("2022-03-18")
SUNDAY = 6
NIGHT = ("00", "01", "02", "03")  # the hours that a clock repeats in autumn, on a Sunday nearly everywhere
LONGEST_NAME = 120  # bytes of a file's name, well under the 255 of common file systems
QUOTE, TWICE = '"', '""'
SPECIAL = re.compile('[",\r\n]')
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


@dataclass(slots=True)
class Conversation:
    platform: str
    chat: Chat
    messages: list[Record] = field(default_factory=list)
    is_merged: bool = False  # from more than one export: a step back in time is where they meet
    _known: Counter[tuple[str, ...]] = field(default_factory=Counter)  # counted once a second export comes

    def holds(self, chat: Chat, messages: list[Record]) -> bool:
        """Whether `messages` are from another export of this conversation.

        Two ids decide. Two chats may share a title or an alias, so that needs more: a message in common, or that the
        people of one export are all in the other.
        """
        if chat.is_id and self.chat.is_id:
            return chat.key == self.chat.key
        people, others = ({record.sender for record in side} for side in (self.messages, messages))
        if people <= others or others <= people:
            return True
        known = self._counted()
        return any(_key(record) in known for record in messages)

    def add(self, messages: list[Record]) -> int:
        """Take the messages of one export. Returns how many were already there from earlier exports.

        Somebody may well say "ok" twice in a minute: within one export equal messages are different messages.
        """
        if not self.messages:
            self.messages = messages
            return 0
        known = self._counted()
        met = Counter[tuple[str, ...]]()
        fresh = []
        for record in messages:
            key = _key(record)
            met[key] += 1
            if met[key] > known[key]:
                fresh.append(record)
        for key, times in met.items():
            known[key] = max(times, known[key])
        self.messages += fresh
        self.is_merged = self.is_merged or bool(fresh)
        return len(messages) - len(fresh)

    def _counted(self) -> Counter[tuple[str, ...]]:
        if not self._known:
            self._known = Counter(map(_key, self.messages))
        return self._known

    def in_time_order(self) -> list[Record]:
        """By time, ties in file order. Naive times are compared as they stand, save for autumn's repeated hour."""
        timestamps = [record.timestamp for record in self.messages]
        if _in_order(timestamps):
            return self.messages
        instants = _instants(timestamps)
        if not self.is_merged:
            instants = _second_pass_later(instants)
        return [record for _, record in sorted(zip(instants, self.messages, strict=True), key=itemgetter(0))]


class Conversations:
    """The conversations of a run, found again by key or alias when another export of one is read."""

    def __init__(self) -> None:
        self.all: list[Conversation] = []
        self._filed: dict[tuple[str, str], list[Conversation]] = {}

    def of(self, platform: str, chat: Chat, messages: list[Record]) -> Conversation:
        """The conversation that these messages continue, or a new one."""
        keys = [(platform, key) for key in dict.fromkeys((chat.key, chat.alias)) if key]
        for key in keys:
            for conversation in self._filed.get(key, ()):
                if conversation.holds(chat, messages):
                    return conversation
        self.all.append(Conversation(platform, chat))
        for key in keys:
            self._filed.setdefault(key, []).append(self.all[-1])
        return self.all[-1]


def path_in(folder: Path, platform: str, title: str, taken: set[str]) -> Path:
    """`folder/<platform>/<title>.csv`, in a name that every file system takes.

    taken  the names given before, in lower case; two chats that differ by case alone are told apart
    """
    name = UNSAFE.sub("_", unicodedata.normalize("NFC", title))
    name = name.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore").strip(" .") or "chat"
    unique, number = name, 1
    while f"{platform}/{unique.casefold()}" in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(f"{platform}/{unique.casefold()}")
    return folder / platform / f"{unique}.csv"


def write(records: list[Record], path: Path) -> None:
    """Write a conversation's CSV, readable by its owner only."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as stream:
        stream.write((",".join(COLUMNS) + "\n").encode())
        for start in range(0, len(records), ROWS):
            stream.write(_rows(records[start : start + ROWS]).encode())


def _rows(records: list[Record]) -> str:
    """Rows as `csv.writer` spells them, at a third of its time: it looks at every character, `in` at most of none."""
    names = {name: _field(name) for name in {record.sender for record in records}}
    return "".join(
        [
            f"{timestamp},{names[sender]},{text}\n"
            if "," not in text and "\n" not in text and '"' not in text and "\r" not in text
            else f'{timestamp},{names[sender]},"{text.replace(QUOTE, TWICE)}"\n'
            for _, timestamp, sender, text, _, _, _ in records
        ]
    )


def _field(text: str) -> str:
    if SPECIAL.search(text):
        return f'"{text.replace(QUOTE, TWICE)}"'
    return text


def _key(record: Record) -> tuple[str, ...]:
    """What a message has in common with itself in another export.

    Its id, or else when, who and what: the offset may have changed with the computer's zone between two exports, and
    of one WhatsApp chat Android writes the minutes, iOS the seconds.
    """
    if record.id:
        return (record.id,)
    if len(record.timestamp) <= NAIVE:
        return record.timestamp[:MINUTE], record.sender, record.text
    return _instant(record.timestamp), record.sender, record.text


def _in_order(timestamps: list[str]) -> bool:
    """Whether time never steps back, as in nearly every export; False where that takes a closer look.

    Timestamps of one width and one offset compare as text; the offset changes but twice a year.
    """
    widths = set(map(len, timestamps))
    if len(widths) > 1:
        return False
    if widths == {NAIVE}:
        return all(map(le, timestamps, islice(timestamps, 1, None)))
    last = ""
    for _, same in groupby(timestamps, key=itemgetter(slice(-OFFSET, None))):
        run = list(same)
        first = _instant(run[0])
        if first < last or not all(map(le, run, islice(run, 1, None))):
            return False
        last = _instant(run[-1])
    return True


def _instants(timestamps: list[str]) -> list[str]:
    """Text that sorts as the instants do; naive times stay as they are."""
    return timestamps if max(map(len, timestamps)) <= NAIVE else list(map(_instant, timestamps))


def _instant(timestamp: str) -> str:
    if len(timestamp) <= NAIVE:
        return timestamp
    hour, rest, offset = timestamp[:HOUR], timestamp[HOUR:-OFFSET], timestamp[-OFFSET:]
    if offset[0] in "+-" and offset.endswith(":00"):
        return f"{_utc_hour(hour, offset)}{rest}+00:00"
    return datetime.fromisoformat(timestamp).astimezone(UTC).isoformat()


@lru_cache(maxsize=4096)
def _utc_hour(hour: str, offset: str) -> str:
    """`2022-03-18T14` at `+01:00` → `2022-03-18T13`: a conversation's messages share few of them."""
    return datetime.fromisoformat(f"{hour}:00:00{offset}").astimezone(UTC).isoformat()[:HOUR]


def _second_pass_later(instants: list[str]) -> list[str]:
    """Sort keys under which an hour that the clock repeats comes twice.

    In autumn 02:50 is followed by 02:15, and only the file's order tells. A step back within one such hour of naive
    times starts its second pass, which sorts behind the first and before the next hour: "~" comes after every digit
    and ":". A message that merely arrived late then stays where the file has it.
    """
    keys = []
    earlier = repeated = ""
    for instant in instants:
        hour = instant[:HOUR]
        if instant < earlier and hour == earlier[:HOUR] and len(instant) <= NAIVE and _may_repeat(hour):
            repeated = hour
        keys.append(f"{hour}~{instant}" if hour == repeated else instant)
        earlier = instant
    return keys


def _may_repeat(hour: str) -> bool:
    return hour[-2:] in NIGHT and date.fromisoformat(hour[:DATE]).weekday() == SUNDAY
