"""What is left out of an extraction because the person deleted it from the CSV files before, or excludes it by a
pattern of user_config.json.

rows.json, beside the platforms' folders, holds hashes of every row as it was written and of the message that it was
made from. Rows that are no longer in a CSV were deleted; the hashes of their messages stay in rows.json for good. A
message is known across exports by its id, or else by its time and what it says, before masking and renaming: so other
options, or an export that comes later, do not bring it back.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghost.errors import DataError, UsageError
from training.extraction import csv_file
from training.extraction.deduplication import LONG, time_and_text
from training.extraction.platform import Record

ROWS = "rows.json"
FORMAT = 1
SIZE = 6  # bytes of a hash: among a million messages, one in three billion is taken for a deleted one
HEX = 2 * SIZE


@dataclass
class Removals:
    """What to leave out. `rows_of` makes the content of the next rows.json.

    messages  how many messages of each hash were deleted, with those of earlier runs
    chats     hashes of chats whose file was deleted
    rows      rows deleted since the last extraction
    files     files deleted since then, relative to the folder
    patterns  those of the config; `matched` counts the messages that each excludes
    """

    messages: Counter[str] = field(default_factory=Counter)
    chats: set[str] = field(default_factory=set)
    rows: int = 0
    files: list[str] = field(default_factory=list)
    patterns: Sequence[re.Pattern[str]] = ()
    matched: Counter[int] = field(default_factory=Counter)

    def keep(self, platform: str, messages: list[Record]) -> tuple[list[Record], int, int]:
        """The messages of a chat in one file that stay; how many were deleted, and how many a pattern excludes."""
        if not self.patterns and not self.messages and not self.chats:
            return messages, 0, 0
        if messages and _hash(platform, messages[0].chat.key) in self.chats:
            return [], len(messages), 0
        kept, deleted, met = [], 0, Counter[str]()
        for record in messages:
            key = _message_hash(platform, record) if self.messages else ""
            if met[key] < self.messages[key]:
                met[key] += 1
                deleted += 1
            elif not self._excludes(record.text):
                kept.append(record)
        return kept, deleted, len(messages) - deleted - len(kept)

    def _excludes(self, text: str) -> bool:
        for number, pattern in enumerate(self.patterns):
            if pattern.search(text):
                self.matched[number] += 1
                return True
        return False

    def as_json(self, written: dict[str, Any]) -> dict[str, Any]:
        """The content of rows.json, given that of `rows_of` for each file."""
        removed = {"messages": "".join(sorted(self.messages.elements())), "chats": "".join(sorted(self.chats))}
        return {"format": FORMAT, "removed": removed, "files": written}


def rows_of(platform: str, read: Sequence[Record], written: Sequence[Record], path: Path) -> dict[str, str]:
    """For rows.json: hashes of a conversation's file, of its chats, of its rows, and of the messages of these rows."""
    return {
        "sha256": _sha256(path),
        "chats": "".join({key: _hash(platform, key) for key in {each.chat.key for each in read}}.values()),
        "rows": "".join(_hash(each.timestamp, each.sender, each.text) for each in written),
        "messages": "".join(_message_hash(platform, each) for each in read),
    }


def _message_hash(platform: str, record: Record) -> str:
    """Equal in all exports of a message. Several chats may have the same short text in the same minute, so that of a
    short one counts with the chat's name: when the chat is renamed, its short messages are others."""
    if record.id:
        return _hash(platform, record.chat.key, record.id)
    return _hash(platform, "" if len(record.text) >= LONG else record.chat.key, *time_and_text(record))


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=SIZE).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_removals(out: Path, patterns: Sequence[str]) -> Removals:
    """Compare the CSV files in `out` with what the last extraction wrote there.

    Raises UsageError if one has rows that were changed or added: they would be lost.
    """
    found = Removals(patterns=[re.compile(pattern, re.IGNORECASE) for pattern in patterns])
    try:
        written = json.loads((out / ROWS).read_text(encoding="utf-8"))
        removed, files = written["removed"], dict[str, dict[str, str]](written["files"])
        found.messages.update(_pieces(removed["messages"]))
        found.chats.update(_pieces(removed["chats"]))
        hashes = {file: (_pieces(entry["rows"]), _pieces(entry["messages"])) for file, entry in files.items()}
    except FileNotFoundError:
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{out / ROWS}: cannot be read ({type(error).__name__}), so what you deleted from {out} is not known."
            f" Delete {ROWS} to write everything anew, or pass another folder as --out"
        ) from error
    kept = {chat for file, entry in files.items() if (out / file).exists() for chat in _pieces(entry["chats"])}
    for file, (rows, messages) in hashes.items():
        if not (out / file).exists():
            found.files.append(file)
            found.messages.update(messages)
            found.chats.update(set(_pieces(files[file]["chats"])) - kept)  # two chats may have one name
        elif _sha256(out / file) != files[file]["sha256"]:
            gone = Counter(rows) - _present(out / file, Counter(rows))
            found.rows += gone.total()
            for row, message in zip(rows, messages, strict=True):
                if gone[row]:
                    gone[row] -= 1
                    found.messages[message] += 1
    return found


def _pieces(hashes: str) -> list[str]:
    return [hashes[place : place + HEX] for place in range(0, len(hashes), HEX)]


def _present(path: Path, written: Counter[str]) -> Counter[str]:
    """The hashes of the rows in an edited file. Raises UsageError if not all of them were written by extraction."""
    advice = (
        "The next extraction would lose that. Delete the row, which leaves its message out for good, or pass another"
        f" folder as --out; or delete {ROWS}, which also forgets what you deleted before"
    )
    try:
        columns = csv_file.read(path)
    except DataError as error:
        raise UsageError(f"{str(error).removesuffix(csv_file.AGAIN)}{advice}") from error
    present = Counter(map(_hash, *columns))
    if changed := present - written:
        row = next(row for row, parts in enumerate(zip(*columns, strict=True)) if _hash(*parts) in changed)
        count = changed.total()
        what = "a row was" if count == 1 else f"{count:,} rows, the first of them here, were"
        raise UsageError(f"{path}:{csv_file.line_of(path, row)}: {what} changed or added. {advice}")
    return present
