"""Snapchat's `json/chat_history.json` of "My Data".

    {"USERNAME or group id": [{"From": "USERNAME", "Media Type": "TEXT", "Created": "2023-04-05 12:34:56 UTC",
        "Content": "words", "Conversation Title": null, "IsSender": false, "Created(microseconds)": 1680698096123}]}

Before 2023:

    {"Received Saved Chat History": [{"From": "USERNAME", "Media Type": "TEXT", "Created": "…", "Text": "words"}],
     "Sent Saved Chat History": [{"To": "USERNAME", …}], "Received Unsaved Chat History": [], …}

The newest message is first; "microseconds" are milliseconds; the older form writes `&#39;` for an apostrophe. A message
that nobody saved is there without its words. What a message answers, edits and reactions are not exported. Grammar from
public parsers and their descriptions of own exports; not checked against a real one.
"""

from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any

from ghost.errors import ExportError
from training.extraction.json_stream import Broken, Cursor, Thread, damaged
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso, from_milliseconds
from training.extraction.source import Source, companion, line_breaks, mapping, objects, string

NAME = "snapchat"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
# What lies beside chats in json/ and html/, as far as it concerns chats. Snaps and calls have no words.
COMPANIONS: frozenset[str] = frozenset(
    ("snap_history.json", "talk_history.json", "friends.json", "account.json", "index.html", "chat_history.html")
)

KINDS = (  # by the start of the media type
    ("STATUSERASED", Kind.DELETED),
    ("STATUSCALL", Kind.CALL),
    ("STATUS", Kind.SYSTEM),
    ("LOCATION", Kind.LOCATION),
    ("MAPREACTION", Kind.REACTION),
    ("NONPARTICIPANTBOT", Kind.BOT),
)
SENT, RECEIVED = "Sent ", "Received "  # starts of the older form's sections


def recognise(source: Source, evidence: Evidence) -> str | None:
    is_page = source.name == "chat_history.html" and evidence.head.lstrip()[:1] == "<"
    if is_page and source.sibling("../json/chat_history.json") is None:
        raise ExportError(f"{source}: Snapchat's HTML; request My Data again with Export JSON Files, and pass that zip")
    for path in evidence.paths:
        thread = path.removesuffix(".item.Media Type")
        words = {f"{thread}.item.Content", f"{thread}.item.Text"}
        if thread != path and f"{thread}.item.Created" in evidence.paths and words & evidence.paths:
            return "a JSON object of lists whose messages have Snapchat's Media Type and Created"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    me, position = _owner(source), 1
    rows: list[Any] = []
    name = ""
    with source.open() as stream:
        cursor = Cursor(stream)
        try:
            if cursor.peek() != "{":
                raise Broken("character 0: not an object of conversations")
            for name in cursor.names():
                rows = [] if cursor.peek() == "[" else [None]
                rows.extend(cursor.values())
                yield from _thread(Thread({}, rows, position), name, me)
                position += len(rows)
                rows = []
            cursor.finish()
        except Broken as error:
            yield from _thread(Thread({}, rows, position), name, me)
            raise damaged(source, position + len(rows) - 1, error) from None


def _owner(source: Source) -> str:
    """Only the older form needs it: it does not repeat the owner's name in what the owner sent."""
    account = mapping(companion(source.sibling("account.json")))
    return string(mapping(account.get("Basic Information")).get("Username"))


def _thread(thread: Thread, name: str, me: str) -> Iterator[Record]:
    """From the oldest to the newest."""
    titles = (string(row.get("Conversation Title")) for row in objects(thread.messages))
    title = next(filter(None, titles), name)
    for position, row in thread.backwards():
        yield _record(mapping(row), name, title, me, position)


def _record(row: Mapping[str, Any], name: str, title: str, me: str, position: int) -> Record:
    is_sent = name.startswith(SENT)
    if row and (is_sent or name.startswith(RECEIVED)) and name.endswith(" History"):
        name = title = string(row.get("To")) or string(row.get("From"))
        sender = me or "Me" if is_sent else name
    else:
        sender = string(row.get("From"))
    chat = Chat(name, title, is_id=True)
    timestamp = _timestamp(row)
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    text = string(row["Content"]) if "Content" in row else unescape(string(row.get("Text")))
    return Record(chat, timestamp, sender, line_breaks(text), _kind(string(row.get("Media Type")), text), position)


def _kind(media: str, text: str) -> Kind:
    if media == "TEXT" or (media == "MEDIA" and text.strip()):  # a caption is what the person wrote
        return Kind.MESSAGE
    return next((kind for start, kind in KINDS if media.startswith(start)), Kind.MEDIA)


def _timestamp(row: Mapping[str, Any]) -> str | None:
    """In milliseconds where the export has them."""
    exact = from_milliseconds(row.get("Created(microseconds)"))
    return exact or from_iso(string(row.get("Created")).replace(" UTC", "+00:00"))
