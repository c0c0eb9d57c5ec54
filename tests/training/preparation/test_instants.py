"""Texts to instants: the quick reading equals pandas', and the hour that a clock repeats keeps its order."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.preparation.dataset import instants

PARIS = ZoneInfo("Europe/Paris")
UTC_ZONE = ZoneInfo("UTC")


def _utc(stamps: list[str], zone: ZoneInfo = UTC_ZONE, chats: list[int] | None = None) -> list[datetime | None]:
    found, _ = instants(stamps, np.array(chats or [0] * len(stamps)), zone)
    return [None if np.isnat(one) else one.astype(datetime).replace(tzinfo=UTC) for one in found]


offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9998, 12, 28), timezones=st.none() | offsets)


@given(st.lists(times.map(lambda time: time.replace(microsecond=0)), max_size=8))
def test_the_quick_reading_is_pythons(moments: list[datetime]) -> None:
    expected = [moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC) for moment in moments]
    assert _utc([moment.isoformat() for moment in moments]) == expected


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-03-01T12:00:00",
        "2024-03-01T12:00:00+01:00",
        "2024-03-01T12:00:00-00:30",
        "2024-03-01T12:00:00Z",
        "2024-03-01T12:00:00.250",
        "2024-03-01T12:00:00.123456+02:00",
        "2024-03-01 12:00:00",
        "2024-03-01T12:00",
        "2024-03-01",
        "20240301T120000",
        "2024-02-30T12:00:00",
        "2024-13-01T12:00:00",
        "2024-03-01T24:00:00",
        "2024-03-01T12:60:00",
        "2024-03-01T12:00:0x",
        "2024-03-01x12:00:00",
        "2024-03-01T12:00:00x01:00",
        "2024-03-01T12:00:00+99:00",
        "2024-03-01T12:00:00+0100",
        "2024-03-01T12:00+01",
        "٢٠٢٤-03-01T12:00:00",
        "yesterday",
        "",
    ],
)
def test_every_other_form_is_what_pandas_makes_of_it(stamp: str) -> None:
    alone = pd.to_datetime(pd.Series([stamp], dtype=object), format="ISO8601", utc=True, errors="coerce")[0]
    expected = None if alone is pd.NaT else alone.to_pydatetime()
    assert _utc([stamp]) == [expected]
    good = datetime(2020, 1, 1, tzinfo=UTC)
    beside = ["2020-01-01T00:00:00", "2020-01-01T00:00:00+00:00"]
    assert _utc([*beside, stamp, *beside]) == [good, good, expected, good, good]


def _minutes_after_midnight(stamps: list[str], chats: list[int] | None = None) -> list[float]:
    """Of the night to the 27th of October 2024, when Paris has the hour from two to three twice. UTC."""
    midnight = datetime(2024, 10, 27, tzinfo=UTC)
    found = _utc([f"2024-10-27T{stamp}:00" if len(stamp) == 5 else stamp for stamp in stamps], PARIS, chats)
    return [(one - midnight) / timedelta(minutes=1) for one in found if one]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (["01:59", "02:50", "02:05", "03:00"], [-1, 50, 65, 120]),
        # Later than everything of the first pass, and still of the second.
        (["02:50", "02:05", "02:20", "02:55", "03:10"], [50, 65, 80, 115, 130]),
        # Without a step back nothing tells that the hour came twice.
        (["02:05", "02:50", "03:10"], [5, 50, 130]),
        (["02:05", "02:05"], [5, 5]),
        # Not in time order at all: newest first.
        (["03:10", "02:50", "02:20", "02:05"], [130, 50, 20, 5]),
        # Two exports, one behind the other: the step back is where they meet.
        (["02:05", "02:50", "03:10", "02:20", "03:20"], [5, 50, 130, 20, 140]),
        # Where the export knows the offset there is nothing to tell; it neither starts the second pass nor ends it.
        (["02:50", "2024-10-27T02:10:00+02:00", "02:55"], [50, 10, 55]),
        (["02:50", "2024-10-27T02:59:00+01:00", "02:05", "02:55"], [50, 119, 65, 115]),
    ],
)
def test_the_second_pass_of_an_hour_starts_at_the_step_back(stamps: list[str], expected: list[float]) -> None:
    assert _minutes_after_midnight(stamps) == expected


def test_each_chat_has_its_own_step_back() -> None:
    assert _minutes_after_midnight(["02:50", "02:05", "02:20", "02:55"], [0, 1, 1, 1]) == [50, 5, 20, 55]
    assert _minutes_after_midnight(["02:50", "02:05", "02:20", "02:10"], [0, 0, 1, 1]) == [50, 65, 20, 70]


def test_every_autumn_has_its_own_step_back() -> None:
    stamps = ["2023-10-29T02:50:00", "2024-10-27T02:10:00", "2024-10-27T02:05:00"]
    assert _utc(stamps, PARIS) == [
        datetime(2023, 10, 29, 0, 50, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 10, tzinfo=UTC),
        datetime(2024, 10, 27, 1, 5, tzinfo=UTC),
    ]


def test_a_time_that_a_clock_skipped_is_the_moment_it_was_put_forward() -> None:
    assert _utc(["2024-03-31T02:30:00"], PARIS) == [datetime(2024, 3, 31, 1, tzinfo=UTC)]
