"""What is left out of an extraction because the person deleted it from the CSV files before, or excludes it by a
pattern of user_config.json; and the numbers of contacts, which later extractions keep.

rows.json, beside the platforms' folders, holds a hash of every row as it was written, and of the message that it was
made from where masking or renaming changed it. A row that is no longer in its CSV was deleted; the hash of its message
stays in rows.json for good. A message is identified by its time and text before masking and renaming, so neither other
options nor a later export bring it back.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ghost.errors import DataError, UsageError
from replicate_deployment.ghost_json import sha256
from training.extraction import csv_file
from training.extraction.deduplication import LONG, time_and_text
from training.extraction.platform import Chat, Kind, Record

ROWS = "rows.json"
FORMAT = 1
NO_CHAT = Chat("", "", is_id=False)
SIZE = 6  # bytes of a hash: among a million messages, one in three hundred million is taken for a deleted one
HEX = 2 * SIZE


@dataclass
class Removals:
    """What to leave out.

    messages  how many messages of each hash were deleted
    chats     hashes of the chats whose file was deleted
    patterns  those of the config; `matched` counts the messages that each excludes
    contacts  the N of each `Contact N`, by a short hash of the number or address
    """

    messages: Counter[str] = field(default_factory=Counter)
    chats: set[str] = field(default_factory=set)
    patterns: Sequence[re.Pattern[str]] = ()
    matched: Counter[int] = field(default_factory=Counter)
    contacts: dict[str, int] = field(default_factory=dict)

    def keep(self, platform: str, messages: list[Record]) -> tuple[list[Record], int, int]:
        """The messages of a chat in one file that stay; how many were deleted, and how many a pattern excludes."""
        kept = messages
        if messages and _hash(platform, messages[0].chat.key) in self.chats:
            kept = []
        elif self.messages:
            left = self.messages.copy()
            kept = []
            for record, key in zip(messages, _hashes(platform, messages), strict=True):
                if left[key] > 0:
                    left[key] -= 1
                else:
                    kept.append(record)
        deleted = len(messages) - len(kept)
        if self.patterns:
            kept = [record for record in kept if not self._excludes(record.text)]
        return kept, deleted, len(messages) - deleted - len(kept)

    def _excludes(self, text: str) -> bool:
        for number, pattern in enumerate(self.patterns):
            if pattern.search(text):
                self.matched[number] += 1
                return True
        return False

    def as_json(self, files: dict[str, Any]) -> dict[str, Any]:
        """The content of rows.json, given that of `rows_of` for each file."""
        deleted = {"messages": "".join(sorted(self.messages.elements())), "chats": "".join(sorted(self.chats))}
        return {"format": FORMAT, "deleted": deleted, "contacts": self.contacts, "files": files}


def rows_of(platform: str, read: Sequence[Record], written: Sequence[Record], path: Path) -> dict[str, Any]:
    """A conversation's file in rows.json: hashes of the file, of its chats, senders and rows, and, by row, that of the
    message where it was changed before it was written."""
    pairs = enumerate(zip(read, written, strict=True))
    changed = [row for row, (here, there) in pairs if here is not there and here.text is not there.text]
    return {
        "sha256": sha256(path),
        # Sorted: the order of a set of texts differs from run to run.
        "chats": "".join(sorted(_hash(platform, key) for key in {each.chat.key for each in read})),
        "senders": "".join(sorted(_hash(sender) for sender in {each.sender for each in written})),
        "rows": "".join(_hashes(platform, written)),
        "messages": dict(zip(map(str, changed), _hashes(platform, [read[row] for row in changed]), strict=True)),
    }


def _hashes(platform: str, records: Sequence[Record]) -> list[str]:
    """Equal in all exports of a message. Several chats may have the same short text in the same minute, so that of a
    short one counts with its chat; when a chat is renamed, its short messages are others."""
    chats = {key: _hash(platform, key) for key in {record.chat.key for record in records}}
    return [
        _hash(*time_and_text(record), "" if len(record.text) >= LONG else chats[record.chat.key]) for record in records
    ]


def _hash(*parts: str) -> str:
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=SIZE).hexdigest()


def read_removals(out: Path, patterns: Sequence[str]) -> Removals:
    """Compare the CSV files in `out` with what the last extraction wrote there.

    Raises UsageError if one has rows that were changed or added: they would be lost.
    """
    found = Removals(patterns=[re.compile(pattern, re.IGNORECASE) for pattern in patterns])
    try:
        written = json.loads((out / ROWS).read_text(encoding="utf-8"))
        found.messages.update(_pieces(written["deleted"]["messages"]))
        found.chats.update(_pieces(written["deleted"]["chats"]))
        found.contacts.update({key: int(number) for key, number in written.get("contacts", {}).items()})
        kept = set[str]()  # two chats may have one name
        for file, entry in written["files"].items():
            if (out / file).exists():
                kept.update(_pieces(entry["chats"]))
                if sha256(out / file) != entry["sha256"]:
                    found.messages += _deleted(entry, _present(out / file, entry))
        for file, entry in written["files"].items():
            if not (out / file).exists():
                found.messages += _deleted(entry, Counter())
                found.chats.update(set(_pieces(entry["chats"])) - kept)
    except (FileNotFoundError, NotADirectoryError):
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{out / ROWS}: cannot be read ({type(error).__name__}), so what you deleted from {out} is not known."
            f" Delete {ROWS} to write everything anew, or pass another folder as --out"
        ) from error
    return found


def _pieces(hashes: str) -> list[str]:
    return [hashes[place : place + HEX] for place in range(0, len(hashes), HEX)]


def _deleted(entry: dict[str, Any], present: Counter[str]) -> Counter[str]:
    """The messages whose rows are not in a file any more. Of rows that are alike while their messages were not, such as
    two numbers in one minute, all count as deleted if one was."""
    messages: dict[str, list[str]] = {}
    for row, key in enumerate(_pieces(entry["rows"])):
        messages.setdefault(key, []).append(entry["messages"].get(str(row), key))
    gone = Counter[str]()
    for key, alike in messages.items():
        missing = len(alike) - present[key]
        if missing:
            gone.update(alike if len(set(alike)) > 1 else alike[:missing])
    return gone


def _present(path: Path, entry: dict[str, Any]) -> Counter[str]:
    """The hashes of the rows in an edited file. Raises UsageError if not all of them were written by extraction."""
    advice = (
        "The next extraction would lose that. Delete the row, which leaves its message out for good, or pass another"
        f" folder as --out; or delete {ROWS}, which also forgets what you deleted before"
    )
    try:
        columns = csv_file.read(path)
    except DataError as error:
        raise UsageError(f"{str(error).removesuffix(csv_file.AGAIN)}{advice}") from error
    chats = _pieces(entry["chats"])  # several, if the conversation is of several exports
    senders, written = set(_pieces(entry["senders"])), Counter(_pieces(entry["rows"]))
    present, changed = Counter[str](), list[int]()
    for row, (time, sender, text) in enumerate(zip(*columns, strict=True)):
        moment, _ = time_and_text(Record(NO_CHAT, time, sender, text, Kind.MESSAGE, 0))
        keys = [_hash(moment, text, chat) for chat in ([""] if len(text) >= LONG else chats)]
        key = next((key for key in keys if present[key] < written[key]), None)
        if key is None or _hash(sender) not in senders:
            changed.append(row)
        else:
            present[key] += 1
    if changed:
        what = "a row was" if len(changed) == 1 else f"{len(changed):,} rows, the first of them here, were"
        raise UsageError(f"{path}:{csv_file.line_of(path, changed[0])}: {what} changed or added. {advice}")
    return present
