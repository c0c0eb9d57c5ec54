"""The CSV files between extraction and preparation, one per conversation: name, write and read them."""

import csv
import gc
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ghost.errors import DataError
from training.extraction.platform import Record, reference


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector. Over millions of records, which form no cycles, it takes a third to half of
    the time.

    Objects created meanwhile are frozen, so later collections skip them; reference counting still frees them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


COLUMNS = ["timestamp", "sender", "message"]
REPLIES = "replies.json"  # beside the platforms' folders: which message answers which
AGAIN = "Write it again: ghost extract YOUR_EXPORT"
LONGEST_NAME = 120  # bytes of a file name; common file systems allow 255
SPECIAL = re.compile('[",\r\n]')
# Windows keeps these names for devices, with any extension.
RESERVED = re.compile("con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]", re.IGNORECASE)
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


class Columns(NamedTuple):
    """Three columns of equal length, as written in the file; line breaks in messages are LF."""

    timestamps: list[str]
    senders: list[str]
    messages: list[str]


def path_in(folder: Path, platform: str, title: str, taken: dict[str, int]) -> Path:
    """`folder/<platform>/<title>.csv`, with a name that is valid on every file system.

    taken  names already in use, in lower case, with their last number; the new one is added. Names that differ only in
           case get a number
    """
    name = UNSAFE.sub("_", unicodedata.normalize("NFC", title))
    name = name.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore").strip(" .") or "chat"
    name = f"_{name}" if RESERVED.fullmatch(name.partition(".")[0].rstrip()) else name
    key = f"{platform}/{name.casefold()}"
    unique, number = name, taken.get(key, 1)
    while f"{platform}/{unique.casefold()}" in taken:
        number += 1
        unique = f"{name}-{number}"
    taken[f"{platform}/{unique.casefold()}"] = 1
    taken[key] = number  # or thousands of chats of one name would take quadratic time
    return folder / platform / f"{unique}.csv"


def write(records: list[Record], path: Path) -> None:
    """Write the CSV of a conversation, readable by its owner only."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(COLUMNS) + "\n")
        senders = {name: _field(name) for name in {each.sender for each in records}}
        stream.writelines(f"{each.timestamp},{senders[each.sender]},{_field(each.text)}\n" for each in records)


def replies(records: list[Record], written: list[Record]) -> list[dict[str, dict[str, str]]]:
    """Which of a conversation's messages answer which, for replies.json. Rows are named by timestamp and sender; what
    they say is in the CSV alone, so a row that is deleted there is gone.

    Left out are replies to what is not in the CSV, and to or from one of several messages that a person sent in the
    same instant.

    records  as read
    written  the same rows as the CSV has them, masked
    """
    if not any(record.answers for record in records):
        return []
    rows: dict[str, int] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.id or reference(record.timestamp, record.sender), row)
    keys = [(record.timestamp, record.sender) for record in written]
    times = Counter(keys)
    pairs = ((keys[row], keys[rows[record.answers]]) for row, record in enumerate(records) if record.answers in rows)
    return [
        {"reply": {"timestamp": when, "sender": who}, "answers": {"timestamp": earlier, "sender": whom}}
        for (when, who), (earlier, whom) in pairs
        if times[when, who] == times[earlier, whom] == 1
    ]


def _field(text: str) -> str:
    """Quote where needed. csv.writer in Python 3.11 leaves a lone CR unquoted, which csv.reader reads as the end of a
    row."""
    return '"{}"'.format(text.replace('"', '""')) if SPECIAL.search(text) else text


def read(path: Path) -> Columns:
    """Read a file that `write` wrote. Raises DataError, with file and line, on anything else."""
    csv.field_size_limit(sys.maxsize)
    found = Columns([], [], [])
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            if header != COLUMNS:
                raise DataError(f"{path}:1: the header is {','.join(header)!r}, not {','.join(COLUMNS)!r}. {AGAIN}")
            line = reader.line_num + 1
            for cells in reader:
                if len(cells) != len(COLUMNS):
                    raise DataError(f"{path}:{line}: {len(cells)} fields, not {len(COLUMNS)}. {AGAIN}")
                for column, cell in zip(found, cells, strict=True):
                    column.append(cell)
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{_undecodable_line(path)}: not UTF-8 ({error.reason}). {AGAIN}") from error
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not readable as CSV ({error}). {AGAIN}") from error
    return found._replace(messages=[message.replace("\r\n", "\n") for message in found.messages])


def _undecodable_line(path: Path) -> int:
    """Decode the whole file to find the line: a stream decodes in blocks, ahead of the reader."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        content = content[: error.start]
    return content.count(b"\n") + 1


def line_of(path: Path, row: int) -> int:
    """The line on which a row starts. Messages may hold newlines, so this reads the file again."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        for _ in range(row + 1):
            next(reader)
        return reader.line_num + 1
