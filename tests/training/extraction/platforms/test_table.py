import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.csv_file import COLUMNS
from training.extraction.platform import Kind, Record
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source

HEADER = "timestamp,sender,message\n"
NOON = "2022-03-18T12:00:00"
TABLE = PLATFORMS["table"]


def read(folder: Path, text: str | bytes, name: str = "chat.csv") -> list[Record]:
    return list(TABLE.read(Source(save(folder, text, name)), None).records)


def facts(folder: Path, text: str) -> dict[str, str]:
    return dict(TABLE.read(Source(save(folder, text, "chat.csv")), None).facts)


TIMES = st.sampled_from(
    (NOON, f"{NOON}+01:00", "2022-03-18T12:00:00.123+00:00", "2022-03-18T12:00:00.123456-03:30", "1999-12-31T23:59:59")
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text('a,;"\t\r\n', min_size=1)
NAME = TEXT.filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TIMES, NAME, TEXT), max_size=6))
def test_what_we_write_reads_back_equal(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")  # as csv_file.write
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    found = records(save(tmp_path, written.getvalue(), "chat.csv"))
    assert [each[1:4] for each in found] == rows
    assert {each.kind for each in found} <= {Kind.MESSAGE}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TIMES, NAME, TEXT), min_size=1, max_size=6), st.booleans())
def test_json_lines_read_back_equal(tmp_path: Path, rows: list[tuple[str, str, str]], ascii_only: bool) -> None:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=ascii_only) for row in rows]
    assert [each[1:4] for each in records(save(tmp_path, "\n".join(lines), "chat.jsonl"))] == rows


def test_a_row_without_a_sender_is_counted(tmp_path: Path) -> None:
    found = records(save(tmp_path, f"{HEADER}{NOON},,hi\n{NOON}, ,yo\n{NOON},Lea,ho\n", "chat.csv"))
    assert [(each.kind, each.position) for each in found[:2]] == [(Kind.UNREADABLE, 2), (Kind.UNREADABLE, 3)]
    assert found[2].kind is Kind.MESSAGE


def test_a_chat_is_named_after_its_file(tmp_path: Path) -> None:
    (record,) = records(save(tmp_path, f"{HEADER}{NOON},Lea,hi\n", "Trip to Rome.csv"))
    assert (record.chat.key, record.chat.title, record.chat.is_id) == ("trip to rome", "Trip to Rome", False)


def test_our_own_output_keeps_chats_of_one_name_apart(tmp_path: Path) -> None:
    save(tmp_path, "{}", "extraction_report.json")
    chats = [records(save(tmp_path, f"{HEADER}{NOON},Lea,hi\n", f"{name}/Lea.csv"))[0].chat for name in ("line", "sms")]
    assert [(chat.key, chat.title, chat.is_id) for chat in chats] == [
        ("line/lea", "Lea", True),
        ("sms/lea", "Lea", True),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: str, newline: str) -> None:
    rows = [COLUMNS, (NOON, '"Lea"', '"one\ntwo, ""three"";\t"'), (NOON, "Bob", "x")]
    text = newline.join(delimiter.join(row) for row in rows).replace("one\n", f"one{newline}")
    found = records(save(tmp_path, text, "chat.csv"))
    assert [(each.sender, each.text, each.position) for each in found] == [
        ("Lea", 'one\ntwo, "three";\t', 2),
        ("Bob", "x", 4),
    ]


def test_columns_go_by_other_names_and_others_are_ignored_by_name(tmp_path: Path) -> None:
    text = f'\ufeffid,"From",Body,datetime\n1,Lea,hi,{NOON}\n'
    assert [each[1:4] for each in records(save(tmp_path, text, "chat.csv"))] == [(NOON, "Lea", "hi")]
    assert facts(tmp_path, text) == {"delimiter": "commas", "columns": "datetime, From, Body", "ignored_columns": "id"}


def test_the_own_name_of_a_column_wins(tmp_path: Path) -> None:
    text = f"date,timestamp,sender,name,message,text\nx,{NOON},Lea,y,hi,z\n"
    assert [each[1:4] for each in records(save(tmp_path, text, "chat.csv"))] == [(NOON, "Lea", "hi")]


@pytest.mark.parametrize(
    "header", ["date,time,from,text", "timestamp,sender", "timestamp,sender,message,message", "a", ""]
)
def test_a_header_that_leaves_a_question_is_nobodys(tmp_path: Path, header: str) -> None:
    path = save(tmp_path, f"{header}\n1,2,3,4\n", "chat.txt")
    assert recognise(Source(path)) is None
    with pytest.raises(ExportError, match="one column each for timestamp, sender and message"):
        TABLE.read(Source(path), None)


@pytest.mark.parametrize("header", ["id,msg,is_sender,CreateTime", "\ufeffid;msg;is_sender;CreateTime", "id\tmsg"])
def test_other_columns_are_named_beside_those_that_are_needed(tmp_path: Path, header: str) -> None:
    path = save(tmp_path, f"{header}\n1,hello,0,5\n", "dump.csv")
    with pytest.raises(
        ExportError, match=r"columns are id, msg.*needs one column each for timestamp, sender"
    ) as caught:
        recognise(Source(path))
    assert "hello" not in str(caught.value)


def test_a_table_without_a_header_shows_nobodys_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="names no columns; it needs one column each") as caught:
        recognise(Source(save(tmp_path, f"{NOON},Lea,our secret\n", "chat.csv")))
    assert "secret" not in str(caught.value)


def test_a_spreadsheet_is_named_as_one(tmp_path: Path) -> None:
    for start, name in ((b"PK\x03\x04", "xlsx"), (b"\xd0\xcf\x11\xe0\xa1\xb1", "xls")):
        with pytest.raises(ExportError, match=rf"a spreadsheet \({name}\).*save it as CSV"):
            recognise(Source(save(tmp_path, start + bytes(200), "chat.csv")))


@pytest.mark.parametrize(
    "written",
    [
        "3/2/2025 18:00",
        "03.02.2025 18:00",
        "3/2/25 6:00 PM",
        "2025/02/03 18:00",
        "03-02-2025 18:00:05",
        "03-Feb-25 18:00",
        "45691.75",
    ],
)
def test_times_that_a_spreadsheet_rewrote_are_said(tmp_path: Path, written: str) -> None:
    path = save(tmp_path, f"{HEADER}{NOON},Lea,hi\n{written},Lea,ho\n", "chat.csv")
    reading = TABLE.read(Source(path), None).records
    assert [next(reading).kind, next(reading).kind] == [Kind.MESSAGE, Kind.UNREADABLE]
    with pytest.raises(ExportError, match=f"times like {written}.*needed are times like 2024-"):
        next(reading)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2022-03-18 12:00", NOON),
        ("2022-03-18T12:00:00.9", NOON),
        ("20220318T120000Z", f"{NOON}+00:00"),
        (f"{NOON}.123Z", "2022-03-18T12:00:00.123000+00:00"),
        (f" {NOON} ", NOON),
        ("1600000000", "2020-09-13T12:26:40+00:00"),
        ("1600000000123", "2020-09-13T12:26:40.123+00:00"),
    ],
)
def test_timestamps(tmp_path: Path, written: str, expected: str) -> None:
    assert read(tmp_path, f"{HEADER}{written},Lea,hi")[0].timestamp == expected


@pytest.mark.parametrize(
    "written", ["", "soon", "2022-03-18", "18/03/2022", "2022-02-30T12:00", "0001-01-01T00:00+14:00", "16"]
)
def test_a_row_without_a_time_is_unreadable(tmp_path: Path, written: str) -> None:
    (record,) = read(tmp_path, f"{HEADER}{written},Lea,hi")
    assert (record.kind, record.position) == (Kind.UNREADABLE, 2)


def test_broken_rows_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = f'{NOON},Lea,"a\nb"\n'
    few, many, typed = f"{NOON},Lea\n", f'{NOON},Lea,"a\nb",c\n', f'{NOON},Lea,he said "hi"\n'
    rest = f'{NOON},"L"ea,x\n\n{NOON},Lea,\n\0\0\n{good}'
    found = read(tmp_path, HEADER + good + few + many + typed + rest)
    assert [(each.kind, each.position) for each in found] == [
        (Kind.MESSAGE, 2),
        (Kind.UNREADABLE, 4),
        (Kind.UNREADABLE, 5),
        (Kind.MESSAGE, 7),
        (Kind.UNREADABLE, 8),
        (Kind.EMPTY, 10),
        (Kind.UNREADABLE, 11),
        (Kind.MESSAGE, 12),
    ]
    assert found[3].text == 'he said "hi"'


def test_a_quote_that_nothing_closes_ends_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, f'{HEADER}{NOON},Lea,hi\n{NOON},Lea,"never\n{NOON},Lea,hi\n', "chat.csv")
    reading = TABLE.read(Source(path), None).records
    assert next(reading).text == "hi"
    with pytest.raises(ExportError, match="line 3 opens a quote"):
        next(reading)


def test_broken_json_lines_are_listed(tmp_path: Path) -> None:
    row = {"timestamp": 1600000000, "sender": "Lea", "message": "\ud83d\ude06\ud83d"}
    lines = [
        json.dumps(row),
        "",
        "{",
        "[]",
        "7",
        json.dumps(row | {"message": None}),
        json.dumps(row | {"timestamp": True}),
    ]
    found = records(save(tmp_path, "\n".join(lines), "chat.jsonl"))
    assert [(each.kind, each.position) for each in found] == [
        (Kind.MESSAGE, 1),
        *((Kind.UNREADABLE, n) for n in range(3, 8)),
    ]
    assert found[0].text == "😆\ufffd"


def test_json_of_another_shape_is_nobodys(tmp_path: Path) -> None:
    row = {"timestamp": NOON, "sender": "Lea", "message": "hi"}
    assert recognise(Source(save(tmp_path, json.dumps(row, indent=1), "a.json"))) is None
    assert recognise(Source(save(tmp_path, json.dumps({"rows": [row]}), "b.json"))) is None
    with pytest.raises(ExportError, match="rename its keys"):
        read(tmp_path, '{"when": 1}\n', "c.jsonl")


def test_a_header_alone_holds_nothing(tmp_path: Path) -> None:
    assert records(save(tmp_path, HEADER.strip(), "chat.csv")) == []


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    text = "ab " * 3_500_000
    assert [each.text for each in records(save(tmp_path, f'{HEADER}{NOON},Lea,"{text}"\n', "chat.csv"))] == [text]


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"not UTF-8 at byte .*save it as UTF-8"):
        read(tmp_path, f"{HEADER}{NOON},Léa,hi".encode("latin-1"))
    assert read(tmp_path, f"{HEADER}{NOON},Léa,hi".encode("utf-16"))[0].sender == "Léa"
