"""Facebook Messenger's JSON ("Download your information"): threads of message_N.json, newest first."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from training.errors import ExportError
from training.extraction.platform import Evidence
from training.extraction.record import Chat, Kind, Reading, Record
from training.extraction.source import Source
from training.extraction.text import line_breaks, well_formed

NAME = "messenger"
UNIT = "entry"
NEWEST_FIRST = True  # message_1.json is the newest file
BROAD = False
COMPANIONS: frozenset[str] = frozenset(
    ("autofill_information.json", "secret_conversations.json", "your_chat_settings_on_web.json", "secret_groups.json")
)

HTML = re.compile(r'class="[^"]*(_3-95|_a6-g)\b')
MEDIA = ("photos", "videos", "audio_files", "files", "gifs", "sticker")
EVENTS = ("Subscribe", "Unsubscribe")
# Rows that repeat the `reactions` array as text, with a blank at the end that nobody types.
REACTION = re.compile(r"Reacted \S+ to your message ")


def recognise(source: Source, evidence: Evidence) -> str | None:
    paths = evidence.paths
    is_html = re.match(r"\s*<(!doctype html|html)", evidence.head, re.IGNORECASE) is not None
    if is_html and (HTML.search(evidence.head) or re.fullmatch(r"message_\d+\.html", source.name)):
        raise ExportError(
            f"{source}: Messenger's HTML export; on Facebook choose Download your information, Format: JSON, and pass"
            " that download"
        )
    if "messages.item.senderName" in paths or {"messages", "participants.item="} <= paths:
        raise ExportError(
            f"{source}: Messenger's end-to-end-encrypted export, which is not read yet; keep it, and for the chats from"
            " before encryption choose Download your information, Format: JSON, on Facebook and pass that download"
        )
    if "participants.item.name" in paths and "messages" in paths:
        return "a JSON object with participants and messages, as in Facebook's download"
    if {"messages.item.sender_name", "messages.item.timestamp_ms"} <= paths:
        return "a JSON object whose messages have sender_name and timestamp_ms"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    with source.open() as stream:
        content = stream.read()
    try:
        thread = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ExportError(f"{source}: not valid JSON ({reason}); download it again") from None
    if not isinstance(thread, dict) or not isinstance(thread.get("messages"), list):
        raise ExportError(f"{source}: no list of messages in it; is this a thread's message_N.json?")
    broken = _is_mojibake(thread)
    fact = "UTF-8 written byte by byte: repaired" if broken else "as written"
    return Reading(_records(source, thread, broken), {"text": fact})


def _records(source: Source, thread: dict[str, Any], broken: bool) -> Iterator[Record]:
    def text_of(value: Any) -> str:
        text = str(value or "")
        return line_breaks(well_formed(_repair(text) if broken else text))

    # The box (inbox, archived_threads, e2ee_cutover) changes between downloads; the thread's folder does not.
    folder = str(thread.get("thread_path") or source.parts[-2]).rsplit("/", 1)[-1]
    chat = Chat(folder, text_of(thread.get("title")) or folder, is_id=True)
    entries = list(enumerate(thread["messages"], start=1))
    for position, message in reversed(entries):
        timestamp = _timestamp(message) if isinstance(message, dict) else None
        if timestamp is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, position)
            continue
        text = text_of(message.get("content"))
        yield Record(chat, timestamp, text_of(message.get("sender_name")), text, _kind(message, text), position)


def _kind(message: dict[str, Any], text: str) -> Kind:
    if message.get("is_unsent") or message.get("is_taken_down"):
        return Kind.DELETED
    if "call_duration" in message or message.get("type") == "Call":
        return Kind.CALL
    if message.get("type") in EVENTS or REACTION.fullmatch(text):
        return Kind.SYSTEM
    if not text and any(message.get(key) for key in (*MEDIA, "share")):
        return Kind.MEDIA
    return Kind.MESSAGE


def _timestamp(message: dict[str, Any]) -> str | None:
    try:
        instant = datetime.fromtimestamp(int(message["timestamp_ms"]) / 1000, UTC)
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
    return instant.isoformat(timespec="milliseconds")


def _is_mojibake(thread: dict[str, Any]) -> bool:
    """Facebook writes each UTF-8 byte as its own character, in every string of a file or in none.

    A character above U+00FF proves a clean file. Otherwise the strings vote: damaged ones decode as UTF-8, while a
    clean "café" does not.
    """
    votes = 0
    for text in _strings(thread):
        if text.isascii():
            continue
        if any(character > "\xff" for character in text):
            return False
        votes += 1 if _repair(text) != text else -1
    return votes > 0


def _strings(thread: dict[str, Any]) -> Iterator[str]:
    people = thread.get("participants")
    rows = [thread, *(people if isinstance(people, list) else []), *thread["messages"]]
    for row in (row for row in rows if isinstance(row, dict)):
        yield from (
            value for key in ("title", "name", "sender_name", "content") if isinstance(value := row.get(key), str)
        )


def _repair(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
