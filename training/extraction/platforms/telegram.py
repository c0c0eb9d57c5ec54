"""Telegram Desktop's machine-readable JSON: one chat, or a whole account with the chats that were left.

Streamed with ijson: a chat at a time from a full export, a message at a time from a single one.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, Any

import ijson

from training.errors import ExportError
from training.extraction.platform import Evidence
from training.extraction.record import Chat, Kind, Reading, Record
from training.extraction.source import Source
from training.extraction.text import line_breaks, well_formed

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
CALLS = ("phone_call", "group_call")
MEDIA = ("photo", "file", "media_type", "contact_information", "game_title", "invoice_information")


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
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    position = 0
    with source.open() as stream:
        try:
            for header, messages in _chats(stream):
                chat = _chat(header, source)
                for message in messages:
                    position += 1
                    yield _record(chat, message, position)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:80]
            raise ExportError(
                f"{source}: not valid JSON after entry {position:,} ({reason}); an export that was cancelled ends like"
                " this: export it again"
            ) from None


def _chat(header: dict[str, Any], source: Source) -> Chat:
    """Users, groups and channels number apart, and a group may turn public between two exports."""
    kind = str(header.get("type", ""))
    title = well_formed(str(header.get("name") or kind or source.parts[-2]))
    if "id" not in header:
        return Chat(title, title, is_id=False)
    return Chat(f"{kind.removeprefix('private_').removeprefix('public_')} {header['id']}", title, is_id=True)


def _chats(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], Iterable[Any]]]:
    sections, header = _root(stream)
    if not sections:
        yield header, _items(stream, "messages.item")
    for section in sections:
        for chat in _items(stream, f"{section}.list.item"):
            messages = chat.get("messages", []) if isinstance(chat, dict) else chat
            yield chat if isinstance(chat, dict) else {}, messages if isinstance(messages, list) else [messages]


def _root(stream: IO[bytes]) -> tuple[list[str], dict[str, Any]]:
    """The account's chat sections, or the header of a single chat, which Telegram writes before its messages."""
    header: dict[str, Any] = {}
    sections: list[str] = []
    for prefix, event, value in ijson.parse(_Repaired(stream)):
        if prefix in ("messages", "item"):  # the messages start, or the root is no object
            return [], header
        if prefix in SECTIONS and event == "start_map":
            sections.append(prefix)
        elif event in ("string", "number") and prefix in ("name", "type", "id"):
            header[prefix] = value
    return sections, header


def _items(stream: IO[bytes], prefix: str) -> Iterator[Any]:
    stream.seek(0)
    return iter(ijson.items(_Repaired(stream), prefix, use_float=True))


def _record(chat: Chat, message: Any, position: int) -> Record:
    if isinstance(message, dict) and message.get("type") == "unsupported":
        return Record(chat, "", "", "", Kind.SYSTEM, position)  # all that Telegram says of what it cannot export
    timestamp = _timestamp(message) if isinstance(message, dict) else None
    if timestamp is None or message.get("type") not in ("message", "service"):
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    sender = str(message.get("from") or message.get("actor") or message.get("from_id") or "")
    text = line_breaks(well_formed(_text(message.get("text") or "")))
    # Without the chat's id, two chats of one title may meet, and each numbers its messages from 1.
    number = str(message.get("id", "")) if chat.is_id else ""
    return Record(chat, timestamp, well_formed(sender), text, _kind(message, text), position, number)


def _kind(message: dict[str, Any], text: str) -> Kind:
    if message["type"] == "service":
        return Kind.CALL if message.get("action") in CALLS else Kind.SYSTEM
    if "poll" in message:
        return Kind.POLL
    if "location_information" in message or "live_location_period_seconds" in message:
        return Kind.LOCATION
    if not text and any(key in message for key in MEDIA):
        return Kind.MEDIA
    return Kind.MESSAGE  # a caption is what the person wrote


def _text(text: Any) -> str:
    """The parts join with nothing between them: `he**llo**` is one word."""
    if isinstance(text, list):
        return "".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in text)
    return str(text)


def _timestamp(message: dict[str, Any]) -> str | None:
    """Local time with its offset when the export gives both clocks, else whichever it gives."""
    try:
        local = datetime.fromisoformat(message["date"]) if message.get("date") else None
        if not message.get("date_unixtime"):
            return local.isoformat() if local else None
        instant = datetime.fromtimestamp(int(message["date_unixtime"]), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    if local is None or local.tzinfo is not None:
        return instant.isoformat()
    minutes = round((local - instant.replace(tzinfo=None)).total_seconds() / 60)
    if abs(minutes) > 14 * 60:  # no such zone: the two clocks contradict each other, and UTC is the exact one
        return instant.isoformat()
    sign = "+" if minutes >= 0 else "-"
    return f"{local.isoformat()}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


class _Repaired:
    """The stream with the two defects of real Telegram versions undone; valid JSON passes unchanged.

    Control characters were written as `\\x0C`, an escape that JSON lacks (tdesktop issue 27571); version 4.1 wrote a
    custom emoji's `document_id` without quotes (issue 24961). Pairs of backslashes are consumed together, so that a
    backslash that a person typed survives; inside a string the quotes of a typed `"document_id": ` are escaped.
    """

    ESCAPES = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\.", re.DOTALL)
    UNQUOTED = re.compile(rb'("document_id": )(?!["\d\-n])([^\r\n]*?)(,?)(?=\r?\n)')

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._started = False

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        if chunk and size > 0:
            chunk += self._stream.readline(1 << 20)  # both defects lie within one line
        if chunk and not self._started:  # ijson first asks for no bytes, to see their type
            chunk, self._started = chunk.removeprefix(b"\xef\xbb\xbf"), True
        if b"\\x" in chunk:
            chunk = self.ESCAPES.sub(lambda pair: b"\\u00" + pair[1] if pair[1] else pair[0], chunk)
        if b'"document_id": ' in chunk:
            chunk = self.UNQUOTED.sub(rb'\1"\2"\3', chunk)
        return chunk
