"""Telegram Desktop's machine-readable JSON: one chat, or a whole account with the chats that were left.

Files are streamed, one message in memory at a time. A group that became a supergroup is one chat in an export: the old
group's messages have their ids less 1,000,000,000.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import Any

from ghost.errors import ExportError
from training.extraction.json_stream import Broken, Cursor, CutOff
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, line_breaks, reactions

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
ESCAPES = re.compile(r"\\x([0-9A-Fa-f]{2})|\\.", re.DOTALL)
# Version 4.1 wrote a custom emoji's file without quotes (issue 24961); inside a string the quotes of a typed
# `"document_id": ` are escaped.
UNQUOTED = re.compile(r'("document_id": )(?!["\d\-n])([^\r\n]*?)(,?)(?=\r?\n)')

FURTHEST = 14 * 3600  # seconds between a zone and UTC, at most
FORWARDED = {"forwarded_from", "forwarded_from_id"}
MEDIA = (
    *("photo", "file", "media_type", "contact_information", "game_title", "invoice_information"),
    *("giveaway_information", "giveaway_results", "paid_stars_amount"),
)


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
    return Reading(_records(source), {"owner": owner} if owner else {})


def _owner(source: Source) -> str:
    """The name of the account's owner in a full export; "" if it does not precede the chats."""
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
            pass  # reported when the messages are read
    return ""


def _records(source: Source) -> Iterator[Record]:
    position, has_chat = 0, False
    with source.open() as stream:
        cursor = Cursor(stream, _repaired)
        try:
            for chat, messages in _at_root(cursor, source):
                has_chat = True
                for message in messages:
                    position += 1
                    yield _record(chat, message, position)
            if has_chat:
                cursor.finish()
        except Broken as error:
            cancelled = "; an export that was cancelled ends like this" if isinstance(error, CutOff) else ""
            raise ExportError(
                f"{source}: not valid JSON after entry {position:,} ({error}){cancelled}: export it again"
            ) from None
    if not has_chat:
        raise ExportError(
            f"{source}: no chat in it; in Telegram Desktop choose which chats to export, and export again"
        )


def _repaired(invalid: str) -> str:
    """Undo two defects of Telegram versions."""
    escaped = ESCAPES.sub(lambda pair: f"\\u00{pair[1]}" if pair[1] else pair[0], invalid)
    return UNQUOTED.sub(r'\1"\2"\3', escaped)


# A chat and its next messages: none or one, or all of a file made by hand in which the chat's id comes last.
Messages = Iterator[tuple[Chat, list[Any]]]


def _at_root(cursor: Cursor, source: Source) -> Messages:
    """Read the chat or the sections of chats at the root."""

    def section(key: str) -> Messages:
        if key in SECTIONS:
            for section_key in cursor.names():
                if section_key == "list":
                    yield from _listed(cursor, source)

    yield from _of_chat(cursor, source, section)


def _listed(cursor: Cursor, source: Source) -> Messages:
    yield _chat({}, source), []
    for _ in cursor.elements():
        if cursor.peek() == "{":
            yield from _of_chat(cursor, source)
        else:
            yield _chat({}, source), [None]


def _of_chat(cursor: Cursor, source: Source, other: Callable[[str], Messages] = lambda key: iter(())) -> Messages:
    """Read the chat here. Telegram writes its id before the messages; a file made by hand may have it after them.

    other  called at a key that a chat does not have
    """
    header: dict[str, Any] = {}
    chat: Chat | None = None
    waiting: list[Any] = []
    broken: Broken | None = None
    try:
        for key in cursor.names():
            if key in HEADER:
                header[key] = cursor.value()
            elif key == "messages":
                chat = _chat(header, source) if "id" in header else None
                yield chat or _chat(header, source), []
                for message in cursor.values() if cursor.peek() == "[" else (None,):
                    if chat:
                        yield chat, [message]
                    else:
                        waiting.append(message)
            else:
                yield from other(key)
    except Broken as error:
        broken = error
    if waiting:
        yield _chat(header, source), waiting
    if broken:
        raise broken


def _chat(header: dict[str, Any], source: Source) -> Chat:
    """Ids of users, groups and channels overlap, so the type is a part of the key; a group may turn public."""
    kind = str(header.get("type") or "")
    title = str(header.get("name") or kind or source.parts[-2])
    if header.get("id") is None:
        return Chat(title, title, is_id=False)
    return Chat(f"{kind.removeprefix('private_').removeprefix('public_')} {header['id']}", title, is_id=True)


def _record(chat: Chat, message: Any, position: int) -> Record:
    kind = message.get("type") if isinstance(message, dict) else None
    timestamp = _timestamp(message) if kind in TYPES else None
    if timestamp is None:
        # For what it cannot export, Telegram writes only the type.
        return Record(chat, "", "", "", Kind.SYSTEM if kind == "unsupported" else Kind.UNREADABLE, position)
    text = line_breaks(_text(message.get("text")))
    # Ids count from 1 in each chat. Without the chat's id, two chats of one title may be merged.
    number = str(message["id"]) if chat.is_id and message.get("id") is not None else ""
    kind = Kind.BOT if _is_bot(message, chat) else _kind(message, text)
    answers = str(message.get("reply_to_message_id") or "") if number and "reply_to_peer_id" not in message else ""
    return Record(
        chat,
        timestamp,
        intern(_sender(message)),
        text,
        kind,
        position,
        number,
        answers,
        reactions(message.get("reactions")),
    )


def _is_bot(message: dict[str, Any], chat: Chat) -> bool:
    """Whether it was sent through an inline bot, or by the bot that the chat is with."""
    is_partner = chat.key.startswith("bot_chat ") and message.get("from_id") == f"user{chat.key.split()[1]}"
    return bool(message.get("via_bot")) or (is_partner and message["type"] == "message")


def _sender(message: dict[str, Any]) -> str:
    """The name; for a deleted account the id, which is a number in old exports."""
    account = message.get("from_id")
    name = message.get("from") or message.get("actor") or account or ""
    return f"user{name}" if name is account and isinstance(account, int) else str(name)


def _kind(message: dict[str, Any], text: str) -> Kind:
    if message["type"] == "service":
        return Kind.CALL if message.get("action") in CALLS else Kind.SYSTEM
    if FORWARDED & message.keys():  # a name that Telegram hides is null
        return Kind.FORWARD
    if text and not message.get("poll") and "location_information" not in message:
        return Kind.MESSAGE  # a caption is what the person wrote
    if message.get("poll") is not None or message.get("todo_list") is not None:
        return Kind.POLL
    if (
        any(message.get(key) for key in ("live_location_period_seconds", "place_name"))
        or "location_information" in message
    ):
        return Kind.LOCATION
    return Kind.MEDIA if any(message.get(key) is not None for key in MEDIA) else Kind.MESSAGE


def _text(text: Any) -> str:
    """Join the parts without a separator: `he**llo**` is one word."""
    if isinstance(text, list):
        return "".join(str((part.get("text") if isinstance(part, dict) else part) or "") for part in text)
    return str(text or "")


def _timestamp(message: dict[str, Any]) -> str | None:
    """Local time with its offset if the export has local time and UTC, otherwise the one that it has."""
    date, unixtime = message.get("date"), message.get("date_unixtime")
    try:
        local = datetime.fromisoformat(date) if date else None
        if not unixtime:
            return local.isoformat() if local and (local.tzinfo is None or local.astimezone(UTC)) else None
        instant = datetime.fromtimestamp(int(unixtime), UTC)
        if local is None or local.tzinfo is not None:
            return instant.isoformat()
        return local.isoformat() + _offset(round((local - instant.replace(tzinfo=None)).total_seconds()))
    except _NoZone:  # the two contradict each other; UTC is exact
        return instant.isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


class _NoZone(ValueError):
    """Local time and UTC differ by more than any time zone does."""


@lru_cache(maxsize=4096)
def _offset(seconds: int) -> str:
    """`+01:00`, to the nearest minute."""
    if abs(seconds) > FURTHEST:
        raise _NoZone
    minutes = round(seconds / 60)
    return f"{'+' if minutes >= 0 else '-'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
