"""WhatsApp's record headers: `18/03/2022, 14:56 - Name: `, `[3/18/22, 2:56:01 PM] Name: ` and their many relatives.

One compiled expression reads a file, chosen by which family of headers the file holds. The newline before a header
is part of the match: a pattern that starts with a literal lets `re` skip through the text.
"""

import re
from typing import NamedTuple

from training.extraction.date_order import Triple

SP = "[ \u00a0\u202f\u2009]"
MARK = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
SEPARATOR = rf"{MARK}[-/.]{MARK}{SP}?"
DATE = rf"\d{{1,4}}{SEPARATOR}\d{{1,4}}{SEPARATOR}[RHSTM]?\d{{1,4}}\.?(?:{SP}?BE)?"
PERIOD = (
    rf"(?:[AaPp]\.?{SP}?[Mm]\.?|[صم]|午前|午後|上午|下午|凌晨|早上|中午|晚上|오전|오후"
    r"|in the (?:morning|afternoon|evening)|at night)"
)
# The look-aheads in front of long alternatives spare most headers the walk through them: 1M headers in half the time.
PERIOD_AFTER = rf"(?:{SP}?(?=[^\W\d_]){PERIOD})?"
CLOCK = rf"(?:(?!\d){PERIOD}{SP}?)?\d{{1,2}}[:.]\d{{2}}(?:[:.]\d{{2}})?{PERIOD_AFTER}"
WORD = rf"(?:(?!\d)(?:klo|kl\.?|às|um){SP})?"
DATE_FIRST = rf"{MARK}(?P<date>{DATE})[,،.]?{SP}{WORD}(?P<clock>{CLOCK})\.?"
CLOCK_FIRST = rf"{MARK}(?P<clock>{CLOCK})[,،]?{SP}(?P<date>{DATE})"  # Vietnamese iOS

FAMILIES = {
    "[date time]": rf"{MARK}\[{DATE_FIRST}\]{SP}?",
    "[time date]": rf"{MARK}\[{CLOCK_FIRST}\]{SP}?",
    "date time -": rf"{DATE_FIRST}(?:{SP}[-–]{SP}|:{SP})",
    "time date -": rf"{CLOCK_FIRST}{SP}[-–]{SP}",
    "date time": rf"{DATE_FIRST}{SP}",  # Croatian, 2018
}
# The first ": " ends the name, so `User:)` is one; the body may be empty or, of a vanished message, a single dot. The
# first alternative is the common case of the second, at a quarter of its cost.
NAME = "[^:\n]+(?=: )|[^:\n]+(?::(?! |\\.?\r?\n)[^:\n]+)*(?=:(?: |\\.?\r?\n))"
# iOS in Chinese: `Bob:Hi`. Elsewhere on iOS a line without a name starts with a mark; quotes are of an event's.
IOS_NAME = NAME + '|[^:\n"“„«]{1,40}(?=:)'
SENDER = "(?:(?![\u200e\u200f])(?P<sender>{}): ?)?"

SAMPLE = 200_000  # characters taken from a large file's beginning, middle and end

AFTERNOON = re.compile(rf"[Pp]\.?{SP}?[Mm]|م|午後|下午|晚上|오후|afternoon|evening|night")
MORNING = re.compile(rf"[Aa]\.?{SP}?[Mm]|ص|午前|上午|凌晨|早上|오전|morning")
ERAS = {"R": 2018, "H": 1988, "S": 1925, "T": 1911, "M": 1867}
BUDDHIST = 543  # years that the Buddhist calendar is ahead


class Header(NamedTuple):
    """How one file separates and heads its records.

    newline  what precedes a header: CRLF on iOS, where a bare LF is a line break inside a message
    pattern  groups: date, clock, sender (None in a system line)
    dates    the same headers, capturing the date alone
    """

    family: str
    newline: str
    pattern: re.Pattern[str]
    dates: re.Pattern[str]

    @property
    def is_ios(self) -> bool:
        return self.family.startswith("[")


def choose(text: str) -> Header | None:
    """The family that heads most lines of a text (LF or CRLF), or None when no line starts with a date and time."""
    sample = "\n" + text
    if len(text) > 3 * SAMPLE:
        middle = len(text) // 2
        sample = "\n".join(("", text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]))
    counts = {family: sum(1 for _ in re.finditer("\n" + header, sample)) for family, header in FAMILIES.items()}
    counts["date time"] -= counts["date time -"]  # the looser of the two matches the other's headers as well
    family = max(counts, key=lambda each: counts[each])
    header = FAMILIES[family]
    if not counts[family]:
        return None
    newline = "\n"
    # Genuine iOS files: 19,308 of 19,310 headers follow CRLF, and all 979 continuation lines a bare LF.
    if family.startswith("[") and sum(1 for _ in re.finditer("\r\n" + header, sample)) >= 0.9 * counts[family] - 1:
        newline = "\r\n" if "\r\n" in sample else "\n"
    sender = SENDER.format(IOS_NAME if family.startswith("[") else NAME)
    return Header(
        family,
        newline,
        re.compile(newline + header + sender),
        re.compile(newline + header.replace("(?P<clock>", "(?:").replace("(?P<date>", "(")),
    )


def triple(text: str) -> Triple:
    """The three numbers of a header's date, in any digits; Japanese eras and Buddhist years become ours."""
    numbers = []
    for era, digits in re.findall(r"([RHSTM]?)(\d+)", text):
        number = int(digits) + ERAS.get(era, 0)
        numbers.append(number - BUDDHIST if number >= 2400 else number)
    first, middle, last = numbers
    return first, middle, last


def clock(text: str) -> str | None:
    """`HH:MM:SS` of a header's time, or None when there is no such time.

    Impossible mixes that real exports hold, `13:37 p.m.` and `00:08 a. m.`, keep their 24-hour value.
    """
    hour, minute, second = ([int(number) for number in re.findall(r"\d+", text)] + [0])[:3]
    if AFTERNOON.search(text):
        hour += 12 if hour < 12 else 0
    elif MORNING.search(text) and hour == 12:
        hour = 0
    if hour > 23 or minute > 59 or second > 59:
        return None
    return f"{hour:02}:{minute:02}:{second:02}"


def style(date: str, clock: str, header: Header) -> str | None:
    """The order of day and month that the rest of a header's spelling suggests, or None.

    Only the United States' Android writes `1/4/23, 7:02 PM`; dots, and dashes before a year, are day first.
    """
    if re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2}", date) and re.search("[AP]M$", clock) and not header.is_ios:
        return "mdy"
    if re.fullmatch(r"\d{1,2}(\.|-)\d{1,2}\1(\d{2}|\d{4})", date):
        return "dmy"
    return None
