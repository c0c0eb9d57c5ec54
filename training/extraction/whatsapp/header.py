"""WhatsApp's record headers: `18/03/2022, 14:56 - Name: `, `[3/18/22, 2:56:01 PM] Name: ` and their many relatives.

Dates and times come in any digits, in the years of several calendars, with months and halves of the day in the words of
any language. One compiled expression reads a file, chosen by which family of headers the file holds. The newline before
a header is part of the match: a pattern that starts with a literal lets `re` skip through the text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from functools import cache, lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

from training.extraction.date_order import Triple
from training.extraction.whatsapp import wording

SP = "[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"

ERAS = {"R": 2018, "令和": 2018, "H": 1988, "平成": 1988, "S": 1925, "昭和": 1925, "T": 1911, "大正": 1911, "M": 1867}
ERAS |= {"民國": 1911, "民国": 1911}
ERA = f"(?:{'|'.join(ERAS)})"
BUDDHIST = 543  # years that the Buddhist calendar is ahead
# Two digits of a Buddhist year, 2552 (2009) to 2570: no day, no month and no year of ours.
SHORT_BUDDHIST = range(52, 71)
MINGUO = range(98, 150)  # Taiwan's years since 2009, with three digits from 2011 on

NO_YEAR = -1
NO_MONTH = 0

AROUND = re.compile(r"\d.*\d")  # the words around a time are what this splits
SECONDS_OF_A_DAY = 86_400  # there are no more times, in one spelling

Hours = tuple[int, int]  # from, before
ANY_HOUR = (0, 24)
ONE_LETTER = frozenset("ap")  # `2:05p`: a half of the day only where that is how the file writes them


@lru_cache(maxsize=4096)
def letters(text: str) -> str:
    """The form in which words beside a date or a time are compared: letters and their marks, in lower case."""
    return "".join(each for each in normalize("NFC", text) if category(each)[0] in "LM").casefold()


@cache
def day_periods() -> Mapping[str, Hours]:
    """The hours that a word beside a time may name: `pm` is 12 to 24, `um` says nothing and is 0 to 24."""
    known: dict[str, Hours] = {}
    for line in wording("day_periods"):
        hours, *words = line.split()
        start, _, end = hours.partition("-")
        known |= dict.fromkeys(words, (int(start), int(end)))
    return known


@cache
def _months() -> Mapping[str, int]:
    """The number of the month whose name starts so."""
    return {start: int(number) for number, *starts in map(str.split, wording("months")) for start in starts}


def triple(text: str) -> Triple:
    """The three numbers of a header's date, in any digits; Japanese, Buddhist and Taiwan's years become ours.

    A month in words leaves nothing to decide: year, month, day; the year is NO_YEAR where the header has none, the
    month NO_MONTH where no month is known that starts so.
    """
    found = re.findall(rf"({ERA}?)(\d+)", text)
    if len(found) == 3:
        first, middle, last = (_year(int(digits), ERAS.get(era, 0)) for era, digits in found)
        return first, middle, last
    numbers = [int(digits) for _, digits in found]
    year = next((number for number in numbers if number > 99), NO_YEAR)
    day = next((number for number in numbers if number != year), 0)
    return year if year == NO_YEAR else _year(year, 0), _month(text), day


def _year(number: int, era: int) -> int:
    if number >= 2400:
        return number - BUDDHIST
    return number + 1911 if number > 99 and number in MINGUO else number + era


def _month(text: str) -> int:
    """1 to 12, of the first word that a month's name starts; the longest start counts."""
    for word in map(letters, re.findall(r"[^\s\d.,]+", text)):
        for length in range(len(word), 0, -1):
            if month := _months().get(word[:length]):
                return month
    return NO_MONTH


def with_years(triples: Iterable[Triple]) -> list[Triple]:
    """The dates of a file with the years that its headers leave out or write with two digits of the Buddhist calendar.

    Android until 2015 left out the year in which the chat was exported. Such headers follow the others, so the first
    of them is in the year after the last one named, and January after December is another year.
    """
    filled: list[Triple] = []
    year, earlier, named = NO_YEAR, 0, False
    for first, middle, last in triples:
        if first != NO_YEAR:
            filled.append((first, middle, last))
            year, named = (first, True) if first > 99 else (year, named)
        elif year != NO_YEAR:
            year += 1 if named or middle < earlier else 0
            named = False
            filled.append((year, middle, last))
        else:
            filled.append((first, middle, last))
        earlier = middle
    if filled and all(last in SHORT_BUDDHIST for _, _, last in filled):
        return [(first, middle, last + 2500 - BUDDHIST) for first, middle, last in filled]
    if filled and all(first in SHORT_BUDDHIST for first, _, _ in filled):
        return [(first + 2500 - BUDDHIST, middle, last) for first, middle, last in filled]
    return filled


def times(clocks: Counter[str]) -> tuple[dict[str, str | None], Counter[str]]:
    """`HH:MM:SS` of each of a file's clocks, None where there is no such time; and the words that are not understood.

    clocks  the times as written, each with the number of its headers
    A word that stands beside 13 or 0 o'clock says nothing about the hour. Other unknown words leave the hour open:
    their times are None, and they are returned with the number of their headers.
    """
    hours = dict(day_periods())
    words: Counter[str] = Counter()
    for text, headers in clocks.items():
        for word in _words(text):
            words[word] += headers
    halves = {word: headers for word, headers in words.items() if _is_half(word)}
    if 2 * sum(halves[word] for word in halves if letters(word) in ONE_LETTER) < sum(halves.values()):
        hours = {word: known for word, known in hours.items() if word not in ONE_LETTER}
    unknown = Counter({word: headers for word, headers in words.items() if letters(word) not in hours})
    for text in clocks:
        if not 0 < _numbers(text)[0] <= 12:
            for word in unknown.keys() & set(_words(text)):
                hours[letters(word)] = ANY_HOUR
                del unknown[word]
    return {text: _time(text, hours) for text in clocks}, unknown


@lru_cache(maxsize=SECONDS_OF_A_DAY)
def _words(clock: str) -> tuple[str, ...]:
    """What stands before and after the numbers of a time."""
    return tuple(word for side in AROUND.split(clock) if letters(word := side.strip()))


def _is_half(word: str) -> bool:
    return day_periods().get(letters(word), ANY_HOUR) != ANY_HOUR


def _unknown(clock: str) -> bool:
    return any(letters(word) not in day_periods() for word in _words(clock))


@lru_cache(maxsize=SECONDS_OF_A_DAY)
def _numbers(clock: str) -> tuple[int, int, int]:
    hour, minute, second = ([int(number) for number in re.findall(r"\d+", clock)] + [0])[:3]
    return hour, minute, second


def _time(clock: str, hours: Mapping[str, Hours]) -> str | None:
    hour, minute, second = _numbers(clock)
    for word in map(letters, _words(clock)):
        if word not in hours:
            return None
        hour = _in(hours[word], hour)
    if hour > 23 or minute > 59 or second > 59:
        return None
    return f"{hour:02}:{minute:02}:{second:02}"


def _in(hours: Hours, hour: int) -> int:
    """The hour of 24 that an hour of 12 stands for: the one among `hours`, or nearest to them.

    Impossible mixes that real exports hold, `13:37 p.m.` and `00:08 a. m.`, keep their 24-hour value.
    """
    if hours == ANY_HOUR or hour > 12:
        return hour
    start, end = hours
    length = (end - start) % 24

    def distance(candidate: int) -> int:
        since = (candidate - start) % 24
        return 0 if since < length else min(since - length + 1, 24 - since)

    return min(hour % 12, hour % 12 + 12, key=distance)


def style(date: str, clock: str, is_ios: bool) -> str | None:
    """The order of day and month that the rest of a header's spelling suggests, or None.

    Only the United States' Android writes `1/4/23, 7:02 PM`; dots, and dashes before a year, are day first.
    """
    if re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2}", date) and re.search("[AP]M$", clock) and not is_ios:
        return "mdy"
    if re.fullmatch(r"\d{1,2}(\.|-)\d{1,2}\1(\d{2}|\d{4})", date):
        return "dmy"
    return None


MARK = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
SEPARATOR = rf"{MARK}[-/.]{MARK}{SP}?"
# What may follow a date: `2565 BE`, `25.11.21 г.`, and any short word before a comma.
AFTER_DATE = rf"(?:{SP}?(?:BE|г\.?)|{SP}?[^\W\d_][^\s\d,،:\]]{{0,6}}(?=[,،]))?"
DATE = rf"(?P<date>{ERA}?\d{{1,4}}{SEPARATOR}\d{{1,4}}{SEPARATOR}{ERA}?\d{{1,4}}\.?{AFTER_DATE})"
DOTTED = rf"(?P<date>\d{{1,2}}\.{SP}?\d{{1,2}}\.{SP}?\d{{4}}\.?)"
# Android until 2015 spelled months; Chinese and Japanese dates name their parts.
MONTH = r"(?=[^\W\d_])[^\d\n:,\[\]]{2,24}?"
IN_WORDS = (
    rf"(?P<date>\d{{1,2}}\.?{SP}{MONTH}(?:{SP}\d{{4}}{AFTER_DATE})?|{MONTH}{SP}\d{{1,2}}(?:,?{SP}\d{{4}})?"
    rf"|\d{{4}}\.?{SP}{MONTH}{SP}\d{{1,2}}\.?|\d{{4}}{SP}?[年년]{SP}?\d{{1,2}}{SP}?[月월]{SP}?\d{{1,2}}{SP}?[日일])"
)
# `14 h 56` and `14 h 56 min 01 s` are Canada's French.
HOUR = rf"\d{{1,2}}(?:[:.]\d{{2}}(?:[:.]\d{{2}})?|{SP}?h{SP}?\d{{2}}(?:{SP}min{SP}\d{{2}}{SP}s)?)"
COMMA = rf"[,،.]?{MARK}{SP}"
DASH = rf"{SP}[-–]{SP}"
# The look-ahead spares most headers the walk through a long alternative.
WORD = r"(?=[^\W\d_])[^\d\n:,،\[\]()<>/|\"]{1,30}?"
IN_PARENTHESES = rf"\({WORD}\)"  # `2:05 (PM)`
ENGLISH = rf"[AaPp]\.?{SP}?[Mm]\.?"
BARE = "date time"


def _families(before: str, after: str, beside_name: str) -> dict[str, str]:
    """The headers by family, with the words that may stand before and after a time.

    Each family is a style of its own: a line in another one is something that somebody pasted into a message.

    beside_name  the words after a time that a colon and the name follow at once: any word would take in the name
    """
    hour = rf"(?:{before}{SP}?)?{HOUR}"
    clock = rf"(?P<clock>{hour}(?:{SP}?{after})?)"
    short = rf"(?P<clock>{hour}(?:{SP}?{beside_name})?)"
    date_first = rf"{MARK}{DATE}{COMMA}{clock}\.?"
    clock_first = rf"{MARK}{clock}{COMMA}{DATE}"
    return {
        "[date time]": rf"(?P<mark>{MARK})\[{date_first}\]{SP}?",
        "[time date]": rf"(?P<mark>{MARK})\[{clock_first}\]{SP}?",  # Vietnamese
        "date time -": date_first + DASH,
        "date time:": rf"{MARK}{DATE}{COMMA}{short}\.?:{SP}",  # iOS and Windows Phone until 2014
        "time date -": clock_first + DASH,
        "day month time -": rf"{MARK}{IN_WORDS}{COMMA}{clock}{DASH}",  # Android until 2015
        "time day month -": rf"{MARK}{clock}{COMMA}{IN_WORDS}{DASH}",
        BARE: rf"{MARK}{DOTTED}{COMMA}(?P<clock>{HOUR}){SP}(?![-–]{SP})",  # Croatian, 2018
    }


ANY_WORD = f"(?:{WORD}|{IN_PARENTHESES})"
# A letter behind a blank may be the whole name of a person.
LETTER = rf"(?<=\d)[AaPp]\.?|[AaPp]\.?(?=:{SP}[^:\n]+:{SP})"
ANY_BESIDE_NAME = rf"(?:{ENGLISH}|\({ENGLISH}\)|\([AaPp]\.?\)|[صم]|{LETTER})(?!\w)"
ANY = _families(ANY_WORD, ANY_WORD, ANY_BESIDE_NAME)
WITH_MONTHS = ("day month time -", "time day month -")
# The first ": " ends the name, so `User:)` is one; the body may be empty or, of a vanished message, a single dot. The
# first alternative is the common case of the second, at a quarter of its cost.
NAME = "[^:\n]+(?=: )|[^\n]+?(?=: )|[^\n]+?(?=:\\.?\r?\n)"
# Elsewhere on iOS a line without a name starts with a mark; quotes are of an event's.
IOS_NAME = NAME + '|[^:\n"“„«]{1,40}(?=:)'
CLOSE_NAME = "[^:\n]+(?=:)"  # iOS in Chinese: `Bob:Hi`
SENDER = "(?:(?![\u200e\u200f]+[^:\u200e\u200f])(?P<sender>{}): ?)?"

SOME = 0.02  # share of headers that shows a file's style
SAMPLE = 30_000  # characters taken from a large file's beginning, middle and end


class Header(NamedTuple):
    """How one file separates and heads its records.

    newline  what precedes a header: CRLF on iOS, where a bare LF is a line break inside a message
    pattern  groups: date, clock, sender (None in a system line) and, on iOS, mark: what stands before the bracket
    """

    family: str
    newline: str
    pattern: re.Pattern[str]

    @property
    def is_ios(self) -> bool:
        return self.family.startswith("[")


def choose(text: str) -> Header | None:
    """The family that heads most lines of a text (LF or CRLF), or None when no line starts with a date and time."""
    sample = "\n" + text
    if len(text) > 3 * SAMPLE:
        middle = len(text) // 2
        sample = "\n".join(("", text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]))
    found = {family: list(re.finditer("\n" + header, sample)) for family, header in ANY.items()}
    if found[BARE]:  # `9:05 Marc - Paul: …` has a name where `9:05 PM - Paul: …` has a known word
        taken = {each.start() for each in found["date time -"] if not _unknown(each["clock"])}
        found[BARE] = [each for each in found[BARE] if each.start() not in taken]
    newline = "\n"
    if "\r\n" in sample and (between := _separated_by_crlf(sample, found)):
        newline, found = "\r\n", between
    family = max(found, key=lambda each: len(found[each]))
    if not found[family]:
        return None
    matches = found[family]
    words = _beside_times([each["clock"] for each in matches])
    header = _families(*words, _beside_name(matches))[family]
    return Header(family, newline, re.compile(newline + header + SENDER.format(_name(family, matches))))


def _beside_times(clocks: list[str]) -> tuple[str, str]:
    """Patterns for what stands before and after a file's times.

    Any word where a file's headers have one, so that an unknown one is seen; else only English and the known halves of
    the day that a few headers have: a line `13.3.22 10:05 Uhr - Marc: …` in such a file is something somebody wrote.
    Words in parentheses, and halves of one letter, only where a file's headers have them.
    """
    patterns = []
    around = list(map(AROUND.split, clocks))
    for place in (0, -1):
        words = [sides[place].strip() for sides in around if letters(sides[place])]
        bare = [word for word in words if word[-1:] != ")"]
        shapes = [
            shape
            for shape, those in ((WORD, bare), (IN_PARENTHESES, [word for word in words if word[-1:] == ")"]))
            if _are_style(those, clocks)
        ]
        if WORD not in shapes:
            known = {re.escape(word) for word in bare if _is_half(word) and letters(word) not in ONE_LETTER}
            shapes = [*sorted(known), ENGLISH, *shapes]
        patterns.append(f"(?:{'|'.join(shapes)})")
    before, after = patterns
    return before, after


def _are_style(words: Sized, headers: Sized) -> bool:
    """Whether enough of a file's headers have a word to show a style."""
    return len(words) > 0 and len(words) >= min(len(headers) / 2, max(2, SOME * len(headers)))


def _beside_name(matches: list[re.Match[str]]) -> str:
    """A pattern for what stands between a time and the colon that follows it at once."""
    halves = [word for each in matches for word in _words(each["clock"]) if _is_half(word)]
    known = set(map(re.escape, halves)) if _are_style(halves, matches) else set()
    return f"(?:{'|'.join(sorted({*known, ENGLISH, '[صم]'}, key=len, reverse=True))})(?!\\w)"


def _separated_by_crlf(sample: str, found: dict[str, list[re.Match[str]]]) -> dict[str, list[re.Match[str]]] | None:
    """The bracketed headers that follow a CRLF, if that is what ends a record; a bare LF is then within a message.

    Genuine iOS files: 19,308 of 19,310 headers follow CRLF, and all 979 continuation lines a bare LF. So CRLF can be
    trusted where a header follows it nearly always, however many headers somebody pasted behind a bare LF.
    """
    pairs = sample.rstrip().count("\r\n")
    first = min((matches[0].start() for matches in found.values() if matches), default=0)
    for family in (family for family in ANY if family.startswith("[")):
        matches = [each for each in found[family] if each.start() == 0 or sample[each.start() - 1] == "\r"]
        heads = bool(matches) and matches[0].start() == first  # else one CRLF was pasted before such a line
        if pairs and heads and len(matches) >= 0.9 * pairs and len(matches) > 0.3 * len(found[family]):
            return {each: matches if each == family else [] for each in found}
    return None


def _name(family: str, matches: list[re.Match[str]]) -> str:
    if not family.startswith("["):
        return NAME
    lines = [each.string[each.end() : each.end() + 200].split("\n")[0] for each in matches]
    close = sum(": " not in line and ":" in line[:40] and line[0] not in "\u200e\u200f" for line in lines)
    return CLOSE_NAME if close > len(lines) / 2 else IOS_NAME
