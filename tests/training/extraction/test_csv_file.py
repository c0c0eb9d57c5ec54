"""What is written is read back, by csv as well; what csv refuses is refused."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ghost.errors import DataError
from training.extraction import csv_file
from training.extraction.platform import Chat, Kind, Record

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
        return list(zip(*csv_file.read(path), strict=True))
    except DataError:
        return None


@given(st.lists(st.tuples(fields, fields), max_size=6))
@example([("NA", ""), ("null", "1.0"), (" a ", '"'), ("", ""), ("a\rb", "\r"), ("a", "\n\n")])
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "out" / "chat.csv"
    time = "2022-03-18T14:56:00"
    records = [Record(Chat("", "", False), time, sender, text, Kind.MESSAGE, 0) for sender, text in rows]
    csv_file.write(records, path)
    expected = [(time, sender, text.replace("\r\n", "\n")) for sender, text in rows]
    assert _read(path) == expected == _by_csv(path.read_bytes().decode())


@given(st.text(st.sampled_from('ab",,\n\n"\r'), max_size=24), st.sampled_from(["", "\ufeff"]))
@example('a,b,"x"y\n', "")
@example('a,b,x"y"\n', "")
@example('a,b,"x""y"\n"a",b,""\n', "\ufeff")
@example('a,b,""""\n', "")
@example('a,b,"",""\n', "")
@example("a,b\nc,d,e,f\n", "")
@example("a,b,c", "")
@example("a,b,c\n\n", "")
def test_of_any_text_it_reads_what_csv_reads_or_refuses_it_too(
    tmp_path_factory: pytest.TempPathFactory, text: str, start: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "chat.csv"
    path.write_text(start + HEADER + text, encoding="utf-8", newline="")
    assert _read(path) == _by_csv(HEADER + text)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b'a,b,"\xe9"\n', r"chat\.csv:2: not UTF-8"),
        (b'a,b,"c\n\nd"\na,b\n', r"chat\.csv:5: 2 fields, not 3"),
        (b'a,b,c\na,b,"c', r"chat\.csv:3: not readable as CSV"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, rows: bytes, said: str) -> None:
    (tmp_path / "chat.csv").write_bytes(HEADER.encode() + rows)
    with pytest.raises(DataError, match=said):
        csv_file.read(tmp_path / "chat.csv")
