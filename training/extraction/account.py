"""What went in and what became of it: every record of every file is exactly one kind, and the sums are equal."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.extraction.platform import Kind, Record

FORMAT = 1
SHOWN = 20  # unreadable lines that the terminal lists; the report lists them all


@dataclass(slots=True)
class FileAccount:
    """One input file. `unreadable` holds positions, never content."""

    file: str
    platform: str
    reason: str
    facts: Mapping[str, str]
    unit: str  # what the numbers in `unreadable` count: lines or entries
    records: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    unreadable: list[int] = field(default_factory=list)
    error: str | None = None

    def leave_out(self, record: Record) -> None:
        self.kinds[record.kind] += 1
        if record.kind is Kind.UNREADABLE:
            self.unreadable.append(record.position)

    def move_to_duplicates(self, number: int) -> None:
        self.kinds[Kind.MESSAGE] -= number
        self.kinds[Kind.DUPLICATE] += number

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "platform": self.platform,
            "reason": self.reason,
            **self.facts,
            "records": self.records,
            "kinds": {str(kind): self.kinds[kind] for kind in Kind},
            "unreadable": self.unreadable,
            "error": self.error,
        }


@dataclass(slots=True)
class Account:
    """A whole extraction: files read, files refused with a line each, files passed over."""

    files: list[FileAccount] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    attachments: int = 0
    own_folders: list[str] = field(default_factory=list)  # written by an earlier run, below what was named
    beside_json: int = 0  # HTML pages of a thread whose JSON was read
    conversations: list[dict[str, Any]] = field(default_factory=list)
    masked: dict[str, int] = field(default_factory=dict)  # replacements in messages, by kind
    languages: dict[str, float] = field(default_factory=dict)  # shares of all messages

    @property
    def messages(self) -> int:
        return sum(file.kinds[Kind.MESSAGE] for file in self.files)

    @property
    def problems(self) -> list[str]:
        """One line for each thing that was not understood."""
        lines = list(self.refused)
        for file in self.files:
            if file.error:
                lines.append(file.error)
            if file.unreadable:
                shown = ", ".join(f"{number:,}" for number in file.unreadable[:SHOWN])
                more = ", …" if len(file.unreadable) > SHOWN else ""
                lines.append(f"{file.file}: {len(file.unreadable):,} unreadable, at {file.unit} {shown}{more}")
        return lines

    def rename(self, renamed: Callable[[str], str]) -> None:
        """Call files as their chats are called: a file's name holds a contact's."""
        self.refused = list(map(renamed, self.refused))
        self.own_folders = list(map(renamed, self.own_folders))
        for file in self.files:
            file.file = renamed(file.file)
            file.error = renamed(file.error) if file.error else None
            if "owner" in file.facts:
                file.facts = {**file.facts, "owner": renamed(file.facts["owner"])}

    def write_down(self, written: Path, title: str, records: list[Record]) -> None:
        """Add a conversation that lies at `written`, relative to --out."""
        self.conversations.append(
            {
                "file": written.as_posix(),
                "title": title,
                "messages": len(records),
                "senders": dict(Counter(record.sender for record in records).most_common()),
                "first": records[0].timestamp,
                "last": records[-1].timestamp,
            }
        )

    def as_json(self) -> dict[str, Any]:
        totals = sum((file.kinds for file in self.files), Counter[Kind]())
        return {
            "format": FORMAT,
            "files": [file.as_json() for file in self.files],
            "refused": self.refused,
            "attachments_passed_over": self.attachments,
            "own_folders_passed_over": self.own_folders,
            "html_beside_json_passed_over": self.beside_json,
            "conversations": self.conversations,
            "masked": self.masked,
            "totals": {"records": sum(file.records for file in self.files)}
            | {str(kind): totals[kind] for kind in Kind},
        }
