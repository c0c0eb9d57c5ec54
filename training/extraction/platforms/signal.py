"""Signal: its own plaintext export, the rows that sigtop takes from its desktop database, and signal-export's files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.json_stream import array, lines
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, decode, line_breaks, mapping, objects, reactions

NAME = "signal"
UNIT = "line or entry"  # a line of JSON lines and of text, an entry of sigtop's array
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("metadata.json",))

RECIPIENTS = {"recipient.self", "recipient.contact", "recipient.group", "recipient.distributionList"}
ROW = {"date", "sender", "body", "quote", "reactions"}
# A date, no seconds, and none of the marks that WhatsApp for iOS puts around names and notices.
OLD_HEADER = re.compile(r"\[\d{4}-\d\d-\d\d, \d\d:\d\d\] [^\n]*?: ", re.ASCII)
MARKS = re.compile("[\u200e\u200f\u202a-\u202e]")
# The first frame of an Android backup in the clear: its length, then an initialisation vector and a salt.
BACKUP = re.compile(rb"\0\0\0.\x0a.\x0a\x10.{16}\x12\x20", re.DOTALL)


def recognise(source: Source, evidence: Evidence) -> str | None:
    _refuse_backup(source, evidence)
    paths = evidence.paths
    if "chatItem.chatId" in paths or ("recipient.id" in paths and RECIPIENTS & paths):
        return "JSON lines with the frames of Signal's own export"
    if {"item.sent_at", "item.conversationId"} <= paths:
        return "a JSON array of Signal Desktop's rows, as sigtop writes it"
    if paths >= ROW:
        return "JSON lines with signal-export's fields"
    head = evidence.head.lstrip("\ufeff \t\r\n")
    if source.name in ("chat.md", "index.md") and HEADER.match(head):
        return "signal-export's Markdown"
    if source.name == "index.html" and "style.css" in head and _twin(source):
        return "signal-export's page"
    if OLD_HEADER.match(head) and not MARKS.search(head):
        return "lines that start with signal-export's [2019-12-24, 12:23]"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    if source.name.endswith((".md", ".html")) and (twin := _twin(source)):
        nothing: Iterator[Record] = iter(())
        return Reading(nothing, {"form": "signal-export", "passed_over": f"{twin.name} beside it is the same chat"})
    head = source.head().decode("utf-8-sig", "replace").lstrip()
    if head.startswith("[") and not HEADER.match(head):
        return Reading(_sigtop_records(source), {"form": "rows of Signal Desktop"})
    if not head.startswith("{"):
        return Reading(_text_records(source), {"form": "signal-export's text"})
    if source.name == "data.json":
        return Reading(_json_records(source), {"form": "signal-export's JSON lines"})
    return Reading(_own_records(source, _directory(source)), {"form": "Signal's own export"})


def _twin(source: Source) -> Source | None:
    """The most complete of the files that signal-export writes for a chat, if this is another one."""
    for name in ("data.json", "chat.md"):
        if name == source.name:
            return None
        if twin := source.sibling(name):
            return twin
    return None


def _refuse_backup(source: Source, evidence: Evidence) -> None:
    is_named = source.name.startswith("signal-") and source.name.endswith(".backup")
    if is_named or (evidence.head.startswith("\0\0\0") and BACKUP.match(source.head())):
        raise ExportError(
            f"{source}: Signal's encrypted backup; export the chats as plain text from Signal on Android or Desktop and"
            " pass that folder with its main.jsonl"
        )


# Its own export, main.jsonl: one frame a line, people and chats before the items of the chats. A group may stand before
# its members, so people and chats are read in a first pass, items in a second. Every integer of 64 bits is a string.
ITEM = b'{"chatItem"'
WITHOUT_WORDS = {
    "remoteDeletedMessage": Kind.DELETED,
    "adminDeletedMessage": Kind.DELETED,
    "viewOnceMessage": Kind.MEDIA,  # its content is never exported
    "stickerMessage": Kind.MEDIA,
    "contactMessage": Kind.MEDIA,
    "giftBadge": Kind.SYSTEM,
    "poll": Kind.POLL,
}
CALLS = ("individualCall", "groupCall")


@dataclass(slots=True)
class _Directory:
    """Names and keys by the ids of this export.

    accounts  names by account id, which mentions use
    """

    me: str = ""
    my_name: str = ""
    names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, str] = field(default_factory=dict)  # of chats

    def name(self, recipient: str) -> str:
        if recipient and recipient == self.me:
            return self.my_name or "Me"
        return self.names.get(recipient) or f"Unknown {recipient}".strip()

    def message_id(self, sent: Any, author: str) -> str:
        """Author and time, which identify a message in Signal. The account's id is stable, the name is not."""
        return f"{sent} {self.keys.get(author) or self.name(author)}"

    def chat(self, chat_id: str) -> Chat:
        recipient = self.recipients.get(chat_id, "")
        title = "Note to Self" if recipient and recipient == self.me else self.name(recipient)
        if not recipient:
            title = f"Unknown chat {chat_id}".strip()
        key = self.keys.get(recipient, "")
        return Chat(key or title.casefold(), title, is_id=bool(key))


def _directory(source: Source) -> _Directory:
    """The people, groups and chats of an export."""
    found = _Directory()
    for _, frame in lines(source, skip=ITEM):
        if not isinstance(frame, dict):
            continue
        for sort, take in (("account", _account), ("recipient", _recipient), ("chat", _chat)):
            if isinstance(frame.get(sort), dict):
                take(found, frame[sort])
    return found


def _own_records(source: Source, people: _Directory) -> Iterator[Record]:
    """One record for each item of a chat, and for each line that is no frame; positions are lines."""
    chats: dict[str, Chat] = {}
    nowhere = people.chat("")
    for number, frame in lines(source):
        if isinstance(frame, dict) and "chatItem" not in frame:
            continue  # people, chats, settings: no entry of a conversation
        item = frame["chatItem"] if isinstance(frame, dict) else None
        if not isinstance(item, dict) or (timestamp := _instant(item.get("dateSent"))) is None:
            yield Record(nowhere, "", "", "", Kind.UNREADABLE, number)
            continue
        chat_id = str(item.get("chatId", ""))
        if chat_id not in chats:
            chats[chat_id] = people.chat(chat_id)
        author = people.me if "outgoing" in item and people.me else str(item.get("authorId", ""))
        kind, text = _content(item, people.accounts)
        identity = people.message_id(item["dateSent"], author)
        message = item.get("standardMessage")
        count = reactions(message.get("reactions")) if isinstance(message, dict) else 0
        answers = _quoted(item, people)
        yield Record(chats[chat_id], timestamp, people.name(author), text, kind, number, identity, answers, count)


def _quoted(item: Mapping[str, Any], people: _Directory) -> str:
    message = item.get("standardMessage")
    quote = message.get("quote") if isinstance(message, dict) else None
    if not isinstance(quote, dict) or "targetSentTimestamp" not in quote:
        return ""
    return people.message_id(quote["targetSentTimestamp"], str(quote.get("authorId", "")))


def _content(item: Mapping[str, Any], accounts: Mapping[str, str]) -> tuple[Kind, str]:
    for sort, kind in WITHOUT_WORDS.items():
        if sort in item:
            return kind, ""
    if isinstance(update := item.get("updateMessage"), dict):
        return (Kind.CALL if any(call in update for call in CALLS) else Kind.SYSTEM), ""
    if isinstance(message := item.get("standardMessage"), dict):
        text = _text(message.get("text"), accounts)
        is_media = not text and (message.get("attachments") or message.get("longText"))
        return (Kind.MEDIA if is_media else Kind.MESSAGE), text
    if isinstance(reply := item.get("directStoryReplyMessage"), dict):
        holder = reply.get("textReply")
        text = _text(holder.get("text"), accounts) if isinstance(holder, dict) else ""
        return (Kind.MESSAGE if text else Kind.REACTION), text
    if isinstance(payment := item.get("paymentNotification"), dict):
        note = _body_text(payment.get("note"), None, accounts)
        return (Kind.MESSAGE if note else Kind.SYSTEM), note
    return Kind.SYSTEM, ""


def _text(text: Any, accounts: Mapping[str, str]) -> str:
    return _body_text(text.get("body"), text.get("bodyRanges"), accounts) if isinstance(text, dict) else ""


def _account(found: _Directory, account: Mapping[str, Any]) -> None:
    found.my_name = _joined(account, "givenName", "familyName") or str(account.get("username") or "")


def _chat(found: _Directory, chat: Mapping[str, Any]) -> None:
    found.recipients[str(chat.get("id", ""))] = str(chat.get("recipientId", ""))


def _recipient(found: _Directory, recipient: Mapping[str, Any]) -> None:
    number = str(recipient.get("id", ""))
    contact, group = recipient.get("contact"), recipient.get("group")
    if "self" in recipient:
        found.me = number
        found.keys[number] = "self"
    elif isinstance(contact, dict):
        account, phone = str(contact.get("aci") or ""), str(contact.get("e164") or "")
        found.keys[number] = account or phone
        found.names[number] = _contact_name(contact, phone)
        if account and found.names[number]:
            found.accounts[account] = found.names[number]
    elif isinstance(group, dict):
        found.keys[number] = str(group.get("masterKey") or "")
        found.names[number] = _group_title(group)
    elif "releaseNotes" in recipient:
        found.keys[number] = found.names[number] = "Signal"
    else:
        for sort in ("distributionList", "callLink"):
            if isinstance(holder := recipient.get(sort), dict):
                inner = holder.get(sort)
                found.names[number] = _joined(inner if isinstance(inner, dict) else holder, "name")


def _contact_name(contact: Mapping[str, Any], phone: str) -> str:
    """As in Signal: the nickname, the name in the address book, the profile's name."""
    nickname = contact.get("nickname")
    phone = f"+{phone}" if phone.isdecimal() else phone
    return (
        (_joined(nickname, "given", "family") if isinstance(nickname, dict) else "")
        or _joined(contact, "systemGivenName", "systemFamilyName")
        or _joined(contact, "profileGivenName", "profileFamilyName")
        or phone
        or str(contact.get("username") or "")
    )


def _group_title(group: Mapping[str, Any]) -> str:
    """`snapshot: {title: {title: …}}`"""
    inner: Any = group.get("snapshot")
    while isinstance(inner, dict):
        inner = inner.get("title")
    return well_formed(str(inner or "")).strip()


def _joined(holder: Mapping[str, Any], *keys: str) -> str:
    return well_formed(" ".join(part for key in keys if (part := str(holder.get(key) or "").strip())))


# Rows of Signal Desktop's database as a JSON array, one file a conversation: what sigtop writes. The rows name nobody;
# who the conversation is with stands in the file's name, `Ada (+15550001111).json`.
DETAIL = re.compile(r"(.+) \(([^()]+)\)")
WRITTEN = ("incoming", "outgoing")


def _sigtop_records(source: Source) -> Iterator[Record]:
    stem = PurePath(source.name).stem
    match = DETAIL.fullmatch(stem)
    title, is_group = (match[1], match[2] == "group") if match else (stem, False)
    chats: dict[str, Chat] = {}
    sent: dict[str, str] = {}  # id by sent_at, by which a quote refers to a message
    for position, row in array(source):
        timestamp = (_instant(row.get("sent_at")) or _instant(row.get("timestamp"))) if isinstance(row, dict) else None
        if timestamp is None:
            yield Record(Chat(title, title, is_id=False), "", "", "", Kind.UNREADABLE, position)
            continue
        key = str(row.get("conversationId") or title)
        is_named = not chats or (key in chats and chats[key].title == title)  # the file's name is its first chat's
        chat = chats.setdefault(key, Chat(key, title if is_named else key, is_id="conversationId" in row))
        account = str(row.get("source") or row.get("sourceServiceId") or row.get("sourceUuid") or "")
        them = account if is_group or not is_named else title
        sender = "Me" if row.get("type") == "outgoing" else them or title
        text = _body_text(row.get("body"), row.get("bodyRanges"), {})
        number, quote = str(row.get("id") or ""), row.get("quote")
        answers = sent.get(str(quote.get("id")), "") if isinstance(quote, dict) else ""
        sent[str(row.get("sent_at"))] = number
        kind, count = _sigtop_kind(row, text), reactions(row.get("reactions"))
        yield Record(chat, timestamp, sender, text, kind, position, number, answers, count)


def _sigtop_kind(row: Mapping[str, Any], text: str) -> Kind:
    if row.get("type") == "call-history":
        return Kind.CALL
    if row.get("deletedForEveryone") or row.get("isErased"):
        return Kind.DELETED
    if row.get("type") not in WRITTEN:
        return Kind.SYSTEM  # group-v2-change, keychange, verified-change, …
    if row.get("poll"):
        return Kind.POLL
    if text:
        return Kind.MESSAGE
    if row.get("giftBadge") or row.get("payment") or row.get("storyReaction"):
        return Kind.SYSTEM
    has_media = any(row.get(key) for key in ("attachments", "sticker", "contact", "isViewOnce", "hasAttachments"))
    return Kind.MEDIA if has_media else Kind.MESSAGE


# What signal-export (carderne) writes for each chat: chat.md, in its older versions index.md, and data.json. Times are
# local, without an offset. data.json, JSON lines, keeps apart what chat.md runs together: read it where there are both.
HEADER = re.compile(r"\[(\d{4}-\d\d-\d\d),? (\d\d:\d\d(?::\d\d)?)\] ([^\n]*?): ?", re.ASCII)
NAMES = ("chat.md", "index.md", "data.json", "index.html")
MARGIN = "  "  # behind each body, so that Markdown breaks the line
DELETED = "(This message was deleted)"
QUOTE = re.compile(r"\n\n(?:>[^\n]*\n)+\n")  # of the message that is answered
# Behind a body: attachments and stickers as links, what was not exported, stickers by name, reactions. A link's target
# has its blanks escaped; it and the label are kept short so that a file of nothing but brackets takes no longer.
TRAILER = re.compile(
    r"!?\[[^\[\]\n]*\]\(\.{1,2}/(?:media|exported_stickers)/\S{0,400}\)  |\((?:media|attachment) not exported\)  "
    r"|\n\(\( [^\n]* \)\)|\n\(- [^\n]* -\)"
)


def _chat_of(source: Source) -> Chat:
    """signal-export's folder is the chat's name."""
    title = source.parts[-2] if source.name in NAMES else PurePath(source.name).stem
    return Chat(title.casefold(), title, is_id=False)


def _text_records(source: Source) -> Iterator[Record]:
    text = line_breaks(decode(source, "export the chat again"))
    chat, is_markdown = _chat_of(source), source.name.endswith(".md")
    header: re.Match[str] | None = None
    start, body = 0, [""]
    for number, line in enumerate(text.split("\n"), start=1):
        if found := HEADER.match(line):
            if header:
                yield _text_record(chat, header, "\n".join(body), start, is_markdown)
            header, start, body = found, number, [line[found.end() :]]
        elif header:
            body.append(line)
        elif line.strip():
            yield Record(chat, "", "", "", Kind.UNREADABLE, number)
    if header:
        yield _text_record(chat, header, "\n".join(body), start, is_markdown)


def _text_record(chat: Chat, header: re.Match[str], body: str, number: int, is_markdown: bool) -> Record:
    try:
        timestamp = datetime.fromisoformat(f"{header[1]}T{header[2]}").isoformat(timespec="seconds")
    except ValueError:
        return Record(chat, "", "", "", Kind.UNREADABLE, number)
    body = body.rstrip("\n")
    kind = Kind.MESSAGE
    if is_markdown:
        if body == DELETED:
            return Record(chat, timestamp, header[3], "", Kind.DELETED, number)
        if quote := QUOTE.match(body):
            body = body[quote.end() :]
        words = _without_trailers(body)
        kind = Kind.MEDIA if words != body and not words.strip() else Kind.MESSAGE
        body = words.removesuffix(MARGIN)
    return Record(chat, timestamp, header[3], body, kind, number)


def _without_trailers(body: str) -> str:
    """Only an unbroken row of them at the end is the exporter's."""
    start = end = 0
    for trailer in TRAILER.finditer(body):
        if trailer.start() != end:
            start = trailer.start()
        end = trailer.end()
    return body[:start] if end == len(body) else body


def _json_records(source: Source) -> Iterator[Record]:
    chat = _chat_of(source)
    for number, row in lines(source):
        timestamp = from_iso(mapping(row).get("date"))
        if timestamp is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, number)
            continue
        text = line_breaks(well_formed(str(row.get("body") or ""))).removesuffix(MARGIN)
        sender = well_formed(str(row.get("sender") or ""))
        kind, count = _json_kind(row, text), reactions(row.get("reactions"))
        yield Record(chat, timestamp, sender, text, kind, number, reactions=count)


def _json_kind(row: Mapping[str, Any], text: str) -> Kind:
    if row.get("deleted"):
        return Kind.DELETED
    if row.get("call"):
        return Kind.CALL
    return Kind.MEDIA if not text and (row.get("attachments") or row.get("sticker")) else Kind.MESSAGE


# Fields that Signal spells alike in its own export and in its desktop database.
PLACEHOLDER = "\ufffc"  # stands in a body for each person mentioned


def _instant(milliseconds: Any) -> str | None:
    """Milliseconds since 1970, as a number or, in Signal's export, as a string. None where there is no such time."""
    try:
        number = int(milliseconds)
        moment = datetime.fromtimestamp(number / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds") if number > 0 else None


def _body_text(body: Any, ranges: Any, names: Mapping[str, str]) -> str:
    """A body with the names of those whom it mentions. Ranges count UTF-16 units; `names` are by account id."""
    text = str(body or "")
    if PLACEHOLDER in text:
        units = text.encode("utf-16-le", "surrogatepass")
        places = [(mention, place) for mention in objects(ranges) if (place := _place(mention)) is not None]
        for mention, place in sorted(places, key=lambda pair: pair[1], reverse=True):
            account = str(mention.get("mentionAci") or mention.get("mentionUuid") or "")
            name = names.get(account) or names.get(account.lower()) or str(mention.get("replacementText") or "")
            if name and units[place : place + 2] == PLACEHOLDER.encode("utf-16-le"):
                units = units[:place] + f"@{name}".encode("utf-16-le", "surrogatepass") + units[place + 2 :]
        text = units.decode("utf-16-le", "surrogatepass")
    return line_breaks(well_formed(text))


def _place(mention: Mapping[str, Any]) -> int | None:
    """In bytes; the export leaves a start of 0 out."""
    try:
        start = int(mention.get("start") or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return start * 2 if start >= 0 else None
