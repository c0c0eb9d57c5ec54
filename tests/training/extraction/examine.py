"""What must hold of every file, whatever is in it: the property that the fuzzers try to break."""

from datetime import datetime

from ghost.errors import ExportError, UsageError
from training.extraction.platform import Kind, Record
from training.extraction.platforms import PLATFORMS, Recognised, recognise
from training.extraction.source import Source, discover


def examine(source: Source, forced: str | None = None, date_order: str | None = None) -> str:
    """Recognise and read a file. Returns what became of it: a platform's name, "refused" or "unknown".

    forced  a platform that must also cope with the file, as with --platform
    Raises AssertionError for what a platform must not do, and whatever a platform lets through.
    """
    outcome = "unknown"
    try:
        match = recognise(source)
    except (ExportError, UsageError) as error:
        one_line(error)
        outcome, match = "refused", None
    if match is not None:
        outcome = match.platform.NAME
        read(source, match, date_order)
    if forced is not None and (match is None or forced != match.platform.NAME):
        read(source, Recognised(PLATFORMS[forced], ""), date_order)
    return outcome


def examine_zip(source: Source) -> None:
    """Each member of a zip."""
    for found in discover([source.path]):
        if isinstance(found, ExportError):
            one_line(found)
        elif not found.is_attachment:
            examine(found)


def read(source: Source, match: Recognised, date_order: str | None) -> int:
    number = 0
    try:
        reading = match.platform.read(source, date_order)
        assert all(isinstance(text, str) for fact in reading.facts.items() for text in fact)
        for record in reading.records:
            well_made(record)
            number += 1
    except (ExportError, UsageError) as error:
        one_line(error)
    return number


def well_made(record: Record) -> None:
    assert type(record) is Record
    assert type(record.kind) is Kind
    assert type(record.position) is int
    for text in (*record[1:4], record.id, record.chat.key, record.chat.title, record.chat.alias):
        assert type(text) is str
        text.encode()
    if record.timestamp or record.kind is Kind.MESSAGE:
        datetime.fromisoformat(record.timestamp)


def one_line(error: Exception) -> None:
    text = str(error)
    text.encode()
    assert text
    assert "\n" not in text
    assert "\r" not in text
