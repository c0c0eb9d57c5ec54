"""Messages in the order of time, whatever mixture of local and absolute times their exports give."""

from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import pairwise

from training.extraction.platform import Record

NAIVE = len("2022-03-18T14:56:00")
MINUTE = len("2022-03-18T14:56")
OFFSET = len("+01:00")
HOUR = len("2022-03-18T14")
DATE = len("2022-03-18")
SUNDAY = 6
NIGHT = ("00", "01", "02", "03")  # the hours that a clock repeats in autumn, on a Sunday nearly everywhere


def in_time_order(messages: list[Record], is_merged: bool) -> list[Record]:
    """By time, ties in the given order. Naive times are compared as they stand, save for autumn's repeated hour.

    is_merged  from more than one export: a step back in time is where they meet, and no repeated hour
    """
    instants = [instant(record.timestamp) for record in messages]
    if not is_merged:
        instants = _second_pass_later(instants)
    return [messages[index] for index in sorted(range(len(messages)), key=instants.__getitem__)]


def instant(timestamp: str) -> str:
    """A timestamp with an offset as one in UTC, so that two of a second are equal; a naive one as it is."""
    if len(timestamp) <= NAIVE:
        return timestamp
    hour, rest, offset = timestamp[:HOUR], timestamp[HOUR:-OFFSET], timestamp[-OFFSET:]
    if offset[0] in "+-" and offset.endswith(":00"):
        return f"{_utc_hour(hour, offset)}{rest}+00:00"
    return datetime.fromisoformat(timestamp).astimezone(UTC).isoformat()


@lru_cache(maxsize=4096)
def _utc_hour(hour: str, offset: str) -> str:
    """`2022-03-18T14` at `+01:00` → `2022-03-18T13`: a conversation's messages share few of them."""
    return datetime.fromisoformat(f"{hour}:00:00{offset}").astimezone(UTC).isoformat()[:HOUR]


def _second_pass_later(instants: list[str]) -> list[str]:
    """Sort keys under which an hour that the clock repeats comes twice.

    In autumn 02:50 is followed by 02:15, and only the file's order tells. A step back within one such hour of naive
    times starts its second pass, which sorts behind the first and before the next hour: "~" comes after every digit
    and ":". A message that merely arrived late then stays where the file has it.
    """
    keys = list(instants)
    repeated = ""
    for step, (before, here) in enumerate(pairwise(instants), start=1):
        if before <= here:
            continue
        hour = here[:HOUR]
        if hour != before[:HOUR] or hour == repeated or len(here) > NAIVE or not _may_repeat(hour):
            continue
        repeated = hour
        for later in range(step, len(instants)):
            if instants[later][:DATE] != hour[:DATE]:
                break
            if instants[later][:HOUR] == hour:
                keys[later] = f"{hour}~{instants[later]}"
    return keys


def _may_repeat(hour: str) -> bool:
    return hour[-2:] in NIGHT and date.fromisoformat(hour[:DATE]).weekday() == SUNDAY
