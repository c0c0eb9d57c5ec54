"""WhatsApp's "Export chat": a .txt from Android, a _chat.txt from iOS, alone or in the zip."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import PurePath

from training.errors import ExportError
from training.extraction.date_order import DateOrder, decide, read_date
from training.extraction.platform import Evidence
from training.extraction.record import Chat, Kind, Reading, Record
from training.extraction.source import Source
from training.extraction.text import line_breaks
from training.extraction.whatsapp import header as headers
from training.extraction.whatsapp.body import Classify, android_body, ios_body, is_event, is_notice, unmarked_body
from training.extraction.whatsapp.header import Header
from training.extraction.whatsapp.markers import EXPORT_TITLES, MARKS, PHRASES, normal

NAME = "whatsapp"
UNIT = "line"
NEWEST_FIRST = False
BROAD = True  # a date, a time and a name head many logs
COMPANIONS: frozenset[str] = frozenset()

NOTICES = 3  # the encryption notice is among a chat's first records
TITLES = [re.compile(re.escape(title).replace(r"\{\}", "(.+)")) for title in EXPORT_TITLES]


def recognise(source: Source, evidence: Evidence) -> str | None:
    if evidence.paths or "\0" in evidence.head:
        return None
    lines = [line for line in evidence.head.replace("\r", "\n").split("\n") if MARKS.sub("", line).strip()]
    header = headers.choose("\n".join(lines) + "\n")
    if header is None:
        return None
    found = sum(1 for _ in header.pattern.finditer("\n" + "\n".join(lines)))
    if found >= 2 or header.pattern.match("\n" + lines[0]):
        return f"lines that start with WhatsApp's “{header.family}”"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    text = _decode(source)
    header = headers.choose(text)
    if header is None:
        raise ExportError(f"{source}: no line starts with a WhatsApp date and time; is this a chat export?")
    if header.newline == "\n":
        text = line_breaks(text)
    # Every record then starts after a newline and ends before one.
    text = header.newline + text.removesuffix("\n").removesuffix("\r") + header.newline
    order = _order(source, header, text, date_order)
    name = title(source)
    facts = {"header": header.family, "date_order": order.order, "evidence": order.evidence}
    return Reading(_records(Chat(name.casefold(), name, is_id=False), header, order.order, text), facts)


def title(source: Source) -> str:
    """The chat's name, from the export's file name; a _chat.txt is named after the zip or folder around it."""
    stem = PurePath(source.name).stem
    if stem == "_chat":
        stem = source.parts[-2]
    stem = re.sub(r" ?\(\d+\)$", "", stem)  # a browser's second download
    for candidate in (stem, stem.replace("_", " ")):
        for pattern in TITLES:
            if match := pattern.fullmatch(candidate):
                return match[1].strip()
    return stem


def _decode(source: Source) -> str:
    with source.open() as stream:
        content = stream.read()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ExportError(
            f"{source}: not UTF-8 at byte {error.start:,}; WhatsApp writes UTF-8, so export the chat again"
        ) from None
    if "\0" in text:
        raise ExportError(f"{source}: holds NUL bytes, so it is damaged or no text; export the chat again")
    return text


def _order(source: Source, header: Header, text: str, answer: str | None) -> DateOrder:
    written = groupby(header.dates.findall(text))
    dates = [(headers.triple(date), len(list(run))) for date, run in written]
    first = header.pattern.search(text)
    style = headers.style(first["date"], first["clock"], header) if first else None
    return decide(dates, style, answer, str(source))


def _records(chat: Chat, header: Header, order: str, text: str) -> Iterator[Record]:
    stamps = _Stamps(order)
    person = _person if header.is_ios else _person_or_event
    classify = _classifier(header, text)
    newline = len(header.newline)
    end = len(text) - newline
    matches = header.pattern.finditer(text)
    match = next(matches, None)
    if match is None:
        return
    yield from _preamble(chat, text[newline : match.start()])
    line, counted, index = 1, newline, 0
    while match is not None:
        following = next(matches, None)
        start = match.start()
        line += text.count("\n", counted, start + newline)
        counted = start + newline
        body = text[match.end() : following.start() if following else end].strip("\n")
        date, clock, sender = match.group("date", "clock", "sender")
        timestamp = stamps.iso(date, clock)
        name = person(sender) if sender else None
        index += 1
        match_end, match = match.end(), following
        if timestamp is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, line)
        elif name is None:
            kind = Kind.CALL if PHRASES.get(normal(body)) is Kind.CALL else Kind.SYSTEM
            yield Record(chat, timestamp, "", "", kind, line)
        elif index <= NOTICES and is_notice(body):
            yield Record(chat, timestamp, name, "", Kind.SYSTEM, line)
        elif body == "." and text[match_end - 1] == ":":  # `Name:.` is what a vanished message leaves
            yield Record(chat, timestamp, name, "", Kind.EMPTY, line)
        else:
            marked = text[counted] in "\u200e\u200f"
            kind, words = classify(line_breaks(body), marked)
            yield Record(chat, timestamp, name, words, kind, line)


def _preamble(chat: Chat, text: str) -> Iterator[Record]:
    """Lines before the first header: WhatsApp's own notice without a time, or something that we cannot place."""
    for line, words in enumerate(line_breaks(text).split("\n"), start=1):
        if words.strip():
            yield Record(chat, "", "", "", Kind.SYSTEM if is_notice(words) else Kind.UNREADABLE, line)


def _classifier(header: Header, text: str) -> Classify:
    if not header.is_ios:
        return android_body
    left, right = text.count(": \u200e"), text.count(": \u200f")
    if not left and not right:
        return unmarked_body
    return ios_body("\u200e" if left >= right else "\u200f")


@cache
def _person(sender: str) -> str | None:
    """A name without direction marks, non-breaking blanks and the ~ of somebody who is not in the contacts."""
    name = re.sub("[\u00a0\u202f\u2009]", " ", MARKS.sub("", sender))
    return name.strip().removeprefix("~").strip() or None


@cache
def _person_or_event(sender: str) -> str | None:
    return None if is_event(sender) else _person(sender)


class _Stamps:
    """Header dates and times → ISO 8601, each spelling read once: a day and a minute recur in thousands of headers."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._dates: dict[str, str | None] = {}
        self._clocks: dict[str, str | None] = {}

    def iso(self, date: str, clock: str) -> str | None:
        try:
            iso_day, iso_clock = self._dates[date], self._clocks[clock]
        except KeyError:
            day = read_date(headers.triple(date), self._order)
            iso_day = self._dates[date] = day.isoformat() if day else None
            iso_clock = self._clocks[clock] = headers.clock(clock)
        return f"{iso_day}T{iso_clock}" if iso_day and iso_clock else None
