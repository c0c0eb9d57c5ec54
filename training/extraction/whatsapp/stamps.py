"""The dates and times of WhatsApp's headers: any digits, four calendars' years, months in words, twelve or 24 hours."""

import re
from collections.abc import Iterable
from functools import lru_cache

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
