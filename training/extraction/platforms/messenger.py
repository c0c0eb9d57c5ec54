"""Facebook Messenger's JSON: the threads of "Download your information", and the download of encrypted chats.

Instagram's threads have the same shape, so that instagram.py reads them from here. Both are read whole: whether a
file's text is damaged shows in all of its strings together, and the newest row is first.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from io import BytesIO
from typing import Any, NamedTuple

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.json_stream import Broken, Cursor
from training.extraction.meta_rows import AppRows
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_milliseconds
from training.extraction.source import Source, line_breaks, reactions

NAME = "messenger"
UNIT = "entry"
NEWEST_FIRST = True  # message_1.json is the newest file
BROAD = False
COMPANIONS: frozenset[str] = frozenset(
    ("autofill_information.json", "secret_conversations.json", "your_chat_settings_on_web.json", "secret_groups.json")
)

PAGE = re.compile(r'class="[^"]*(_3-95|_a6-g)\b')
NUMBERED = re.compile(r"message_\d+\.(json|html)")
MEDIA = frozenset(("photos", "videos", "audio_files", "files", "gifs", "sticker", "share", "media"))
UNSENT = frozenset(("is_unsent", "is_taken_down", "isUnsent"))
EVENTS = ("Subscribe", "Unsubscribe", "placeholder")
NOBODY = re.compile("facebook|messenger|instagram")  # what a deleted account is called, in every language
FOLDERS = re.compile(r"(?:your_)?(instagram|facebook)(?:_activity|-.*)?|your_activity_across_(facebook)|(messenger)")
# Facebook has none of these: its media lie under your_…facebook…, and its groups are joined through m.me.
INSTAGRAM_ONLY = re.compile(
    r'"uri": *"your_(instagram)_activity/|"joinable_mode":[^}]*"https://(ig\.me)/|"(original_content_owner)":'
    r'|"content": *"(Liked a message)\s*"'
)
# Somebody can have typed `Liked a message` on Facebook.
FACEBOOK_ONLY = re.compile(r'"uri": *"your_(?:facebook_activity|activity_across_facebook)/|"https://m\.me/')

# What the apps put behind an edited message, in the account's language.
EDITED = re.compile(
    r" \((?:edited|bearbeitet|modifié|editado|editada|editat|modificato|bewerkt|edytowano|edytowane|redigerad|redigeret"
    r"|redigert|muokattu|upraveno|szerkesztve|düzenlendi|επεξεργάστηκε|изменено|отредактировано|відредаговано|змінено"
    r"|تم التعديل|معدلة|נערך|संपादित|এডিট করা হয়েছে|diedit|telah diedit|แก้ไขแล้ว|đã chỉnh sửa|編集済み|수정됨|已编辑"
    r"|已編輯)\)$"
)
EDITABLE = timedelta(minutes=16)  # the apps allow a quarter of an hour
NEAR = 40  # rows before an edit among which the earlier version is looked for
ALIKE = 0.5  # of two versions, as difflib has it
# Both apps' pages are made alike, but for `8:01 pm` here and `8:01:05 pm` on Facebook's.
INSTAGRAM_TIME = re.compile(r'class="[^"]*_a6-o">[^<]*(?<![\d:])\d{1,2}:\d\d(?!:?\d)')


class Keys(NamedTuple):
    sender: str
    instant: str
    text: str


CLASSIC = Keys("sender_name", "timestamp_ms", "content")
ENCRYPTED = Keys("senderName", "timestamp", "text")


def recognise(source: Source, evidence: Evidence) -> str | None:
    """Instagram's threads have the same shape. Those without a sign of Instagram count as Messenger's."""
    if is_instagram(source, evidence):
        return None
    if is_page(source, evidence):
        raise ExportError(
            f"{source}: Messenger's HTML export; on Facebook choose Download your information, Format: JSON, and pass"
            " that download"
        )
    return is_thread(evidence)


def is_page(source: Source, evidence: Evidence) -> bool:
    """Whether this is the HTML form of a thread."""
    is_html = re.match(r"\s*<(!doctype html|html)", evidence.head, re.IGNORECASE) is not None
    return is_html and (PAGE.search(evidence.head) or NUMBERED.fullmatch(source.name)) is not None


def is_thread(evidence: Evidence) -> str | None:
    """Why this is a thread of one of the two apps, or None."""
    paths = evidence.paths
    if "messages" not in paths:
        return None
    if "messages.item.senderName" in paths or "threadName" in paths or "participants.item=" in paths:
        return "a JSON object with participants and senderName, as in Messenger's end-to-end-encrypted download"
    if "participants.item.name" in paths or {"participants", "thread_path"} <= paths:
        return "a JSON object with participants and messages"
    if {"messages.item.sender_name", "messages.item.timestamp_ms"} <= paths:
        return "a JSON object whose messages have sender_name and timestamp_ms"
    return None


def is_instagram(source: Source, evidence: Evidence) -> str | None:
    """Why a thread or page is Instagram's, by the folders of the download or by its content; None if it is not."""
    for part in reversed(source.parts):
        if match := FOLDERS.fullmatch(part.casefold()):
            return f"in {part}" if match[1] == "instagram" else None
    if is_page(source, evidence):
        return "a page whose times have no seconds" if INSTAGRAM_TIME.search(evidence.head) else None
    sign = INSTAGRAM_ONLY.search(evidence.head)
    if sign is None or FACEBOOK_ONLY.search(evidence.head) or _has_more_files(source):
        return None
    return f"with {sign[sign.lastindex or 0]}, which only Instagram writes"


def _has_more_files(source: Source) -> bool:
    """Whether the thread has more files, which may lack the sign: all files of a thread must be of one platform."""
    if not NUMBERED.fullmatch(source.name):
        return False
    return source.name != "message_1.json" or source.sibling("message_2.json") is not None


def read(source: Source, date_order: str | None) -> Reading:
    thread, defect = _load(source)
    keys = ENCRYPTED if _is_encrypted(thread) else CLASSIC
    broken = _is_mojibake(thread, keys)
    fact = "UTF-8 written byte by byte: repaired" if broken else "as written"
    return Reading(_records(source, thread, keys, broken, defect), {"text": fact})


def _load(source: Source) -> tuple[dict[str, Any], ExportError | None]:
    """The thread, and the error to raise after the records that precede the damage."""
    with source.open() as stream:
        content = stream.read()
    defect = None
    try:
        thread = json.loads(content)
    except (ValueError, RecursionError) as error:
        thread, broken = _whole_part(content)
        rows = thread.get("messages")
        entries = len(rows) if isinstance(rows, list) else 0
        if broken or not entries:
            reason = " ".join(str(broken or error).split())[:80]
            defect = ExportError(f"{source}: not valid JSON after entry {entries:,} ({reason}); download it again")
        if defect and not entries:
            raise defect from None
    if not isinstance(thread, dict) or not isinstance(thread.get("messages"), list):
        raise ExportError(f"{source}: no list of messages in it; is this a thread's message_N.json? Download it again")
    return thread, defect


def _whole_part(content: bytes) -> tuple[dict[str, Any], Broken | None]:
    """What a file holds before the damage, with None for a row that is damaged by itself."""
    thread: dict[str, Any] = {}
    cursor = Cursor(BytesIO(content))
    try:
        for key in cursor.names():
            if key == "messages" and cursor.peek() == "[":
                rows = thread["messages"] = []
                rows.extend(cursor.values())  # keeps what came before an error
            else:
                thread[key] = cursor.value()
        cursor.finish()
    except Broken as error:
        return thread, error
    return thread, None


def _is_encrypted(thread: Mapping[str, Any]) -> bool:
    rows = (row for row in thread["messages"] if isinstance(row, dict))
    return "threadName" in thread or any("senderName" in row for row in rows)


def _records(
    source: Source, thread: Mapping[str, Any], keys: Keys, broken: bool, defect: ExportError | None
) -> Iterator[Record]:
    def text_of(value: Any) -> str:
        if not isinstance(value, str) or value.isascii():
            return line_breaks(value) if isinstance(value, str) else ""
        return line_breaks(well_formed(_repair(value) if broken else value))

    people = [text_of(name) for name in _people(thread)]
    chat = _chat(source, thread, people, text_of)
    entries = [
        (position, row, text_of(row.get(keys.sender)), text_of(row.get(keys.text)))
        if isinstance(row, dict)
        else (position, {}, "", "")
        for position, row in enumerate(thread["messages"], start=1)
    ]
    app = AppRows(people, ((sender, text) for _, _, sender, text in entries), chat.title)
    if keys is CLASSIC or _runs_backwards(thread["messages"]):
        entries.reverse()
    records = []
    for position, row, sender, text in entries:
        timestamp = from_milliseconds(row.get(keys.instant))
        if timestamp is None or not isinstance(row.get(keys.text), str | None):
            records.append(Record(chat, "", "", "", Kind.UNREADABLE, position))
        else:
            kind, count = _kind(row, sender, text, app), reactions(row.get("reactions"))
            records.append(Record(chat, timestamp, sender, text, kind, position, reactions=count))
    yield from _last_versions(records)
    if defect is not None:
        raise defect


def _kind(row: Mapping[str, Any], sender: str, text: str, app: AppRows) -> Kind:
    has_media = any(row[key] for key in MEDIA & row.keys())
    if any(row[key] for key in UNSENT & row.keys()):
        return Kind.DELETED
    if "call_duration" in row or "missed" in row or row.get("type") == "Call":
        return Kind.CALL
    if row.get("users") or (row.get("type") in EVENTS and not has_media):
        return Kind.SYSTEM
    if not text.strip():
        return Kind.MEDIA if has_media else Kind.EMPTY
    return app.kind(sender, text, has_media) or Kind.MESSAGE  # a caption is what the person wrote


def _last_versions(records: list[Record]) -> Iterator[Record]:
    """Remove the mark behind edited messages; their earlier versions, which are rows before them, become SUPERSEDED.

    records  in time order
    """
    for number, record in enumerate(records):
        words = (
            EDITED.sub("", record.text) if record.kind is Kind.MESSAGE and record.text.endswith(")") else record.text
        )
        if words == record.text or not words:
            continue
        records[number] = record._replace(text=words)
        for earlier in range(number - 1, max(number - NEAR, -1), -1):
            before = records[earlier]
            if before.sender == record.sender and before.kind is Kind.MESSAGE and _is_version(before, records[number]):
                records[earlier] = before._replace(kind=Kind.SUPERSEDED)
                break
    yield from records


def _is_version(before: Record, after: Record) -> bool:
    passed = datetime.fromisoformat(after.timestamp) - datetime.fromisoformat(before.timestamp)
    return passed <= EDITABLE and SequenceMatcher(None, before.text, after.text, False).ratio() >= ALIKE


def _chat(source: Source, thread: Mapping[str, Any], people: list[str], text_of: Any) -> Chat:
    """The id of a classic thread is its folder's name. An encrypted one has a name and a counter: `Bob_1`."""
    if _is_encrypted(thread):
        name = text_of(thread.get("threadName")) or source.name.removesuffix(".json")
        title = re.sub(r"_\d+$", "", name)
        alias = _alias(people, title)
        return Chat(alias or name, title, is_id=False, alias=alias)
    # The box (inbox, archived_threads, e2ee_cutover) changes between downloads; the thread's folder does not.
    path = text_of(thread.get("thread_path"))
    is_id = bool(path) or NUMBERED.fullmatch(source.name) is not None
    key = (path or "/".join(source.parts[:-1])).rsplit("/", 1)[-1] if is_id else source.name.removesuffix(".json")
    title = text_of(thread.get("title")) or key
    return Chat(key, title, is_id, _alias(people, title))


def _alias(people: list[str], title: str) -> str:
    """Two people have one conversation. More people may have several, told apart by the title."""
    names = sorted({unicodedata.normalize("NFC", name).casefold() for name in people if name})
    if len(names) < 2 or any(map(NOBODY.search, names)):
        return ""
    return "\n".join(names if len(names) == 2 else [title.casefold(), *names])


def _people(thread: Mapping[str, Any]) -> list[Any]:
    people = thread.get("participants")
    return [each.get("name") if isinstance(each, dict) else each for each in people] if isinstance(people, list) else []


def _runs_backwards(messages: list[Any]) -> bool:
    instants = [row["timestamp"] for row in messages if isinstance(row, dict) and isinstance(row.get("timestamp"), int)]
    return len(instants) > 1 and instants[0] > instants[-1]


def _is_mojibake(thread: Mapping[str, Any], keys: Keys) -> bool:
    """Facebook writes each UTF-8 byte as its own character, in every name and text of a file or in none.

    A character above U+00FF proves a clean file. Otherwise the strings vote: damaged ones decode as UTF-8, while a
    clean "café" does not.
    """
    votes = 0
    rows = (row for row in thread["messages"] if isinstance(row, dict))
    strings = [thread.get("title"), thread.get("threadName"), *_people(thread)]
    for text in (*strings, *(row.get(key) for row in rows for key in (keys.sender, keys.text))):
        if not isinstance(text, str) or text.isascii():
            continue
        try:
            text.encode("latin-1").decode("utf-8")
            votes += 1
        except UnicodeEncodeError:
            return False
        except UnicodeDecodeError:
            votes -= 1
    return votes > 0


def _repair(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
