from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind, Record
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source

SAMPLES = Path(__file__).parents[5] / "shared/formats/line"
HEAD = "[LINE] Chat history with Lea\nSaved on: 2024/01/03 09:00\n\n"
DAY = "2024.01.02 Tuesday\n"


def read(folder: Path, text: str | bytes) -> list[Record]:
    return records(save(folder, text, "[LINE] chat.txt"))


def texts(folder: Path, *lines: str) -> list[str]:
    return [each.text for each in read(folder, HEAD + DAY + "\n".join(lines) + "\n") if each.kind is Kind.MESSAGE]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("[LINE] Chat history with Lea", "Lea"),
        ("[LINE] Chat history in Trip to Rome", "Trip to Rome"),
        ("[LINE] 山田のトーク履歴", "山田"),
        ("[LINE] 山田とのトーク履歴", "山田"),
        ("[LINE] 與小美的聊天記錄", "小美"),
        ("[LINE] 与小美的聊天记录", "小美"),
        ("[LINE] ประวัติการสนทนากับ Lea", "Lea"),
        ("ประวัติการสนทนากับ Lea", "Lea"),
        ("[LINE] Verlauf", "chat"),
    ],
)
@pytest.mark.parametrize(
    "saved", ["Saved on: 2024/01/03 09:00", "保存日時：2024/01/03 09:00", "儲存日期： 2024/1/3 09:00", ""]
)
def test_heads(tmp_path: Path, title: str, expected: str, saved: str) -> None:
    head = f"{title}\n{saved}\n\n" if saved else f"{title}\n\n"
    (record,) = read(tmp_path, f"{head}{DAY}03:04\tLea\thi\n")
    assert (record.chat.title, record.timestamp, record.sender) == (expected, "2024-01-02T03:04:00", "Lea")
    assert (record.chat.key, record.chat.is_id) == (expected.casefold(), False)


@pytest.mark.parametrize(
    "day",
    [
        "2024.01.02 Tuesday",
        "2024.01.02(Tue)",
        "2024/01/02(火)",
        "2024.01.02 火曜日",
        "2024/1/2（週二）",
        "2024/1/2週二",
        "2024.01.02 星期二",
        "Tue, 01/02/2024",
        "Sun, 01/14/2024\n\nTue, 01/02/2024",
        "2024/01/02",
        "2567/01/02",
        "2024.01.02. 화요일",
        "2024/01/02(อ.)",
    ],
)
@pytest.mark.parametrize("head", [HEAD, ""])
def test_days(tmp_path: Path, day: str, head: str) -> None:
    *_, record = read(tmp_path, f"{head}{day}\n03:04\tLea\thi\n")
    assert record.timestamp == "2024-01-02T03:04:00"


def test_the_weekday_tells_day_from_month(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEAD}Tue, 06/01/2026\n03:04\tLea\thi\n")[0].timestamp == "2026-01-06T03:04:00"
    assert read(tmp_path, f"{HEAD}Mon, 06/01/2026\n03:04\tLea\thi\n")[0].timestamp == "2026-06-01T03:04:00"


def test_days_that_leave_it_open_are_asked_about(tmp_path: Path) -> None:
    path = save(tmp_path, f"{HEAD}06/01/2026\n03:04\tLea\thi\n")
    with pytest.raises(ExportError, match="--date-order"):
        records(path)
    assert records(path, "dmy")[0].timestamp == "2026-01-06T03:04:00"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("03:04", "03:04"),
        ("3:04", "03:04"),
        ("15:04", "15:04"),
        ("03:04pm", "15:04"),
        ("3:04 PM", "15:04"),
        ("12:04AM", "00:04"),
        ("12:04 p.m.", "12:04"),
        ("下午03:04", "15:04"),
        ("上午12:04", "00:04"),
        ("午後3:04", "15:04"),
        ("午前 3:04", "03:04"),
        ("中午12:04", "12:04"),
        ("오후 3:04", "15:04"),
    ],
)
def test_times(tmp_path: Path, time: str, expected: str) -> None:
    assert read(tmp_path, f"{HEAD}{DAY}{time}\tLea\thi\n")[0].timestamp == f"2024-01-02T{expected}:00"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('"one\ntwo"', "one\ntwo"),
        ('"one\n\n\ntwo\n"', "one\n\n\ntwo\n"),
        ('"say "hi"\nor "yo""', 'say "hi"\nor "yo"'),
        ('"say ""hi""\nor ""yo"""', 'say "hi"\nor "yo"'),
        (
            '"a date:\n2024.01.03 Wednesday\n\n2024/1/4 (Thu)\nend"',
            "a date:\n2024.01.03 Wednesday\n\n2024/1/4 (Thu)\nend",
        ),
        ('"a row:\n04:05\tBob\tpasted\nend"', "a row:\n04:05\tBob\tpasted\nend"),
        ('"a row:\n04:05\tBob\tpasted"', "a row:\n04:05\tBob\tpasted"),
        ('"ok"', '"ok"'),
        ('"ok', '"ok'),
        ('"', '"'),
        ("one\ntwo", "one\ntwo"),
        ("one\n\n2024/1/4\ntwo", "one\n\n2024/1/4\ntwo"),
        ("a\tb", "a\tb"),
        ("I left the group", "I left the group"),
        ("everyone left the group", "everyone left the group"),
        ("友達が参加しました", "友達が参加しました"),
        ("☎ me later", "☎ me later"),
        ("[Photo] of us", "[Photo] of us"),
    ],
)
def test_bodies(tmp_path: Path, body: str, expected: str) -> None:
    others = "03:05\tBob\tnext\n\n2024.01.03 Wednesday\n03:06\tBob\tlast\n"
    found = read(tmp_path, f"{HEAD}{DAY}03:04\tLea\t{body}\n{others}")
    assert [(each.timestamp, each.text) for each in found] == [
        ("2024-01-02T03:04:00", expected),
        ("2024-01-02T03:05:00", "next"),
        ("2024-01-03T03:06:00", "last"),
    ]
    assert [each.text for each in read(tmp_path, f"{HEAD}{DAY}03:04\tLea\t{body}".replace("\n", "\r\n"))] == [expected]


def test_a_typed_quote_does_not_swallow_what_follows(tmp_path: Path) -> None:
    assert texts(
        tmp_path, '03:04\tLea\t"typed', '03:05\tBob\the said "no"', '03:06\tLea\t"one', 'two"', "03:07\tBob\tx"
    ) == [
        '"typed',
        'he said "no"',
        "one\ntwo",
        "x",
    ]


BODY = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\n\r\0"'), max_size=8)
    | st.sampled_from(
        ('say "hi" now', "", "2024.01.03 Wednesday", "2024/1/4", "12:34\tBob\tpasted", "[LINE] x", "12:34")
    ),
    min_size=1,
    max_size=4,
).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BODY.filter(str.strip), min_size=1, max_size=6), st.sampled_from(("\n", "\r\n")))
def test_what_was_written_comes_back(tmp_path: Path, bodies: list[str], newline: str) -> None:
    rows = [f'03:04\tLea\t"{body}"' if "\n" in body else f"03:04\tLea\t{body}" for body in bodies]
    found = read(tmp_path, (HEAD + DAY + "\n".join(rows) + "\n").replace("\n", newline).encode())
    assert [each.text for each in found] == bodies


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        *(
            (f"\tLea\t{words}", Kind.MEDIA)
            for words in ("[Photo]", "[スタンプ]", "[貼圖]", "[贴图]", "[สติกเกอร์]", "[File] a b.pdf")
        ),
        *(
            (f"\tLea\t{words}", Kind.LOCATION)
            for words in ("[位置情報] 東京都", "[Location]", "[null] https://maps.google.com/x")
        ),
        *(
            (f"\tLea\t{words}", Kind.CALL)
            for words in ("☎ 通話時間 1:23", "☎ Call time 1:02:03", "☎ Missed call", "☎ 未接來電")
        ),
        ("\tLea\tLea unsent a message.", Kind.DELETED),
        ("\t\tLeaがメッセージの送信を取り消しました", Kind.DELETED),
        ("\t\t小美已收回訊息", Kind.DELETED),
        ("\tLea\tBob left the group", Kind.SYSTEM),
        ("\tLea\tLeaが参加しました。", Kind.SYSTEM),
        ("\t\tpiyo田が参加しました。", Kind.SYSTEM),
        ("\tLea joined the group", Kind.SYSTEM),
        ("\t☎ 通話時間 5:32", Kind.CALL),
        ("\tLea\t", Kind.EMPTY),
    ],
)
def test_kinds(tmp_path: Path, row: str, expected: Kind) -> None:
    assert [each.kind for each in read(tmp_path, f"{HEAD}{DAY}03:04{row}\n")] == [expected]


def test_what_cannot_be_placed_is_listed(tmp_path: Path) -> None:
    text = (
        f"{HEAD}01:00\tLea\tabove any day\n\n{DAY}stray\n25:00\tLea\thi\n03:04\tLea\thi\n\n2024.02.30\n03:05\tLea\thi\n"
    )
    assert [(each.kind, each.position) for each in read(tmp_path, text)] == [
        (Kind.UNREADABLE, 4),
        (Kind.UNREADABLE, 7),
        (Kind.UNREADABLE, 8),
        (Kind.MESSAGE, 9),
        (Kind.UNREADABLE, 12),
    ]


def test_the_desktop_form_has_blanks_for_tabs(tmp_path: Path) -> None:
    rows = [
        "12:30 Lea Stickers",
        "12:31 Bob Le Roux hello Lea",
        "12:32 Bob Le Roux Photos",
        "12:33 Lea one",
        "two",
        "12:34 Lea joined the group.",
        "下午01:35 Bob Le Roux ☎ Missed call",
    ]
    found = read(tmp_path, DAY + "\n".join(rows))
    assert [(each.timestamp[11:16], each.sender, each.text, each.kind) for each in found] == [
        ("12:30", "Lea", "Stickers", Kind.MEDIA),
        ("12:31", "Bob Le Roux", "hello Lea", Kind.MESSAGE),
        ("12:32", "Bob Le Roux", "Photos", Kind.MEDIA),
        ("12:33", "Lea", "one\ntwo", Kind.MESSAGE),
        ("12:34", "", "", Kind.SYSTEM),
        ("13:35", "Bob Le Roux", "☎ Missed call", Kind.CALL),
    ]


def test_a_name_that_all_rows_share_is_one_name(tmp_path: Path) -> None:
    found = read(
        tmp_path, DAY + "".join(f"12:3{n} Bob Le Roux {word}\n" for n, word in enumerate(("a", "b", "c d", "e", "f")))
    )
    assert [(each.sender, each.text) for each in found] == [
        ("Bob Le Roux", word) for word in ("a", "b", "c d", "e", "f")
    ]


def test_other_texts_are_nobodys(tmp_path: Path) -> None:
    for text in ("2024/1/2\nnotes\n", "hello\n03:04\tLea\thi\n", "", "\n\n", "03:04\tLea\thi\n"):
        assert recognise(Source(save(tmp_path, text))) is None


@pytest.mark.parametrize("content", [b"\xff", b"\0", b"no day"], ids=["bytes", "NUL", "no day"])
def test_what_is_no_chat_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path, HEAD.encode() + content)
    with pytest.raises(ExportError, match="export the chat again") as caught:
        PLATFORMS["line"].read(Source(path), None)
    assert "\n" not in str(caught.value)


def test_hostile_shapes_take_no_time(tmp_path: Path) -> None:
    for text in (
        "\n" * 300_000 + "x",
        '03:04\tLea\t"x\n' * 30_000,
        "03:04\tLea\t" + "a [" * 1_000_000,
        "y\n" * 100_000,
    ):
        read(tmp_path, f"{HEAD}{DAY}03:04\tLea\thi\n{text}")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ChatLab_ChatLab/[LINE] Project Team.txt", {Kind.MESSAGE: 1, Kind.MEDIA: 1}),  # 2 messages
        ("ChatLab_ChatLab/[LINE] Project Team multiline.txt", {Kind.MESSAGE: 1, Kind.MEDIA: 1, Kind.SYSTEM: 1}),
        ("ChatLab_ChatLab/[LINE] Alice.txt", {Kind.MESSAGE: 2}),
        (
            "ChatLab_ChatLab/[LINE] Project Team types.txt",  # file, link, location, system
            {Kind.MEDIA: 1, Kind.MESSAGE: 1, Kind.LOCATION: 1, Kind.SYSTEM: 1},
        ),
        ("dricholm_line-chat-statistics/minimal.txt", {Kind.MESSAGE: 1}),
        # 4 from users, one of them a sticker, and 1 system row
        ("unknown-repo_line-ja-api-doc/ja_group.txt", {Kind.MESSAGE: 3, Kind.MEDIA: 1, Kind.SYSTEM: 1}),
    ],
)
def test_upstreams_samples(name: str, expected: dict[Kind, int]) -> None:
    assert Counter(each.kind for each in records(SAMPLES / name)) == expected
