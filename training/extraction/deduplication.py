"""Merge exports into conversations: match them by key or by content, remove the overlap, sort by time.

Timestamps may be any mixture of local and absolute ones, as the exports give them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import pairwise
from zlib import crc32

from training.extraction.platform import Chat, Record

LONG = 12  # characters; two people rarely send the same text of this length in the same minute
SAME = 10  # messages in common for two titles to be one chat
RENAMED = 5  # messages in common for two names to be one person
SHARED = 0.2  # share in common that the overlapping time needs: "ok" is said in two chats in the same minute
MOST = 0.8  # share of the messages in the overlapping time that must be in common


@dataclass(slots=True)
class Conversation:
    platform: str
    chat: Chat
    messages: list[Record] = field(default_factory=list)
    is_merged: bool = False  # from several exports: time steps back where they join
    _known: Counter[tuple[str, ...]] = field(default_factory=Counter)  # filled when a second export comes
    _met: set[str] = field(default_factory=set)  # senders of the first `_looked_at` messages
    _looked_at: int = 0

    def holds(self, chat: Chat, messages: list[Record]) -> bool:
        """Whether `messages` are from another export of this conversation.

        If both chats have ids, compare them. Two chats may share a title or an alias, so otherwise also require a
        message in common, or that the senders of one export, three or more, are all in the other: two different
        friends may share a first name. An export holds every message of its time, so if both have messages of the same
        time and hardly one in common, these are two chats. This does not apply to an alias, which names everybody in
        full.
        """
        if chat.is_id and self.chat.is_id:
            return chat.key == self.chat.key
        people, others = self._people(), _people(messages)
        is_likely = people <= others or others <= people
        is_group = len(people & others) > 2
        if is_likely and (chat.alias or (is_group and not self._interleaves(messages))):
            return True
        known = self._counted()
        common = sum(_key(record) in known for record in messages)
        return common > 0 and common >= SHARED * len(_within(messages, self.messages))

    def holds_under_another_title(self, messages: list[Record]) -> bool:
        """Whether `messages` are from this chat under another title, such as a contact's new name.

        Requires messages in common from at least two senders: what one person sends to everybody at New Year is in
        many chats.
        """
        moments = {time_and_text(record) for record in self.messages if len(record.text) >= LONG}
        common = [record for record in messages if time_and_text(record) in moments]
        if len(common) < SAME or len(_people(common)) < 2:
            return False
        both = [record for record in _within(messages, self.messages) if len(record.text) >= LONG]
        return len(common) >= MOST * len(both)

    def add(self, messages: list[Record]) -> int:
        """Add the messages of one export. Returns how many of them earlier exports already had.

        Equal messages within one export are kept: people say "ok" twice in a minute. Renamed senders keep the name from
        the earlier exports.
        """
        if not self.messages:
            self.messages = messages
            return 0
        if names := self._renamed(messages):
            messages = [record._replace(sender=names.get(record.sender, record.sender)) for record in messages]
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

    def in_time_order(self) -> list[Record]:
        """Sort by time; ties keep their order. Naive times are compared as written, except in an hour that the clock
        repeats in autumn."""
        instants = [instant(record.timestamp) for record in self.messages]
        if not self.is_merged:  # else a step back in time is a join of exports, not a repeated hour
            instants = _second_pass_later(instants)
        return [self.messages[index] for index in sorted(range(len(instants)), key=instants.__getitem__)]

    def _interleaves(self, messages: list[Record]) -> bool:
        """Whether messages of one side were sent after the first and before the last of the other."""
        here, there = ([time_and_text(record)[0] for record in side] for side in (self.messages, messages))
        first, last = min(there), max(there)
        if any(first < moment < last for moment in here):
            return True
        first, last = min(here), max(here)  # with gaps, if it is of several exports
        return not self.is_merged and any(first < moment < last for moment in there)

    def _people(self) -> set[str]:
        """All senders, updated incrementally: a channel may come in a thousand files, one a day."""
        self._met |= _people(self.messages[self._looked_at :])
        self._looked_at = len(self.messages)
        return self._met

    def _counted(self) -> Counter[tuple[str, ...]]:
        if not self._known:
            self._known = Counter(map(_key, self.messages))
        return self._known

    def _renamed(self, messages: list[Record]) -> dict[str, str]:
        """New name → earlier name, for people who sent the same messages at the same time under both names.

        When a contact or a profile is renamed between two exports, old messages appear under the new name.
        """
        people, others = self._people(), _people(messages)
        if others <= people:
            return {}
        said: dict[tuple[str, str], str] = {
            time_and_text(record): record.sender for record in self.messages if record.sender not in others
        }
        possible = Counter(record.sender for record in _within(messages, self.messages))
        found = Counter(
            (record.sender, said[moment])
            for record in messages
            if record.sender not in people and (moment := time_and_text(record)) in said
        )
        names: dict[str, str] = {}
        for (new, earlier), common in found.most_common():
            if common >= RENAMED and common >= MOST * possible[new] and earlier not in names.values():
                names.setdefault(new, earlier)
        return names


class Conversations:
    """The conversations of a run, with an index to find the one that an export continues."""

    def __init__(self) -> None:
        self.all: list[Conversation] = []
        self._filed: dict[tuple[str, str], list[Conversation]] = {}
        self._untitled: dict[str, _Untitled] = {}

    def of(self, platform: str, chat: Chat, messages: list[Record]) -> Conversation:
        """The conversation that these messages continue, or a new one."""
        keys = [(platform, key) for key in dict.fromkeys((chat.key, chat.alias)) if key]
        for key in keys:
            for conversation in self._filed.get(key, ()):
                if conversation.holds(chat, messages):
                    return conversation
        untitled = self._untitled.setdefault(platform, _Untitled())
        if not chat.is_id and (found := untitled.find(messages)) is not None:
            return found
        self.all.append(Conversation(platform, chat))
        for key in keys:
            self._filed.setdefault(key, []).append(self.all[-1])
        if not chat.is_id:
            untitled.conversations.append(self.all[-1])
        return self.all[-1]


class _Untitled:
    """An index of a platform's conversations without ids, by a sample of their messages.

    Samples half of the longer messages, chosen by checksum so that every export samples the same ones. This avoids
    comparing each of a hundred chats with each other.
    """

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        self._by_moment: dict[int, Conversation] = {}
        self._looked_at: dict[int, int] = {}  # index of conversation → number of its messages already sampled

    def find(self, messages: list[Record]) -> Conversation | None:
        if not self.conversations:
            return None
        for number, conversation in enumerate(self.conversations):
            seen = self._looked_at.get(number, 0)
            for moment in _sampled(conversation.messages[seen:]):
                self._by_moment.setdefault(moment, conversation)
            self._looked_at[number] = len(conversation.messages)
        hits = Counter(id(self._by_moment[moment]) for moment in _sampled(messages) if moment in self._by_moment)
        likeliest = {each for each, _ in hits.most_common(3)}
        candidates = [conversation for conversation in self.conversations if id(conversation) in likeliest]
        return next((each for each in candidates if each.holds_under_another_title(messages)), None)


def _sampled(messages: list[Record]) -> list[int]:
    """Checksums of the sampled messages. Not hash(), which differs from run to run."""
    moments = ("\n".join(time_and_text(record)) for record in messages if len(record.text) >= LONG)
    return [each for moment in moments if not (each := crc32(moment.encode("utf-8", "replace"))) & 1]


def _people(messages: Iterable[Record]) -> set[str]:
    return {record.sender for record in messages}


def _within(messages: list[Record], others: list[Record]) -> list[Record]:
    """The `messages` between the first and the last of `others`."""
    moments = [time_and_text(record)[0] for record in others]
    first, last = min(moments), max(moments)
    return [record for record in messages if first <= time_and_text(record)[0] <= last]


def time_and_text(record: Record) -> tuple[str, str]:
    """(time, text). Times without an offset are cut to the minute: for the same WhatsApp chat, Android writes minutes
    and iOS seconds."""
    if len(record.timestamp) <= NAIVE:
        return record.timestamp[:MINUTE], record.text
    return instant(record.timestamp), record.text


def _key(record: Record) -> tuple[str, ...]:
    """The identity of a message across exports: its id, or else its time, text and sender."""
    return (record.id,) if record.id else (*time_and_text(record), record.sender)


NAIVE = len("2022-03-18T14:56:00")
MINUTE = len("2022-03-18T14:56")
OFFSET = len("+01:00")
HOUR = len("2022-03-18T14")
DATE = len("2022-03-18")
SUNDAY = 6
NIGHT = ("00", "01", "02", "03")  # hours that can repeat when clocks go back, on a Sunday nearly everywhere


def instant(timestamp: str) -> str:
    """Convert a timestamp with an offset to UTC, so that equal instants compare equal; keep a naive one."""
    if len(timestamp) <= NAIVE or timestamp.endswith("+00:00"):
        return timestamp
    hour, rest, offset = timestamp[:HOUR], timestamp[HOUR:-OFFSET], timestamp[-OFFSET:]
    if offset[0] in "+-" and offset.endswith(":00"):
        return f"{_utc_hour(hour, offset)}{rest}+00:00"
    return datetime.fromisoformat(timestamp).astimezone(UTC).isoformat()


@lru_cache(maxsize=4096)
def _utc_hour(hour: str, offset: str) -> str:
    """`2022-03-18T14` at `+01:00` → `2022-03-18T13`. Cached, since a conversation has few distinct hours."""
    return datetime.fromisoformat(f"{hour}:00:00{offset}").astimezone(UTC).isoformat()[:HOUR]


def _second_pass_later(instants: list[str]) -> list[str]:
    """Sort keys that put the second pass of a repeated hour after the first.

    When clocks go back, 02:50 is followed by 02:15, and only the file order shows it. The first step back within such
    an hour of naive times starts its second pass. Its keys contain "~", which sorts after every digit and ":", so they
    come after the first pass and before the next hour. A message that merely arrived late keeps its place.
    """
    keys = list(instants)
    repeated = ""
    for step, (before, here) in enumerate(pairwise(instants), start=1):
        if before <= here:
            continue
        hour = here[:HOUR]
        if hour != before[:HOUR] or hour == repeated or len(here) > NAIVE or not _may_repeat(hour):
            continue
        repeated = hour
        for later in range(step, len(instants)):
            if instants[later][:DATE] != hour[:DATE]:
                break
            if instants[later][:HOUR] == hour:
                keys[later] = f"{hour}~{instants[later]}"
    return keys


def _may_repeat(hour: str) -> bool:
    return hour[-2:] in NIGHT and date.fromisoformat(hour[:DATE]).weekday() == SUNDAY
