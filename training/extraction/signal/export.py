"""Signal's own plaintext export, main.jsonl: one frame a line, people and chats before the items of the chats.

A group may stand before its members, so people and chats are read in a first pass, items in a second. Every integer of
64 bits is a string.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from training.extraction.json_stream import lines
from training.extraction.platform import Chat, Kind, Record
from training.extraction.signal.fields import body_text, instant
from training.extraction.source import Source, well_formed

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
class Directory:
    """Names and keys by the ids that this one export gave; accounts: names by account id, as mentions have it."""

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

    def chat(self, chat_id: str) -> Chat:
        recipient = self.recipients.get(chat_id, "")
        title = "Note to Self" if recipient and recipient == self.me else self.name(recipient)
        if not recipient:
            title = f"Unknown chat {chat_id}".strip()
        key = self.keys.get(recipient, "")
        return Chat(key or title.casefold(), title, is_id=bool(key))


def directory(source: Source) -> Directory:
    """The people, groups and chats of an export."""
    found = Directory()
    for _, frame in lines(source, skip=ITEM):
        if not isinstance(frame, dict):
            continue
        for sort, take in (("account", _account), ("recipient", _recipient), ("chat", _chat)):
            if isinstance(frame.get(sort), dict):
                take(found, frame[sort])
    return found


def records(source: Source, people: Directory) -> Iterator[Record]:
    """One for each item of a chat, and one for each line that is no frame; positions are lines."""
    chats: dict[str, Chat] = {}
    nowhere = people.chat("")
    for number, frame in lines(source):
        if isinstance(frame, dict) and "chatItem" not in frame:
            continue  # people, chats, settings: no entry of a conversation
        item = frame["chatItem"] if isinstance(frame, dict) else None
        if not isinstance(item, dict) or (timestamp := instant(item.get("dateSent"))) is None:
            yield Record(nowhere, "", "", "", Kind.UNREADABLE, number)
            continue
        chat_id = str(item.get("chatId", ""))
        if chat_id not in chats:
            chats[chat_id] = people.chat(chat_id)
        author = people.me if "outgoing" in item and people.me else str(item.get("authorId", ""))
        kind, text = _content(item, people.accounts)
        # Who and when is a message's identity in Signal; the id lasts longer than a name.
        identity = f"{item['dateSent']} {people.keys.get(author) or people.name(author)}"
        yield Record(chats[chat_id], timestamp, people.name(author), text, kind, number, identity)


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
        return (Kind.MESSAGE if text else Kind.SYSTEM), text  # otherwise a reaction to a story
    if isinstance(payment := item.get("paymentNotification"), dict):
        note = body_text(payment.get("note"), None, accounts)
        return (Kind.MESSAGE if note else Kind.SYSTEM), note
    return Kind.SYSTEM, ""


def _text(text: Any, accounts: Mapping[str, str]) -> str:
    return body_text(text.get("body"), text.get("bodyRanges"), accounts) if isinstance(text, dict) else ""


def _account(found: Directory, account: Mapping[str, Any]) -> None:
    found.my_name = _joined(account, "givenName", "familyName") or str(account.get("username") or "")


def _chat(found: Directory, chat: Mapping[str, Any]) -> None:
    found.recipients[str(chat.get("id", ""))] = str(chat.get("recipientId", ""))


def _recipient(found: Directory, recipient: Mapping[str, Any]) -> None:
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
    """As Signal shows it: the nickname given by hand, the address book, the person's own profile."""
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
