"""What LINE writes in its own words, in English, Japanese, Korean, both Chinese scripts and Thai.

Markers of the phones are in brackets, those of the desktop program are not. Not every one was seen in a real export:
a wording that is missing here stays in the chat as a message.
"""

import re
from collections.abc import Collection

from training.extraction.platform import Kind

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
NAME = re.compile(r"[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}")
NO_NAME = frozenset(
    (
        "I",
        "He",
        "She",
        "They",
        "We",
        "You",
        "It",
        "Who",
        "Someone",
        "Somebody",
        "Everyone",
        "Everybody",
        "Nobody",
        "This",
    )
)


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
        event[1] in people or (NAME.fullmatch(event[1]) and event[1].split()[0] not in NO_NAME)
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
    return notice is not None and (" " not in notice[1] or NAME.fullmatch(notice[1]) is not None)
