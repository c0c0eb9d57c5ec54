"""WhatsApp's record headers: `18/03/2022, 14:56 - Name: `, `[3/18/22, 2:56:01 PM] Name: ` and their many relatives.

Dates and times come in any digits, four calendars' years, months in words, twelve or 24 hours. One compiled expression
reads a file, chosen by which family of headers the file holds. The newline before a header is part of the match: a
pattern that starts with a literal lets `re` skip through the text.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from training.extraction.date_order import Triple

SP = "[ \u00a0\u202f\u2009]"

ERAS = {"R": 2018, "H": 1988, "S": 1925, "T": 1911, "M": 1867}
BUDDHIST = 543  # years that the Buddhist calendar is ahead

PERIOD = (
    rf"(?:[AaPp]\.?{SP}?[Mm]\.?|[صم]|午前|午後|上午|下午|凌晨|清晨|早上|中午|晚上|오전|오후"
    r"|in the (?:morning|afternoon|evening)|at night|noon|midnight)"
)
AFTERNOON = re.compile(rf"[Pp]\.?{SP}?[Mm]|م|午後|下午|晚上|오후|afternoon|evening")
MORNING = re.compile(rf"[Aa]\.?{SP}?[Mm]|ص|午前|上午|凌晨|清晨|早上|오전|morning|midnight")
NOON = re.compile("noon|中午")
NIGHT = re.compile("at night")  # from nine in the evening to six in the morning
DAWN = 6

# Android until 2015 spelled months: the abbreviations of Unicode's locale data, cut where they stay distinct.
MONTHS = {
    name: month
    for month, names in enumerate(
        (
            "jan janv ene gen genn",
            "feb févr fév febr fev",
            "mar mars mär mrt mrz",
            "apr avr abr",
            "may mai mag mei",
            "jun juin giu",
            "jul juil lug",
            "aug août ago aoû",
            "sep sept set",
            "oct okt ott out",
            "nov",
            "dec déc dez dic",
        ),
        start=1,
    )
    for name in names.split()
}
MONTH = rf"(?:{'|'.join(sorted(MONTHS, key=len, reverse=True))})[a-zéû]*\.?"
IN_WORDS = rf"\d{{1,2}}\.?{SP}(?:de{SP})?(?i:{MONTH})(?:{SP}(?:de{SP})?\d{{4}})?"

NO_YEAR = -1


def triple(text: str) -> Triple:
    """The three numbers of a header's date, in any digits; Japanese eras and Buddhist years become ours.

    A month in words leaves nothing to decide: year, month, day; the year is NO_YEAR where the header has none.
    """
    if word := re.search(r"[^\W\d_]{3,}", text):
        numbers = [int(digits) for digits in re.findall(r"\d+", text)]
        return (numbers[1] if len(numbers) > 1 else NO_YEAR), _month(word[0]), numbers[0]
    numbers = []
    for era, digits in re.findall(r"([RHSTM]?)(\d+)", text):
        number = int(digits) + ERAS.get(era, 0)
        numbers.append(number - BUDDHIST if number >= 2400 else number)
    first, middle, last = numbers
    return first, middle, last


def with_years(triples: Iterable[Triple]) -> list[Triple]:
    """Years for the headers that have none: Android until 2015 left out the year in which the chat was exported.

    Such headers follow the others, so the first of them is in the year after the last one named, and January after
    December is another year.
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
    return filled


@lru_cache(maxsize=100_000)  # the seconds of a day
def clock(text: str) -> str | None:
    """`HH:MM:SS` of a header's time, or None when there is no such time.

    Impossible mixes that real exports hold, `13:37 p.m.` and `00:08 a. m.`, keep their 24-hour value.
    """
    hour, minute, second = ([int(number) for number in re.findall(r"\d+", text)] + [0])[:3]
    if AFTERNOON.search(text):
        hour += 12 if hour < 12 else 0
    elif MORNING.search(text):
        hour = 0 if hour == 12 else hour
    elif NOON.search(text):
        hour += 12 if hour < DAWN else 0
    elif NIGHT.search(text):
        hour = 0 if hour == 12 else hour + 12 if DAWN <= hour < 12 else hour
    if hour > 23 or minute > 59 or second > 59:
        return None
    return f"{hour:02}:{minute:02}:{second:02}"


def style(date: str, clock: str, is_ios: bool) -> str | None:
    """The order of day and month that the rest of a header's spelling suggests, or None.

    Only the United States' Android writes `1/4/23, 7:02 PM`; dots, and dashes before a year, are day first.
    """
    if re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2}", date) and re.search("[AP]M$", clock) and not is_ios:
        return "mdy"
    if re.fullmatch(r"\d{1,2}(\.|-)\d{1,2}\1(\d{2}|\d{4})", date):
        return "dmy"
    return None


def _month(word: str) -> int:
    """1 to 12; the longest abbreviation that the word starts with."""
    folded = word.casefold()
    return next(MONTHS[folded[:length]] for length in range(len(folded), 0, -1) if folded[:length] in MONTHS)


MARK = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
SEPARATOR = rf"{MARK}[-/.]{MARK}{SP}?"
DATE = rf"(?P<date>\d{{1,4}}{SEPARATOR}\d{{1,4}}{SEPARATOR}[RHSTM]?\d{{1,4}}\.?(?:{SP}?BE)?)"
WORDS = rf"(?P<date>{IN_WORDS})"
# The look-aheads in front of long alternatives spare most headers the walk through them: 1M headers in half the time.
HOUR = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
CLOCK = rf"(?P<clock>(?:(?!\d){PERIOD}{SP}?)?{HOUR}(?:{SP}?(?=[^\W\d_]){PERIOD})?)"
COMMA = rf"[,،.]?{MARK}{SP}"
WORD = rf"(?:(?!\d)(?:klo|kl\.?|às|um){SP})?"
DATE_FIRST = rf"{MARK}{DATE}{COMMA}{WORD}{CLOCK}\.?"
CLOCK_FIRST = rf"{MARK}{CLOCK}{COMMA}{DATE}"
DASH = rf"{SP}[-–]{SP}"

BARE = "date time"
# Each is a style of its own: a line in another one is something that somebody pasted into a message.
FAMILIES = {
    "[date time]": rf"(?P<mark>{MARK})\[{DATE_FIRST}\]{SP}?",
    "[time date]": rf"(?P<mark>{MARK})\[{CLOCK_FIRST}\]{SP}?",  # Vietnamese
    "date time -": DATE_FIRST + DASH,
    "date time:": rf"{DATE_FIRST}:{SP}",  # iOS and Windows Phone until 2014
    "time date -": CLOCK_FIRST + DASH,
    "day month time -": rf"{MARK}{WORDS}{COMMA}{CLOCK}{DASH}",  # Android until 2015
    "time day month -": rf"{MARK}{CLOCK}{COMMA}{WORDS}{DASH}",
    BARE: rf"{MARK}{DATE}{COMMA}(?P<clock>{HOUR}){SP}(?![-–]{SP})",  # Croatian, 2018
}
# The first ": " ends the name, so `User:)` is one; the body may be empty or, of a vanished message, a single dot. The
# first alternative is the common case of the second, at a quarter of its cost.
NAME = "[^:\n]+(?=: )|[^\n]+?(?=: )|[^\n]+?(?=:\\.?\r?\n)"
# Elsewhere on iOS a line without a name starts with a mark; quotes are of an event's.
IOS_NAME = NAME + '|[^:\n"“„«]{1,40}(?=:)'
CLOSE_NAME = "[^:\n]+(?=:)"  # iOS in Chinese: `Bob:Hi`
SENDER = "(?:(?![\u200e\u200f])(?P<sender>{}): ?)?"

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
    found = {family: list(re.finditer("\n" + header, sample)) for family, header in FAMILIES.items()}
    taken = {each.start() for family in FAMILIES if family != BARE for each in found[family]}
    found[BARE] = [each for each in found[BARE] if each.start() not in taken]  # it matches most of the others, too
    newline = "\n"
    if "\r\n" in sample and (between := _separated_by_crlf(sample, found)):
        newline, found = "\r\n", between
    family = max(found, key=lambda each: len(found[each]))
    if not found[family]:
        return None
    sender = SENDER.format(_name(family, found[family]))
    return Header(family, newline, re.compile(newline + FAMILIES[family] + sender))


def _separated_by_crlf(sample: str, found: dict[str, list[re.Match[str]]]) -> dict[str, list[re.Match[str]]] | None:
    """The bracketed headers that follow a CRLF, if that is what ends a record; a bare LF is then within a message.

    Genuine iOS files: 19,308 of 19,310 headers follow CRLF, and all 979 continuation lines a bare LF. So CRLF can be
    trusted where a header follows it nearly always, however many headers somebody pasted behind a bare LF.
    """
    pairs = sample.rstrip().count("\r\n")
    first = min((matches[0].start() for matches in found.values() if matches), default=0)
    for family in (family for family in FAMILIES if family.startswith("[")):
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
