"""WhatsApp's "Export chat": a .txt from Android, a _chat.txt from iOS, alone or in the zip."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePath

from training.errors import ExportError
from training.extraction.date_order import DateOrder, decide_each, read_date
from training.extraction.decode import decode
from training.extraction.platform import Evidence
from training.extraction.record import Chat, Kind, Reading, Record
from training.extraction.source import Source
from training.extraction.text import line_breaks
from training.extraction.whatsapp import header as headers
from training.extraction.whatsapp.blocks import Block, blocks, preamble
from training.extraction.whatsapp.header import Header
from training.extraction.whatsapp.markers import EXPORT_TITLES, MARKS
from training.extraction.whatsapp.stamps import NO_YEAR, style, triple, with_years

NAME = "whatsapp"
UNIT = "line"
NEWEST_FIRST = False
BROAD = True  # a date, a time and a name head many logs
COMPANIONS: frozenset[str] = frozenset()

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
    text = decode(source, "WhatsApp writes UTF-8, so export the chat again")
    header = headers.choose(text)
    if header is None:
        raise ExportError(f"{source}: no line starts with a WhatsApp date and time; is this a chat export?")
    if header.newline == "\n":
        text = line_breaks(text)
    before = list(preamble(header, text))
    columns = list(blocks(header, text))  # the words of the whole file: its dates are read together
    orders = _orders(source, header, columns, date_order)
    name = title(source)
    facts = {
        "header": header.family,
        "date_order": ", then ".join(order.said for order in orders.values()),
        "evidence": "; after a change: ".join(order.evidence for order in orders.values()),
    }
    return Reading(_records(Chat(name.casefold(), name, is_id=False), before, columns), facts)


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


def _orders(source: Source, header: Header, columns: list[Block], answer: str | None) -> dict[int, DateOrder]:
    """The order of the dates, run by run of equal ones, and the dates themselves written into the blocks."""
    runs = [run for block in columns for run in block.dates]
    triples = with_years(triple(run.text) for run in runs)
    if any(first == NO_YEAR for first, _, _ in triples):
        missing = sum(run.headers for run, (first, _, _) in zip(runs, triples, strict=True) if first == NO_YEAR)
        raise ExportError(
            f"{source}: {missing:,} date headers have no year and none before them has one; add it to the file's first"
            " (17:03, 9 Jan → 17:03, 9 Jan 2015)"
        )
    dates = [(parts, run.headers) for parts, run in zip(triples, runs, strict=True)]
    shapes = [re.sub(r"\d+", lambda number: "YYYY" if len(number[0]) == 4 else "d", run.text) for run in runs]
    styles = [style(run.text, run.clock, header.is_ios) for run in runs]
    orders = decide_each(dates, shapes, styles, answer, str(source))
    known: dict[tuple[object, str], str | None] = {}
    for index, (run, parts) in enumerate(zip(runs, triples, strict=True)):
        order = orders[max(start for start in orders if start <= index)].order
        if (parts, order) not in known:
            day = read_date(parts, order)
            known[parts, order] = f"{day.isoformat()}T" if day else None
        run.day = known[parts, order]
    return orders


def _records(chat: Chat, before: list[tuple[int, Kind]], columns: list[Block]) -> Iterator[Record]:
    opening = [Record(chat, "", "", "", kind, line) for line, kind in before]
    return chain(opening, chain.from_iterable(block.records(chat) for block in columns))
