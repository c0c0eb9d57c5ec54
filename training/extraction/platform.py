"""What a platform module offers: five facts and two functions. A file in `platforms/` with these is all it takes."""

from typing import NamedTuple, Protocol, runtime_checkable

from training.extraction.record import Reading
from training.extraction.source import Source


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
