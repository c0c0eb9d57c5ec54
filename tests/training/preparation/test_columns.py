"""Cutting a file as a whole reads what csv reads, and what it cannot be sure of it leaves to csv."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.errors import DataError
from training.preparation import columns

HEADER = "timestamp,sender,message\n"
fields = st.text(st.sampled_from('a"",\n\r \0é\u2028\x85\ufeffNA0'), max_size=8) | st.text(max_size=8)
fields = fields.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


def _by_csv(content: str) -> list[tuple[str, ...]] | None:
    try:
        rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))[1:]
    except csv.Error:
        return None
    if any(len(row) != 3 for row in rows):
        return None
    return [(time, sender, message.replace("\r\n", "\n")) for time, sender, message in rows]


def _read(path: Path) -> list[tuple[str, ...]] | None:
    try:
        return list(zip(*columns.read(path), strict=True))
    except DataError:
        return None


@given(st.lists(st.tuples(fields, fields, fields), max_size=6), st.sampled_from(["\n", "\r\n"]))
@example([("007", "NA", ""), ("", "null", "1.0"), ("nan", " a ", '"')], "\n")
@example([("", "", "")], "\n")
def test_what_csv_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list, end: str) -> None:  # type: ignore[type-arg]
    path = tmp_path_factory.mktemp("csv") / "chat.csv"
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=end).writerows([columns.HEADER, *rows])
    path.write_text(written.getvalue(), encoding="utf-8", newline="")
    # csv quotes a lone CR only where a line ends in one, and then reads it as the end of a row.
    expected = [(time, sender, message.replace("\r\n", "\n")) for time, sender, message in rows]
    assert _read(path) == (expected if end == "\r\n" else _by_csv(written.getvalue()))


@given(st.text(st.sampled_from('ab",,\n\n"\r'), max_size=24))
@example('a,b,"x"y\n')
@example('a,b,x"y"\n')
@example('a,b,"x""y"\n"a",b,""\n')
@example('a,b,""""\n')
@example('a,b,"",""\n')
@example("a,b\nc,d,e,f\n")
@example("a,b,c")
@example("a,b,c\n\n")
def test_of_any_text_it_reads_what_csv_reads_or_refuses_it_too(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "chat.csv"
    path.write_text(HEADER + text, encoding="utf-8", newline="")
    assert _read(path) == _by_csv(HEADER + text)


@pytest.mark.parametrize("text", ["a,b,c\n", 'a,"b,""B""","c\nd"\n', "a,b,\n", 'a,b,"\n\n"\n'])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path, text: str) -> None:
    for start in ("", "\ufeff"):
        (tmp_path / "chat.csv").write_text(start + HEADER + text, encoding="utf-8", newline="")
        assert _read(tmp_path / "chat.csv") == _by_csv(HEADER + text)


def test_bytes_that_are_no_text_are_found_between_quotes_too(tmp_path: Path) -> None:
    (tmp_path / "chat.csv").write_bytes(HEADER.encode() + b'a,b,"\xe9"\n')
    with pytest.raises(DataError, match=r"chat\.csv:2: not UTF-8"):
        columns.read(tmp_path / "chat.csv")
