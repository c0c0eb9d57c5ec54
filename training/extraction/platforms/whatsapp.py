"""WhatsApp's "Export chat": a .txt from Android, a _chat.txt from iOS, alone or in the zip."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby, islice, pairwise, repeat
from operator import itemgetter
from pathlib import PurePath
from typing import NamedTuple

from ghost.errors import ExportError
from training.extraction.date_order import DateOrder, decide_each, read_date
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import STRAY, Source, decode_text, line_breaks, printable
from training.extraction.whatsapp import header as headers
from training.extraction.whatsapp.body import (
    EXPORT_TITLES,
    MARKS,
    PHRASES,
    android_body,
    are_own_words,
    ios_body,
    is_event,
    is_event_line,
    is_event_under_a_name,
    is_notice,
    normal,
    unmarked_body,
)
from training.extraction.whatsapp.header import NO_YEAR, SOME, Header, style, times, triple, with_years

NAME = "whatsapp"
UNIT = "line"
NEWEST_FIRST = False
BROAD = True  # a date, a time and a name head many logs
COMPANIONS: frozenset[str] = frozenset()

VISIBLE = re.compile(rf"[^\s{MARKS.pattern[1:-1]}]")
# What stands for a name in logs: `INFO`, `app.main - ERROR - retry`, `sshd[812]`, `server.go:12`, `kernel`.
LOG = re.compile(
    r"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|SEVERE|LOG)\b|\w\[\d+\]$|\.\w{1,4}:\d+$"
    r"|^(?:root|kernel|daemon|nobody|init|sudo|su|(?i:cron)|(?:audit|container|cron|dbus|docker|http|ssh|syslog|system|udev)d)$"
)
UNMARKED = ("date time", "date time:")
FEW = 20  # headers that are looked at
NOTICES = 3  # the encryption notice is among a chat's first records
# A mention, `@⁨Piet⁩`, between marks that keep its direction; of somebody who is not in the contacts with a ~.
ISOLATED = re.compile("(@?)\u2068(?:~[ \u00a0\u202f]?)?([^\u2068\u2069\n]*)\u2069")
TITLES = [re.compile(re.escape(title).replace(r"\{\}", "(.+)")) for title in EXPORT_TITLES]


def recognise(source: Source, evidence: Evidence) -> str | None:
    if evidence.paths or evidence.head.count("\0") > max(1, STRAY * len(evidence.head)):
        return None
    head = evidence.head.replace("\0", "").replace("\r", "\n")
    lines = list(filter(VISIBLE.search, head.split("\n")))
    header = headers.choose("\n".join(lines) + "\n")
    if header is None:
        return None
    text = "\n" + "\n".join(lines)
    found = list(islice(header.pattern.finditer(text), FEW))
    if (len(found) >= 2 or header.pattern.match("\n" + lines[0])) and _is_chat(header, text, found):
        return f"lines that start with WhatsApp's “{header.family}”"
    return None


def _is_chat(header: Header, text: str, found: Sequence[re.Match[str]]) -> bool:
    """Whether names follow the dates and times, or words that are WhatsApp's own; logs have them without either."""
    senders = [match["sender"] for match in found if match["sender"]]
    if sum(bool(LOG.search(sender)) for sender in senders) > len(senders) / 2:
        return False
    lines = [text[match.end() :].partition("\n")[0] for match in found if not match["sender"]][:FEW]
    own = sum(is_notice(line) or is_event_line(line) for line in lines)
    if header.family in UNMARKED:  # nothing but a date and a time heads these lines
        return 2 * (len(senders) + own) > len(found)
    return bool(senders) or own > 0


ALIKE = 3  # messages that must open alike, and no other, for the opening to be a part of the name
OPENING = re.compile(r"([^:\n]{1,40}): ")
MARKED = re.compile('[\u200e\u200f]+([^:\n"“„«]{1,40}): ')  # the app's own words start like this, too
NEW = ("", 0)


class People(NamedTuple):
    """What a whole file tells about its senders.

    longer       sender as read up to the first `: ` → the name, where a name holds one
    marked       names that start with a mark, each with several messages
    have_events  whether events stand under somebody's name, as in Android's exports of 2013
    names        all senders, in normal form
    written      all senders, as written
    """

    longer: Mapping[str, str]
    marked: frozenset[str]
    have_events: bool
    names: frozenset[str]
    written: frozenset[str]


@dataclass(slots=True)
class Run:
    """Neighbouring headers of one date. `day` is `2022-03-18T` once the order of the file's dates is decided."""

    date: str
    clock: str  # of the first of them
    headers: int
    day: str | None = None


def read(source: Source, date_order: str | None) -> Reading:
    """The file is matched twice: first for its dates, which are read together, then for its records."""
    text, facts = decode_text(source, "WhatsApp writes UTF-8, so export the chat again")
    header = headers.choose(text)
    runs: list[Run] = []
    clocks: Counter[str] = Counter()
    senders: dict[str | None, tuple[str, int] | None] = {}
    marked: Counter[str] = Counter()
    if header is not None:
        text = (line_breaks(text) if header.newline == "\n" else text).rstrip("\r\n")
        text = f"{header.newline}{text}{header.newline}"
        for day, same in groupby(header.pattern.finditer(text), key=itemgetter("date")):
            these = list(same)
            clocks.update(written := [match["clock"] for match in these])
            _note_openings(text, these, senders)
            nameless = (MARKED.match(text, match.end()) for match in these if not match["sender"])
            marked.update(opening[1] for opening in nameless if opening)
            runs.append(Run(day, written[0], len(written)))
    if header is None or not runs:
        raise ExportError(f"{source}: no line starts with a WhatsApp date and time; is this a chat export?")
    known = _times(source, clocks)
    _refuse_bare_twelve_hours(source, header, text, known)
    orders = _orders(source, header, runs, date_order)
    name = title(source)
    facts |= {
        "header": header.family,
        "date_order": ", then ".join(order.said for order in orders.values()),
        "evidence": "; after a change: ".join(order.evidence for order in orders.values()),
    }
    people = People(
        {each: f"{each}: {found[0]}" for each, found in senders.items() if each and found and found[1] >= ALIKE},
        frozenset(name for name, messages in marked.items() if messages >= ALIKE),
        None not in senders and header.family in headers.WITH_MONTHS,
        frozenset(normal(person(each)) for each in senders if each),
        frozenset(filter(None, senders)),
    )
    return Reading(_records(Chat(name.casefold(), name, is_id=False), header, text, runs, known, people), facts)


def _note_openings(
    text: str, matches: Sequence[re.Match[str]], senders: dict[str | None, tuple[str, int] | None]
) -> None:
    """Note of each sender how all messages open, `Piet: ` where `Work: Piet` is the name, and their number; or None."""
    for match in matches:
        sender = match["sender"]
        known = senders.get(sender, NEW)
        if known is None:
            continue
        opening = OPENING.match(text, match.end()) if sender else None
        if opening is None or known[0] not in ("", opening[1]):
            senders[sender] = None
        else:
            senders[sender] = (opening[1], known[1] + 1)


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


def _times(source: Source, clocks: Counter[str]) -> dict[str, str | None]:
    """`HH:MM:SS` of each time as written. Asks about a word beside many of them that could be any half of the day."""
    known, unknown = times(clocks)
    if unknown.total() > SOME * clocks.total():
        word, headers = unknown.most_common(1)[0]
        raise ExportError(
            f"{source}: “{printable(word)}” stands beside the time of {headers:,} of {clocks.total():,} messages and"
            " may mean the morning or the afternoon. Write AM or PM instead, and extract again"
        )
    return known


def _refuse_bare_twelve_hours(source: Source, header: Header, text: str, known: Mapping[str, str | None]) -> None:
    """Raises ExportError where a 12-hour clock without AM and PM goes round within a day: 12:59 before 1:04."""
    if any(headers.letters(clock) or (time or "00")[:2] not in TWELVE for clock, time in known.items()):
        return
    for day, same in groupby(header.pattern.finditer(text), key=itemgetter("date")):
        for one, two in pairwise(match["clock"] for match in same):
            if _hour(known[two]) + 1 < _hour(known[one]):
                raise ExportError(
                    f"{source}: {printable(one)} comes before {printable(two)} on {printable(day)}, and nothing tells "
                    "morning from afternoon: set the phone to the 24-hour clock, and export again"
                )


TWELVE = frozenset(f"{hour:02}" for hour in range(1, 13))


def _hour(time: str | None) -> int:
    return int((time or "00")[:2])


def _orders(source: Source, header: Header, runs: list[Run], answer: str | None) -> dict[int, DateOrder]:
    """The order of the dates, by the index of the run from which on it holds. Each run is given its day."""
    triples = with_years(triple(run.date) for run in runs)
    if any(first == NO_YEAR for first, _, _ in triples):
        missing = sum(run.headers for run, (first, _, _) in zip(runs, triples, strict=True) if first == NO_YEAR)
        raise ExportError(
            f"{source}: {missing:,} date headers have no year and none before them has one; add it to the file's first"
            " (17:03, 9 Jan → 17:03, 9 Jan 2015)"
        )
    dates = [(parts, run.headers) for parts, run in zip(triples, runs, strict=True)]
    shapes = [re.sub(r"\d+", lambda number: "YYYY" if len(number[0]) == 4 else "d", run.date) for run in runs]
    styles = [style(run.date, run.clock, header.is_ios) for run in runs]
    orders = decide_each(dates, shapes, styles, answer, str(source))
    known: dict[tuple[object, str], str | None] = {}
    for index, (run, parts) in enumerate(zip(runs, triples, strict=True)):
        order = orders[max(start for start in orders if start <= index)].order
        if (parts, order) not in known:
            day = read_date(parts, order)
            known[parts, order] = f"{day.isoformat()}T" if day else None
        run.day = known[parts, order]
    return orders


def _records(
    chat: Chat, header: Header, text: str, runs: list[Run], known: Mapping[str, str | None], people: People
) -> Iterator[Record]:
    start = len(header.newline)
    first = header.pattern.search(text)
    for line, words in enumerate(line_breaks(text[start : first.start() if first else None]).split("\n"), start=1):
        if words.strip():
            yield Record(chat, "", "", "", Kind.SYSTEM if is_notice(words) else Kind.UNREADABLE, line)
    is_ios = header.is_ios
    mark = _mark(text) if is_ios else ""
    # Without a mark in an iOS file an editor has lost them.
    classify = ios_body(mark) if mark else unmarked_body if is_ios else android_body
    days = chain.from_iterable(repeat(run.day, run.headers) for run in runs)
    line = 1
    for number, ((head, body), day) in enumerate(zip(_parts(header, text), days, strict=True)):
        line += text.count("\n", start, head.start() + len(header.newline))
        start = head.start() + len(header.newline)
        time = known[head["clock"]]
        if day is None or time is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, line)
            continue
        sender, body = head["sender"] or "", line_breaks(body).strip("\n")
        opening = None if sender else MARKED.match(body)
        if opening and opening[1] in people.marked and not is_event_line(body.partition("\n")[0]):
            sender, body = opening[1], body[opening.end() :]
        if sender in people.longer:
            sender, body = people.longer[sender], body.partition(": ")[2]
        is_own = not is_ios and is_event(sender) and is_event_line(f"{sender}: {body}")
        name = "" if is_own or not sender else person(sender)
        if not name:
            kind, body = Kind.CALL if PHRASES.get(normal(body)) is Kind.CALL else Kind.SYSTEM, ""
        elif (number < NOTICES and is_notice(body)) or (
            people.have_events and is_event_under_a_name(sender, body, people.names)
        ):
            kind, body = Kind.SYSTEM, ""
        else:
            kind, body = classify(body, is_ios and head["mark"] != "")
            if mark and body.startswith(mark):
                is_own = are_own_words(sender, body, text, people.written)
                kind, body = (Kind.SYSTEM, "") if is_own else (kind, body[1:])
        if body == "." and text[head.end() - 1] == ":":  # a vanished message; behind a blank somebody typed it
            kind = Kind.EMPTY
        if "\u2068" in body:
            body = ISOLATED.sub(r"\1\2", body)
        yield Record(chat, f"{day}{time}", name, body, kind, line)


def _parts(header: Header, text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each header and what stands between it and the next."""
    before: re.Match[str] | None = None
    for match in header.pattern.finditer(text):
        if before:
            yield before, text[before.end() : match.start()]
        before = match
    if before:
        yield before, text[before.end() : -len(header.newline)]


@lru_cache(maxsize=4096)
def person(sender: str) -> str:
    """A name without direction marks, non-breaking blanks and the ~ of somebody who is not in the contacts.

    `~` stands for a name of which nothing can be seen.
    """
    plain = re.sub("[\u00a0\u202f\u2009]", " ", MARKS.sub("", sender)).strip()
    return plain.removeprefix("~").strip() or "~"


def _mark(text: str) -> str:
    """The mark at the start of the app's own words in an iOS file, or an empty string if there is none."""
    counts = {mark: text.count(f": {mark}") + text.count(f"<{mark}") for mark in "\u200e\u200f"}
    return max(counts, key=counts.__getitem__) if any(counts.values()) else ""
