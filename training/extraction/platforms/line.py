"""LINE's "Export chat history": days as headlines, below them rows of time, name and words.

Phones part the columns by tabs, the desktop program by blanks. Local time without an offset, to the minute.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from itertools import takewhile
from pathlib import PurePath
from typing import NamedTuple

from ghost.errors import ExportError
from training.extraction.date_order import NAMES, Triple, decide, read_date
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, decode_text, line_breaks

NAME = "line"
UNIT = "line"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset()

# What LINE writes in its own words, in English, Japanese, Korean, both Chinese scripts and Thai. Markers of the phones
# are in brackets, those of the desktop program are not. Not every one was seen in a real export: a wording that is
# missing here stays in the chat as a message.
TITLES = [
    re.compile(rf"(?:\[LINE\] ?)?{wording}")
    for wording in (
        r"Chat(?: history)? (?:with|in) (.+)",
        r"(.+?)(?:との|の)トーク(?:履歴)?",
        r"[與与]? ?(.+?)的(?:聊天記錄|聊天记录)",
        r"(.+?)님과의? 대화",
        r"ประวัติการ(?:สนทนา|แชท)(?:กับ|ใน)? ?(.+)",
    )
]
SAVED = re.compile(r"[^\t\d]{1,40}\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? \D{0,4}\d{1,2}:\d{2}\D{0,4}")

BEFORE_NOON, AFTER_NOON, AROUND_NOON = "上午|午前|오전|凌晨|清晨|早上", "下午|午後|오후|晚上", "中午"
WEEKDAYS = (  # from Monday on
    r"mon(?:day)?|月(?:曜日?)?|월(?:요일)?|(?:週|周|星期|礼拜)?一|(?:วัน)?จ(?:\.|ันทร์)",
    r"tue(?:sday)?|火(?:曜日?)?|화(?:요일)?|(?:週|周|星期|礼拜)?二|(?:วัน)?อ(?:\.|ังคาร)",
    r"wed(?:nesday)?|水(?:曜日?)?|수(?:요일)?|(?:週|周|星期|礼拜)?三|(?:วัน)?พ(?:\.|ุธ)",
    r"thu(?:rsday)?|木(?:曜日?)?|목(?:요일)?|(?:週|周|星期|礼拜)?四|(?:วัน)?พฤ(?:\.|หัสบดี)",
    r"fri(?:day)?|金(?:曜日?)?|금(?:요일)?|(?:週|周|星期|礼拜)?五|(?:วัน)?ศ(?:\.|ุกร์)",
    r"sat(?:urday)?|土(?:曜日?)?|토(?:요일)?|(?:週|周|星期|礼拜)?六|(?:วัน)?ส(?:\.|าร์|สาร์|เสาร์)|วันเสาร์",
    r"sun(?:day)?|日(?:曜日?)?|일(?:요일)?|(?:週|周|星期|礼拜)?[日天]|(?:วัน)?อา(?:\.|ทิตย์)",
)

PLACE = re.compile(
    r"\[(?:Location|位置情報|位置|位置資訊|位置信息|위치|ตำแหน่ง|ตำแหน่งที่ตั้ง)\](?: .*)?|\[null\] https?://\S+", re.DOTALL
)
FILE = "File|ファイル|檔案|文件|파일|ไฟล์"
MEDIA = re.compile(
    rf"\[(?:{FILE}|Photo|Video|Sticker|Voice message|Audio|Notes?|Album|Contact|GIF|Gift|写真|動画|スタンプ"
    "|ボイスメッセージ|ノート|アルバム|連絡先|プレゼント|照片|影片|貼圖|語音訊息|記事本|相簿|聯絡資訊|视频|贴图|语音信息|语音消息|记事本|相册|名片"
    "|사진|동영상|스티커|음성메시지|노트|앨범|연락처"
    rf"|รูป|รูปภาพ|วิดีโอ|สติกเกอร์|ข้อความเสียง|โน้ต|อัลบั้ม|ผู้ติดต่อ)\]|\[(?:{FILE})\] [^\n]+"
)
DESKTOP_MEDIA = (
    "Photos|Stickers|Videos|Audio|Files|画像|写真|スタンプ|動画|ボイスメッセージ|ファイル|圖片|照片|貼圖|影片|語音訊息|檔案|贴图|视频"
    "|รูป|รูปภาพ|สติกเกอร์|วิดีโอ|ข้อความเสียง|ไฟล์"
)
CALL = re.compile(
    r"☎\ufe0f? ?(?:\S[^\n]{0,30} \d{1,3}(?::\d\d){1,2}|Missed call|Cancel(?:l?ed)?(?: call)?|No answer|不在着信"
    r"|キャンセル|通話をキャンセルしました|通話に応答がありませんでした|未接來電|未接来电|您?已取消(?:通話|通话)?|無人接聽|无人接听|無應答"
    r"|부재중 전화|สายที่ไม่ได้รับ)"
)
YOU = ("", "You", "You ", "您", "你", "あなた", "คุณ")
UNSENT = re.compile(
    r"([^\n]{0,200}?)(?: ?unsent a message\.?|が?メッセージの送信を取り消しました。?"
    r"|已?收回(?:了)?(?:訊息|讯息|消息)。?|님이 메시지 전송을 취소했습니다\.?|ได้?ยกเลิกข้อความ)"
)
EVENT = re.compile(
    r"([^\n]{1,60}?)(?: (?:joined|left) the (?:group|chat)\.?|が(?:グループに)?参加しました。?"
    r"|が(?:グループを)?退会しました。?|が退出しました。?|已?加入(?:群組|群组|聊天)。?|已?(?:離開|离开|退出)(?:群組|群组|聊天)。?)"
)
LIKE_A_NAME = re.compile(r"[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}")
NO_NAME = frozenset(
    (
        *("I", "He", "She", "They", "We", "You", "It", "Who", "This"),
        *("Someone", "Somebody", "Everyone", "Everybody", "Nobody"),
    )
)

ANY_DAY = "|".join(WEEKDAYS)
# 2024.01.02 Tuesday · 2018.04.24(Mon) · 2024/1/2（週二） · 2024/1/2週二 · Mon, 01/15/2024
HEADLINE = re.compile(
    rf"(?:(?P<before>{ANY_DAY})(?:, ?| ))?"
    r"(?P<date>\d{4}([./-])\d{1,2}\3\d{1,2}|\d{1,2}([./-])\d{1,2}\4\d{4})\.?"
    rf"(?: ?[(（]?(?P<after>{ANY_DAY})[)）]?)?[ \t]*",
    re.IGNORECASE,
)
PERIOD = f"{BEFORE_NOON}|{AFTER_NOON}|{AROUND_NOON}|[AaPp][Mm]"
TIME = rf"(?P<time>(?:(?:{PERIOD}) ?)?\d{{1,2}}:\d{{2}}(?: ?[AaPp]\.?[Mm]\.?)?)"
TABS = re.compile(rf"{TIME}\t(?:(?P<name>[^\t]*)\t)?(?P<words>.*)")
BLANKS = re.compile(rf"{TIME} (?P<name>)(?P<words>\S.*)")
CLOCK = re.compile(
    rf"(?P<before>{PERIOD})? ?(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}}) ?(?P<after>[AaPp])?\.?(?:[Mm]\.?)?"
)
BUDDHIST = 543  # years that Thailand's calendar is ahead
LONGEST_NAME = 100  # characters of a desktop row in which its name is looked for
SURE = 5  # rows of the desktop form that must share a second word before it counts as a part of the name

Day = tuple[Triple, int | None]  # a headline: the three numbers as written, and the weekday from Monday on


class Row(NamedTuple):
    """One entry, or with no `time` a line that belongs to none.

    day   index of the headline above, -1 without one
    name  "" or None where the row names nobody
    """

    line: int
    day: int
    time: str | None
    name: str | None
    words: str
    is_quoted: bool = False


def recognise(source: Source, evidence: Evidence) -> str | None:
    lines = [line for line in line_breaks(evidence.head).split("\n") if line.strip()]
    if not lines or evidence.paths:
        return None
    if lines[0].startswith("[LINE]"):
        return "a first line that starts with [LINE]"
    lines = lines[1:] if any(title.fullmatch(lines[0]) for title in TITLES) else lines
    lines = lines[1:] if lines and SAVED.fullmatch(lines[0]) else lines
    headlines = [headline for headline in takewhile(bool, map(HEADLINE.fullmatch, lines)) if headline]
    if headlines and len(lines) > len(headlines):
        first = lines[len(headlines)]
        if TABS.match(first):
            return "a date by itself, and below it rows of LINE's time, name and words"
        if headlines[0]["after"] and BLANKS.match(first):
            return "a date with its weekday, and below it LINE's times"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    text, facts = decode_text(source, "LINE writes UTF-8, so export the chat again")
    lines = line_breaks(text).removesuffix("\n").split("\n")
    is_desktop = not any(map(TABS.match, lines)) and any(map(BLANKS.match, lines))
    title, days, rows = _layout(lines, BLANKS if is_desktop else TABS)
    if not days:
        raise ExportError(
            f"{source}: no line is one of LINE's dates; export the chat again, from LINE's menu of the chat"
        )
    dates, evidence = _dates(days, date_order, str(source))
    title = title or _title(PurePath(source.name).stem) or PurePath(source.name).stem.removeprefix("[LINE]").strip()
    facts |= {"columns": "blanks" if is_desktop else "tabs", "evidence": evidence}
    if is_desktop:
        rows = _with_names(rows, title)
        facts["names"] = f"{len({row.name for row in rows if row.name}):,} learnt from what the rows share"
    return Reading(_records(Chat(title.casefold(), title, is_id=False), rows, dates, is_desktop), facts)


def _title(line: str) -> str | None:
    return next((match[1].strip() for title in TITLES if (match := title.fullmatch(line.strip()))), None)


def _layout(lines: Sequence[str], row: re.Pattern[str]) -> tuple[str | None, list[Day], list[Row]]:
    """Title, headlines and rows of a file; a row's further lines are joined to its words."""
    title: str | None = None
    days: list[Day] = []
    rows: list[Row] = []
    index = 0
    while index < len(lines):
        line, start = lines[index], index
        index += 1
        if not days and not rows and (name := _title(line) or line.startswith("[LINE]") or SAVED.fullmatch(line)):
            title = title or (name if isinstance(name, str) else None)
        elif day := _headline(lines, start, row):
            days.append(day)
        elif match := row.fullmatch(line):
            words = match["words"]
            closing = _closing(lines, start, words, row) if words[:1] == '"' else None
            index = _end(lines, index, row) if closing is None else closing + 1
            words = "\n".join((words, *lines[start + 1 : index]))
            rows.append(Row(start + 1, len(days) - 1, match["time"], match["name"], words, closing is not None))
        elif line.strip():
            rows.append(Row(start + 1, -1, None, None, ""))
    return title, days, rows


def _end(lines: Sequence[str], index: int, row: re.Pattern[str]) -> int:
    """Where the unquoted body ends that goes on at `index`: blank lines belong to it only when more words follow."""
    while index < len(lines):
        following = index
        while following < len(lines) and not lines[following].strip():
            following += 1
        if _starts_anew(lines, following, row):
            return index
        index = following + 1
    return index


def _headline(lines: Sequence[str], index: int, row: re.Pattern[str]) -> Day | None:
    """The day that a line announces. Somebody may well write a date on a line of its own.

    So of three signs two are asked for: its weekday, a blank line above it, and below it a row or the next date.
    """
    match = HEADLINE.fullmatch(lines[index]) if lines[index][:1] else None
    if match is None:
        return None
    weekday = match["before"] or match["after"]
    above = lines[index - 1] if index else ""
    following = next((line for line in lines[index + 1 : index + 3] if line.strip()), "")
    is_apart = not above.strip() or SAVED.fullmatch(above) is not None
    is_above_row = not following or row.match(following) is not None or HEADLINE.fullmatch(following) is not None
    if bool(weekday) + is_apart + is_above_row < 2:
        return None
    first, second, third = map(int, re.findall(r"\d+", match["date"]))
    first, third = (number - BUDDHIST if number >= 2400 else number for number in (first, third))
    number = next(
        (day for day, names in enumerate(WEEKDAYS) if re.fullmatch(names, weekday or "", re.IGNORECASE)), None
    )
    return (first, second, third), number


def _closing(lines: Sequence[str], start: int, words: str, row: re.Pattern[str]) -> int | None:
    """The line that closes the quote opened on line `start`; None when the quote is a character that somebody typed.

    LINE quotes a body of several lines, and leaves quotes inside it as they are. So the quote is closed at the end of
    a line that something new follows. A row in between belongs to a body that quotes a chat; where it opens a quote of
    its own, or closes one only by its own quotes, the first quote was typed.
    """
    if (len(words) > 1 and words.endswith('"')) and _starts_anew(lines, start + 1, row):
        return None
    for index in range(start + 1, len(lines)):
        line = lines[index]
        match = row.fullmatch(line)
        if match and match["words"][:1] == '"':
            return None
        if line.endswith('"') and (match is None or line.count('"') % 2) and _starts_anew(lines, index + 1, row):
            return index
    return None


def _starts_anew(lines: Sequence[str], index: int, row: re.Pattern[str]) -> bool:
    """Whether something other than words stands at `index`, blank lines apart: a row, a headline or the file's end."""
    if index < len(lines) and row.match(lines[index]):
        return True
    while index < len(lines) and not lines[index].strip():
        index += 1
    return index == len(lines) or row.match(lines[index]) is not None or _headline(lines, index, row) is not None


def _dates(days: list[Day], answer: str | None, name: str) -> tuple[list[date | None], str]:
    """The headlines' dates, and how it is known which number is the month: by the weekdays, where that is open."""
    read = {order: [read_date(parts, order) for parts, _ in days] for order in NAMES}
    fits = {
        order: sum(day is not None and day.weekday() == weekday for day, (_, weekday) in zip(dates, days, strict=True))
        for order, dates in read.items()
    }
    best = [order for order in NAMES if fits[order] == max(fits.values())]
    if fits[best[0]] and all(read[order] == read[best[0]] for order in best):
        order = best[-1]  # year first, where that leaves nothing open
        return read[order], f"{fits[order]:,} of {len(days):,} dates fit their weekday as {NAMES[order]}"
    decided = decide([(parts, 1) for parts, _ in days], None, answer, name)
    return read[decided.order], decided.evidence


def _with_names(rows: list[Row], title: str) -> list[Row]:
    """Rows of the desktop form with the name parted from the words, which only a blank does.

    A name of several words is known from the title, from a row that holds nothing else but a marker, or because all
    of five or more rows begin with it; otherwise it is the first word.
    """
    openings = [row.words[:LONGEST_NAME].split("\n", 1)[0] for row in rows]
    marked = (re.fullmatch(rf"(\S.*?) (?:{DESKTOP_MEDIA}|☎.*)", opening) for opening in openings)
    known = {title, *(match[1] for match in marked if match)}
    alike: dict[str, list[list[str]]] = defaultdict(list)
    for opening in openings:
        pieces = opening.split(" ")
        alike[pieces[0]].append(pieces)
    names = {first: _names(first, pieces, known) for first, pieces in alike.items()}
    return [_with_name(row, names[opening.split(" ", 1)[0]]) for row, opening in zip(rows, openings, strict=True)]


def _names(first: str, rows: list[list[str]], known: set[str]) -> list[str]:
    """The names that rows with this first word may begin with, the longest first."""
    length = 1
    while len(rows) >= SURE and all(len(row) > length + 1 and row[length] == rows[0][length] for row in rows):
        length += 1
    openings = [" ".join(row) for row in rows]
    candidates = [name for name in known if name.split(" ", 1)[0] == first]
    confirmed = [name for name in candidates if sum(opening.startswith(f"{name} ") for opening in openings) > 1]
    return sorted({" ".join(rows[0][:length]), first, *confirmed}, key=len, reverse=True)


def _with_name(row: Row, names: list[str]) -> Row:
    if row.time is None or is_notice(row.words):
        return row
    for name in names:
        if row.words.startswith(f"{name} "):
            return row._replace(name=name, words=row.words[len(name) + 1 :])
    return row


def _records(chat: Chat, rows: list[Row], dates: list[date | None], is_desktop: bool) -> Iterator[Record]:
    people = {row.name for row in rows if row.name}
    inside = [words for row in rows if row.is_quoted and '"' in (words := row.words[1:-1])]
    is_doubled = bool(inside) and not any('"' in words.replace('""', "") for words in inside)
    media = re.compile(DESKTOP_MEDIA)
    for row in rows:
        day = dates[row.day] if row.day >= 0 else None
        clock = _clock(row.time) if row.time else None
        if day is None or clock is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, row.line)
            continue
        timestamp = f"{day.isoformat()}T{clock}"
        if not row.name:
            yield Record(chat, timestamp, "", "", kind_without_name(row.words), row.line)
            continue
        words = row.words[1:-1] if row.is_quoted else row.words
        words = words.replace('""', '"') if row.is_quoted and is_doubled else words
        kind = Kind.MEDIA if is_desktop and media.fullmatch(words) else kind_of(words, people)
        yield Record(chat, timestamp, row.name, words, kind, row.line)


def kind_of(words: str, people: Collection[str]) -> Kind:
    """What stands in a row under a person's name.

    people  the names of the file. LINE reports events under somebody's name too, yet "everyone left the group" is a
            sentence: an event needs one of these, or in English something that is written like a name
    """
    if not words.strip():
        return Kind.EMPTY
    if CALL.fullmatch(words):
        return Kind.CALL
    if PLACE.fullmatch(words):
        return Kind.LOCATION
    if MEDIA.fullmatch(words):
        return Kind.MEDIA
    if (unsent := UNSENT.fullmatch(words)) and (unsent[1] in YOU or unsent[1] in people):
        return Kind.DELETED
    if (event := EVENT.fullmatch(words)) and (
        event[1] in people or (LIKE_A_NAME.fullmatch(event[1]) and event[1].split()[0] not in NO_NAME)
    ):
        return Kind.SYSTEM
    return Kind.MESSAGE


def kind_without_name(words: str) -> Kind:
    """What stands in a row that names nobody."""
    if CALL.fullmatch(words):
        return Kind.CALL
    return Kind.DELETED if UNSENT.fullmatch(words) else Kind.SYSTEM


def is_notice(words: str) -> bool:
    """Whether a desktop row, where a name is not set apart, reports on somebody rather than quotes them."""
    notice = EVENT.fullmatch(words) or UNSENT.fullmatch(words)
    return notice is not None and (" " not in notice[1] or LIKE_A_NAME.fullmatch(notice[1]) is not None)


def _clock(time: str) -> str | None:
    """03:04 · 3:05 PM · 下午03:04 → ISO 8601, or None when there is no such time."""
    match = CLOCK.fullmatch(time)
    if match is None:
        return None
    hour, minute, period = int(match["hour"]), int(match["minute"]), (match["before"] or match["after"] or "").upper()
    is_after_noon = period[:1] == "P" or period in AFTER_NOON.split("|") or (period == AROUND_NOON and hour < 10)
    if period and hour <= 12 and period != AROUND_NOON:
        hour %= 12
    if is_after_noon and hour < 12:
        hour += 12
    return f"{hour:02}:{minute:02}:00" if hour < 24 and minute < 60 else None
