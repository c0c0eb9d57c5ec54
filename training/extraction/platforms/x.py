"""Direct messages in the archive of X, formerly Twitter: `data/direct-messages.js` and `direct-messages-group.js`.

    window.YTD.direct_messages.part0 = [{"dmConversation": {"conversationId": "111-222", "messages": [
        {"messageCreate": {"id": "9", "senderId": "111", "recipientId": "222", "createdAt": "2021-05-01T10:30:00.123Z",
            "text": "words", "mediaUrls": [], "reactions": [{}],
            "urls": [{"url": "https://t.co/x", "expanded": "https://example.org"}]}},
        {"joinConversation": {…}}, {"participantsJoin": {…}}, {"participantsLeave": {…}}, {"reactionCreate": {…}},
        {"conversationNameUpdate": {"name": "Trip", …}}, {"welcomeMessageCreate": {…}}]}}]

The newest message is first. People are numbers; only the owner's name stands in `account.js`. X shortens every link and
adds one for a picture: links become what was typed. What a message answers is not exported, nor earlier versions.
Grammar from public parsers and their tests; not checked against a real archive.
"""

import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any

from ghost.errors import ExportError
from training.extraction.json_stream import Thread, threads
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, line_breaks, mapping, objects, reactions, string

NAME = "x"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("Your archive.html", "README.txt"))

START = re.compile(r"\s*window\.YTD\.direct_messages?(?:_group)?\.part\d+\s*=\s*\[")
KINDS = {"reactionCreate": Kind.REACTION, "welcomeMessageCreate": Kind.BOT}  # other events: SYSTEM
SHORT_LINK = re.compile(r"https?://t\.co/\w+")
MEDIA_LINK = re.compile(r"https?://(?:twitter|x)\.com/messages/media/|https?://ton\.twitter\.com/")


def recognise(source: Source, evidence: Evidence) -> str | None:
    return "a list of direct messages, assigned to X's window.YTD" if START.match(evidence.head) else None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    names = _owner(source)
    for thread in threads(source, "messages", wrapper="dmConversation"):
        chat = _chat(thread, names)
        for position, row in thread.backwards():
            yield _record(row, chat, names, position)


def _owner(source: Source) -> dict[str, str]:
    """The owner's name by number; nothing without an account.js that can be read."""
    file = source.sibling("account.js")
    try:
        accounts = [thread.about for thread in threads(file, "", wrapper="account")] if file else []
    except ExportError:
        return {}
    return {
        string(about.get("accountId")): name
        for about in accounts
        if (name := (string(about.get("accountDisplayName")) or string(about.get("username"))).strip())
    }


def _chat(thread: Thread, names: Mapping[str, str]) -> Chat:
    """Two numbers are a chat of two; a group has one, and perhaps a name."""
    key = string(thread.about.get("conversationId"))
    if "-" in key:
        others = [_name(person, names) for person in key.split("-") if person not in names]
        return Chat(key, ", ".join(others) or _name(key.split("-")[0], names), is_id=True)
    renamings = (mapping(row.get("conversationNameUpdate")) for row in objects(thread.messages))
    titles = (string(renaming.get("name")) for renaming in renamings)
    return Chat(key, next(filter(None, titles), f"group_{key}"), is_id=bool(key))


def _name(person: str, names: Mapping[str, str]) -> str:
    """Neither the bare number nor one behind a space: some look like a telephone's, and are masked."""
    return names.get(person) or f"user_{person}"


def _record(row: Any, chat: Chat, names: Mapping[str, str], position: int) -> Record:
    event, value = next(iter(mapping(row).items()), ("", None))
    value = mapping(value)
    timestamp = from_iso(value.get("createdAt"))
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    if event != "messageCreate":
        return Record(chat, timestamp, "", "", KINDS.get(event, Kind.SYSTEM), position)
    text = _words(value)
    kind = Kind.MEDIA if value.get("mediaUrls") and not text else Kind.MESSAGE
    sender, number = _name(string(value.get("senderId")), names), string(value.get("id"))
    return Record(chat, timestamp, sender, text, kind, position, number, reactions=reactions(value.get("reactions")))


def _words(message: Mapping[str, Any]) -> str:
    typed = {string(link.get("url")): string(link.get("expanded")) for link in objects(message.get("urls"))}

    def restored(short: re.Match[str]) -> str:
        link = typed.get(short[0]) or short[0]
        return "" if MEDIA_LINK.match(link) else link

    text = line_breaks(SHORT_LINK.sub(restored, unescape(string(message.get("text")))))
    return text.rstrip(" ") if message.get("mediaUrls") else text
