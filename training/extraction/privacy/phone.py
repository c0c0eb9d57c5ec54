"""Phone numbers, by country: found in text, and brought to one spelling.

libphonenumber (the `phonenumbers` package) decides whether digits are a number; it takes about 30 µs to, so that shapes
decide first what it is asked about. Numbers with a country code are recognised everywhere. National numbers are tried
as each of a few regions, and only in the shape in which people of that region write them, of nine digits or more.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    country_code_for_region,
    format_number,
    is_possible_number,
    is_valid_number,
    ndd_prefix_for_region,
    parse,
    region_code_for_number,
)

DEFAULT_REGIONS = ("FR", "GB", "US")
# Where most who write a language live; phone numbers among the names of a run say more, this is for runs without any.
REGIONS_OF_LANGUAGES = {
    "de": ("DE", "AT"),
    "es": ("ES", "MX"),
    "fr": ("FR", "BE"),
    "it": ("IT",),
    "nl": ("NL", "BE"),
    "pl": ("PL",),
    "pt": ("PT", "BR"),
}

MARKS = "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions, with which WhatsApp wraps numbers and names
GAP = r"[ \u00a0\u202f./()\-\u2010-\u2013]"
INTERNATIONAL = re.compile(rf"(?<![\d+])(\(?\+|00)(?:{GAP}{{0,2}}\d){{7,15}}(?!\d)")
NATIONAL = re.compile(rf"(?<![\d+])\(?0[1-9](?:{GAP}{{0,2}}\d){{7,18}}(?!\d)")
# France's plan is closed, every 0 and nine digits is a number: no need to ask, and metadata older than a block of
# numbers (06 39 98 is set aside for fiction) says no. In pairs, since dates have other groups.
FRENCH = re.compile(r"0[1-9]([ .\-\u00a0\u202f/]?)\d\d(?:\1\d\d){3}(?!\d)")
GROUP_BEFORE = re.compile(r"\d{3}[ .\-]$")  # the middle of a longer number, such as a company's
PAIRS = re.compile(r"(?:[ .\-\u00a0\u202f/]\d\d(?!\w|:)){1,5}")
NORTH_AMERICAN = re.compile(
    r"(?<![\d+/])(?<!\d[.,:-])(?:1[ .-]?)?"
    r"(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}(?![-.,]?\d)"
    r"|(?<![\d+])(?<!\d[.,:-])[2-9]\d\d[2-9]\d{6}(?![-.,:]?\d)"
)
OPEN = re.compile(rf"(?<![\d+])[1-9](?:{GAP}?\d){{8,11}}(?!\d)")  # countries that write no leading 0
DATE = re.compile(r"(?:[0-2]\d|3[01])([./-])(?:[0-2]\d|3[01])\1(?:\d{4}|\d\d)(?![./-]?\d)")
PART_BEFORE = re.compile(r"\d[.,:/]$")  # of a decimal, a date or a time
LINKED = re.compile(r"(?:wa\.me/|[?&]phone=)\+?([1-9]\d{7,14})(?!\d)")
EXTENSION = re.compile(r"x\d{1,5}(?!\w)")
LETTERS = re.compile(r"[^\W\d_]*")
# Before a national number, these say that it is another kind of number.
OTHER_NUMBER = re.compile(
    r"(?:#|\b(?:order|ref|reference|booking|confirmation|invoice|ticket|case|track\w*|serial|member|meeting|zoom|wi-?fi"
    r"|passw\w+|pw|imei|isbn|id|code|account|commande|dossier|facture|réf\w*|suivi|colis\w*|client|adhérent|série|siret"
    r"|compte|loto|powerball))\b\W*(?:\w+\W+){0,2}$",
    re.IGNORECASE,
)
CONTEXT = 32  # characters before a number that may say what it is


def regions_of(names: Iterable[str], languages: Iterable[str] = ()) -> tuple[str, ...]:
    """Regions (ISO 3166 alpha-2) whose national numbers to expect in a run.

    Those of the numbers with a country code among `names` (senders and titles), the most frequent first, those where
    `languages` (ISO 639-1) are written most, and the defaults. A number that fits several belongs to the first.
    """
    counts: Counter[str] = Counter()
    for name in names:
        number = _parsed(plain(name), None) if "+" in name else None
        region = region_code_for_number(number) if number else None
        if region:
            counts[region] += 1
    spoken = (region for language in languages for region in REGIONS_OF_LANGUAGES.get(language, ()))
    return tuple(dict.fromkeys([*(region for region, _ in counts.most_common()), *spoken, *DEFAULT_REGIONS]))


def plain(name: str) -> str:
    """A name without direction marks and without the tilde before names that are not in the address book."""
    return re.sub(f"[{MARKS}]", "", name).strip().lstrip("~").strip()


def canonical(text: str, regions: Sequence[str]) -> str | None:
    """E.164 of text that is a phone number and nothing else, or its bare digits where no region knows it; else None.

    Short codes of services (up to six digits) are nobody's number.
    """
    text = plain(text)
    digits = "".join(character for character in text if character.isdigit())
    if len(digits) < 7 or not re.fullmatch(rf"\+?(?:{GAP}*\d)+", text):
        return None
    # A number in a mention has its country code without the plus, hence the second try.
    for spelling, region in ((text, None), *((text, region) for region in regions), (f"+{digits}", None)):
        number = _parsed(spelling, region)
        if number and (is_valid_number(number) or (spelling.startswith("+") and is_possible_number(number))):
            return str(format_number(number, PhoneNumberFormat.E164))
    return digits


def spans(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where phone numbers stand in text; spans may overlap."""
    for match in LINKED.finditer(text):
        if _is_possible(f"+{match[1]}"):
            yield match.span(1)
    for match in INTERNATIONAL.finditer(text):
        if end := _end(text, match.start(), match.end(), [None] if match[1] != "00" else ["FR"]):
            yield _inside(text, match.start(), end)
    plans = _plans(tuple(regions))
    yield from _one_after_another(text, NATIONAL, lambda match, follows: _national_end(match, follows, plans.trunk))
    if plans.north_american:
        for match in NORTH_AMERICAN.finditer(text):
            if not _is_other(text, match.start()) and not _is_code(text, match.end()) and _is_american(match):
                yield match.span()
    if plans.without:
        yield from _one_after_another(text, OPEN, lambda match, _: _end(text, *match.span(), plans.without))


def international_end(text: str, start: int) -> int | None:
    """Where the number with a plus ends that starts here; None when there is none."""
    match = INTERNATIONAL.match(text, start)
    return _end(text, start, match.end(), [None]) if match else None


class _Plans(NamedTuple):
    """Regions by how they write national numbers: behind a 0, as North America does, or without a prefix."""

    trunk: tuple[str, ...]
    north_american: bool
    without: tuple[str, ...]


@cache
def _plans(regions: tuple[str, ...]) -> _Plans:
    trunk = tuple(region for region in regions if ndd_prefix_for_region(region, True) == "0")
    american = {region for region in regions if country_code_for_region(region) == 1}
    return _Plans(trunk, bool(american), tuple(region for region in regions if region not in american.union(trunk)))


def _one_after_another(
    text: str, shape: re.Pattern[str], end_of: Callable[[re.Match[str], bool], int | None]
) -> Iterator[tuple[int, int]]:
    """National numbers of a shape.

    What stands before digits may say that they go on something else, unless it is a number itself: each of a list of
    numbers is found at once, however they are parted. To find them one after the other, a list masked up to there, took
    quadratic time.

    end_of  where the number of a match ends, given whether the match follows a number at once; None when it is none
    """
    position, last = 0, -1
    while match := shape.search(text, position):
        start, position = match.start(), match.end()
        follows = start - 1 == last
        if not follows and PART_BEFORE.search(text, max(0, start - 2), start):
            position = start + 1  # the 05 of 14:05 06 12 34 56 78
            continue
        if date := DATE.match(text, start):
            position = date.end()
            continue
        if _is_other(text, start):
            continue
        end = end_of(match, follows)
        if end and not _is_code(text, end):
            yield _inside(text, start, end)
            position = last = end


def _national_end(match: re.Match[str], follows: bool, regions: Sequence[str]) -> int | None:
    text, start = match.string, match.start()
    if "FR" in regions and (french := FRENCH.match(text, start)):
        return None if _is_list(text, start, french.end()) else french.end()
    if not follows and GROUP_BEFORE.search(text, max(0, start - 4), start):
        return None
    end = _end(text, *match.span(), regions)
    return None if end and _is_list(text, start, end) else end


def _inside(text: str, start: int, end: int) -> tuple[int, int]:
    """Without an opening bracket that is closed behind the number only, or not at all."""
    return (start + 1 if text[start] == "(" and ")" not in text[start:end] else start), end


def _is_list(text: str, start: int, end: int) -> bool:
    """Whether a few more pairs follow, as in a lottery's draw; five or more are the next number."""
    more = PAIRS.match(text, end)
    return more is not None and len(more[0]) < len(" 06 39 98 00 00") and FRENCH.fullmatch(text, start, end) is not None


def _end(text: str, start: int, end: int, regions: Sequence[str | None]) -> int | None:
    """Where the longest number that starts here ends: after it, another group of digits may follow.

    Behind a plus a possible length is enough where no cut is valid, as nothing else is written so.
    """
    ends: list[int] = []
    while end > start and len(ends) < 5:
        ends.append(end)
        while end > start and text[end - 1].isdigit():
            end -= 1
        while end > start and not text[end - 1].isdigit():
            end -= 1
    for end in ends:
        if any(_is_number(text[start:end], region) for region in regions):
            return end
    return next((end for end in ends if None in regions and _is_possible(text[start:end])), None)


def _is_number(text: str, region: str | None) -> bool:
    number = _parsed(text.lstrip("("), region)
    return number is not None and bool(is_valid_number(number))


def _is_possible(text: str) -> bool:
    """But "+1000000000" is points for a good deed."""
    number = _parsed(text.lstrip("("), None)
    digits = str(number.national_number) if number else ""
    return len(digits) > 6 and len(set(digits)) > 2 and bool(number and is_possible_number(number))


def _is_american(match: re.Match[str]) -> bool:
    """(741) 354-9909 and 883.423.6405 are phone numbers by their looks, whether or not their area is in use."""
    return any(mark in match[0] for mark in "(.-") or _is_number(match[0], "US")


def _parsed(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return parse(text, region)
    except NumberParseException:
        return None


def _is_other(text: str, start: int) -> bool:
    """Whether what stands before says that this is no phone number: a code's letters, a link, another number's name."""
    glued = LETTERS.match(text[max(0, start - CONTEXT) : start][::-1])
    if (glued and glued[0] and not (len(glued[0]) > 2 and glued[0][:2].islower())) or (
        start and text[start - 1] in "_#@=&"
    ):
        return True
    before = text[max(0, start - 200) : start]
    word = before[max(before.rfind(" "), before.rfind("\n")) + 1 :]
    return "://" in word or "www." in word or OTHER_NUMBER.search(text, max(0, start - CONTEXT), start) is not None


def _is_code(text: str, end: int) -> bool:
    """Whether a letter or two follow at once, as in 0123456789FR; a glued word is haste, x204 an extension."""
    glued = LETTERS.match(text, end, end + 3)
    return glued is not None and 0 < len(glued[0]) < 3 and not EXTENSION.match(text, end)
