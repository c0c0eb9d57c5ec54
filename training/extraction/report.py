"""The account of an extraction, for extraction_report.json and the terminal.

Every record has exactly one kind; the counts by kind add up to the number of records.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from rich.table import Table

from ghost.console import console, counted
from training.extraction.date_order import ASK, NAMES
from training.extraction.platform import Kind, Record
from training.extraction.platforms import HINT
from training.extraction.recurring import Template

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
    reactions: int = 0  # attached to messages, and no records of their own
    kinds: Counter[Kind] = field(default_factory=Counter)
    unreadable: list[int] = field(default_factory=list)
    error: str | None = None

    def leave_out(self, record: Record) -> None:
        self.kinds[record.kind] += 1
        if record.kind is Kind.UNREADABLE:
            self.unreadable.append(record.position)

    def move(self, number: int, kind: Kind) -> None:
        """Count so many of the messages as another kind."""
        self.kinds[Kind.MESSAGE] -= number
        self.kinds[kind] += number

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "platform": self.platform,
            "reason": self.reason,
            **self.facts,
            "records": self.records,
            "reactions": self.reactions,
            "kinds": {str(kind): self.kinds[kind] for kind in Kind},
            "unreadable": self.unreadable,
            "error": self.error,
        }


@dataclass(slots=True)
class Account:
    """A whole extraction: files read, files refused (one line each), files passed over."""

    files: list[FileAccount] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    attachments: int = 0
    own_folders: list[str] = field(default_factory=list)  # folders under the given paths that ghost wrote
    beside_json: int = 0  # HTML pages of threads whose JSON was read
    conversations: list[dict[str, Any]] = field(default_factory=list)
    masked: dict[str, int] = field(default_factory=dict)  # replacements in messages, by kind
    languages: dict[str, float] = field(default_factory=dict)  # shares of all messages
    recurring: list[Template] = field(default_factory=list)  # of messages that look like the app's own
    is_without_recurring: bool = False  # whether they were left out
    excluded: list[int] = field(default_factory=list)  # messages by pattern of the config's exclude_messages

    @property
    def messages(self) -> int:
        return sum(file.kinds[Kind.MESSAGE] for file in self.files)

    @property
    def problems(self) -> list[str]:
        """One line for each file or part that could not be read."""
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
        """Rename files like their chats, since a file name holds a contact's name."""
        self.refused = list(map(renamed, self.refused))
        self.own_folders = list(map(renamed, self.own_folders))
        for template in self.recurring:
            template.file = renamed(template.file)
        for file in self.files:
            file.file = renamed(file.file)
            file.error = renamed(file.error) if file.error else None
            if "owner" in file.facts:
                file.facts = {**file.facts, "owner": renamed(file.facts["owner"])}

    def write_down(self, file: str, title: str, records: list[Record]) -> None:
        """Add a conversation, written to `file` (relative to --out)."""
        self.conversations.append(
            {
                "file": file,
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
            "exclude_messages": self.excluded,
            "masked": self.masked,
            "recurring": {
                "left_out": self.is_without_recurring,
                "templates": [
                    {
                        "wording": template.shown,
                        "rows": template.rows,
                        "senders": len(template.senders),
                        "first": {"file": template.file, "position": template.position},
                    }
                    for template in self.recurring
                ],
            },
            "totals": {"records": sum(file.records for file in self.files)}
            | {str(kind): totals[kind] for kind in Kind},
        }


FEW = 12  # up to so many files, show a row for each; beyond, a row for each platform
OTHERS = 58  # terminal columns that a row needs beside the file name
DOUBT = "majority|backwards|style|--date-order|after a change|weekday"  # in the evidence of a date order
TEMPLATES = 5  # wordings of recurring messages that are shown
NARROWEST = 22  # minimum width of a file name, in characters
LEAST_SHOWN = 0.01  # languages below this share are only in languages.json


def show(account: Account, problems: Sequence[str], out: Path, report: str) -> None:
    """Print the account of a run.

    problems  lines to print, with the original paths (the account may hold renamed ones)
    report    name of the report file in `out`
    """
    few = len(account.files) <= FEW
    if account.files:
        console.print(table(account.files if few else _by_platform(account.files), first="file" if few else "files"))
        evidence = _facts(account.files, "evidence", DOUBT) if few else ()  # the report has it for every file
        for line in (_orders(account.files), *evidence, *_facts(account.files, "note")):
            console.print(line)
    passed_over = [
        *([counted(account.attachments, "attachment")] if account.attachments else []),
        *([f"{counted(account.beside_json, 'HTML page')} whose JSON is read"] if account.beside_json else []),
        *(f"{folder}, which ghost wrote" for folder in account.own_folders),
    ]
    if passed_over:
        console.print(f"passed over: {'; '.join(passed_over)}")
    namesakes: dict[tuple[str, str], list[str]] = {}
    for each in account.conversations:
        namesakes.setdefault((PurePath(each["file"]).parts[0], each["title"]), []).append(each["file"])
    for (_, title), files in namesakes.items():
        if len(files) > 1:
            names = ", ".join(files[:5]) + (", …" if len(files) > 5 else "")
            console.print(f"kept apart: {len(files)} chats called {title}, which share hardly a message: {names}")
    for line in _left_out_on_purpose(account):
        console.print(line)
    if account.masked:
        console.print("masked: " + ", ".join(f"{number:,} [{kind}]" for kind, number in account.masked.items()))
    if account.languages:
        shares = [f"{language} {share:.0%}" for language, share in account.languages.items() if share >= LEAST_SHOWN]
        console.print("languages: " + ", ".join(shares))
    if account.recurring:
        console.print(_recurring(account, report))
    _say_what_was_not_understood(problems)
    if account.messages:
        console.print(
            f"{counted(account.messages, 'message')} in {counted(len(account.conversations), 'conversation')} → {out}"
        )
        if not few:
            console.print(f"file by file: {out / report}")


def table(files: Sequence[FileAccount], first: str = "file") -> Table:
    """A row for each account, and the sum. records = messages + records left out, by kind."""
    shown = Table(box=None, pad_edge=False, show_footer=len(files) > 1)
    kinds = sum((file.kinds for file in files), Counter[Kind]())
    records = sum(file.records for file in files)
    shown.add_column(first, "all", no_wrap=True)
    shown.add_column("platform")
    shown.add_column("records", f"{records:,}", justify="right")
    shown.add_column("messages", f"{kinds[Kind.MESSAGE]:,}", justify="right")
    shown.add_column("left out", _left_out(kinds), min_width=18)
    for name, file in zip(_names(files), files, strict=True):
        messages = f"{file.kinds[Kind.MESSAGE]:,}"
        shown.add_row(name, file.platform, f"{file.records:,}", messages, _left_out(file.kinds))
    return shown


def _by_platform(files: Iterable[FileAccount]) -> list[FileAccount]:
    rows: dict[str, FileAccount] = {}
    counts = Counter(file.platform for file in files)
    for file in files:
        row = rows.setdefault(file.platform, FileAccount(f"{counts[file.platform]:,}", file.platform, "", {}, ""))
        row.records += file.records
        row.kinds += file.kinds
    return list(rows.values())


def _recurring(account: Account, report: str) -> str:
    shown = [f"{each.rows:,} × “{each.shown}”" for each in account.recurring if each.shown][:TEMPLATES]
    hidden = sum(not each.shown for each in account.recurring)
    rows = sum(each.rows for each in account.recurring)
    verb = "were left out, as they look" if account.is_without_recurring else "look"
    parts = [*shown, *([f"{counted(hidden, 'wording')} not shown here"] if hidden else [])]
    advice = "" if account.is_without_recurring else "; --without-app-rows leaves them out"
    return f"{counted(rows, 'message')} {verb} like the app's own: {', '.join(parts)}. {report} says where{advice}"


def _left_out_on_purpose(account: Account) -> Iterator[str]:
    deleted = sum(file.kinds[Kind.REMOVED] for file in account.files)
    if deleted:
        yield f"left out, since you deleted them from an earlier extraction: {counted(deleted, 'message')}"
    if account.excluded:
        yield f"left out by exclude_messages: {counted(sum(account.excluded), 'message')}"
    for number, messages in enumerate(account.excluded, start=1):
        if not messages:
            yield f"exclude_messages: no message matches pattern {number}"


def _facts(files: Sequence[FileAccount], key: str, pattern: str = "") -> list[str]:
    """A line for each file whose fact `key` holds the pattern."""
    named = zip(_names(files), files, strict=True)
    return [
        f"{name}: {file.facts[key]}"
        for name, file in named
        if key in file.facts and re.search(pattern, file.facts[key])
    ]


def _orders(files: Iterable[FileAccount]) -> str:
    orders = Counter(order for file in files if (order := file.facts.get("date_order")))
    names = {**NAMES, "either": "either (the same days)"}
    said = {order: " then ".join(names.get(one, one) for one in order.split(", then ")) for order in orders}
    counts = [f"{number:,} read as {said[order]}" for order, number in orders.most_common()]
    return f"dates: {', '.join(counts)}" if counts else "dates: absolute, or written with the year first"


def _left_out(kinds: Counter[Kind]) -> str:
    return ", ".join(f"{kinds[kind]:,} {kind}" for kind in Kind if kinds[kind] and kind is not Kind.MESSAGE)


def _names(files: Sequence[FileAccount]) -> list[str]:
    """File names, with the folder or zip where several files have the same name."""
    parts = [PurePath(file.file).parts for file in files]
    alike = Counter(part[-1] for part in parts)
    names = [part[-1] if alike[part[-1]] == 1 and part[-1] != "_chat.txt" else "/".join(part[-2:]) for part in parts]
    room = max(console.width - OTHERS, NARROWEST)
    return [name if len(name) <= room else f"…{name[1 - room :]}" for name in names]


def _say_what_was_not_understood(problems: Sequence[str]) -> None:
    """Print a line for each problem; print the hint once when several files need the same one."""
    for ending, many in ((ASK, "{:,} files have ambiguous dates.{}"), (HINT, "{:,} files are not known{}")):
        asking = [problem for problem in problems if problem.endswith(ending)]
        if len(asking) > 1:
            for problem in asking:
                console.print(f"not understood: {problem.removesuffix(ending)}")
            console.print(many.format(len(asking), ending))
            problems = [problem for problem in problems if problem not in asking]
    for problem in problems:
        console.print(f"not understood: {problem}")
