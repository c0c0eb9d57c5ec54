"""iMessage, as imessage-exporter writes it to text: a line with the time, a line with the sender, then the words.

Local time without an offset. What the exporter prints between a person's words (tapbacks, effects, paths of
attachments, replies under their parent) is told from them by its wording and its place.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import PurePath

from ghost.errors import ExportError
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, reference
from training.extraction.source import Source, decode_text, line_breaks

NAME = "imessage"
UNIT = "line"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset(("chat.db-wal", "chat.db-shm", "sms.db-wal", "sms.db-shm"))

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
STAMP = rf"({'|'.join(MONTHS)}) (\d{{2}}), (\d{{4}})  ?(\d{{1,2}}):(\d{{2}}):(\d{{2}}) ([AP]M)"
ALONE = re.compile(rf"{STAMP}(?: \(Read by .+\))?")
WITH_WORDS = re.compile(rf"{STAMP} (?!\(Read by )(.+)")
NESTED = re.compile(rf" {{4}}{STAMP}(?: \(Read by .+\))?")
AT_LEAST = 2  # lines with a time and nothing else, in a file that does not begin with one

EDITED = re.compile(r"Edited (?:\d+ (?:day|hour|minute|second)s?(?:, )?)+ later: ")
TAPBACKS = ("Tapbacks:", "Reactions:")
STICKER = r"(?:\S+ )?Sticker from .+: .*"
TAPBACK = re.compile(rf"\S.{{0,40}} by .+|{STICKER}")
# The exporter copies files to attachments/, or names them where Apple keeps them: by path, in a phone's backup by hash.
ATTACHMENT = re.compile(
    r"(?:[~/].*/|[A-Z]:\\.*\\)?(?:Library[/\\](?:Messages|SMS)[/\\]|attachments[/\\])\S.*"
    rf"|[~/].*/[0-9a-f]{{2}}/[0-9a-f]{{40}}|Attachment missing!|{STICKER}"
)
EFFECT = re.compile(
    "Sent with (?:Confetti|Echo|Fireworks|Balloons|Heart|Lasers|Shooting Star|Shooting Start|Sparkles|Spotlight|Slam"
    "|Loud|Gentle|Invisible Ink)"
)
DELETED = "This message was deleted from the conversation!"
UNSENT = re.compile(r".{1,200} unsent this message part(?: .{1,60} after sending)?!")
UNSENT_ONCE = re.compile(r".{1,200} deleted a message\.")  # older versions, and nothing else in the message
REPLY = "This message responded to an earlier message."
LOCATION = ("Started sharing location!", "Stopped sharing location!")
SHAREPLAY = ["SharePlay Message", "Ended"]
# What an app put in the message's place; all of its lines are the app's.
APP = re.compile(
    r"(?:(?:[a-z]+(?:\.[\w-]+)+|GamePigeon) message:|Unable to format app message: .*|Digital Touch Message\b.*"
    r"|Handwritten messages are not yet supported!|Apple (?:Cash|Pay) transaction: .*"
    r"|Check In(?:: .*)?\n(?:Expected|Was expected|Checked in) .*)(?=\n|\Z)"
)
RENDERED = re.compile(r'class="message"')
HTML = re.compile(r'class="(?:sent|received)\b')


def recognise(source: Source, evidence: Evidence) -> str | None:
    head = evidence.head
    if head.startswith("SQLite format 3\0"):
        if source.name in ("chat.db", "sms.db") or "chat_message_join" in head:
            raise ExportError(
                f"{source}: Apple's message database, which is not read itself; run imessage-exporter --format txt"
                " --db-path DATABASE --export-path FOLDER, and pass that folder"
            )
        return None
    if RENDERED.search(head) and HTML.search(head) and 'class="timestamp"' in head:
        raise ExportError(f"{source}: imessage-exporter's HTML; run it again with --format txt and pass those files")
    if evidence.paths:
        return None
    lines = line_breaks(head).split("\n")
    first = next((line for line in lines if line), "")
    found = sum(ALONE.fullmatch(line) is not None for line in lines)
    if found >= AT_LEAST or ALONE.fullmatch(first) or (found and WITH_WORDS.fullmatch(first)):
        return "lines that hold nothing but imessage-exporter's date and time"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    text, facts = decode_text(source, "imessage-exporter writes UTF-8, so run it again")
    title = PurePath(source.name).stem
    lines = line_breaks(text).removesuffix("\n").split("\n")
    return Reading(_records(Chat(title.casefold(), title, is_id=False), lines), facts)


def _records(chat: Chat, lines: list[str]) -> Iterator[Record]:
    starts = [*_starts(lines), len(lines)]
    answered: dict[str, str] = {}  # by reference of the reply, which follows at its own time
    for line, words in enumerate(lines[: starts[0]], start=1):
        if words:
            yield Record(chat, "", "", "", Kind.UNREADABLE, line)
    for start, end in pairwise(starts):
        timestamp = _timestamp(lines[start])
        if timestamp is None:
            yield Record(chat, "", "", "", Kind.UNREADABLE, start + 1)
        elif WITH_WORDS.fullmatch(lines[start]):
            yield Record(chat, timestamp, "", "", Kind.SYSTEM, start + 1)
            for line in range(start + 1, end):
                if lines[line]:
                    yield Record(chat, "", "", "", Kind.UNREADABLE, line + 1)
        else:
            body = lines[start + 2 : end]
            if body and not body[-1]:
                body.pop()  # the blank line that parts two records; any other was typed
            here = reference(timestamp, lines[start + 1])
            answered |= dict.fromkeys(_replies(body), here)
            text, kind = _Body(body, lines[start]).read()
            yield Record(chat, timestamp, lines[start + 1], text, kind, start + 1, answers=answered.get(here, ""))


def _replies(body: Sequence[str]) -> Iterator[str]:
    """References of the replies that the exporter repeats below the message they answer."""
    for line, following in pairwise(body):
        if NESTED.fullmatch(line) and (timestamp := _timestamp(line.strip())):
            yield reference(timestamp, following.strip())


def _starts(lines: Sequence[str]) -> Iterator[int]:
    """Where records start: at a time in the first column, after a blank line.

    With a sender below it is a message, alone with words an announcement. The first version of an edited message looks
    like an announcement too, but it stands below a sender and above the next version.
    """
    for index, line in enumerate(lines):
        if index and lines[index - 1]:
            continue
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if ALONE.fullmatch(line) if following else WITH_WORDS.fullmatch(line):
            yield index


class _Body:
    """The lines below a sender, taken apart into a person's words and what the exporter says about them."""

    def __init__(self, lines: list[str], stamp: str) -> None:
        self._lines = lines
        self._stamp = stamp
        self._words: list[str] = []
        self._kinds: set[Kind] = set()

    def read(self) -> tuple[str, Kind]:
        lines = self._lines
        if lines and lines[-1] == REPLY:
            lines.pop()
        index = 0
        if lines[:1] == [DELETED]:
            self._kinds.add(Kind.DELETED)
            index = 1
        if APP.match("\n".join(lines[index : index + 2])):
            return "", Kind.MEDIA
        is_edited = any(map(EDITED.match, lines))
        version = None  # where in the words the version of an edited message starts
        while index < len(lines):
            line = lines[index]
            skipped = self._skip(index)
            if skipped:
                index += skipped
                continue
            if (first := WITH_WORDS.fullmatch(line)) and (
                is_edited or self._stamp.startswith(line[: first.start(8) - 1])
            ):
                version, line = len(self._words), first[8]
            elif version is not None and (edit := EDITED.match(line)):
                del self._words[version:]  # the last version is what the person wants to have said
                line = line[edit.end() :]
            self._words.append(line)
            index += 1
        if version is not None and self._words[-1:] == [""]:
            self._words.pop()  # the exporter ends an edited part with a blank line
        return self._result()

    def _skip(self, index: int) -> int:
        """How many lines from `index` on are the exporter's; 0 when a person wrote it."""
        lines = self._lines
        line, following = lines[index], lines[index + 1] if index + 1 < len(lines) else ""
        if NESTED.fullmatch(line):
            return self._reply(index)
        if line in TAPBACKS and TAPBACK.fullmatch(following):
            return self._tapbacks(index)
        if ATTACHMENT.fullmatch(line):
            self._kinds.add(Kind.MEDIA)
            return 2 if following.startswith("Transcription: ") else 1
        if EFFECT.fullmatch(line) and index and (not following or following in TAPBACKS or NESTED.fullmatch(following)):
            return 1
        if UNSENT.fullmatch(line) or (UNSENT_ONCE.fullmatch(line) and len(lines) == 1):
            self._kinds.add(Kind.DELETED)
            return 1
        if line in LOCATION and len(lines) == 1:
            self._kinds.add(Kind.LOCATION)
            return 1
        if lines[index : index + 2] == SHAREPLAY:
            self._kinds.add(Kind.SYSTEM)
            return 2
        return 0

    def _reply(self, index: int) -> int:
        """Length of a reply under its parent, with the blank line that ends it; it comes again at its own time.

        Newer exporters indent all of its lines, older ones only the first of a text: then it ends at the blank line.
        """
        end = index
        while end < len(self._lines) and self._lines[end]:
            end += 1
        while end + 1 < len(self._lines) and self._lines[end + 1][:4] in ("", "    "):
            end += 1
        return min(end + 1, len(self._lines)) - index

    def _tapbacks(self, index: int) -> int:
        end = index + 1
        while end < len(self._lines) and TAPBACK.fullmatch(self._lines[end]):
            end += 1
        return min(end + (self._lines[end : end + 1] == [""]), len(self._lines)) - index

    def _result(self) -> tuple[str, Kind]:
        text = "\n".join(self._words).replace("\ufffc", "")  # marks the place of an attachment
        for kind in (Kind.DELETED, Kind.MESSAGE, Kind.LOCATION, Kind.SYSTEM, Kind.MEDIA):
            if kind in self._kinds or (kind is Kind.MESSAGE and text.strip()):
                return text if kind is Kind.MESSAGE else "", kind
        return text, Kind.EMPTY


def _timestamp(line: str) -> str | None:
    match = re.match(STAMP, line)
    if match is None:
        return None
    month, day, year, hour, minute, second, half = match.groups()
    if not 1 <= int(hour) <= 12:
        return None
    clock = int(hour) % 12 + (12 if half == "PM" else 0)
    try:
        moment = datetime(int(year), MONTHS.index(month) + 1, int(day), clock, int(minute), int(second))
    except ValueError:
        return None
    return moment.isoformat()
