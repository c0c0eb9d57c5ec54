from pathlib import Path

import pytest

from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind

IOS = """\ufeffLea 님과 카카오톡 대화
저장한 날짜 : 2024. 2. 21. 오후 10:21

2024년 2월 6일 화요일
2024. 2. 6. 오전 12:05: Noa님이 Lea님을 초대했습니다.
2024. 2. 6. 오전 12:06, Noa : first
second: line

fourth
2024. 2. 6. 오후 1:15, Lea : 사진
2024. 2. 6. 오후 1:16, Lea : 10:30, then : home

2024년 2월 7일 수요일
2024. 2. 7. 오후 12:00, Noa : ok
"""
ANDROID = """Lea 님과 카카오톡 대화
저장한 날짜 : 2020년 12월 7일 오후 4:38

2020년 12월 7일 오후 4:30
2020년 12월 7일 오후 4:30, Noa님이 Lea님을 초대했습니다.
2020년 12월 7일 오후 4:31, Noa : hi
2020년 12월 7일 오후 4:32, Lea : 보이스톡 3:21
2020년 12월 7일 오후 4:33, Lea : 삭제된 메시지입니다.
"""
ANDROID_ENGLISH = """KakaoTalk Chats with Lea
Date Saved : Dec 7, 2020 4:38 PM

December 7, 2020 at 4:30 PM
December 7, 2020 at 4:31 PM, Noa : hi
Dec 7, 2020, 4:32 PM, Lea : Photo
"""
WINDOWS = """Trip 님과 카카오톡 대화
저장한 날짜 : 2020-12-07 16:38:21

--------------- 2020년 12월 7일 월요일 ---------------
Noa님이 Lea님과 Bob님을 초대했습니다.
[Noa] [오후 4:31] hi
[there] you
[Bob (work)] [오전 4:32] yo
Bob님이 나갔습니다.
--------------- 2020년 12월 8일 화요일 ---------------
[Lea] [오후 12:01] 투표: when?
"""
WINDOWS_ENGLISH = """KakaoTalk Chats with Trip
Date Saved : 2020-12-07 16:38:21

--------------- Monday, December 7, 2020 ---------------
[Noa] [4:31 PM] hi
[Lea] [16:32] yo
"""
CSV = """Date,User,Message
2020-12-07 16:38:21,"Noa","hi, ""you""
there"
2020-12-07 16:38:30,"Lea","Lea님이 나갔습니다."
"""


@pytest.mark.parametrize(
    ("export", "name", "expected"),
    [
        (
            IOS,
            "Talk.txt",
            [
                ("2024-02-06T00:05:00", "", Kind.SYSTEM, "Noa님이 Lea님을 초대했습니다."),
                ("2024-02-06T00:06:00", "Noa", Kind.MESSAGE, "first\nsecond: line\n\nfourth"),
                ("2024-02-06T13:15:00", "Lea", Kind.MEDIA, "사진"),
                ("2024-02-06T13:16:00", "Lea", Kind.MESSAGE, "10:30, then : home"),
                ("2024-02-07T12:00:00", "Noa", Kind.MESSAGE, "ok"),
            ],
        ),
        (
            ANDROID,
            "KakaoTalkChats.txt",
            [
                ("2020-12-07T16:30:00", "", Kind.SYSTEM, "Noa님이 Lea님을 초대했습니다."),
                ("2020-12-07T16:31:00", "Noa", Kind.MESSAGE, "hi"),
                ("2020-12-07T16:32:00", "Lea", Kind.CALL, "보이스톡 3:21"),
                ("2020-12-07T16:33:00", "Lea", Kind.DELETED, "삭제된 메시지입니다."),
            ],
        ),
        (
            ANDROID_ENGLISH,
            "KakaoTalkChats.txt",
            [
                ("2020-12-07T16:31:00", "Noa", Kind.MESSAGE, "hi"),
                ("2020-12-07T16:32:00", "Lea", Kind.MEDIA, "Photo"),
            ],
        ),
        (
            WINDOWS,
            "KakaoTalk_20201207.txt",
            [
                ("2020-12-07T00:00:00", "", Kind.SYSTEM, "Noa님이 Lea님과 Bob님을 초대했습니다."),
                ("2020-12-07T16:31:00", "Noa", Kind.MESSAGE, "hi\n[there] you"),
                ("2020-12-07T04:32:00", "Bob (work)", Kind.MESSAGE, "yo"),
                ("2020-12-07T04:32:00", "", Kind.SYSTEM, "Bob님이 나갔습니다."),
                ("2020-12-08T12:01:00", "Lea", Kind.POLL, "투표: when?"),
            ],
        ),
        (
            WINDOWS_ENGLISH,
            "KakaoTalk_20201207.txt",
            [
                ("2020-12-07T16:31:00", "Noa", Kind.MESSAGE, "hi"),
                ("2020-12-07T16:32:00", "Lea", Kind.MESSAGE, "yo"),
            ],
        ),
        (
            CSV,
            "KakaoTalk_Chat_Lea.csv",
            [
                ("2020-12-07T16:38:21", "Noa", Kind.MESSAGE, 'hi, "you"\nthere'),
                ("2020-12-07T16:38:30", "Lea", Kind.SYSTEM, "Lea님이 나갔습니다."),
            ],
        ),
    ],
    ids=["ios", "android", "android english", "windows", "windows english", "csv"],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_forms(
    tmp_path: Path, export: str, name: str, expected: list[tuple[str, str, Kind, str]], line_break: str
) -> None:
    found = records(save(tmp_path, export.replace("\n", line_break), name))
    assert [(one.timestamp, one.sender, one.kind, one.text) for one in found] == expected


@pytest.mark.parametrize(
    ("first", "title"),
    [
        ("Lea 님과 카카오톡 대화", "Lea"),
        ("Trip (3명)과 카카오톡 대화.txt", "Trip"),
        ("KakaoTalk Chats with Trip to Rome", "Trip to Rome"),
    ],
)
def test_titles(tmp_path: Path, first: str, title: str) -> None:
    (record,) = records(save(tmp_path, f"{first}\n저장한 날짜 : 2024. 2. 21.\n\n2024. 2. 6. 오전 10:25, Noa : hi\n"))
    assert (record.chat.title, record.chat.key) == (title, title.casefold())


def test_times_that_do_not_exist_are_counted(tmp_path: Path) -> None:
    rows = ("lost", "2024. 2. 30. 오전 10:25, Noa : hi", "2024. 2. 3. 25:61, Noa : hi")
    found = records(save(tmp_path, "\n".join(("Lea 님과 카카오톡 대화", "저장한 날짜 : x", "", *rows))))
    assert [(one.kind, one.position) for one in found] == [
        (Kind.UNREADABLE, 4),
        (Kind.UNREADABLE, 5),
        (Kind.UNREADABLE, 6),
    ]
