"""Slack's workspace export: a folder for each conversation with a JSON file for each day, users.json beside them."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from replicate_deployment.chat_format import well_formed
from training.extraction.json_stream import array
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, companion, line_breaks, objects, reactions

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
# Subtypes of rows that people write. With any other subtype, Slack reports an event.
WRITTEN = frozenset(("", "me_message", "thread_broadcast", "file_share", "file_comment"))
BOTS = frozenset(("bot_message", "slackbot_response"))
DELETED = frozenset(("tombstone", "message_deleted"))
CALLS = frozenset(("huddle_thread", "sh_room_created", "sh_room_shared"))
# Until 2018 Slack wrote the sentence around an uploaded file, and the words about it stood in the file.
UPLOADED = re.compile(r"<@\w+(?:\|[^>]*)?> (?:uploaded|shared|commented on|mentioned)\b")
# `<` and `>` of a person are escaped, so what stands between them is Slack's. A scheme must follow, as in `<https:`.
TOKEN = re.compile(r"<([@#!]|[A-Za-z][A-Za-z0-9+.-]*:)([^<>|]*)(?:\|([^<>]*))?>")
ESCAPE = re.compile("&(lt|gt|amp);")
ESCAPED = {"lt": "<", "gt": ">", "amp": "&"}
DEEPEST = 8  # blocks within blocks; Slack's own stop at four
ID = re.compile("[CDG][A-Z0-9]{7,}")
INDEXES = {"channels": "channel", "groups": "private channel", "dms": "direct messages", "mpims": "group messages"}


class Names(NamedTuple):
    """Names by id."""

    users: Mapping[str, str]
    channels: Mapping[str, str]


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
    kind = _kind(row, text)
    number, thread = str(row["ts"]), str(row.get("thread_ts") or "")
    answers = thread if thread != number else ""  # the first message of a thread is no reply
    sender, count = well_formed(_sender(row, names)), reactions(row.get("reactions"))
    return Record(chat, timestamp, sender, text, kind, position, number, answers, count)


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
    """The member's name; for others (Slack Connect, apps) the name in the row, or else the id."""
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


def _kind(row: Mapping[str, Any], text: str) -> Kind:
    subtype = str(row.get("subtype") or "")
    if subtype in DELETED:
        return Kind.DELETED
    if subtype in CALLS or any(block.get("type") == "call" for block in objects(row.get("blocks"))):
        return Kind.CALL
    if "client_msg_id" not in row:  # only what a client sent has such an id
        if subtype in BOTS or (subtype in WRITTEN and (row.get("bot_id") or row.get("user") == "USLACKBOT")):
            return Kind.BOT
        if subtype not in WRITTEN:
            return Kind.SYSTEM
    if not text and any(attachment.get("is_share") for attachment in objects(row.get("attachments"))):
        return Kind.FORWARD
    if not text and any(row.get(key) for key in ("files", "file", "attachments", "upload")):
        return Kind.MEDIA
    return Kind.MESSAGE


class Workspace(NamedTuple):
    """team is the workspace's id. folders: what a folder's name, or the id that it may be instead, stands for."""

    team: str
    names: Names
    folders: Mapping[str, tuple[Chat, str]]
    fact: str

    def chat(self, folder: str) -> tuple[Chat, str]:
        """The conversation in a folder, and its type in words."""
        if folder in self.folders:
            return self.folders[folder]
        key = folder if ID.fullmatch(folder) else f"{self.team} {folder}"
        return Chat(key, folder, is_id=True), "of a sort that no index file tells"


def workspace_of(source: Source) -> Workspace:
    """The workspace of a day's file. The last one is cached, as the files of an export are read in sequence."""
    if source.member:
        folder = posixpath.dirname(posixpath.dirname(source.member))
        users = Source(source.path, posixpath.join(folder, "users.json"))
    else:
        users = Source(source.path.absolute().parent.parent / "users.json")
    try:
        changed = users.path.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read(users, changed)


def user_name(user: Mapping[str, Any]) -> str:
    """The name that Slack shows, of a row of users.json or the profile in a message; empty where there is none."""
    profile = user.get("profile")
    for holder in (profile, user):
        if isinstance(holder, dict):
            for key in ("display_name", "real_name", "name"):
                if name := str(holder.get(key) or "").strip():
                    return well_formed(name)
    return ""


@lru_cache(maxsize=1)
def _read(users_json: Source, changed: int) -> Workspace:
    """`changed`, when the file was written, makes a new export a new cache entry."""
    users = objects(companion(users_json.sibling("users.json")))
    names = {str(user.get("id")): name for user in users if (name := user_name(user))}
    rows = {index: objects(companion(users_json.sibling(f"{index}.json"))) for index in INDEXES}
    owner = _owner(rows["dms"])
    folders: dict[str, tuple[Chat, str]] = {}
    channels: dict[str, str] = {}
    for index, kind in INDEXES.items():
        for row in rows[index]:
            key, name = str(row.get("id") or ""), str(row.get("name") or "")
            people = index in ("dms", "mpims") and _people(row, owner, names)
            chat = Chat(key or name, well_formed(people or name or key), is_id=True)
            for folder in filter(None, (key, name)):
                folders[folder] = chat, kind
            if key and name:
                channels[key] = well_formed(name)
    team = next((str(user["team_id"]) for user in users if user.get("team_id")), "")
    fact = f"{len(names):,} people in users.json" if users else "no readable users.json: ids stand for names"
    return Workspace(team, Names(names, channels), folders, fact)


def _members(row: Mapping[str, Any]) -> list[str]:
    members = row.get("members")
    return list(dict.fromkeys(map(str, members))) if isinstance(members, list) else []


def _owner(dms: list[dict[str, Any]]) -> str:
    """The owner of the export. It does not name them, but only they are in each of several direct conversations."""
    pairs = {frozenset(members) for dm in dms if (members := _members(dm))}
    common = frozenset.intersection(*pairs) if len(pairs) > 1 else frozenset()
    return next(iter(common)) if len(common) == 1 else ""


def _people(row: Mapping[str, Any], owner: str, names: Mapping[str, str]) -> str:
    members = _members(row)
    others = [member for member in members if member != owner] or members
    return ", ".join(names.get(member, member) for member in others)


def plain(text: str, names: Names) -> str:
    """Tokens first: what they resolve to may hold an escape, and a typed `&lt;@U1&gt;` is no token."""
    if "<" in text:
        text = TOKEN.sub(lambda token: _token(token, names), text)
    if "&" in text:
        text = ESCAPE.sub(lambda escape: ESCAPED[escape[1]], text)  # in one pass: `&amp;lt;` was typed `&lt;`
    return text


def _token(token: re.Match[str], names: Names) -> str:
    mark, target, label = token[1], token[2], token[3]
    if mark == "@":
        return "@" + (names.users.get(target) or label or target)
    if mark == "#":
        return "#" + (label or names.channels.get(target) or target)
    if mark == "!":
        command, _, argument = target.partition("^")
        if command in ("subteam", "date"):
            return label or argument.partition("^")[0]
        return "@" + target
    return label or mark + target


def block_text(block: Mapping[str, Any], names: Names, depth: int = 0) -> str:
    """The text of a Block Kit block; "" for a block without text."""
    if depth > DEEPEST:
        return ""
    kind = block.get("type")
    parts = [block_text(part, names, depth + 1) for part in objects(block.get("elements"))]
    if kind in ("rich_text", "rich_text_list", "context"):
        return "\n".join(part.removesuffix("\n") for part in parts if part)
    if kind in ("rich_text_section", "rich_text_quote", "rich_text_preformatted"):
        return "".join(parts)
    if kind in ("section", "header"):
        fields = [block.get("text"), *objects(block.get("fields"))]
        texts = [block_text(field, names, depth + 1) for field in fields if isinstance(field, dict)]
        return "\n".join(text for text in texts if text)
    if kind in ("mrkdwn", "plain_text"):
        return plain(str(block.get("text") or ""), names)
    return _inline(kind, block, names)


def _inline(kind: Any, element: Mapping[str, Any], names: Names) -> str:
    """The text of an inline element. Unlike a row's text it is not escaped."""
    user, channel = str(element.get("user_id", "")), str(element.get("channel_id", ""))
    match kind:
        case "text":
            return str(element.get("text") or "")
        case "link":
            return str(element.get("text") or element.get("url") or "")
        case "emoji":
            return f":{element.get('name', '')}:"
        case "user":
            return "@" + names.users.get(user, user)
        case "channel":
            return "#" + names.channels.get(channel, channel)
        case "broadcast":
            return f"@{element.get('range', '')}"
        case "usergroup":
            return f"@{element.get('usergroup_id', '')}"
        case "date":
            return str(element.get("fallback") or "")
    return ""
