"""The one shape that every platform's export is read into, and what a platform offers.

A file in `platforms/` with these is all it takes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from training.extraction.source import Source


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


class Evidence(NamedTuple):
    """What a file's first 64 KiB show.

    head   the text, undecodable bytes replaced
    paths  of JSON, the path of every key seen, with `item` for array elements: `messages.item.date_unixtime`;
           a string that is an array element itself is `participants.item=`. Several JSON values in one file (JSON
           lines) are seen together
    """

    head: str
    paths: frozenset[str]


@runtime_checkable
class Platform(Protocol):
    NAME: str
    UNIT: str  # what Record.position counts
    NEWEST_FIRST: bool  # the numbered files of one chat run backwards in time
    BROAD: bool  # its shape is one that others share: asked only about files that nobody else claims
    COMPANIONS: frozenset[str]  # names of files without messages that an export holds beside its chats

    def recognise(self, source: Source, evidence: Evidence) -> str | None:
        """The reason why this file is the platform's, or None.

        Raises ExportError for a form of the platform's that cannot be read, saying how to export one that can.
        """

    def read(self, source: Source, date_order: str | None) -> Reading:
        """Decide what concerns the whole file, then stream its records. Raises ExportError."""
