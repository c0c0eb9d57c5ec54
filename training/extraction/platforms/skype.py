"""The `messages.json` that Microsoft exports for Skype and for Teams (free), packed as .tar.

    {"userId": "8:live:noa", "conversations": [{"id": "8:live:lea", "displayName": "Lea",
        "threadProperties": {"topic": "Trip", "members": "[\\"8:live:lea\\"]"},
        "MessageList": [{"id": "1588325430123", "originalarrivaltime": "2020-05-01T09:30:30.123Z", "from": "8:live:noa",
            "displayName": "Noa", "messagetype": "RichText", "content": "words",
            "properties": {"emotions": [{"key": "like", "users": [{}]}], "deletetime": "1588325440000"}}]}]}

The newest message is first. In RichText `&<>` are escaped and the rest is tags: `<ss>:)</ss>`, `<at id="8:…">Lea</at>`,
`<a href="…">`, `<b>`, `<e_m ts_ms="…"/>` at the end of an edited message, and for what it answers
`<quote author="…" messageid="ID"><legacyquote>[time] name: </legacyquote>words</quote>`; a quote alone is a forward.
Conversations: `8:` of two, `19:` a group, `28:` a bot, `48:` the account's own lists, such as `48:calllogs`.
Grammar from public parsers and their type declarations; not checked against a real export.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html import unescape
from typing import Any

from ghost.errors import ExportError
from training.extraction.json_stream import Thread, threads
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, line_breaks, mapping, objects, string

NAME = "skype"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("endpoints.json",))

TAR = slice(257, 262)  # where a .tar says "ustar"
WRITTEN = ("RichText", "RichText/Html", "Text")
KINDS = (  # by the start of the message type; all others are events
    ("Event/Call", Kind.CALL),
    ("RichText/ScheduledCall", Kind.CALL),
    ("RichText/Location", Kind.LOCATION),
    ("RichText", Kind.MEDIA),
    ("Poll", Kind.POLL),
)
TAG = re.compile(r"<(/?)([A-Za-z_]\w*)(\s[^<>]*)?/?>")
MESSAGE_ID = re.compile(r'\bmessageid="(\d+)"')
BREAKS = frozenset(("br", "/p", "/div", "/li"))
EDITED = "Edited previous message: "


def recognise(source: Source, evidence: Evidence) -> str | None:
    if evidence.head[TAR] == "ustar" and "messages.json\0" in evidence.head:
        raise ExportError(f"{source}: a .tar with Skype's messages.json; unpack it and pass messages.json")
    if {"conversations.item.MessageList", "conversations.item.threadProperties"} & evidence.paths:
        return "a JSON object whose conversations have Skype's MessageList"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    names: dict[str, str] = {}  # by id, over all conversations: not every message repeats it
    for thread in threads(source, "MessageList", "conversations"):
        chat = _chat(thread, names)
        rows = objects(thread.messages)
        for row in rows:
            if name := string(row.get("displayName")).strip():
                names.setdefault(string(row.get("from")), name)
        edited = {string(row.get("skypeeditedid")) for row in rows if row.get("skypeeditedid") != row.get("id")} - {""}
        for position, row in thread.backwards():
            record = _record(row, chat, names, position)
            is_old = record.kind is Kind.MESSAGE and record.id in edited
            yield record._replace(kind=Kind.SUPERSEDED) if is_old else record


def _chat(thread: Thread, names: dict[str, str]) -> Chat:
    key, title = (string(thread.about.get(name)) for name in ("id", "displayName"))
    title = title or string(mapping(thread.about.get("threadProperties")).get("topic"))
    if title and key.startswith("8:"):
        names.setdefault(key, title)
    return Chat(key, title or _name(key, names) or "Skype", is_id=bool(key))


def _name(person: str, names: Mapping[str, str]) -> str:
    return names.get(person) or person.partition(":")[2] or person


def _record(row: Any, chat: Chat, names: Mapping[str, str], position: int) -> Record:
    timestamp = from_iso(row.get("originalarrivaltime")) if isinstance(row, dict) else None
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    person, form, content = (string(row.get(name)) for name in ("from", "messagetype", "content"))
    text, quotes = (content, []) if form == "Text" else _plain(content)
    properties = mapping(row.get("properties"))
    if properties.get("deletetime"):
        kind = Kind.DELETED
    elif chat.key.startswith("48:") and chat.key != "48:notes":
        kind = Kind.CALL if chat.key == "48:calllogs" else Kind.SYSTEM
    elif form not in WRITTEN:
        kind = next((kind for start, kind in KINDS if form.startswith(start)), Kind.SYSTEM)
    elif person.startswith("28:"):
        kind = Kind.BOT
    else:
        kind = Kind.FORWARD if quotes and not text.strip() else Kind.MESSAGE
    answers, count = next(filter(None, quotes), ""), _reactions(properties.get("emotions"))
    number, sender = string(row.get("id")), _name(person, names)
    return Record(chat, timestamp, sender, line_breaks(text), kind, position, number, answers, count)


def _plain(content: str) -> tuple[str, list[str]]:
    """The words without tags and quotes, and for each quote the id of the message, or ""."""
    pieces: list[str] = []
    quotes: list[str] = []
    end, depth, is_edited, is_laid_out = 0, 0, False, False
    for tag in TAG.finditer(content):
        if not depth:
            pieces.append(unescape(content[end : tag.start()]))
        end = tag.end()
        slash, name, attributes = tag[1], tag[2].lower(), tag[3] or ""
        if name == "quote":
            if not slash and not depth:
                found = MESSAGE_ID.search(attributes)
                quotes.append(found[1] if found else "")
            depth = max(0, depth + (-1 if slash else 1))
        elif not depth and f"{slash}{name}" in BREAKS:
            pieces.append("\n")
            is_laid_out = True
        is_edited = is_edited or name == "e_m"
    pieces.append("" if depth else unescape(content[end:]))
    text = "".join(pieces)
    text = text.removeprefix(EDITED) if is_edited else text
    return (text.strip("\n") if quotes or is_laid_out else text), quotes


def _reactions(emotions: Any) -> int:
    """A list, or the JSON of one."""
    if isinstance(emotions, str):
        with suppress(ValueError, RecursionError):
            emotions = json.loads(emotions)
    return sum(len(objects(each.get("users"))) for each in objects(emotions))
