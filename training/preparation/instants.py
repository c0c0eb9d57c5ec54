"""ISO 8601 texts → instants in UTC, with the times of clocks that were put back told apart."""

from collections.abc import Sequence
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"

Instants = NDArray[np.datetime64]  # datetime64[us]
Mask = NDArray[np.bool_]


def instants(stamps: Sequence[str], chats: NDArray[np.int64], zone: ZoneInfo) -> tuple[Instants, Mask]:
    """The instants, NaT where a text is unreadable, and which of the texts have no offset and are placed in `zone`.

    `chats` holds the number of each text's chat; the texts of one chat are in the order of its file.
    """
    texts = pd.Series(stamps, dtype=object)
    utc = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    instant: Instants = utc.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    is_naive: Mask = (~texts.str.contains(OFFSET)).to_numpy(bool)
    placed = np.flatnonzero(is_naive & ~np.isnat(instant))
    instant[placed] = _place(instant[placed], chats[placed], zone)
    return instant, is_naive


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
