"""The one shape that every platform's export is read into."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a record is: exactly one of these, and only a MESSAGE reaches the CSV."""

    MESSAGE = "message"
    SYSTEM = "system"
    MEDIA = "media"
    DELETED = "deleted"
    CALL = "call"
    POLL = "poll"
    LOCATION = "location"
    EMPTY = "empty"  # fewer characters than --min-chars
    DUPLICATE = "duplicate"  # already read from another export of the same conversation
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, equal in every export of it.

    is_id  whether `key` is the platform's own id, or a title that two chats may share
    alias  a second key, under which an export that lacks the id files the same conversation
    """

    key: str
    title: str
    is_id: bool
    alias: str = ""


class Record(NamedTuple):
    """One entry of an export: frozen and slotted like a dataclass, at a third of the cost of making one.

    timestamp  ISO 8601 text: with the offset where the export knows it, local time without one where it does not
    position   line number in a text export, entry number in a JSON one; counts from 1. Only of an UNREADABLE record
               is it ever shown, so a platform may leave it 0 in the others
    id         the platform's own number of the message within its chat, where the export has one
    """

    chat: Chat
    timestamp: str
    sender: str
    text: str
    kind: Kind
    position: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One file being read: its records, lazily, and what was decided before the first of them."""

    records: Iterator[Record]
    facts: Mapping[str, str] = field(default_factory=dict)
