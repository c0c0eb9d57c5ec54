"""KakaoTalk's exports: text from iOS, Android and Windows, and the CSV of macOS. Local time without an offset.

    iOS      2024. 2. 6. 오전 10:25, NAME : words         2024. 2. 6. 오전 10:25: event
    Android  2024년 2월 6일 오전 10:25, NAME : words       2024년 2월 6일 오전 10:25, event
    English  Feb 6, 2024 at 10:25 AM, NAME : words        February 6, 2024, 10:25 AM, NAME : words
    Windows  --------------- 2024년 2월 6일 화요일 ---------------
             [NAME] [오전 10:25] words                     event (no brackets)
    macOS    Date,User,Message
             2024-02-06 10:25:31,"NAME","words"

The first two lines name the chat and the time of saving; a day stands alone above its rows. Further lines of a message
follow as they are. Grammar from public parsers of each form, in Korean, English and Japanese; of these only iOS's
Korean form was checked against a real export. Markers and events that are not listed here stay messages.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, decode_text, line_breaks

NAME = "kakaotalk"
UNIT = "line"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset()

HALF = "오전|오후|午前|午後|[AaPp]\\.?[Mm]\\.?"
ASIAN_DAY = r"(?P<year>\d{4})(?:\. ?|년 ?|年 ?)(?P<month>\d{1,2})(?:\. ?|월 ?|月 ?)(?P<day>\d{1,2})(?:\.|일|日)"
ENGLISH_DAY = r"(?P<name>[A-Z][a-z]{2,8})\.? (?P<day_>\d{1,2}), (?P<year_>\d{4})"
CLOCK = rf"(?:(?P<half>{HALF}) ?)?(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?:[ \u202f\u00a0]?(?P<half_>{HALF}))?"
DAY = rf"(?:{ASIAN_DAY}|{ENGLISH_DAY})"
STAMP = rf"{DAY}(?:,| at)? {CLOCK}"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

ROW = re.compile(rf"{STAMP}(?:, (?P<sender>.+?) : (?P<words>.*)|[,:] (?P<event>.+))")
WEEKDAY = r"[월화수목금토일]요일|[月火水木金土日]曜日"
A_DAY = rf"(?:[A-Z][a-z]+day, )?{DAY}(?:,? ?(?:{WEEKDAY}))?"
HEADLINE = re.compile(rf"(?=.*(?:day|요일|曜日|:\d\d)){A_DAY}(?:(?:,| at)? {CLOCK})?")
WINDOWS_DAY = re.compile(rf"-{{5,}} {A_DAY} -{{5,}}")
WINDOWS_ROW = re.compile(rf"\[(?P<sender>.+?)\] \[{CLOCK}\] (?P<words>.*)")
TITLE = re.compile(
    r"(?:(?P<ko>.+?) ?(?:\(\d+명\))?(?:님?과|와)? 카카오톡 대화|KakaoTalk Chats? with (?P<en>.+?)"
    r"|(?P<ja>.+?)(?:さん)?とのカカオトーク)(?:\.txt)?"
)
SAVED = re.compile(r"(?:저장한 날짜|Date Saved|保存日)\s*: .+")
CSV_HEADER = "Date,User,Message"

EVENT = re.compile(
    r".+님(?:이|을|과|께서) ?.*(?:초대했습니다|나갔습니다|들어왔습니다|내보냈습니다|되었습니다)\.?"
    r"|.+ (?:invited .+|(?:has )?(?:left|joined)(?: (?:the|this) (?:chatroom|chat|group chat))?)\.?"
    r"|.+さんが.*(?:招待しました|退室しました|入室しました)。?"
    r"|채팅방 관리자가 .+|.+ (?:changed|set) the chatroom .+"
)
MEDIA = re.compile(
    r"사진(?: \d+장)?|동영상|이모티콘|음성메시지|연락처: .+|파일: .+|\(이모티콘\) ?.*"
    r"|Photos?(?: \d+)?|\d+ photos|Video|Emoticons?|Voice (?:Note|Message)|File: .+|Contact: .+"
    r"|写真(?: ?\d+枚)?|動画|スタンプ|絵文字|ボイスメッセージ|ファイル: .+|[0-9a-f]{32,}\.[a-z0-9]{2,5}"
)
CALL = re.compile(
    r"(?:그룹 ?콜|보이스톡|페이스톡|라이브톡)(?: .*)?|(?:Missed |Canceled )?(?:Voice|Video|Group) Calls?(?: .*)?"
    r"|(?:ボイス|ビデオ|フェイス)トーク(?: .*)?"
)
DELETED = re.compile(
    r"삭제된 메시지입니다\.?|메시지가 삭제되었습니다\.?|(?:채팅방 관리자가 )?메시지를 가렸습니다\.?"
    r"|(?:This message was deleted|Message was deleted|Deleted message)\.?|(?:削除された|メッセージが削除され).*"
)
PLACE = re.compile(r"(?:지도|위치|Location|位置情報|地図): .+", re.DOTALL)
POLL = re.compile(r"(?:투표|Poll|投票): .+", re.DOTALL)


class Row(NamedTuple):
    """`sender` is empty for an event; `timestamp` where a row has no time that exists."""

    line: int
    timestamp: str
    sender: str
    words: str


def recognise(source: Source, evidence: Evidence) -> str | None:
    lines = [line for line in line_breaks(evidence.head).split("\n") if line.strip()]
    if evidence.paths or not lines:
        return None
    if lines[0].lstrip("\ufeff").strip() == CSV_HEADER:
        return f"the columns {CSV_HEADER}"
    if TITLE.fullmatch(lines[0].lstrip("\ufeff")) and len(lines) > 1 and SAVED.fullmatch(lines[1]):
        return "a first line that names a KakaoTalk chat, and a second with the time of saving"
    if any(WINDOWS_DAY.fullmatch(line) and WINDOWS_ROW.match(after) for line, after in pairwise(lines)):
        return "a day between dashes, and below it KakaoTalk's bracketed names and times"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    text, facts = decode_text(source, "export the chat from KakaoTalk again")
    text = line_breaks(text)
    stem = PurePath(source.name).stem
    first = text.split("\n", 1)[0]
    if first.strip() == CSV_HEADER:
        return Reading(_records(Chat(stem.casefold(), stem, is_id=False), _csv_rows(text)), facts | {"form": "macOS"})
    match = TITLE.fullmatch(first)
    title = next((name for name in match.groups() if name), stem).strip() if match else stem
    rows = list(_text_rows(text.split("\n")))
    return Reading(_records(Chat(title.casefold(), title, is_id=False), iter(rows)), facts | {"form": "text"})


def _csv_rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    next(reader)
    start = 2
    for fields in reader:
        timestamp = from_iso(fields[0]) if len(fields) == 3 else None
        if fields:
            sender, words = fields[1:] if timestamp else ("", "")
            yield Row(start, timestamp or "", sender, words)
        start = reader.line_num + 1


def _text_rows(lines: list[str]) -> Iterator[Row]:
    """Rows with their further lines. A blank line belongs to a message only if more of its words follow."""
    day, row, blanks = "", None, 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            blanks += 1
            continue
        new: Row | None = None
        if headline := WINDOWS_DAY.fullmatch(line):
            day = _date(headline)
        elif match := ROW.fullmatch(line):
            words = match["words"] or match["event"] or ""
            new = Row(number, _timestamp(match, _date(match)), match["sender"] or "", words)
        elif day and (match := WINDOWS_ROW.fullmatch(line)):
            new = Row(number, _timestamp(match, day), match["sender"], match["words"])
        elif (blanks or row is None) and HEADLINE.fullmatch(line):
            pass
        elif number <= 2 and (TITLE.fullmatch(line) or SAVED.fullmatch(line)):
            continue
        elif day and (row is None or EVENT.fullmatch(line)):
            above = row.timestamp if row is not None and row.timestamp.startswith(day) else f"{day}T00:00:00"
            new = Row(number, above, "", line)  # an event has no time of its own
        elif row is not None:
            row, blanks = row._replace(words="\n".join((row.words, *[""] * blanks, line))), 0
            continue
        else:
            new = Row(number, "", "", "")
        blanks = 0
        if row is not None:
            yield row
        row = new
    if row is not None:
        yield row


def _date(match: re.Match[str]) -> str:
    """The ISO date of a stamp or headline, or "" if there is no such day."""
    if match["name"]:
        name = match["name"][:3].lower()
        month = MONTHS.index(name) + 1 if name in MONTHS else 0
        year, day = int(match["year_"]), int(match["day_"])
    else:
        year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    try:
        return datetime(year, month, day).date().isoformat()
    except ValueError:
        return ""


def _timestamp(match: re.Match[str], day: str) -> str:
    """ISO 8601, or "" if there is no such time."""
    hour, minute = int(match["hour"]), int(match["minute"])
    half = (match["half"] or match["half_"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half[0] == "p" or half in ("오후", "午後") else 0)
    return f"{day}T{hour:02}:{minute:02}:00" if day and hour < 24 and minute < 60 else ""


def _records(chat: Chat, rows: Iterator[Row]) -> Iterator[Record]:
    for row in rows:
        if not row.timestamp:
            yield Record(chat, "", "", "", Kind.UNREADABLE, row.line)
        else:
            yield Record(chat, row.timestamp, row.sender, row.words, _kind(row), row.line)


def _kind(row: Row) -> Kind:
    if not row.words.strip():
        return Kind.EMPTY
    for kind, pattern in ((Kind.DELETED, DELETED), (Kind.CALL, CALL), (Kind.MEDIA, MEDIA)):
        if pattern.fullmatch(row.words):
            return kind
    if not row.sender or (row.words.startswith(f"{row.sender}님") and EVENT.fullmatch(row.words)):
        return Kind.SYSTEM
    if PLACE.fullmatch(row.words):
        return Kind.LOCATION
    return Kind.POLL if POLL.fullmatch(row.words) else Kind.MESSAGE
