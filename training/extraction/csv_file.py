"""A conversation's CSV: its name, and its rows."""

import os
import re
import unicodedata
from pathlib import Path

from training.extraction.record import Record

COLUMNS = ("timestamp", "sender", "message")
ROWS = 10_000  # written at a time
LONGEST_NAME = 120  # bytes of a file's name, well under the 255 of common file systems
QUOTE, TWICE = '"', '""'
SPECIAL = re.compile('[",\r\n]')
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def path_in(folder: Path, platform: str, title: str, taken: set[str]) -> Path:
    """`folder/<platform>/<title>.csv`, in a name that every file system takes.

    taken  the names given before, in lower case; two chats that differ by case alone are told apart
    """
    name = UNSAFE.sub("_", unicodedata.normalize("NFC", title))
    name = name.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore").strip(" .") or "chat"
    unique, number = name, 1
    while f"{platform}/{unique.casefold()}" in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(f"{platform}/{unique.casefold()}")
    return folder / platform / f"{unique}.csv"


def write(records: list[Record], path: Path) -> None:
    """Write a conversation's CSV, readable by its owner only."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as stream:
        stream.write((",".join(COLUMNS) + "\n").encode())
        for start in range(0, len(records), ROWS):
            stream.write(_rows(records[start : start + ROWS]).encode())


def _rows(records: list[Record]) -> str:
    """Rows as `csv.writer` spells them, at a third of its time: it looks at every character, `in` at most of none."""
    names = {name: _field(name) for name in {record.sender for record in records}}
    return "".join(
        [
            f"{timestamp},{names[sender]},{text}\n"
            if "," not in text and "\n" not in text and '"' not in text and "\r" not in text
            else f'{timestamp},{names[sender]},"{text.replace(QUOTE, TWICE)}"\n'
            for _, timestamp, sender, text, _, _, _ in records
        ]
    )


def _field(text: str) -> str:
    if SPECIAL.search(text):
        return f'"{text.replace(QUOTE, TWICE)}"'
    return text
