"""Telegram Desktop's machine-readable JSON: one chat, or a whole account with the chats that were left.

Streamed: a file of any size needs the memory of one message. An account lists a group that became a supergroup once,
the old group's messages under ids less 1,000,000,000 in the supergroup's chat, as do exports of the supergroup alone.
"""

import re
from calendar import timegm
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from sys import intern
from typing import Any

import msgspec

from training.errors import ExportError
from training.extraction.json_stream import Broken, Cursor, CutOff
from training.extraction.platform import Evidence
from training.extraction.record import Chat, Kind, Reading, Record
from training.extraction.source import Source
from training.extraction.text import line_breaks

NAME = "telegram"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset()

SECTIONS = ("chats", "left_chats")
ACCOUNT_SECTIONS = {"personal_information", "profile_pictures", "frequent_contacts", "web_sessions", *SECTIONS}
CHAT_TYPES = re.compile(
    r'"type"\s*:\s*"(personal_chat|bot_chat|saved_messages|replies|verification_codes|private_group'
    r'|(?:private|public)_supergroup|(?:private|public)_channel|public_group)"'
)
HEADER = ("name", "type", "id")
TYPES = ("message", "service")
CALLS = ("phone_call", "group_call")

# Control characters were written as `\\x0C`, an escape that JSON lacks (tdesktop issue 27571). Pairs of backslashes are
# consumed together, so that a backslash that a person typed survives.
ESCAPES = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\.", re.DOTALL)
# Version 4.1 wrote a custom emoji's file without quotes (issue 24961); inside a string the quotes of a typed
# `"document_id": ` are escaped.
UNQUOTED = re.compile(rb'("document_id": )(?!["\d\-n])([^\r\n]*?)(,?)(?=\r?\n)')

SECONDS = {f":{second // 60:02}:{second % 60:02}": second for second in range(3600)}
HOUR = len("2022-03-18T14")
FURTHEST = 14 * 3600  # seconds between a zone and UTC, at most


MEDIA = (
    "photo",
    "file",
    "media_type",
    "contact_information",
    "game_title",
    "invoice_information",
    "giveaway_information",
    "giveaway_results",
    "paid_stars_amount",
)
FORWARDED = "Deleted Account"  # Telegram's own name for people who left it


class Message(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """The fields that say who, when and what, of any type, because people edit these files. The rest is skipped."""

    type: Any = None
    id: Any = ""
    date: Any = None
    date_unixtime: Any = None
    sender: Any = None
    from_id: Any = None
    actor: Any = None
    action: Any = None
    forwarded_from: Any = msgspec.UNSET
    forwarded_from_id: Any = None
    text: Any = None
    poll: Any = None
    todo_list: Any = None
    location_information: Any = msgspec.UNSET  # null without coordinates
    live_location_period_seconds: Any = None
    place_name: Any = None
    photo: Any = None
    file: Any = None
    media_type: Any = None
    contact_information: Any = None
    game_title: Any = None
    invoice_information: Any = None
    giveaway_information: Any = None
    giveaway_results: Any = None
    paid_stars_amount: Any = None


def recognise(source: Source, evidence: Evidence) -> str | None:
    paths = evidence.paths
    if 'class="page_wrap' in evidence.head and "history" in evidence.head:
        raise ExportError(
            f"{source}: Telegram's HTML export; in Telegram Desktop choose Export chat history, Format:"
            " Machine-readable JSON, and pass its result.json"
        )
    if ACCOUNT_SECTIONS & paths:
        return "a JSON object with Telegram's account sections"
    if "messages" in paths and CHAT_TYPES.search(evidence.head):
        return "a JSON object with messages and one of Telegram's chat types"
    if "messages.item.date_unixtime" in paths or {"messages.item.from_id", "messages.item.date"} <= paths:
        return "a JSON object whose messages have Telegram's fields"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    owner = _owner(source)
    return Reading(chain.from_iterable(_records(source)), {"owner": owner} if owner else {})


def _owner(source: Source) -> str:
    """Whose account a full export is, as its messages name them; "" where it does not say so before its chats."""
    with source.open() as stream:
        cursor = Cursor(stream, _repaired)
        try:
            for key in cursor.names():
                if key == "personal_information":
                    person = cursor.value()
                    names = (person.get("first_name"), person.get("last_name")) if isinstance(person, dict) else ()
                    return " ".join(str(name).strip() for name in names if name)
                if key in SECTIONS or key == "messages":
                    break
        except Broken:
            pass  # what is wrong with the file is said where its messages are read
    return ""


def _records(source: Source) -> Iterator[list[Record]]:
    position = 0
    chat, chats_header = None, None
    with source.open() as stream:
        cursor = Cursor(stream, _repaired)
        try:
            for header, messages in _chats(cursor):
                if chat is None or header is not chats_header:
                    chat, chats_header = _chat(header, source), header
                yield _batch(chat, messages, position)
                position += len(messages)
            if chat and cursor.peek():
                raise Broken(f"byte {cursor.place:,}: more after its end")
        except Broken as error:
            cancelled = "; an export that was cancelled ends like this" if isinstance(error, CutOff) else ""
            raise ExportError(
                f"{source}: not valid JSON after entry {position:,} ({error}){cancelled}: export it again"
            ) from None
    if chat is None:
        raise ExportError(
            f"{source}: no chat in it; in Telegram Desktop choose which chats to export, and export again"
        )


def _repaired(invalid: bytes) -> bytes:
    """JSON with the two defects of real Telegram versions undone."""
    escaped = ESCAPES.sub(lambda pair: b"\\u00" + pair[1] if pair[1] else pair[0], invalid)
    return UNQUOTED.sub(rb'\1"\2"\3', escaped)


def _chats(cursor: Cursor) -> Iterator[tuple[dict[str, Any], list[Message | None]]]:
    """Messages, some or none at a time, with their chat's whole header. The root is a chat, or has sections of them."""
    header: dict[str, Any] = {}
    for key in cursor.names():
        if key in SECTIONS:
            for section_key in cursor.names():
                if section_key == "list":
                    yield from _listed(cursor)
        else:
            yield from _part_of_chat(cursor, key, header)


def _listed(cursor: Cursor) -> Iterator[tuple[dict[str, Any], list[Message | None]]]:
    yield {}, []
    for _ in cursor.elements():
        header: dict[str, Any] = {}
        if cursor.peek() != b"{":
            yield header, [None]
        for key in cursor.names():
            yield from _part_of_chat(cursor, key, header)


def _part_of_chat(
    cursor: Cursor, key: str, header: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], list[Message | None]]]:
    if key in HEADER:
        header[key] = cursor.value()
    elif key == "messages":
        if "id" not in header:  # Telegram writes it before the messages; a file made by hand may have it behind them
            cursor.look_ahead(lambda: _header_behind(cursor, header))
            header.setdefault("id")
        yield header, []
        if cursor.peek() != b"[":
            yield header, [None]
        for messages in cursor.batches(Message):
            yield header, messages


def _header_behind(cursor: Cursor, header: dict[str, Any]) -> None:
    cursor.skip()
    for key in cursor.names():
        if key in HEADER:
            header[key] = cursor.value()


def _chat(header: dict[str, Any], source: Source) -> Chat:
    """Users, groups and channels number apart, and a group may turn public between two exports."""
    kind = str(header.get("type") or "")
    title = str(header.get("name") or kind or source.parts[-2])
    if header.get("id") is None:
        return Chat(title, title, is_id=False)
    return Chat(f"{kind.removeprefix('private_').removeprefix('public_')} {header['id']}", title, is_id=True)


def _batch(chat: Chat, messages: list[Message | None], before: int) -> list[Record]:
    """The records of messages with `before` messages before them in the file.

    What nearly every message has in common with the one before it, hour and offset, is not looked up again.
    """
    records: list[Record] = []
    # As Record(…), in 0.1 instead of 0.3 µs.
    new, seconds, unset, words, is_id = tuple.__new__, SECONDS, msgspec.UNSET, Kind.MESSAGE, chat.is_id
    hour, hour_starts, apart, offset = "", 0, None, ""
    for position, message in enumerate(messages, start=before + 1):
        if message is None or message.type not in TYPES:
            # Of what it cannot export Telegram writes the type alone.
            kind = Kind.SYSTEM if message is not None and message.type == "unsupported" else Kind.UNREADABLE
            records.append(Record(chat, "", "", "", kind, position))
            continue
        timestamp = message.date
        unixtime = message.date_unixtime
        try:
            if timestamp[:HOUR] != hour:
                hour_starts = _hour(timestamp[:HOUR])
                hour = timestamp[:HOUR]
            clocks_apart = hour_starts + seconds[timestamp[HOUR:]]
            if unixtime:
                clocks_apart -= int(unixtime)
                if clocks_apart != apart:
                    offset = _offset(clocks_apart)
                    apart = clocks_apart
                timestamp += offset
        except (KeyError, ValueError, TypeError, OverflowError):
            timestamp = _timestamp(message)
            if timestamp is None:
                records.append(Record(chat, "", "", "", Kind.UNREADABLE, position))
                continue
        text = message.text
        if text.__class__ is not str:
            text = _text(text)
        if "\r" in text:
            text = line_breaks(text)
        sender = message.sender
        if sender.__class__ is not str or message.forwarded_from is not unset:
            sender = _sender(message)
        kind = words
        if not text or message.type != "message" or message.poll or message.location_information is not unset:
            kind = _kind(message, text)
        # Without the chat's id, two chats of one title may meet, and each numbers its messages from 1.
        number = str(message.id) if is_id else ""
        records.append(new(Record, (chat, timestamp, intern(sender), text, kind, position, number)))
    return records


def _sender(message: Message) -> str:
    """Whose words these are: of a forwarded message its author's, whose name Telegram leaves null or hides at times.

    A deleted account has no name but its id, which old exports write as a number.
    """
    if message.forwarded_from is not msgspec.UNSET:
        return str(message.forwarded_from or message.forwarded_from_id or FORWARDED)
    if isinstance(message.from_id, int):
        return str(message.sender or message.actor or f"user{message.from_id}")
    return str(message.sender or message.actor or message.from_id or "")


def _kind(message: Message, text: str) -> Kind:
    if message.type == "service":
        return Kind.CALL if message.action in CALLS else Kind.SYSTEM
    if message.poll is not None or message.todo_list is not None:
        return Kind.POLL
    if message.location_information is not msgspec.UNSET or message.live_location_period_seconds or message.place_name:
        return Kind.LOCATION
    if not text and any(getattr(message, field) is not None for field in MEDIA):
        return Kind.MEDIA
    return Kind.MESSAGE  # a caption is what the person wrote


def _text(text: Any) -> str:
    """The parts join with nothing between them: `he**llo**` is one word."""
    if isinstance(text, list):
        return "".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in text)
    return str(text or "")


def _timestamp(message: Message) -> str | None:
    """Local time with its offset when the export gives both clocks, else whichever it gives."""
    try:
        local = datetime.fromisoformat(message.date) if message.date else None
        if not message.date_unixtime:
            return local.isoformat() if local else None
        instant = datetime.fromtimestamp(int(message.date_unixtime), UTC)
        if local is None or local.tzinfo is not None:
            return instant.isoformat()
        return local.isoformat() + _offset(round((local - instant.replace(tzinfo=None)).total_seconds()))
    except _NoZone:  # the two clocks contradict each other, and UTC is the exact one
        return instant.isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


class _NoZone(ValueError):
    """Two clocks further apart than any zone is from UTC."""


@lru_cache(maxsize=4096)
def _hour(hour: str) -> int:
    """Seconds from 1970 to an hour spelled as Telegram does, `2022-03-18T14`. ValueError for another spelling."""
    time = datetime.fromisoformat(f"{hour}:00:00")
    if time.isoformat()[:HOUR] != hour:
        raise ValueError(hour)
    return timegm(time.timetuple())


@lru_cache(maxsize=4096)
def _offset(seconds: int) -> str:
    """`+01:00`, to the nearest minute."""
    if abs(seconds) > FURTHEST:
        raise _NoZone
    minutes = round(seconds / 60)
    return f"{'+' if minutes >= 0 else '-'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
