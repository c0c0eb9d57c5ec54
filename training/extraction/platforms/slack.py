"""Slack's workspace export: a folder for each conversation with a JSON file for each day, users.json beside them."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from training.extraction.json_stream import array
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.slack.text import Names, block_text, plain
from training.extraction.slack.workspace import user_name, workspace_of
from training.extraction.source import Source, line_breaks, objects, well_formed

NAME = "slack"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(
    f"{name}.json"
    for name in (
        *("users", "org_users", "channels", "groups", "dms", "mpims", "integration_logs", "canvases", "lists"),
        *("canvas_in_the_conversation", "file_conversations", "huddle_transcripts"),
    )
)

DAY = re.compile(r"\d{4}-\d\d-\d\d\.json")
MESSAGE = re.compile(r'"type"\s*:\s*"message"')
TS = re.compile(r"(\d{1,11})(?:\.(\d{1,6})\d*)?")
# Rows under which somebody's words stand. What else has a subtype is Slack reporting that something happened.
WRITTEN = frozenset(
    ("", "bot_message", "me_message", "thread_broadcast", "file_share", "file_comment", "slackbot_response")
)
DELETED = frozenset(("tombstone", "message_deleted"))
CALLS = frozenset(("huddle_thread", "sh_room_created", "sh_room_shared"))
# Until 2018 Slack wrote the sentence around an uploaded file, and the words about it stood in the file.
UPLOADED = re.compile(r"<@\w+(?:\|[^>]*)?> (?:uploaded|shared|commented on|mentioned)\b")


def recognise(source: Source, evidence: Evidence) -> str | None:
    if "item.ts" in evidence.paths and MESSAGE.search(evidence.head):
        return "a JSON array of messages with Slack's ts"
    is_day = DAY.fullmatch(source.name) and evidence.head.lstrip("\ufeff \t\r\n").startswith("[")
    if is_day and (source.sibling("../users.json") or source.sibling("../channels.json")):
        return "a day's file beside Slack's users.json or channels.json"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    workspace = workspace_of(source)
    chat, folder = workspace.chat(source.parts[-2])
    return Reading(_records(source, workspace.names, chat), {"conversation": folder, "names": workspace.fact})


def _records(source: Source, names: Names, chat: Chat) -> Iterator[Record]:
    seen: set[tuple[str, str, str]] = set()
    for position, row in array(source):
        record = _record(row, names, chat, position)
        same = record.id, record.sender, record.text
        yield record._replace(kind=Kind.DUPLICATE) if record.id and same in seen else record
        seen.add(same)


def _record(row: Any, names: Names, chat: Chat, position: int) -> Record:
    timestamp = _timestamp(row) if isinstance(row, dict) else None
    if timestamp is None or row.get("type", "message") != "message":
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    words = _words(row, names)
    text = line_breaks(well_formed(words or _block_words(row, names)))
    kind = _kind(row, words, text)
    return Record(chat, timestamp, well_formed(_sender(row, names)), text, kind, position, str(row["ts"]))


def _timestamp(row: Mapping[str, Any]) -> str | None:
    """`1736500000.123459` is a time in seconds, exact to the digit because it is the message's id as well."""
    match = TS.fullmatch(str(row.get("ts", "")))
    if match is None:
        return None
    fraction = timedelta(microseconds=int((match[2] or "0").ljust(6, "0")))
    try:
        return (datetime.fromtimestamp(int(match[1]), UTC) + fraction).isoformat(timespec="microseconds")
    except (ValueError, OverflowError, OSError):
        return None


def _sender(row: Mapping[str, Any], names: Names) -> str:
    """A member's name; of others (Slack Connect, apps) what the row itself says; at worst the id."""
    comment = row.get("comment")
    user = str(row.get("user") or (isinstance(comment, dict) and comment.get("user")) or "")
    if user in names.users:
        return names.users[user]
    username = str(row.get("username") or "")
    for profile in ({"profile": row.get("user_profile")}, {"profile": row.get("bot_profile")}):
        if name := username or user_name(profile):
            return name
    return "Slackbot" if user == "USLACKBOT" else user or str(row.get("bot_id") or "")


def _words(row: Mapping[str, Any], names: Names) -> str:
    """What the row's author wrote, without the sentence that Slack put around a file."""
    text = str(row.get("text") or "")
    if UPLOADED.match(text) and row.get("subtype") in ("file_share", "file_comment", "file_mention"):
        files = [row.get("file"), *objects(row.get("files"))]
        comments = [row.get("comment"), *(file.get("initial_comment") for file in files if isinstance(file, dict))]
        text = next((str(each.get("comment") or "") for each in comments if isinstance(each, dict)), "")
    return plain(text, names)


def _block_words(row: Mapping[str, Any], names: Names) -> str:
    blocks = (block_text(block, names) for block in objects(row.get("blocks")))
    return "\n".join(block for block in blocks if block)


def _kind(row: Mapping[str, Any], words: str, text: str) -> Kind:
    subtype = str(row.get("subtype") or "")
    if subtype in DELETED:
        return Kind.DELETED
    if subtype in CALLS or any(block.get("type") == "call" for block in objects(row.get("blocks"))):
        return Kind.CALL
    if subtype not in WRITTEN and "client_msg_id" not in row:  # only what a client sent has such an id
        return Kind.SYSTEM
    if not words and (row.get("bot_id") or subtype == "bot_message"):
        return Kind.SYSTEM  # an integration's card: buttons, fields and unfurled links, no sentence
    if not text and any(row.get(key) for key in ("files", "file", "attachments", "upload")):
        return Kind.MEDIA
    return Kind.MESSAGE
