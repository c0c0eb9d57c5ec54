"""A WhatsApp text cut into records, some megabytes at a time and column by column.

`re.split` returns dates, times, names and bodies of thousands of records in one call, and what most of them have in
common (a day, a minute, a name, being somebody's words) is decided once. Cutting alone takes two thirds of the time of
a loop over matches.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, repeat
from typing import Any, cast

from training.extraction.record import Chat, Kind, Record
from training.extraction.text import line_breaks
from training.extraction.whatsapp.body import Classify, android_body, ios_body, suspects, unmarked_body
from training.extraction.whatsapp.events import is_event, is_event_line, is_notice
from training.extraction.whatsapp.header import Header
from training.extraction.whatsapp.markers import MARKS, PHRASES, normal
from training.extraction.whatsapp.stamps import clock

SIZE = 1 << 21  # characters of a block
MESSAGE = Kind.MESSAGE  # Python 3.11 takes 160 ns to look a member up
MAKE = cast(Callable[[Iterable[Any]], Record], partial(tuple.__new__, Record))  # Record._make, in C alone
HEAD = 10_000  # characters before which most files have their first header
NOTICES = 3  # the encryption notice is among a chat's first records


@dataclass(slots=True)
class Run:
    """Neighbouring headers of one date. `day` is `2022-03-18T` once the order of the file's dates is decided."""

    text: str
    clock: str  # of the first of them
    headers: int
    day: str | None = None


@dataclass(slots=True)
class Block:
    """Some thousand records in columns. Clocks are ISO, or None when there is no such time.

    line     of the first record
    breaks   of the records that have any, how many line breaks they hold
    """

    line: int
    dates: list[Run]
    clocks: list[str | None]
    names: list[str]
    kinds: list[Kind]
    words: list[str]
    breaks: dict[int, int] = field(default_factory=dict)

    def records(self, chat: Chat) -> Iterator[Record]:
        days = list(chain.from_iterable(repeat(run.day, run.headers) for run in self.dates))
        lines: list[int] | repeat[int] = repeat(0)
        if None in self.clocks or any(run.day is None for run in self.dates):
            lines = list(self._lines())
            for index, (day, time) in enumerate(zip(days, self.clocks, strict=True)):
                if day is None or time is None:
                    days[index], self.clocks[index] = "", ""
                    self.names[index], self.words[index], self.kinds[index] = "", "", Kind.UNREADABLE
        stamps = [f"{day}{time}" for day, time in zip(days, self.clocks, strict=True)]
        columns = zip(repeat(chat), stamps, self.names, self.words, self.kinds, lines, repeat(""), strict=False)
        return map(MAKE, columns)

    @property
    def following_line(self) -> int:
        return self.line + len(self.words) + sum(self.breaks.values())

    def _lines(self) -> Iterator[int]:
        line = self.line
        for index in range(len(self.words)):
            yield line
            line += 1 + self.breaks.get(index, 0)


def preamble(header: Header, text: str) -> Iterator[tuple[int, Kind]]:
    """Lines before the first header: WhatsApp's own notice without a time, or something that we cannot place."""
    for line, words in enumerate(line_breaks(text[: _first(header, text)]).split("\n"), start=1):
        if words.strip():
            yield line, Kind.SYSTEM if is_notice(words) else Kind.UNREADABLE


def blocks(header: Header, text: str) -> Iterator[Block]:
    """The records of a text that holds a header."""
    newline = header.newline
    reader = _Reader(header, text)
    start, end = _first(header, text), len(text)
    while text[end - 1 : end] in ("\n", "\r"):
        end -= 1
    line = 1 + text.count("\n", 0, start)
    while start < end:
        following = header.common.search(text, start + SIZE, end)
        stop = following.start() if following else end
        block = reader.block(f"{newline}{text[start:stop]}{newline}", line)
        yield block
        start, line = stop + len(newline), block.following_line


def _first(header: Header, text: str) -> int:
    """Where the first header starts. It seldom lies far, and a text of a million messages is not copied for it."""
    found = header.pattern.search(header.newline + text[:HEAD])
    if found is None and (found := header.pattern.search(text)):
        return found.start() + len(header.newline)
    return found.start() if found else len(text)


class _Times(dict[str, str | None]):
    """Header times in ISO form, each spelling read once."""

    def __missing__(self, text: str) -> str | None:
        self[text] = iso = clock(text)
        return iso


class _People(dict[str, str]):
    """Names as they stand in the headers → the person; each spelling read once.

    "" where there is none: in a system line, whose sender is None, and on Android where an event may start.
    """

    def __init__(self, is_ios: bool) -> None:
        self._is_ios = is_ios

    def __missing__(self, sender: str) -> str:
        self[sender] = name = "" if sender is None or (is_event(sender) and not self._is_ios) else person(sender)
        return name


def person(sender: str) -> str:
    """A name without direction marks, non-breaking blanks and the ~ of somebody who is not in the contacts."""
    plain = re.sub("[\u00a0\u202f\u2009]", " ", MARKS.sub("", sender))
    return plain.strip().removeprefix("~").strip()


class _Reader:
    def __init__(self, header: Header, text: str) -> None:
        self._header = header
        self._mark = _mark(text) if header.is_ios else ""
        self._classify = _classifier(header, self._mark)
        self._times = _Times()
        self._people = _People(header.is_ios)
        self._seen = 0

    def block(self, text: str, line: int) -> Block:
        """The records of a text that starts with a header and ends with a newline."""
        pattern, column, bodies, breaks = self._columns(text)
        if "\r" in text:
            bodies = list(map(line_breaks, bodies))
        for index in breaks:
            bodies[index] = bodies[index].strip("\n")
        names = list(map(self._people.__getitem__, column["sender"]))
        kinds = [MESSAGE] * len(bodies)
        uncertain = set(suspects(bodies, self._mark))
        if "" in names:
            uncertain.update(index for index, name in enumerate(names) if not name)
        if self._seen == 0:
            uncertain.update(range(min(NOTICES, len(bodies))))
        for index in uncertain:
            sender = column["sender"][index]
            if sender and not names[index] and not is_event_line(f"{sender}: {bodies[index]}"):
                names[index] = person(sender)
            mark = column["mark"][index] if self._header.is_ios else ""
            first = self._seen == 0 and index < NOTICES
            kinds[index], bodies[index] = self._kind(names[index], bodies[index], bool(mark), first)
        for index in _vanished(pattern, text, bodies):
            kinds[index] = Kind.EMPTY
        self._seen += len(bodies)
        clocks = list(map(self._times.__getitem__, column["clock"]))
        return Block(line, list(_runs(column)), clocks, names, kinds, bodies, breaks)

    def _columns(self, text: str) -> tuple[re.Pattern[str], dict[str, list[str]], list[str], dict[int, int]]:
        """What split the text: the groups of its headers by name (a system line's sender is None), the bodies, and
        their line breaks."""
        newline = self._header.newline
        for pattern in (self._header.common, self._header.pattern):
            pieces = pattern.split(text)
            bodies = pieces[pattern.groups + 1 :: pattern.groups + 1]
            if bodies:
                bodies[-1] = bodies[-1].removesuffix(newline)
            breaks = {index: body.count("\n") for index, body in enumerate(bodies) if "\n" in body}
            # A header in another spelling than the sample's stays in a body: the grammar then reads the whole block.
            if not pieces[0] and not any(self._header.pattern.search(bodies[index]) for index in breaks):
                break
        columns = {name: pieces[group :: pattern.groups + 1] for name, group in pattern.groupindex.items()}
        return pattern, columns, bodies, breaks

    def _kind(self, name: str, body: str, marked: bool, first: bool) -> tuple[Kind, str]:
        if not name:
            return (Kind.CALL if PHRASES.get(normal(body)) is Kind.CALL else Kind.SYSTEM), ""
        if first and is_notice(body):
            return Kind.SYSTEM, ""
        return self._classify(body, marked)


def _vanished(pattern: re.Pattern[str], text: str, bodies: list[str]) -> list[int]:
    """`Name:.`, which is what a vanished message leaves; a dot after `Name: ` is somebody's."""
    if "." not in bodies:
        return []
    ends = [match.end() for match in pattern.finditer(text)]
    return [index for index, body in enumerate(bodies) if body == "." and text[ends[index] - 1] == ":"]


def _runs(column: dict[str, list[str]]) -> Iterator[Run]:
    index = 0
    for date, same in groupby(column["date"]):
        run = Run(date, column["clock"][index], len(list(same)))
        index += run.headers
        yield run


def _mark(text: str) -> str:
    """What an iOS file's own wording starts with; nothing where an editor has lost the marks."""
    left, right = text.count(": \u200e"), text.count(": \u200f")
    return "" if not left and not right else "\u200e" if left >= right else "\u200f"


def _classifier(header: Header, mark: str) -> Classify:
    if not header.is_ios:
        return android_body
    return ios_body(mark) if mark else unmarked_body
