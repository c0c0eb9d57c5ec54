from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import ExportError
from tests.training.extraction.exports import save
from training.extraction.date_order import ASK, NAMES, Runs, decide, read_date
from training.extraction.platform import Kind, Record
from training.extraction.platforms import whatsapp
from training.extraction.source import Source


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


# Two exports put together in one file keep their own order of day and month; one stray line does not make two.


def lines(*dates: str, clock: str = "14:56", dash: str = " - ") -> str:
    return "".join(f"{date}, {clock}{dash}Lea: {date}\n" for date in dates)


def read(folder: Path, text: str, answer: str | None = None) -> tuple[list[Record], dict[str, str]]:
    reading = whatsapp.read(Source(save(folder, text)), answer)
    return list(reading.records), dict(reading.facts)


def days(records: list[Record]) -> list[str]:
    return [record.timestamp[:10] for record in records]


DAY_FIRST = ("13/03/2022", "14/03/2022", "02/04/2022")
MONTH_FIRST = ("05/06/2022", "05/21/2022", "05/22/2022")


def test_the_order_changes_where_time_then_runs_on(tmp_path: Path) -> None:
    records, facts = read(tmp_path, lines(*DAY_FIRST, *MONTH_FIRST))
    assert days(records) == ["2022-03-13", "2022-03-14", "2022-04-02", "2022-05-06", "2022-05-21", "2022-05-22"]
    assert facts["date_order"] == "dmy, then mdy"
    assert facts["evidence"].count("date headers fit only") == 2


def test_a_change_of_spelling_is_a_seam_even_without_proof_of_the_order(tmp_path: Path) -> None:
    text = lines(*DAY_FIRST) + lines("5/6/22", "5/7/22", clock="2:56 PM")
    records, facts = read(tmp_path, text)
    assert days(records)[3:] == ["2022-05-06", "2022-05-07"]  # the United States' spelling: month first
    assert facts["date_order"] == "dmy, then mdy"


def test_each_part_asks_for_itself(tmp_path: Path) -> None:
    text = lines(*DAY_FIRST) + lines("05/06/22", "05/06/22")
    with pytest.raises(ExportError, match="--date-order"):
        read(tmp_path, text)
    records, facts = read(tmp_path, text, "mdy")
    assert days(records)[3:] == ["2022-05-06"] * 2
    assert facts["date_order"] == "dmy, then mdy"


@pytest.mark.parametrize("stray", ["05/21/2022", "05/21/22"])
def test_one_stray_line_is_no_second_export(tmp_path: Path, stray: str) -> None:
    records, facts = read(tmp_path, lines(*DAY_FIRST, stray))
    assert facts["date_order"] == "dmy"
    assert [record.kind for record in records] == [Kind.MESSAGE] * 3 + [Kind.UNREADABLE]
    assert records[-1].position == 4


def test_orders_that_alternate_are_read_by_majority(tmp_path: Path) -> None:
    records, facts = read(tmp_path, lines("13/03/2022", "03/14/2022", "15/03/2022", "03/16/2022", "17/03/2022"))
    assert facts["date_order"] == "dmy"
    assert [record.position for record in records if record.kind is Kind.UNREADABLE] == [2, 4]


def test_years_that_android_left_out_follow_from_the_ones_before(tmp_path: Path) -> None:
    text = "".join(f"17:03, {date} - Lea: a\n" for date in ("9 Sep 2014", "2 Dec 2014", "9 Jan", "3 Feb"))
    assert days(read(tmp_path, text)[0]) == ["2014-09-09", "2014-12-02", "2015-01-09", "2015-02-03"]
    with pytest.raises(ExportError, match=r"2 date headers have no year .* add it to the file's first"):
        read(tmp_path, "17:03, 9 Jan - Lea: a\n17:04, 9 Jan - Lea: b\n".replace("9 Jan - Lea: b", "3 Feb - Lea: b"))


def test_a_header_that_the_sample_did_not_hold_is_found(tmp_path: Path) -> None:
    """Blocks are cut by the spellings of a file's beginning, middle and end; the grammar finds what they lack."""
    common = "13/03/2022, 14:56 - Lea: hello\n" * 20_000
    odd = "13/03/2022, 2:56 p.\u00a0m. - Marc: odd\n"
    records, _ = read(tmp_path, common[:200_000] + common[200_000 : 31 * 8_000] + odd + common)
    assert sum(record.sender == "Marc" for record in records) == 1
    assert [record.timestamp for record in records if record.sender == "Marc"] == ["2022-03-13T14:56:00"]
    assert len(records) == 8_000 + 1 + 20_000


def test_lines_are_counted_through_all_blocks(tmp_path: Path) -> None:
    filler = "13/03/2022, 14:56 - Lea: two\nlines\n" * 80_000  # more than one block
    records, _ = read(tmp_path, filler + "13/03/2022, 14:56 - Lea: a\n99/99/2022, 14:56 - Lea: b\n")
    (unreadable,) = [record for record in records if record.kind is Kind.UNREADABLE]
    assert unreadable.position == 160_000 + 2
