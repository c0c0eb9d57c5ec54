"""The entries of JSON exports, one at a time: an array's elements, or the lines of a file of JSON lines."""

import json
from collections.abc import Iterator
from typing import Any

from training.errors import ExportError
from training.extraction.json_stream import Broken, Cursor
from training.extraction.source import Source


def array(source: Source, name: str = "") -> Iterator[tuple[int, Any]]:
    """Number and value of each element of the array that the file is, or that `name` is in the file's object.

    None for a value that cannot be decoded. Raises ExportError behind the last whole element of a file that breaks off.
    """
    position = 0
    with source.open() as stream:
        try:
            cursor = Cursor(stream)
            if cursor.peek() != (b"{" if name else b"["):
                raise Broken("byte 0: no list")
            for found in cursor.names() if name else ("",):
                if found == name:
                    for _ in cursor.elements():
                        value = cursor.value()
                        position += 1
                        yield position, value
        except Broken as error:
            raise ExportError(
                f"{source}: not valid JSON after entry {position:,} ({error}); the file is damaged or was cut off:"
                " export it again"
            ) from None


def lines(source: Source, skip: bytes = b"\0") -> Iterator[tuple[int, Any]]:
    """Number and value of each line that is not blank; None for one that is no JSON. A line may start with `skip`: it
    is then passed over unread."""
    with source.open() as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip() and not line.startswith(skip):
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    yield number, None
