"""WhatsApp's record headers: `18/03/2022, 14:56 - Name: `, `[3/18/22, 2:56:01 PM] Name: ` and their many relatives.

One compiled expression reads a file, chosen by which family of headers the file holds. The newline before a header
is part of the match: a pattern that starts with a literal lets `re` skip through the text.
"""

import re
from typing import NamedTuple

from training.extraction.whatsapp.stamps import IN_WORDS, PERIOD, SP

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
