"""Two exports put together in one file keep their own order of day and month; one stray line does not make two."""

from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import save
from training.extraction.platform import Kind, Record
from training.extraction.platforms import whatsapp
from training.extraction.source import Source


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
