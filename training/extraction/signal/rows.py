"""Rows of Signal Desktop's database as a JSON array, one file a conversation: what sigtop writes.

The rows name nobody; who the conversation is with stands in the file's name, `Ada (+15550001111).json`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from training.extraction.json_stream import array
from training.extraction.platform import Chat, Kind, Record
from training.extraction.signal.fields import body_text, instant
from training.extraction.source import Source

DETAIL = re.compile(r"(.+) \(([^()]+)\)")
WRITTEN = ("incoming", "outgoing")


def records(source: Source) -> Iterator[Record]:
    stem = PurePath(source.name).stem
    match = DETAIL.fullmatch(stem)
    title, is_group = (match[1], match[2] == "group") if match else (stem, False)
    chats: dict[str, Chat] = {}
    for position, row in array(source):
        timestamp = (instant(row.get("sent_at")) or instant(row.get("timestamp"))) if isinstance(row, dict) else None
        if timestamp is None:
            yield Record(Chat(title, title, is_id=False), "", "", "", Kind.UNREADABLE, position)
            continue
        key = str(row.get("conversationId") or title)
        is_named = not chats or (key in chats and chats[key].title == title)  # the file's name is its first chat's
        chat = chats.setdefault(key, Chat(key, title if is_named else key, is_id="conversationId" in row))
        account = str(row.get("source") or row.get("sourceServiceId") or row.get("sourceUuid") or "")
        them = account if is_group or not is_named else title
        sender = "Me" if row.get("type") == "outgoing" else them or title
        text = body_text(row.get("body"), row.get("bodyRanges"), {})
        yield Record(chat, timestamp, sender, text, _kind(row, text), position, str(row.get("id") or ""))


def _kind(row: Mapping[str, Any], text: str) -> Kind:
    if row.get("type") == "call-history":
        return Kind.CALL
    if row.get("deletedForEveryone") or row.get("isErased"):
        return Kind.DELETED
    if row.get("type") not in WRITTEN:
        return Kind.SYSTEM  # group-v2-change, keychange, verified-change, …
    if row.get("poll"):
        return Kind.POLL
    if text:
        return Kind.MESSAGE
    if row.get("giftBadge") or row.get("payment") or row.get("storyReaction"):
        return Kind.SYSTEM
    has_media = any(row.get(key) for key in ("attachments", "sticker", "contact", "isViewOnce", "hasAttachments"))
    return Kind.MEDIA if has_media else Kind.MESSAGE
