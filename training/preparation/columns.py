"""The three columns of a CSV that `ghost extract` wrote, at a third of the time that csv takes for a row.

A file is cut at its commas, newlines and quotes as a whole. Only what `ghost extract` writes is read so: whatever
else is in a file, csv reads, or refuses by its line.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.errors import DataError

HEADER = ["timestamp", "sender", "message"]
AGAIN = "Write it again: ghost extract YOUR_EXPORT"
BYTE_ORDER_MARK = "\ufeff".encode()
BORDERS = (COMMA, NEWLINE, QUOTE) = tuple(b',\n"')


class Columns(NamedTuple):
    """Three of one length, as the file spells them; in messages a line ends in a bare LF."""

    timestamps: Sequence[str]
    senders: Sequence[str]
    messages: Sequence[str]


def read(path: Path) -> Columns:
    """Raises DataError, with file and line, on a file that is not as `ghost extract` writes it."""
    content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    header = f"{','.join(HEADER)}\n".encode()
    columns = _cut(content[len(header) :]) if content.startswith(header) else None
    return columns or _read_rows(path)


def line(path: Path, row: int) -> int:
    """The line on which a row starts, counted only once something is wrong: messages may hold newlines."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        for _ in range(row + 1):
            next(reader)
        return reader.line_num + 1


def _cut(content: bytes) -> Columns | None:
    """None where rows are not three fields each, or a quote stands where csv.writer puts none.

    NUL, which no field holds here, takes the place of every comma and newline between fields. Then one decoding and
    one split serve the whole file.
    """
    if not content:
        return Columns([], [], [])
    if b"\0" in content or b"\r" in content or not content.endswith(b"\n"):
        return None
    data = np.frombuffer(content, np.uint8).copy()
    separators = np.flatnonzero((data == COMMA) | (data == NEWLINE))
    quotes = np.flatnonzero(data == QUOTE)
    if len(quotes):
        if len(quotes) % 2:
            return None
        # Every other quote opens. One within a field is written twice: it closes, and opens again at once.
        opening, closing = quotes[::2], quotes[1::2]
        before, after = data[opening - 1], data[closing + 1]  # before the first byte: the last, which is a newline
        if not (np.isin(before, BORDERS).all() and np.isin(after, BORDERS).all()):
            return None
        # The separators from here to there are within quotes: one more opened than closed.
        count = len(separators) + 1
        here, there = np.searchsorted(separators, opening), np.searchsorted(separators, closing)
        within = np.cumsum(np.bincount(here, minlength=count) - np.bincount(there, minlength=count))
        separators = separators[within[:-1] == 0]
    found = data[separators]
    if len(found) % 3 or (found.reshape(-1, 3) != (COMMA, COMMA, NEWLINE)).any():
        return None
    data[separators] = 0
    if len(quotes):
        is_kept = np.ones(len(data), bool)
        is_kept[closing] = False
        is_kept[opening[before != QUOTE]] = False
        data = data[is_kept]
    try:
        fields = data.tobytes().decode("utf-8").split("\0")
    except UnicodeDecodeError:
        return None
    return Columns(fields[:-1:3], fields[1::3], fields[2::3])


def _read_rows(path: Path) -> Columns:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            if header != HEADER:
                raise DataError(f"{path}:1: the header is {','.join(header)!r}, not {','.join(HEADER)!r}. {AGAIN}")
            rows = list(reader)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{_undecodable_line(path)}: not UTF-8 ({error.reason}). {AGAIN}") from error
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not readable as CSV ({error}). {AGAIN}") from error
    for row, cells in enumerate(rows):
        if len(cells) != len(HEADER):
            raise DataError(f"{path}:{line(path, row)}: {len(cells)} fields, not {len(HEADER)}. {AGAIN}")
    if not rows:
        return Columns([], [], [])
    timestamps, senders, messages = zip(*rows, strict=True)
    return Columns(timestamps, senders, [message.replace("\r\n", "\n") for message in messages])


def _undecodable_line(path: Path) -> int:
    """Found by decoding the whole: a stream decodes in blocks, ahead of the line that the reader is at."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        content = content[: error.start]
    return content.count(b"\n") + 1
