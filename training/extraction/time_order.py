"""Messages in the order of time, whatever mixture of local and absolute times their exports give."""

from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import compress, groupby, islice
from operator import gt, itemgetter, le

from training.extraction.record import Record

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
    timestamps = [record.timestamp for record in messages]
    if _in_order(timestamps):
        return messages
    instants = _instants(timestamps)
    if not is_merged:
        instants = _second_pass_later(instants)
    return [messages[index] for index in sorted(range(len(messages)), key=instants.__getitem__)]


def _in_order(timestamps: list[str]) -> bool:
    """Whether time never steps back, as in nearly every export; False where that takes a closer look.

    Timestamps of one width and one offset compare as text; the offset changes but twice a year.
    """
    widths = set(map(len, timestamps))
    if len(widths) > 1:
        return False
    if widths == {NAIVE}:
        return all(map(le, timestamps, islice(timestamps, 1, None)))
    last = ""
    for _, same in groupby(timestamps, key=itemgetter(slice(-OFFSET, None))):
        run = list(same)
        first = instant(run[0])
        if first < last or not all(map(le, run, islice(run, 1, None))):
            return False
        last = instant(run[-1])
    return True


def _instants(timestamps: list[str]) -> list[str]:
    """Text that sorts as the instants do; naive times stay as they are."""
    return timestamps if max(map(len, timestamps)) <= NAIVE else list(map(instant, timestamps))


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
    steps = compress(range(1, len(instants)), map(gt, instants, islice(instants, 1, None)))
    repeated = ""
    for step in steps:
        here, hour = instants[step], instants[step][:HOUR]
        if hour != instants[step - 1][:HOUR] or hour == repeated or len(here) > NAIVE or not _may_repeat(hour):
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
