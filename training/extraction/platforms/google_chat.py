"""Google Chat, of a Takeout: for each group or direct conversation a folder of messages.json and group_info.json."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.json_stream import array
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, beside, companion, line_breaks, objects

NAME = "google_chat"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("group_info.json", "user_info.json", "archive_browser.html"))

FIELDS = {"created_date", "updated_date", "message_state"}
GROUP = re.compile(r"(?:DM|Space) \S+")
# Takeout writes dates in the account's language. Both languages seen spell CLDR's full date and long time, in UTC.
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
ENGLISH = re.compile(
    r"[a-z]+,? (?:(?P<month>[a-z]+) (?P<day>\d{1,2})|(?P<day2>\d{1,2}) (?P<month2>[a-z]+)),? (?P<year>\d{4})"
    r"(?:,| at)? (?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)(?: ?(?P<half>[ap])\.?m\.?)? utc"
)
CHINESE = re.compile(
    r"(?P<year>\d{4})年(?P<month>\d{1,2})月(?P<day>\d{1,2})日 ?(?:星期|週|周)?[一二三四五六日天]? ?"
    r"utc ?(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)"
)
CALLS = ("video_call_metadata", "meet_metadata", "call_metadata")


def recognise(source: Source, evidence: Evidence) -> str | None:
    paths = evidence.paths
    if "messages.item.creator" in paths and any(f"messages.item.{field}" in paths for field in FIELDS):
        return "a JSON object whose messages have Google Chat's creator and localized dates"
    if {"messages.item.created_date", "messages.item.message_id"} <= paths:
        return "a JSON object whose messages have Google Chat's dates"
    if paths == {"messages"} and source.sibling("group_info.json"):
        return "an empty list of messages beside Google Chat's group_info.json"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    members = _members(source)
    return Reading(_records(source, _chat(source, members), dict(members)))


def _members(source: Source) -> dict[str, str]:
    """Name by e-mail address; addresses differ in case between files."""
    info = companion(source.sibling("group_info.json"))
    people = objects(info.get("members")) if isinstance(info, dict) else []
    return {address: name for person in people if (address := _address(person)) and (name := _name(person))}


def _chat(source: Source, members: Mapping[str, str]) -> Chat:
    """The folder is the group's id. A direct conversation has no name: its title is the other person."""
    folder = source.parts[-2]
    info = companion(source.sibling("group_info.json"))
    title = str(info.get("name") or "") if isinstance(info, dict) else ""
    if not title:
        owners = [companion(file) for file in beside(source, "../../Users/*/user_info.json")]
        mine = {_address(owner.get("user")) for owner in owners if isinstance(owner, dict)}
        others = [name for address, name in members.items() if address not in mine] or list(members.values())
        title = ", ".join(others)
    return Chat(folder, well_formed(title) or folder, is_id=GROUP.fullmatch(folder) is not None)


def _records(source: Source, chat: Chat, names: dict[str, str]) -> Iterator[Record]:
    seen: set[tuple[str, str, str, str]] = set()
    said: dict[tuple[str, str], str] = {}  # id of the latest message by name and text, by which a quote refers to it
    unread = ""
    for position, message in array(source, "messages"):
        record = _record(message, chat, names, position)
        if record.kind is Kind.UNREADABLE and isinstance(message, dict):
            unread = unread or _date(message)
        if isinstance(message, dict) and isinstance(quote := message.get("quoted_message_metadata"), dict):
            words = line_breaks(well_formed(str(quote.get("text") or "")))
            record = record._replace(answers=said.get((_name(quote.get("creator")), words), ""))
        said[record.sender, record.text] = record.id
        same = record.id, record.timestamp, record.sender, record.text
        yield record._replace(kind=Kind.DUPLICATE) if record.id and same in seen else record
        seen.add(same)
    if "UTC" in unread.upper():  # a date, then, and no damage
        raise ExportError(
            f"{source}: dates like “{unread[:60]}” are in a language that is not read yet; set the Google account to"
            " English and export again"
        )


def _record(message: Any, chat: Chat, names: dict[str, str], position: int) -> Record:
    timestamp = read_date(_date(message)) if isinstance(message, dict) else None
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    creator = message.get("creator")
    address = _address(creator)
    # One name for each person: the one in group_info.json, or else the first one in the messages.
    sender = names.setdefault(address, _name(creator) or address) if address else _name(creator)
    text = line_breaks(well_formed(str(message.get("text") or "")))
    identity = str(message.get("message_id") or "")
    count = sum(len(each.get("reactor_emails") or "?") for each in objects(message.get("reactions")))
    return Record(chat, timestamp, sender, text, _kind(message, text), position, identity, reactions=count)


def _kind(message: Mapping[str, Any], text: str) -> Kind:
    if message.get("message_state") == "DELETED" or "deletion_metadata" in message:
        return Kind.DELETED
    creator = message.get("creator")
    if isinstance(creator, dict) and creator.get("user_type") == "Bot":
        return Kind.BOT
    if text:
        return Kind.MESSAGE
    annotations = objects(message.get("annotations"))
    if any(call in annotation for annotation in annotations for call in CALLS):
        return Kind.CALL
    if message.get("attached_files") or annotations:
        return Kind.MEDIA
    return Kind.MESSAGE if message.get("creator") else Kind.DELETED  # what was deleted may have lost its author too


def _date(message: Mapping[str, Any]) -> str:
    """When it was written; for an edited message some exports have only the time of the edit."""
    return str(message.get("created_date") or message.get("updated_date") or "")


def read_date(written: str) -> str | None:
    """`Friday, May 29, 2026 at 3:00:29 AM UTC` → `2026-05-29T03:00:29+00:00`; the blanks may be U+202F."""
    text = " ".join(written.split()).lower()
    match = ENGLISH.fullmatch(text) or CHINESE.fullmatch(text)
    if match is None:
        return None
    found = match.groupdict()
    month = found["month"] or found["month2"]
    hour = int(found["hour"])
    if half := found.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    day, minute, second = int(found["day"] or found["day2"]), int(found["minute"]), int(found["second"])
    try:
        number = int(month) if month.isdecimal() else MONTHS.index(month) + 1
        return datetime(int(found["year"]), number, day, hour, minute, second, tzinfo=UTC).isoformat()
    except ValueError:
        return None


def _address(person: Any) -> str:
    return str(person.get("email") or "").casefold() if isinstance(person, dict) else ""


def _name(person: Any) -> str:
    return well_formed(str(person.get("name") or "")).strip() if isinstance(person, dict) else ""
