"""The stretch of time that the chats cover, cut into months: the axis of the report's plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

Times = npt.NDArray[np.datetime64]

SHORT = np.timedelta64(62, "D")  # a history of at most this is cut into days
LABELS = 4  # as many as fit on a phone


@dataclass(frozen=True)
class Timeline:
    """Months, or days, from that of the first instant to that of the last, on the clock of `zone`."""

    cells: Times
    zone: ZoneInfo

    @classmethod
    def of(cls, instants: "pd.Series[pd.Timestamp]", zone: ZoneInfo) -> "Timeline":
        ends = _local(pd.DatetimeIndex([instants.min(), instants.max()]), zone)
        unit = "D" if ends[1] - ends[0] <= SHORT else "M"
        first, last = ends.astype(f"datetime64[{unit}]")
        return cls(np.arange(first, last + 1), zone)

    @property
    def names(self) -> list[str]:
        """ISO 8601: 2024-03, or 2024-03-31."""
        return [str(cell) for cell in self.cells]

    @property
    def ticks(self) -> dict[int, str]:
        """Labels by cell: years where there are a few, otherwise months or days."""
        names = self.names
        years = [index for index, name in enumerate(names) if name.endswith("-01") and self.cells.dtype == "M8[M]"]
        if len(years) > 2:
            return {index: names[index][:4] for index in years[:: -(-len(years) // LABELS)]}
        step = -(-len(names) // LABELS)
        return {index: names[index] for index in range(0, len(names), step)}

    def count(self, instants: "pd.Series[pd.Timestamp]") -> list[int]:
        """How many of them are in each cell."""
        touched = _local(pd.DatetimeIndex(instants), self.zone).astype(self.cells.dtype)
        counts: list[int] = np.bincount((touched - self.cells[0]).astype(int), minlength=len(self.cells)).tolist()
        return counts

    def shares(self, instants: Sequence[pd.Timestamp]) -> list[float]:
        """Where on the axis each is, between 0 and 1."""
        begin, end = (edge.astype("datetime64[s]") for edge in (self.cells[0], self.cells[-1] + 1))
        shares: list[float] = ((_local(pd.DatetimeIndex(list(instants)), self.zone) - begin) / (end - begin)).tolist()
        return shares


def _local(instants: pd.DatetimeIndex, zone: ZoneInfo) -> Times:
    return instants.tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[s]")
