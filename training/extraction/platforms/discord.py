"""DiscordChatExporter's JSON: one file for each channel, thread or part of one.

Records are held until the end of the file: only then is it known whether two people have one name, and who `<@123>` is.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ghost.errors import ExportError
from training.extraction.json_stream import Broken, Cursor
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, line_breaks, reactions

NAME = "discord"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset()

AGAIN = "export the channel again with DiscordChatExporter, Format: JSON, and pass that file"
OTHER_FORMS = re.compile(r"AuthorID,Author,Date,Content,|={40,}\r?\nGuild: .*\r?\nChannel: ")
PACKAGE = frozenset(("item.ID", "item.Timestamp", "item.Contents"))

# The exporter writes types without a name as numbers: 20 and 23 are answers of an app, 46 is the end of a poll. All
# other types are events; nobody wrote their English `content`.
WRITTEN = frozenset(("Default", "Reply", "0", "19"))
ANSWERED_BY_APP = frozenset(("20", "23"))
CALLS = frozenset(("Call", "3"))
POLLS = frozenset(("46",))
MEDIA = ("attachments", "stickers", "embeds")
NO_NUMBER = ("", "0", "0000")  # people got names instead of numbers in 2023
# What `--markdown false` leaves of a mention of a person or a role, of an emoji and of a time.
RAW = re.compile(r"<(?:@!?(\d+)|@&(\d+)|a?(:\w+:)\d+|t:(\d{1,11})(?::[tTdDfFR])?)>")


def recognise(source: Source, evidence: Evidence) -> str | None:
    head = evidence.head.lstrip()
    if OTHER_FORMS.match(head) or (head[:9].lower() in ("<!doctype", "<html lan") and "chatlog__" in head):
        raise ExportError(f"{source}: DiscordChatExporter's HTML, CSV or text form; {AGAIN}")
    if evidence.paths >= PACKAGE or head.startswith("ID,Timestamp,Contents,"):
        raise ExportError(
            f"{source}: Discord's own data package, which has what you wrote and none of the replies; {AGAIN}"
        )
    if evidence.paths >= {"guild", "channel", "messages"}:
        return "a JSON object with guild, channel and messages, as DiscordChatExporter writes it"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


class _Author(NamedTuple):
    id: str
    shown: str
    exact: str


NOBODY = _Author("", "", "")
NOWHERE = Chat("", "", is_id=False)


class _People:
    """The people of a file: their names, and whom the number in a mention stands for."""

    def __init__(self) -> None:
        self._ids: defaultdict[str, set[str]] = defaultdict(set)  # by name
        self._mentioned: dict[str, str] = {}

    def meet(self, person: Any) -> _Author:
        if not isinstance(person, dict):
            return NOBODY
        name, number = _text(person.get("name")), _text(person.get("discriminator"))
        exact = name if number in NO_NUMBER else f"{name}#{number}"
        author = _Author(_text(person.get("id")) or exact, _text(person.get("nickname")) or name, exact)
        self._mentioned[f"@{author.id}"] = f"@{author.shown}"
        for role in _list(person.get("roles")):
            if isinstance(role, dict):
                self._mentioned[f"&{_text(role.get('id'))}"] = f"@{_text(role.get('name'))}"
        return author

    def hear(self, author: _Author) -> None:
        self._ids[author.shown].add(author.id)
        self._ids[f"\0{author.exact}"].add(author.id)

    def called(self, author: _Author) -> str:
        """The name that the chat shows; if several people have it, one that is unique."""
        if len(self._ids[author.shown]) == 1:
            return author.shown
        is_only = self._ids[author.exact] | self._ids[f"\0{author.exact}"] == {author.id}
        return author.exact if is_only else f"{author.exact} ({author.id})"

    def rendered(self, text: str) -> str:
        """The text as the exporter writes it by default. Mentions of unknown people stay as they are."""
        return RAW.sub(self._rendered, text) if "<" in text else text

    def _rendered(self, raw: re.Match[str]) -> str:
        person, role, emoji, seconds = raw.groups()
        if emoji:
            return str(emoji)
        if seconds:
            return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d %H:%M}"
        return self._mentioned.get(f"@{person}" if person else f"&{role}", raw[0])


def _records(source: Source) -> Iterator[Record]:
    header: dict[str, Any] = {}
    held: list[tuple[Record, _Author]] | None = None
    people = _People()
    defect = None
    with source.open() as stream:
        cursor = Cursor(stream)
        try:
            for key in cursor.names():
                if key in ("guild", "channel"):
                    header[key] = cursor.value()
                elif key == "messages" and cursor.peek() == "[":
                    held = []
                    for message in cursor.values():
                        held.append(_met(message, len(held) + 1, people))
            cursor.finish()
        except Broken as error:
            defect = ExportError(f"{source}: not valid JSON after entry {len(held or ()):,} ({error}); {AGAIN}")
    chat = _chat(header, source)
    known: dict[str, Record] = {}
    for record, author in held or ():
        record = record._replace(chat=chat, sender=people.called(author), text=people.rendered(record.text))
        # The exporter may write a message twice. Another text under the same id is another version.
        earlier = known.setdefault(record.id, record) if record.id else record
        if earlier is not record and earlier[1:4] == record[1:4]:
            record = record._replace(kind=Kind.DUPLICATE)
        yield record
    if defect is not None:
        raise defect
    if held is None:
        raise ExportError(f"{source}: no list of messages in it; {AGAIN}")


def _met(message: Any, position: int, people: _People) -> tuple[Record, _Author]:
    """The record of a message without its chat and sender, and its author."""
    if not isinstance(message, dict):
        return Record(NOWHERE, "", "", "", Kind.UNREADABLE, position), NOBODY
    author = people.meet(message.get("author"))
    for mention in _list(message.get("mentions")):
        people.meet(mention)
    timestamp = from_iso(message.get("timestamp"))
    content = message.get("content")
    if timestamp is None or not isinstance(content, str | None):
        return Record(NOWHERE, "", "", "", Kind.UNREADABLE, position), NOBODY
    people.hear(author)
    text = line_breaks(_text(content))
    kind, number, answers = _kind(message, text), _text(message.get("id")), _answers(message)
    count = reactions(message.get("reactions"))
    return Record(NOWHERE, timestamp, "", text, kind, position, number, answers, count), author


def _answers(message: dict[str, Any]) -> str:
    """The id of the message that is answered, which may be deleted or in another channel. Ids are unique everywhere."""
    target = message.get("reference")
    return _text(target.get("messageId")) if isinstance(target, dict) else ""


def _kind(message: dict[str, Any], text: str) -> Kind:
    kind = str(message.get("type", "Default"))
    if kind in CALLS:
        return Kind.CALL
    if kind in POLLS or (message.get("poll") and not text.strip()):
        return Kind.POLL
    author = message.get("author")
    if kind in ANSWERED_BY_APP or (kind in WRITTEN and isinstance(author, dict) and author.get("isBot")):
        return Kind.BOT
    if kind not in WRITTEN:
        return Kind.SYSTEM
    if text.strip():
        return Kind.MESSAGE
    if message.get("forwardedMessage"):
        return Kind.FORWARD
    return Kind.MEDIA if any(message.get(key) for key in MEDIA) else Kind.EMPTY


def _chat(header: dict[str, Any], source: Source) -> Chat:
    guild, channel = (value if isinstance(value := header.get(key), dict) else {} for key in ("guild", "channel"))
    name = _text(channel.get("name")) or source.name.removesuffix(".json")
    is_direct = _text(guild.get("id")) in NO_NUMBER
    title = name if is_direct else f"{_text(guild.get('name'))} - {name}"
    key = _text(channel.get("id"))
    return Chat(key or title, title, is_id=bool(key))


def _text(value: Any) -> str:
    """Ids come as strings or as numbers."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
