"""Noa's chats as three platforms would export them, each spelled as its program spells it.

Nothing here is shared with the parsers in `training.extraction`: what those read was written independently, from the
programs' own output. Files are streamed; a thread of a million messages needs no more memory than one of a hundred.
"""

import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ghost.demo.chats import START, ZONE, Chat, Kind, Message, noa_chats
from ghost.demo.chats import messages as chat_messages
from ghost.demo.people import NOA, Person

# Where each chat was kept, and its share of the messages.
WHATSAPP_ANDROID = {"Malo Cendreval": 0.2, "Priya Wexmoor": 0.15}
WHATSAPP_IOS = {"Bastien Tournevire": 0.1}
TELEGRAM_ACCOUNT = {"Ingrid Hallowfen": 0.15, "Rando du dimanche 🥾": 0.1}
TELEGRAM_CHAT = {"Tomasz Birkenrode": 0.08}
MESSENGER = {"Élise Fontgrise": 0.12, "Jun Marrowby": 0.1}

# One person, a name per platform, as happens when accounts are opened years apart.
NOA_ON_WHATSAPP, NOA_ON_TELEGRAM, NOA_ON_MESSENGER = "Noa", "noa brindelune", "Noa Brindelune"

LRM = "\u200e"  # left-to-right mark: how WhatsApp on iOS marks its own wording
PAGE = 10_000  # messages of one Messenger file


@dataclass(frozen=True)
class ExportSummary:
    """What `write_exports` wrote. `texts` are messages with words; the rest are photos, calls and the like."""

    names: tuple[str, ...]  # the person's, on any platform
    timezone: str  # of the naive times in WhatsApp's files
    messages: dict[str, int]  # by platform, all kinds; the platforms' own notices not counted
    texts: dict[str, int]  # by platform


def write_exports(folder: Path, *, seed: int, messages: int) -> ExportSummary:
    """Write `messages` messages of Noa's chats under `folder`, as WhatsApp, Telegram and Messenger export them.

    The same seed and number give the same bytes.
    """
    chats, quota = noa_chats(), _quotas(messages)
    counts: dict[str, Counter[Kind]] = {"whatsapp": Counter(), "telegram": Counter(), "messenger": Counter()}

    def history(platform: str, title: str) -> Iterator[Message]:
        # What is deleted on Telegram is gone from its export; the others leave a mark.
        without = frozenset([Kind.DELETED]) if platform == "telegram" else frozenset[Kind]()
        for message in chat_messages(chats[title], seed=seed, count=quota[title], without=without):
            counts[platform][message.kind] += 1
            yield message

    for title in WHATSAPP_ANDROID:
        with _text_file(folder / f"WhatsApp Chat with {title}.txt") as stream:
            stream.writelines(_android_records(title, history("whatsapp", title)))
    for title in WHATSAPP_IOS:
        _write_ios_zip(folder / f"WhatsApp Chat - {title}.zip", title, history("whatsapp", title))
    for title in TELEGRAM_CHAT:
        with _text_file(folder / "ChatExport_2026-03-01" / "result.json") as stream:
            stream.writelines(_telegram_chat(chats[title], history("telegram", title), indent=""))
    with _text_file(folder / "DataExport_2026-03-01" / "result.json") as stream:
        stream.writelines(_telegram_account([(chats[t], history("telegram", t)) for t in TELEGRAM_ACCOUNT]))
    for title in MESSENGER:
        inbox = folder / "facebook-noabrindelune" / "messages" / "inbox"
        _write_messenger_thread(inbox, chats[title], history("messenger", title), quota[title])
    return ExportSummary(
        names=(NOA_ON_WHATSAPP, NOA_ON_TELEGRAM, NOA_ON_MESSENGER),
        timezone=ZONE.key,
        messages={platform: count.total() for platform, count in counts.items()},
        texts={platform: count[Kind.TEXT] for platform, count in counts.items()},
    )


def _quotas(total: int) -> dict[str, int]:
    """Messages of each chat; the roundings go to the first."""
    shares = WHATSAPP_ANDROID | WHATSAPP_IOS | TELEGRAM_ACCOUNT | TELEGRAM_CHAT | MESSENGER
    quota = {title: int(total * share) for title, share in shares.items()}
    quota[next(iter(quota))] += total - sum(quota.values())
    return quota


def _text_file(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", newline="")


def _local(time: int) -> datetime:
    return datetime.fromtimestamp(time, ZONE)


# --- WhatsApp -------------------------------------------------------------------------------------------------------

_ENCRYPTED = (
    "Messages and calls are end-to-end encrypted. No one outside of this chat, not even WhatsApp, "
    "can read or listen to them."
)


def _whatsapp_name(sender: Person) -> str:
    return NOA_ON_WHATSAPP if sender is NOA else sender.name


def _android_records(title: str, history: Iterator[Message]) -> Iterator[str]:
    """`18/03/2022, 14:56 - Name: text`: minutes, LF, and events as lines without a sender."""
    yield f"{_local(START):%d/%m/%Y, %H:%M} - {_ENCRYPTED} Tap to learn more.\n"
    for number, message in enumerate(history, start=1):
        stamp = f"{_local(message.time):%d/%m/%Y, %H:%M}"
        yield f"{stamp} - {_whatsapp_name(message.sender)}: {_android_body(message)}\n"
        if number % 400 == 0:
            yield f"{stamp} - Your security code with {title} changed. Tap to learn more.\n"


def _android_body(message: Message) -> str:
    match message.kind:
        case Kind.TEXT:
            return message.text
        case Kind.DELETED:
            return "You deleted this message" if message.sender is NOA else "This message was deleted"
        case Kind.CALL:
            return "Missed voice call"
        case _:
            return "<Media omitted>"


def _write_ios_zip(path: Path, title: str, history: Iterator[Message]) -> None:
    # A ZipInfo of our own carries no clock, so the same chat gives the same bytes.
    member = zipfile.ZipInfo("_chat.txt")
    member.compress_type = zipfile.ZIP_DEFLATED
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive, archive.open(member, "w", force_zip64=True) as stream:
        for record in _ios_records(title, history):
            stream.write(record.encode())


def _ios_records(title: str, history: Iterator[Message]) -> Iterator[str]:
    """`[18/03/2022, 14:56:01] Name: text`: records end in CRLF, lines inside one in LF; U+200E marks its own words."""
    yield f"[{_local(START):%d/%m/%Y, %H:%M:%S}] {title}: {LRM}{_ENCRYPTED}\r\n"
    for message in history:
        # A record with an attachment is marked before its bracket as well.
        mark = LRM if message.kind in (Kind.PHOTO, Kind.VOICE, Kind.STICKER) else ""
        stamp = f"{mark}[{_local(message.time):%d/%m/%Y, %H:%M:%S}]"
        yield f"{stamp} {_whatsapp_name(message.sender)}: {_ios_body(message)}\r\n"


def _ios_body(message: Message) -> str:
    match message.kind:
        case Kind.TEXT:
            return message.text
        case Kind.DELETED:
            return LRM + ("You deleted this message." if message.sender is NOA else "This message was deleted.")
        case Kind.CALL:
            return f"{LRM}Missed voice call. {LRM}Tap to call back"
        case kind:
            return LRM + {Kind.PHOTO: "image", Kind.VOICE: "audio", Kind.STICKER: "sticker"}[kind] + " omitted"


# --- Telegram -------------------------------------------------------------------------------------------------------

_NOT_INCLUDED = "(File not included. Change data exporting settings to download.)"
_ENTITY = re.compile(r"(?P<link>https?://\S+)|(?P<email>[\w.]+@[\w.]+\w)|(?P<phone>0[67](?: \d\d){4}|0\d{4} \d{6})")


def _telegram_account(chats: list[tuple[Chat, Iterator[Message]]]) -> Iterator[str]:
    """The full-account form: who exported, then every chat, saved messages among them."""
    about_person = {"user_id": _telegram_id(NOA_ON_TELEGRAM), "first_name": "noa", "last_name": "brindelune", "bio": ""}
    yield '{\n "about": "Here is the data you requested.",\n'
    yield f' "personal_information": {_json(about_person, " ")},\n'
    yield ' "chats": {\n  "about": "This page lists all chats from this export.",\n  "list": [\n   '
    yield _json({"type": "saved_messages", "id": about_person["user_id"], "messages": []}, "   ")
    for chat, history in chats:
        yield ",\n   "
        yield from _telegram_chat(chat, history, indent="   ")
    yield "\n  ]\n }\n}"


def _telegram_chat(chat: Chat, history: Iterator[Message], *, indent: str) -> Iterator[str]:
    group = len(chat.members) > 2
    head = {"name": chat.title, "type": "private_group" if group else "personal_chat", "id": _telegram_id(chat.title)}
    yield _json(head, indent).removesuffix(f"\n{indent}}}") + f',\n{indent} "messages": ['
    separator = "\n"
    for row in _telegram_rows(chat, history, group):
        yield f"{separator}{indent}  {_json(row, indent + '  ')}"
        separator = ",\n"
    yield f"\n{indent} ]\n{indent}}}"


def _telegram_rows(chat: Chat, history: Iterator[Message], group: bool) -> Iterator[dict[str, Any]]:
    if group:
        members = [_telegram_name(person) for person in chat.members]
        yield _telegram_event(1, START, NOA, action="create_group", title=chat.title, members=members)
    for number, message in enumerate(history, start=2):
        if message.kind is Kind.CALL:
            row = _telegram_event(number, message.time, message.sender, action="phone_call", discard_reason="missed")
        else:
            row = _telegram_head(number, "message", message.time)
            row |= {"from": _telegram_name(message.sender), "from_id": _telegram_user(message.sender)}
            if number % 40 == 0:
                row["reply_to_message_id"] = number - 1
            row |= _telegram_body(message)
        yield row


def _telegram_head(number: int, kind: str, time: int) -> dict[str, Any]:
    return {"id": number, "type": kind, "date": f"{_local(time):%Y-%m-%dT%H:%M:%S}", "date_unixtime": str(time)}


def _telegram_event(number: int, time: int, actor: Person, **facts: Any) -> dict[str, Any]:
    who = {"actor": _telegram_name(actor), "actor_id": _telegram_user(actor)}
    return _telegram_head(number, "service", time) | who | facts | {"text": "", "text_entities": []}


def _telegram_body(message: Message) -> dict[str, Any]:
    match message.kind:
        case Kind.PHOTO:
            media: dict[str, Any] = {"photo": _NOT_INCLUDED, "width": 1280, "height": 960}
        case Kind.VOICE:
            media = {"file": _NOT_INCLUDED, "media_type": "voice_message", "mime_type": "audio/ogg"}
        case Kind.STICKER:
            media = {"file": _NOT_INCLUDED, "media_type": "sticker", "sticker_emoji": "😂"}
        case _:
            media = {}
    entities = list(_telegram_entities(message.text))
    plain = all(entity["type"] == "plain" for entity in entities)
    mixed = [entity["text"] if entity["type"] == "plain" else entity for entity in entities]
    return media | {"text": message.text if plain else mixed, "text_entities": entities}


def _telegram_entities(text: str) -> Iterator[dict[str, str]]:
    position = 0
    for match in _ENTITY.finditer(text):
        if match.start() > position:
            yield {"type": "plain", "text": text[position : match.start()]}
        yield {"type": str(match.lastgroup), "text": match.group()}
        position = match.end()
    if position < len(text):
        yield {"type": "plain", "text": text[position:]}


def _telegram_name(person: Person) -> str:
    return NOA_ON_TELEGRAM if person is NOA else person.name


def _telegram_user(person: Person) -> str:
    return f"user{_telegram_id(_telegram_name(person))}"


def _telegram_id(name: str) -> int:
    return zlib.crc32(name.encode())


def _json(value: Any, indent: str) -> str:
    """Telegram Desktop writes UTF-8 as it is and indents by one blank."""
    return json.dumps(value, ensure_ascii=False, indent=1).replace("\n", f"\n{indent}")


# --- Messenger ------------------------------------------------------------------------------------------------------


def _write_messenger_thread(inbox: Path, chat: Chat, history: Iterator[Message], count: int) -> None:
    """`message_1.json` is the newest file and each is newest first. Even a short thread gets two files here."""
    page = max(1, min(PAGE, -(-count // 2)))
    files = -(-count // page)
    name = "".join(letter for letter in chat.title.lower() if letter.isascii() and letter.isalpha())
    folder = inbox / f"{name}_{zlib.crc32(chat.title.encode())}"
    oldest_page = count - (files - 1) * page  # every other file is full
    for number in range(files, 0, -1):
        rows = [_messenger_row(message) for message in islice(history, oldest_page if number == files else page)]
        document = {
            "participants": [{"name": _messenger_text(person.name)} for person in reversed(chat.members)],
            "messages": rows[::-1],
            "title": _messenger_text(chat.title),
            "is_still_participant": True,
            "thread_path": f"inbox/{folder.name}",
            "magic_words": [],
        }
        with _text_file(folder / f"message_{number}.json") as stream:
            json.dump(document, stream, indent=2)


def _messenger_row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"sender_name": _messenger_text(message.sender.name), "timestamp_ms": message.time * 1000}
    match message.kind:
        case Kind.TEXT:
            row["content"] = _messenger_text(message.text)
        case Kind.PHOTO:
            row["photos"] = [{"uri": f"messages/photos/{message.time}.jpg", "creation_timestamp": message.time}]
        case Kind.VOICE:
            row["audio_files"] = [{"uri": f"messages/audio/{message.time}.mp4", "creation_timestamp": message.time}]
        case Kind.STICKER:
            row["sticker"] = {"uri": "messages/stickers_used/39178562_1505197616293642_5411344281094848512_n_36923.png"}
        case Kind.DELETED:
            row["is_unsent"] = True
        case Kind.CALL:
            row |= {"content": _messenger_text(f"{message.sender.name} called you."), "call_duration": 0}
    if message.time % 30 == 0:
        row["reactions"] = [{"reaction": _messenger_text("😆"), "actor": _messenger_text(message.sender.name)}]
    return row | {"is_geoblocked_for_viewer": False}


def _messenger_text(text: str) -> str:
    """Facebook's mojibake: every UTF-8 byte as a character of its own, so that "é" is written \\u00c3\\u00a9."""
    return text.encode().decode("latin-1")
