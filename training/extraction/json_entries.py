"""The entries of JSON exports, one at a time: an array's elements, or the lines of a file of JSON lines."""

import json
import re
from collections.abc import Iterator
from typing import Any

import ijson

from training.errors import ExportError
from training.extraction.source import Source

BOM = b"\xef\xbb\xbf"


def array(source: Source, prefix: str) -> Iterator[tuple[int, Any]]:
    """Number and value of each element; `prefix` is ijson's: `item`, or `messages.item` inside an object.

    Raises ExportError behind the last whole element of a file that breaks off.
    """
    position = 0
    with source.open() as stream:
        if stream.read(len(BOM)) != BOM:
            stream.seek(0)
        try:  # use_float: without it ijson 3.6 crashes the process on an integer of more than 4,300 digits
            for position, value in enumerate(ijson.items(stream, prefix, use_float=True), start=1):
                yield position, value
        except (ijson.JSONError, UnicodeDecodeError) as error:
            # The parser goes on, behind a line break or one spelled out, to quote the file.
            reason = re.split(r"\n|\\n", str(error).removeprefix("b'"))[0][:80]
            raise ExportError(
                f"{source}: not valid JSON after entry {position:,} ({reason}); the file is damaged or was cut off:"
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
