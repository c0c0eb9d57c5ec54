"""Decide whether a file writes dates day first or month first, from all of its dates, and keep the evidence.

A four-digit year is recognised by its length. What must be decided is the order of day and month and, with two-digit
years, whether the year comes first. Persian dates are converted to Gregorian ones.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import NamedTuple

from ghost.errors import ExportError

NAMES = {"dmy": "day/month", "mdy": "month/day", "ymd": "year/month/day"}
ASK = " Say which: ghost extract … --date-order dmy (day first), or mdy (month first)"
EPOCH = 2009  # WhatsApp's first year: an earlier two-digit year must be a day
# Years with four digits: Gregorian ones, since computers count from 1970, and the Persian ones of 2009 to 2049. Dates
# of other calendars that phones may write (Islamic, Hebrew) cannot be converted for certain.
GREGORIAN, PERSIAN = range(1970, 2101), range(1388, 1429)
PERSIAN_ORIGIN = -356_032  # days between the count of `_persian` and Python's

Triple = tuple[int, int, int]
Runs = Sequence[tuple[Triple, int]]  # (date, number of headers) in file order; equal neighbours are one run
# Headers on each side of a seam that fit only that side's order, or steps back in time that rule an order out.
PROOF = 2


class DateOrder(NamedTuple):
    order: str  # a key of NAMES
    evidence: str
    either: bool = False  # every date is the same day as day/month and as month/day

    @property
    def said(self) -> str:
        return "either" if self.either else self.order


def decide_each(
    dates: Runs, shapes: Sequence[str], style: Sequence[str | None], answer: str | None, name: str
) -> dict[int, DateOrder]:
    """The date orders of a file, by the index of the first run they apply to; see `decide`.

    One order from index 0, or two where a file joins two exports.

    shapes  the spelling of each run's dates (separators, digits of the year): a single change is a seam
    style   the order that each run's header suggests, or None
    """
    changes = [index for index, (earlier, later) in enumerate(pairwise(shapes), start=1) if earlier != later]
    if len(changes) == 1:
        seam = changes[0]
        if min(sum(count for _, count in side) for side in (dates[:seam], dates[seam:])) >= PROOF:
            return _two(dates, seam, style, answer, name)
    whole = {order: sum(count for parts, count in dates if read_date(parts, order)) for order in NAMES}
    if max(whole.values()) < sum(count for _, count in dates) and (found := _seam(dates)) is not None:
        return _two(dates, found, style, answer, name)
    return {0: decide(dates, style[0], answer, name)}


def _two(dates: Runs, seam: int, style: Sequence[str | None], answer: str | None, name: str) -> dict[int, DateOrder]:
    before = decide(dates[:seam], style[0], answer, name)
    after = decide(dates[seam:], style[seam], answer, name)
    return {0: before, seam: after}


def _seam(dates: Runs) -> int | None:
    """The index where the order changes, once, between day/month and month/day; None without proof.

    Dates between the two proofs fit both orders; the seam is put where time runs backwards least.
    """
    for first, second in (("dmy", "mdy"), ("mdy", "dmy")):
        one, other = ([read_date(parts, order) for parts, _ in dates] for order in (first, second))
        only_one = [index for index, (day, rival) in enumerate(zip(one, other, strict=True)) if day and not rival]
        only_other = [index for index, (day, rival) in enumerate(zip(one, other, strict=True)) if rival and not day]
        if not only_one or not only_other or only_one[-1] >= only_other[0]:
            continue
        if min(sum(dates[index][1] for index in proof) for proof in (only_one, only_other)) < PROOF:
            continue
        seams = range(only_one[-1] + 1, only_other[0] + 1)
        return min(seams, key=lambda seam: _jumps_back([*one[:seam], *other[seam:]]))
    return None


def read_date(parts: Triple, order: str) -> date | None:
    """The date that three numbers give in this order, or None when there is no such day."""
    first, middle, last = parts
    if first > 99:
        year, month, day = parts
    elif last > 99 and order != "ymd":
        day, month, year = parts if order == "dmy" else (middle, first, last)
    elif middle > 99 and order != "ymd":  # [06/2018/13, ...]
        day, year, month = parts if order == "dmy" else (last, middle, first)
    elif max(parts) <= 99:
        year, month, day = {"dmy": (last, middle, first), "mdy": (last, first, middle), "ymd": parts}[order]
        year += 2000
        if not EPOCH <= year <= date.today().year + 1:
            return None
    else:
        return None
    if year in PERSIAN:
        return _persian(year, month, day)
    try:
        return date(year, month, day) if year in GREGORIAN else None
    except ValueError:
        return None


def _persian(year: int, month: int, day: int) -> date | None:
    """The date of a Persian day, by the 33-year cycle of leap years, which holds from 1244 to 1500 of that calendar."""
    if not (1 <= month <= 12 and 1 <= day <= (31 if month < 7 else 30)):
        return None
    this, following = (365 * each + 8 * (each // 33) + (each % 33 + 3) // 4 for each in (year + 1595, year + 1596))
    since = 31 * (month - 1) - max(0, month - 7) + day - 1
    return date.fromordinal(this + since + PERSIAN_ORIGIN) if this + since < following else None


def decide(dates: Runs, style: str | None, answer: str | None, name: str) -> DateOrder:
    """The order of a file's dates.

    style   the order that the rest of the header suggests (AM/PM, dots), or None
    answer  --date-order: used where the dates fit several orders. It applies to a whole folder, so a file whose own
            dates tell their order keeps it
    Raises ExportError when the order stays ambiguous; the message asks for --date-order.
    """
    headers = sum(count for _, count in dates)
    known = {order: {parts: read_date(parts, order) for parts, _ in dates} for order in NAMES}
    fits = {order: sum(count for parts, count in dates if known[order][parts]) for order in NAMES}
    best = max(fits.values())
    if not best:
        year = next((max(parts) for parts, _ in dates if max(parts) > 99), 0)
        hint = (
            f": the year {year} is of another calendar. Set the phone to the Gregorian calendar and export the chat"
            " again"
            if year and year not in GREGORIAN
            else "; is this a chat export?"
        )
        raise ExportError(f"{name}: none of its {headers:,} date headers is a date{hint}")
    candidates = [order for order in NAMES if fits[order] == best]
    backwards = {order: _jumps_back([known[order][parts] for parts, _ in dates]) for order in NAMES}
    # A single line against the answer is something pasted, if the others are in time order by the answer alone.
    if (
        answer is not None
        and best - PROOF < fits[answer] < best
        and backwards[answer] < min(backwards[order] for order in candidates)
    ):
        against = f"{best - fits[answer]:,} of {headers:,} date headers do not fit it and are unreadable"
        return DateOrder(answer, f"--date-order says {NAMES[answer]}; {against}")
    if all(known[order] == known[candidates[0]] for order in candidates):
        order = "ymd" if "ymd" in candidates else candidates[0]
        if candidates == ["dmy", "mdy"]:
            return DateOrder(order, "every date is the same day in either order, day/month and month/day", either=True)
        overruled = f"; --date-order {answer} fits only {fits[answer]:,}" if answer and fits[answer] < best else ""
        return DateOrder(order, _by_fit(known, dates, order) + overruled)
    undecided = _undecided(candidates, best, headers)
    jumps = {order: backwards[order] for order in candidates}
    fewest = min(jumps.values())
    if answer in candidates and (fewest > 0 or jumps[answer] < PROOF):
        return DateOrder(answer, f"{undecided}; --date-order says {NAMES[answer]}")
    steady = [order for order in candidates if jumps[order] == fewest]
    if len(steady) > 1 and "ymd" in steady:  # a two-digit year rarely comes first
        steady.remove("ymd")
    if len(steady) == 1:
        counts = ", ".join(f"{NAMES[order]} runs backwards {jumps[order]:,} times" for order in candidates)
        counts += ", and two digits of a year seldom come first" if list(jumps.values()).count(fewest) > 1 else ""
        return DateOrder(steady[0], f"{undecided}; {counts}: read as {NAMES[steady[0]]}")
    if style in steady:
        return DateOrder(style, f"{undecided}; the header's style is {NAMES[style]}")
    raise ExportError(f"{name}: {undecided}.{ASK}")


def _by_fit(known: dict[str, dict[Triple, date | None]], dates: Runs, order: str) -> str:
    headers = sum(count for _, count in dates)
    if order == "ymd":
        return f"the year comes first in {headers:,} date headers"
    only = {
        this: sum(count for parts, count in dates if known[this][parts] and not known[other][parts])
        for this, other in (("dmy", "mdy"), ("mdy", "dmy"))
    }
    majority = " by majority" if only["dmy"] and only["mdy"] else ""  # pasted lines, or two exports glued together
    return (
        f"{only['dmy']:,} of {headers:,} date headers fit only day/month, {only['mdy']:,} fit only month/day:"
        f" read as {NAMES[order]}{majority}"
    )


def _undecided(candidates: list[str], best: int, headers: int) -> str:
    names = [NAMES[order] for order in candidates]
    orders = f"{', '.join(names[:-1])} and {names[-1]}"
    if best < headers:
        return f"{best:,} of {headers:,} date headers fit {orders}, each"
    return f"every date fits {'both ' if len(names) == 2 else ''}{orders}"


def _jumps_back(days: Sequence[date | None]) -> int:
    """How often the days run backwards. The first is ignored: WhatsApp dates its notice at export."""
    read = [day for day in days[1:] if day is not None]
    return sum(later < earlier for earlier, later in pairwise(read))
