from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import ExportError
from training.extraction.date_order import ASK, NAMES, Runs, decide, read_date


def runs(*dates: tuple[int, int, int]) -> Runs:
    return [(each, 1) for each in dates]


def test_one_impossible_day_decides_and_is_the_evidence() -> None:
    order = decide([((3, 4, 2022), 4117), ((13, 4, 2022), 3)], None, None, "chat.txt")
    assert order.order == "dmy"
    assert order.evidence == ("3 of 4,120 date headers fit only day/month, 0 fit only month/day: read as day/month")


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (runs((13, 4, 22)), "dmy"),
        (runs((4, 13, 22)), "mdy"),
        (runs((2022, 4, 3), (2022, 5, 6)), "ymd"),
        (runs((6, 2018, 13)), "mdy"),
        (runs((15, 1, 20), (16, 1, 20), (1, 2, 20)), "dmy"),  # as year/month/day it would start in 2001
    ],
)
def test_dates_that_decide_themselves(dates: Runs, expected: str) -> None:
    assert decide(dates, None, None, "chat.txt").order == expected


def test_dates_that_are_the_same_days_in_either_order_are_said_to_be() -> None:
    decided = decide(runs((3, 3, 2022), (4, 4, 2022)), None, None, "chat.txt")
    assert (decided.said, decided.either) == ("either", True)
    assert read_date((3, 3, 2022), decided.order) == date(2022, 3, 3)
    assert decide(runs((3, 3, 2022), (13, 4, 2022)), None, None, "chat.txt").said == "dmy"


def test_time_does_not_run_backwards() -> None:
    days = runs((10, 1, 2022), (11, 1, 2022), (12, 1, 2022), (1, 2, 2022), (2, 2, 2022))
    order = decide(days, None, None, "chat.txt")
    assert order.order == "dmy"
    assert "month/day runs backwards 1 times" in order.evidence


def test_undecidable_dates_ask_for_the_flag() -> None:
    with pytest.raises(ExportError) as caught:
        decide(runs((10, 12, 2024)), None, None, "data/raw/other.txt")
    assert str(caught.value) == f"data/raw/other.txt: every date fits both day/month and month/day.{ASK}"
    assert "--date-order dmy" in ASK
    assert "mdy" in ASK


def test_the_answer_breaks_ties() -> None:
    assert decide(runs((10, 12, 2024)), "mdy", "dmy", "chat.txt").order == "dmy"


@pytest.mark.parametrize(
    ("dates", "proven"),
    [
        (runs((10, 13, 2024)), "mdy"),
        ([((1, 5, 2022), 6), ((13, 1, 2022), 1)], "dmy"),
        (runs((1, 4, 21), (1, 5, 21), (1, 6, 21), (1, 7, 21), (1, 20, 21), (1, 21, 21)), "mdy"),
        # As day/month these would run backwards twice, as month/day they never do.
        (runs((1, 1, 2022), (1, 10, 2022), (2, 1, 2022), (2, 10, 2022), (3, 1, 2022), (3, 2, 2022)), "mdy"),
    ],
)
def test_a_file_that_proves_its_order_keeps_it(dates: Runs, proven: str) -> None:
    for answer in (None, *NAMES):
        assert decide(dates, None, answer, "chat.txt").order == proven


def test_an_answer_that_is_overruled_is_named_in_the_evidence() -> None:
    order = decide([((1, 5, 2022), 6), ((13, 1, 2022), 1)], None, "mdy", "chat.txt")
    assert order.evidence.endswith("read as day/month; --date-order mdy fits only 6")


@pytest.mark.parametrize(
    ("parts", "order", "expected"),
    [
        ((1400, 9, 4), "ymd", date(2021, 11, 25)),
        ((4, 9, 1400), "dmy", date(2021, 11, 25)),
        ((9, 4, 1400), "mdy", date(2021, 11, 25)),
        ((1399, 12, 30), "ymd", date(2021, 3, 20)),
        ((1400, 12, 30), "ymd", None),  # no leap year
        ((1403, 1, 31), "ymd", date(2024, 4, 19)),
        ((1403, 7, 31), "ymd", None),
        ((1403, 13, 1), "ymd", None),
        ((1443, 4, 20), "ymd", None),  # Islamic: its days depend on the country
        ((5782, 9, 21), "ymd", None),
    ],
)
def test_persian_years_become_ours_and_others_are_no_dates(
    parts: tuple[int, int, int], order: str, expected: date | None
) -> None:
    assert read_date(parts, order) == expected


def test_years_of_another_calendar_are_named() -> None:
    with pytest.raises(ExportError, match=r"the year 1443 is of another calendar. Set the phone to the Gregorian"):
        decide(runs((1443, 4, 20), (1443, 4, 21)), None, None, "chat.txt")


def test_a_file_that_mostly_contradicts_the_answer_goes_by_its_dates() -> None:
    order = decide([((4, 14, 2022), 5), ((1, 5, 2022), 2)], None, "dmy", "chat.txt")
    assert order.order == "mdy"
    assert order.evidence.endswith("read as month/day; --date-order dmy fits only 2")


def test_contradicting_days_are_put_to_the_vote() -> None:
    order = decide([((13, 4, 2022), 5), ((4, 14, 2022), 2)], None, None, "chat.txt")
    assert order.order == "dmy"
    assert order.evidence == (
        "5 of 7 date headers fit only day/month, 2 fit only month/day: read as day/month by majority"
    )


def test_a_tied_vote_asks_for_the_flag() -> None:
    with pytest.raises(ExportError, match="2 of 3 date headers fit day/month and month/day, each") as caught:
        decide(runs((1, 1, 2022), (13, 4, 2022), (4, 14, 2022)), None, None, "chat.txt")
    assert "--date-order" in str(caught.value)


def test_the_headers_style_comes_last() -> None:
    order = decide(runs((10, 12, 2024)), "dmy", None, "chat.txt")
    assert order.order == "dmy"
    assert "style" in order.evidence


def test_no_date_at_all_is_an_error() -> None:
    with pytest.raises(ExportError, match="none of its 1 date headers is a date"):
        decide(runs((45, 45, 2022)), None, None, "chat.txt")


@given(
    st.lists(st.dates(date(2010, 1, 1), date(2025, 12, 31)), min_size=1, max_size=30),
    st.sampled_from(["dmy", "mdy", "ymd"]),
)
def test_a_decision_by_impossible_days_gives_the_dates_back(days: list[date], order: str) -> None:
    numbers = [{"d": day.day, "m": day.month, "y": day.year} for day in days]
    dates = runs(*((each[order[0]], each[order[1]], each[order[2]]) for each in numbers))
    readings = {each: [read_date(parts, each) for parts, _ in dates] for each in NAMES}
    assert readings[order] == days
    try:
        decided = decide(dates, None, None, "chat.txt")
    except ExportError:
        assert readings["dmy"] != readings["mdy"]  # only what can be read in two ways is asked about
    else:
        assert "fit only" not in decided.evidence or readings[decided.order] == days


def test_dates_that_do_not_exist_without_a_long_year_are_named() -> None:
    with pytest.raises(ExportError, match="none of its 2 date headers is a date; is this a chat export"):
        decide([((3, 13, 2), 2)], None, "dmy", "chat.txt")
