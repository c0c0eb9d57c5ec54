"""ISO 8601 texts → instants in UTC, with the times of clocks that were put back told apart."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"
# What `ghost extract` writes, digit for digit; pandas reads everything else.
NAIVE, AWARE = "2022-03-18T14:56:00", "2022-03-18T14:56:00+01:00"

Instants = NDArray[np.datetime64]  # datetime64[us]
Mask = NDArray[np.bool_]


def instants(stamps: Sequence[str], chats: NDArray[np.int64], zone: ZoneInfo) -> tuple[Instants, Mask]:
    """The instants, NaT where a text is unreadable, and which of the texts have no offset and are placed in `zone`.

    `chats` holds the number of each text's chat; the texts of one chat are in the order of its file.
    """
    instant: Instants = np.full(len(stamps), "NaT", "datetime64[us]")
    is_naive = np.zeros(len(stamps), bool)
    widths = np.fromiter(map(len, stamps), np.int64, len(stamps))
    is_left = np.ones(len(stamps), bool)
    for form in (NAIVE, AWARE):
        rows = np.flatnonzero(widths == len(form))
        read = _read(_at(stamps, rows), form)
        if read is not None:
            instant[rows], is_naive[rows], is_left[rows] = read, form == NAIVE, False
    if is_left.any():
        rows = np.flatnonzero(is_left)
        texts = pd.Series(_at(stamps, rows), dtype=object)
        utc = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        instant[rows] = utc.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        is_naive[rows] = ~texts.str.contains(OFFSET)
    placed = np.flatnonzero(is_naive & ~np.isnat(instant))
    instant[placed] = _place(instant[placed], chats[placed], zone)
    return instant, is_naive


def _at(stamps: Sequence[str], rows: NDArray[np.int64]) -> Sequence[str]:
    return stamps if len(rows) == len(stamps) else list(map(stamps.__getitem__, rows.tolist()))


def _read(stamps: Sequence[str], form: str) -> Instants | None:
    """All of these texts, in UTC or, without an offset, as they stand; None when one is not of the form."""
    joined = "".join(stamps)
    if not joined.isascii():
        return None
    texts = np.frombuffer(joined.encode(), np.uint8).reshape(-1, len(form))
    for column, sample in zip(texts.T, form, strict=True):
        if not ((column - ord("0") < 10) if sample.isdigit() else (column == ord(sample)) | (sample == "+")).all():
            return None
    if (texts[:, 0] == ord("0")).any():  # before the year 1000: whatever it means, pandas decides
        return None
    try:
        local = np.ascontiguousarray(texts[:, : len(NAIVE)]).view(f"S{len(NAIVE)}")[:, 0].astype("datetime64[us]")
    except ValueError:
        return None
    if form == NAIVE or not len(local):
        return local
    offsets = np.ascontiguousarray(texts[:, len(NAIVE) :]).view(f"S{len(AWARE) - len(NAIVE)}")[:, 0]
    known, which = (offsets[:1], 0) if (offsets == offsets[0]).all() else np.unique(offsets, return_inverse=True)
    try:
        utc: Instants = local - np.array(list(map(_offset, known.tolist())), "timedelta64[us]")[which]
    except ValueError:
        return None
    return utc


def _offset(text: bytes) -> timedelta:
    """`+01:00`. Raises ValueError on what is none."""
    shift = datetime.strptime(text.decode(), "%z").utcoffset()
    return shift or timedelta(0)


def _place(local: Instants, chats: NDArray[np.int64], zone: ZoneInfo) -> Instants:
    """Local times in UTC; one that a clock put forward skips is the moment at which it was."""
    index = pd.DatetimeIndex(local)
    placed = index.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    if placed.hasnans:
        is_first = np.ones(len(local), bool)
        is_first[_second_passes(local, chats, np.flatnonzero(placed.isna()))] = False
        placed = index.tz_localize(zone, ambiguous=is_first, nonexistent="shift_forward")
    return placed.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")


def _second_passes(local: Instants, chats: NDArray[np.int64], repeated: NDArray[np.int64]) -> list[int]:
    """Which of the rows in a repeated hour are of its second pass.

    Only the file's order tells: 02:50 is followed by 02:15, and from there on the hour is in its second pass. Of an
    hour with several steps back, or with other times in between, as where two exports were put together, the file's
    order tells nothing, and it is left in its first pass.
    """
    hours: dict[tuple[int, np.datetime64], list[int]] = {}
    for row in repeated.tolist():
        hours.setdefault((int(chats[row]), local[row].astype("datetime64[D]")), []).append(row)
    found: list[int] = []
    for rows in hours.values():
        steps = [number for number, (one, two) in enumerate(pairwise(rows), start=1) if local[two] < local[one]]
        if len(steps) == 1 and rows[steps[0]] == rows[steps[0] - 1] + 1:
            found += rows[steps[0] :]
    return found
