"""A plain table of `timestamp,sender,message`, as CSV or as JSON lines; our own output reads back as it was written.

Timestamps are ISO 8601 with a time of day, or whole epoch seconds (9 or 10 digits) or milliseconds (12 or 13).
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, NamedTuple

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, reference
from training.extraction.source import Source, companion, decode, line_breaks, objects

NAME = "table"
UNIT = "line"
NEWEST_FIRST = False
BROAD = True  # any spreadsheet may have such columns
COMPANIONS = frozenset(
    ("extraction_report.json", "languages.json", "replies.json", "rows.json")
)  # beside the CSVs that we wrote ourselves

COLUMNS = {
    "timestamp": ("date", "time", "datetime"),
    "sender": ("from", "author", "name"),
    "message": ("text", "body", "content"),
}
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NEEDED = "one column each for timestamp, sender and message"
WORKBOOKS = {b"PK\x03\x04": "xlsx", b"\xd0\xcf\x11\xe0": "xls"}  # by their first bytes
SHOWN = 20  # columns, and characters of each, that an error names
YEARS = range(1970, 2500)  # beyond them lie defects, and instants that datetime cannot move to UTC

# Spellings that stay as they are; every other ISO 8601 form is rewritten.
AS_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}(?:\d{3})?)?[+-]\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
)
WITH_TIME = re.compile(r"\d{4}-?\d\d-?\d\d[T ]\d\d.*", re.DOTALL)
# 3/2/2025 18:00 · 03-Feb-25 6:00 PM · days since 1900: 45691.75
REWRITTEN = re.compile(
    r"(?:[\d./-]{5,10}|\d{1,2}[- ]\w{3,5}\.?[- ]\d{2,4}),? \d{1,2}[:.]\d\d(?:[:.]\d\d)?(?: ?[AaPp]\.?[Mm]\.?)?"
    r"|[34]\d{4}(?:[.,]\d+)?"
)
EPOCH = re.compile(r"(\d{9,10})|(\d{12,13})", re.ASCII)


class Columns(NamedTuple):
    """The names of the three columns, and of the others, which are ignored."""

    timestamp: str
    sender: str
    message: str
    others: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        facts = {"columns": ", ".join((self.timestamp, self.sender, self.message))}
        return facts | ({"ignored_columns": ", ".join(self.others)} if self.others else {})


def recognise(source: Source, evidence: Evidence) -> str | None:
    if evidence.paths:
        columns = _columns(_top_level(evidence))
        return f"JSON lines with {columns.facts['columns']}" if columns and _is_lines(evidence.head) else None
    if header := _header(evidence.head):
        delimiter, _, columns = header
        return f"a table with {columns.facts['columns']}, parted by {DELIMITERS[delimiter]}"
    if source.name.lower().endswith((".csv", ".tsv")) and not source.member:  # in a zip it may be an attachment
        _refuse(source, evidence.head)
    return None


def _refuse(source: Source, text: str) -> None:
    """Raise ExportError if this is a table that cannot be read; the message says what it lacks."""
    if workbook := WORKBOOKS.get(source.head()[:4]):
        raise ExportError(
            f"{source}: a spreadsheet ({workbook}) under another name; open it, save it as CSV UTF-8 and pass that file"
        )
    first = re.match(r"[^\r\n]*", text.lstrip("\ufeff"))
    names = max((_fields(delimiter, f"{first[0]}\n") for delimiter in DELIMITERS), key=len) if first else []
    if any(re.search(r"\d[\d:./-]{3}", name) for name in names):  # a message, not names of columns: not to be shown
        raise ExportError(f"{source}: its first line names no columns; it needs {NEEDED}: add a line that names them")
    if len(names) > 1:
        shown = ", ".join(name[:SHOWN] for name in names[:SHOWN])
        raise ExportError(f"{source}: its columns are {shown}; it needs {NEEDED}: name them there")


def read(source: Source, date_order: str | None) -> Reading:
    reading = _read(source)
    answers = _answers(source)
    if not answers:
        return reading
    named = ((record, answers.get(reference(record.timestamp, record.sender), "")) for record in reading.records)
    return Reading((record._replace(answers=answered) for record, answered in named), reading.facts)


def _answers(source: Source) -> dict[str, str]:
    """By reference, what the messages of our own output answer."""
    replies = companion(source.sibling("../replies.json"))
    pairs = objects(replies.get("/".join(source.parts[-2:]))) if isinstance(replies, dict) else []
    return {_reference(pair.get("reply")): _reference(pair.get("answers")) for pair in pairs}


def _reference(row: Any) -> str:
    return reference(str(row.get("timestamp")), str(row.get("sender"))) if isinstance(row, dict) else ""


def _read(source: Source) -> Reading:
    text = decode(source, "save it as UTF-8")
    stem = PurePath(source.name).stem
    # In our own output the folder is the platform, a part of the key: two platforms may each have a chat with Lea.
    is_ours = source.sibling("../extraction_report.json") is not None
    chat = Chat(f"{source.parts[-2]}/{stem}".casefold() if is_ours else stem.casefold(), stem, is_id=is_ours)
    if text.lstrip()[:1] == "{":
        columns = _columns(_keys_of_first(text))
        if columns is None:
            raise ExportError(f"{source}: the first JSON line does not have {NEEDED}; rename its keys")
        return Reading(_json_records(chat, columns, text), columns.facts)
    header = _header(text)
    if header is None:
        _refuse(source, text)
        raise ExportError(f"{source}: the first line does not name {NEEDED}; name them there")
    delimiter, names, columns = header
    facts = {"delimiter": DELIMITERS[delimiter], **columns.facts}
    return Reading(_csv_records(source, chat, delimiter, names, columns, text), facts)


def _columns(names: Sequence[str]) -> Columns | None:
    """The three columns; the names of our own CSV come before other names. None if one is missing or ambiguous."""
    folded = [name.strip().casefold() for name in names]
    found = []
    for column, aliases in COLUMNS.items():
        candidates = [name for name, key in zip(names, folded, strict=True) if key == column]
        candidates = candidates or [name for name, key in zip(names, folded, strict=True) if key in aliases]
        if len(candidates) != 1:
            return None
        found += candidates
    timestamp, sender, message = found
    return Columns(timestamp, sender, message, tuple(name for name in names if name not in found))


def _header(text: str) -> tuple[str, list[str], Columns] | None:
    """Delimiter, column names and the three columns in the first line, or None."""
    line = re.match(r"[^\r\n]*", text)
    for delimiter in DELIMITERS if line else ():
        row = _row(delimiter).match(f"{line[0]}\n") if line else None
        if row is None:
            continue
        names = _fields(delimiter, row[0])
        if columns := _columns(names):
            return delimiter, names, columns
    return None


def _field(delimiter: str) -> str:
    return rf'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{delimiter}\n][^{delimiter}\n]*+|)'


def _row(delimiter: str) -> re.Pattern[str]:
    """A row of any number of fields, with the end of its line."""
    field = _field(delimiter)
    return re.compile(rf"{field}(?:{delimiter}{field})*+(?:\n|\Z)")


def _fields(delimiter: str, row: str) -> list[str]:
    row = row.removesuffix("\n")
    return [
        _unquoted(each) for each in re.findall(rf"(?:^|(?<={delimiter})){_field(delimiter)}(?={delimiter}|\Z)", row)
    ]


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field[:1] == '"' else field


def _csv_records(
    source: Source, chat: Chat, delimiter: str, names: list[str], columns: Columns, text: str
) -> Iterator[Record]:
    """One record a row. Not by csv.reader, which limits fields and ends a row at a lone CR.

    Raises ExportError at the end if there are times that a spreadsheet has rewritten.
    """
    newline = text.find("\n")
    if newline < 0:
        text = line_breaks(text)  # rows that end in CR alone
    elif text[newline - 1 : newline] == "\r":
        text = text.replace("\r\n", "\n")
    field = _field(delimiter)
    row = re.compile(delimiter.join([f"({field})"] * len(names)) + r"(?:\n|\Z)")
    any_row, unclosed = _row(delimiter), re.compile(rf'(?:{field}{delimiter})*+"[^"]*+(?:""[^"]*+)*+\Z')
    groups = [names.index(name) for name in (columns.timestamp, columns.sender, columns.message)]
    start, line = text.find("\n") + 1 or len(text), 2
    rewritten = ""  # the first time as a spreadsheet writes it
    while start < len(text):
        if text[start] == "\n":  # a blank line is no entry
            start, line = start + 1, line + 1
            continue
        if match := row.match(text, start):
            fields = match.groups()
            timestamp, sender, message = (_unquoted(fields[group]) for group in groups)
            record = _record(chat, timestamp, sender, message, line)
            if record.kind is Kind.UNREADABLE and not rewritten and REWRITTEN.fullmatch(timestamp.strip()):
                rewritten = timestamp.strip()
            yield record
        else:
            if unclosed.match(text, start):
                raise ExportError(
                    f"{source}: the row at line {line:,} opens a quote that nothing closes; save it again"
                )
            match = any_row.match(text, start)
            yield Record(chat, "", "", "", Kind.UNREADABLE, line)
        end = match.end() if match else text.find("\n", start) + 1 or len(text)
        line += text.count("\n", start, end)
        start = end
    if rewritten:
        raise ExportError(
            f"{source}: times like {rewritten}, as spreadsheets write them; needed are times like 2024-05-01T18:00:00:"
            " save the file from its source again, or give that column the format yyyy-mm-ddThh:mm:ss"
        )


def _json_records(chat: Chat, columns: Columns, text: str) -> Iterator[Record]:
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
            values = [row[columns.timestamp], row[columns.sender], row[columns.message]]
        except (ValueError, RecursionError, KeyError, TypeError):
            values = [None]
        if all(_is_plain(value) for value in values):
            timestamp, sender, message = (well_formed(str(value)) for value in values)
            yield _record(chat, timestamp, sender, message, line)
        else:
            yield Record(chat, "", "", "", Kind.UNREADABLE, line)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _record(chat: Chat, written: str, sender: str, message: str, line: int) -> Record:
    timestamp = _timestamp(written)
    if timestamp is None or not sender.strip():
        return Record(chat, "", "", "", Kind.UNREADABLE, line)
    return Record(chat, timestamp, sender, message, Kind.MESSAGE if message else Kind.EMPTY, line)


def _timestamp(written: str) -> str | None:
    """ISO 8601, an offset only where the table has one. A day without a time would be a guess at midnight."""
    written = written.strip()
    try:
        if epoch := EPOCH.fullmatch(written):
            seconds, milliseconds = epoch.groups()
            if seconds:
                return datetime.fromtimestamp(int(seconds), UTC).isoformat()
            return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="milliseconds")
        if not WITH_TIME.fullmatch(written):
            return None
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.year not in YEARS:
        return None
    if AS_WRITTEN.fullmatch(written):
        return written
    return moment.isoformat() if moment.tzinfo else moment.isoformat(timespec="seconds")


def _top_level(evidence: Evidence) -> list[str]:
    return [path for path in evidence.paths if "." not in path]


def _is_lines(head: str) -> bool:
    """Whether the first line is a whole JSON object; a head of one long line may hide its end."""
    first = head.lstrip().split("\n", 1)[0]
    return first[:1] == "{" and (first.rstrip().endswith("}") or first == head.lstrip())


def _keys_of_first(text: str) -> list[str]:
    try:
        row = json.loads(text.lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError):
        return []
    return [str(key) for key in row] if isinstance(row, dict) else []
