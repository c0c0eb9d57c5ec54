"""Google Voice, of a Takeout: one HTML page for each piece of a conversation and for each call."""

import glob
import posixpath
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import PurePath

from training.errors import ExportError
from training.extraction import google_voice
from training.extraction.google_voice import Entry, Page
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, beside, decode, line_breaks, well_formed

NAME = "google_voice"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("Bills.html", "archive_browser.html"))

SHAPE = re.compile(r"""class=["'](?:hChatLog|haudio)\b""")
PIECE = re.compile(r"(.*?) - (?:[^-]* - )?\d{4}-\d\d-\d\dT.*")  # Kay - Text - 2020-02-03T17_37_45Z
AGAIN = "download it from Takeout again"
GROUP = "Group Conversation"
NUMBER = re.compile(r'href="tel:(\+?\d+)"[^>]*>\s*<span class="fn">')  # of somebody else: the owner is in an <abbr>
UNWRITTEN = ("MMS Sent", "MMS Received")  # stands for words where only a picture was sent


def recognise(source: Source, evidence: Evidence) -> str | None:
    if SHAPE.search(evidence.head):
        return "an HTML page with Google Voice's hChatLog or haudio"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    page = google_voice.parse(decode(source, AGAIN, may_hold_nul=True))
    return Reading(_records(source, page, _chat(source, page)))


def _chat(source: Source, page: Page) -> Chat:
    """Takeout cuts a thread into many pages: the other's number joins them, of a group everybody's."""
    match = PIECE.fullmatch(PurePath(source.name).stem)
    name = match[1].strip() if match else "" if page.is_call else page.title
    others = dict(page.participants)
    for entry in page.entries:
        if not entry.is_mine and (entry.number or entry.name):
            others[entry.number] = others.get(entry.number) or entry.name
    if page.participants or len(others) > 1:
        title = ", ".join(sorted(others[number] or number for number in others))
        return Chat("group " + " ".join(sorted(others)), title, is_id=True)
    number, known = next(iter(others.items()), ("", ""))
    if match and not number and name != GROUP:
        number = _number_of(source, name)
    title = well_formed(known or name or number) or "unknown number"
    return Chat(number or title.casefold(), title, is_id=bool(number))


def _number_of(source: Source, name: str) -> str:
    """The number behind a name whose texts are all the owner's own here: another page of that name shows it."""
    folder = source.path if source.member else source.path.parent
    page = posixpath.join(posixpath.dirname(source.member), "*") if source.member else ""
    return _number_beside(Source(source.path if page else folder / "*", page), folder.stat().st_mtime_ns, name)


@lru_cache(maxsize=4096)  # to look through 2,000 pages for each of them took minutes
def _number_beside(any_page: Source, changed: int, name: str) -> str:
    """`changed`, when the folder or the zip was written, keeps a second run from the first one's numbers."""
    for page in beside(any_page, f"{glob.escape(name)} - *.html"):
        try:
            if match := NUMBER.search(decode(page, AGAIN, may_hold_nul=True)):
                return match[1]
        except ExportError:
            continue
    return ""


def _records(source: Source, page: Page, chat: Chat) -> Iterator[Record]:
    for position, entry in enumerate(page.entries, start=1):
        yield _record(chat, entry, page.is_call, position)
    if not page.is_whole:
        raise ExportError(f"{source}: damaged or cut off after entry {len(page.entries):,}; {AGAIN}")


def _record(chat: Chat, entry: Entry, is_call: bool, position: int) -> Record:
    try:
        when = datetime.fromisoformat(entry.when)
    except ValueError:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    text = line_breaks(well_formed(entry.text)).removesuffix("\n")  # Takeout ends a body that had an attachment in <br>
    if entry.has_media and text in UNWRITTEN:
        text = ""
    sender = well_formed(entry.name or entry.number) or chat.title
    # A voicemail's transcript is a machine's spelling of what was said, not how the person writes: a call.
    kind = Kind.CALL if is_call else Kind.MEDIA if entry.has_media and not text else Kind.MESSAGE
    timestamp = when.isoformat(timespec="milliseconds" if when.tzinfo else "seconds")
    return Record(chat, timestamp, sender, text, kind, position)
