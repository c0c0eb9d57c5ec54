"""The record type that every export is read into, and the interface of a platform module.

To add a platform, add a module with this interface to `platforms/`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from training.extraction.source import Source


class Kind(StrEnum):
    """The kind of a record. Only a MESSAGE is written to the CSV."""

    MESSAGE = "message"
    SYSTEM = "system"
    MEDIA = "media"
    DELETED = "deleted"
    CALL = "call"
    POLL = "poll"
    LOCATION = "location"
    REACTION = "reaction"
    FORWARD = "forward"  # somebody else's words, passed on
    BOT = "bot"  # written by a program, also when a person sent it through an inline bot
    SUPERSEDED = "superseded"  # an earlier version of an edited message
    EMPTY = "empty"  # fewer characters than --min-chars
    REMOVED = "removed"  # the person deleted its row, or its file, from the output of an earlier extraction
    EXCLUDED = "excluded"  # matches a pattern of user_config.json
    DUPLICATE = "duplicate"  # already read from another export of the same conversation
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation. Equal for every export of the same conversation.

    is_id  True when `key` is the platform's id, False when it is a title that two chats may share
    alias  a second key, used by exports that lack the id
    """

    key: str
    title: str
    is_id: bool
    alias: str = ""


class Record(NamedTuple):
    """One entry of an export. A NamedTuple, since creating a frozen dataclass costs three times as much.

    timestamp  ISO 8601: with an offset where the export has one, otherwise local time
    position   line number in a text export, entry number in a JSON one, from 1. Only shown for UNREADABLE records;
               others may leave it 0
    id         the platform's id of the message within its chat, if the export has one
    answers    what the message replies to: the `id` of a message of the same chat, or its `reference` where messages
               have no ids
    reactions  how many the export attaches to it
    """

    chat: Chat
    timestamp: str
    sender: str
    text: str
    kind: Kind
    position: int
    id: str = ""
    answers: str = ""
    reactions: int = 0


def from_milliseconds(value: Any) -> str | None:
    """The ISO 8601 time in UTC of milliseconds since 1970; None if it is no time. 0 means unknown."""
    try:
        instant = datetime.fromtimestamp(int(value) / 1000, UTC) if int(value) > 0 else None
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return instant.isoformat(timespec="milliseconds") if instant else None


def from_iso(value: Any) -> str | None:
    """An ISO 8601 time with one spelling of its fraction; None if it is no time, in UTC either: year 1 at +01:00."""
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo:
            instant.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return instant.isoformat(timespec="milliseconds" if instant.tzinfo else "seconds")


def reference(timestamp: str, sender: str) -> str:
    """Stands in `Record.answers` for the message that `sender` wrote at `timestamp`, if messages have no ids."""
    return f"{timestamp} {sender}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One file being read: its records (lazy) and the facts determined before reading them."""

    records: Iterator[Record]
    facts: Mapping[str, str] = field(default_factory=dict)


class Evidence(NamedTuple):
    """The first 64 KiB of a file.

    head   the text, undecodable bytes replaced
    paths  for JSON, the path of every key seen, with `item` for array elements: `messages.item.date_unixtime`.
           An array element that is a string gives `participants.item=`. The paths of all values in a file of JSON
           lines are combined
    """

    head: str
    paths: frozenset[str]


@runtime_checkable
class Platform(Protocol):
    NAME: str
    UNIT: str  # what Record.position counts
    NEWEST_FIRST: bool  # whether the first of a chat's numbered files is the newest
    BROAD: bool  # whether other formats look alike: then asked only about files that no other platform claims
    COMPANIONS: frozenset[str]  # names of files without messages that come with an export

    def recognise(self, source: Source, evidence: Evidence) -> str | None:
        """Why this file is of this platform, or None if it is not.

        Raises ExportError for an unsupported format of this platform; the message says how to export a supported one.
        """

    def read(self, source: Source, date_order: str | None) -> Reading:
        """Determine what applies to the whole file, then stream its records. Raises ExportError."""
