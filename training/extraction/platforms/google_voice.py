"""Google Voice, of a Takeout: one HTML page for each piece of a conversation in texts and for each call.

Takeout writes every tag by one template. The standard library's parser takes 40 s for 100 kB of `<!--` that nothing
closes (Python 3.11.7); one expression that finds tags takes milliseconds for anything.
"""

import glob
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from html import unescape
from pathlib import PurePath

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_iso
from training.extraction.source import Source, beside, decode, line_breaks

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
    page = parse(decode(source, AGAIN))
    return Reading(_records(source, page, _chat(source, page)))


def _chat(source: Source, page: "Page") -> Chat:
    """Takeout splits a thread into many pages. They are joined by the other's number, in a group by all numbers."""
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
    """The other's number for a page with texts of the owner only, from another page of the same name."""
    folder = source.path if source.member else source.path.parent
    page = posixpath.join(posixpath.dirname(source.member), "*") if source.member else ""
    return _number_beside(Source(source.path if page else folder / "*", page), folder.stat().st_mtime_ns, name)


@lru_cache(maxsize=4096)  # to look through 2,000 pages for each of them took minutes
def _number_beside(any_page: Source, changed: int, name: str) -> str:
    """`changed`, when the folder or the zip was written, makes a new export a new cache entry."""
    for page in beside(any_page, f"{glob.escape(name)} - *.html"):
        try:
            if match := NUMBER.search(decode(page, AGAIN)):
                return match[1]
        except ExportError:
            continue
    return ""


def _records(source: Source, page: "Page", chat: Chat) -> Iterator[Record]:
    for position, entry in enumerate(page.entries, start=1):
        yield _record(chat, entry, page.is_call, position)
    if not page.is_whole:
        raise ExportError(f"{source}: damaged or cut off after entry {len(page.entries):,}; {AGAIN}")


def _record(chat: Chat, entry: "Entry", is_call: bool, position: int) -> Record:
    timestamp = from_iso(entry.when)
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    text = line_breaks(well_formed(entry.text)).removesuffix("\n")  # Takeout ends a body that had an attachment in <br>
    if entry.has_media and text in UNWRITTEN:
        text = ""
    sender = well_formed(entry.name or entry.number) or chat.title
    # A voicemail's transcript is written by a machine, so it counts as a call.
    kind = Kind.CALL if is_call else Kind.MEDIA if entry.has_media and not text else Kind.MESSAGE
    return Record(chat, timestamp, sender, text, kind, position)


# Nothing is given back once matched, and a name is tried at its first letter only, so the time grows as the file does.
TAG = re.compile(r"""<(/?)([a-zA-Z]++)((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""")
ATTRIBUTE = re.compile(r"""(?<![\w:-])([\w:-]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""")
ATTACHED = frozenset(("video", "audio", "vcard", "attachment"))  # classes of the links to what was sent


@dataclass(slots=True)
class Entry:
    """when is ISO 8601 with an offset, as the page has it."""

    when: str = ""
    number: str = ""
    name: str = ""
    is_mine: bool = False
    text: str = ""
    has_media: bool = False


@dataclass(slots=True)
class Page:
    """participants are the others of a group, name by number. A call is an entry whose person is the other one."""

    title: str = ""
    participants: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    is_call: bool = False
    is_whole: bool = False


def parse(html: str) -> Page:
    reader = _Reader()
    end = 0
    for tag in TAG.finditer(html):
        reader.text(html[end : tag.start()])
        end = tag.end()
        name = tag[2].lower()
        if tag[1]:
            reader.close(name)
        else:
            reader.open(name, {key: unescape(value or other) for key, value, other in ATTRIBUTE.findall(tag[3])})
    if not reader.page.is_whole and reader.page.entries:
        reader.page.entries.pop()  # it may be cut anywhere
    return reader.page


class _Reader:
    def __init__(self) -> None:
        self.page = Page()
        self._entry = Entry()  # the one that is being read
        self._person: Entry | None = None  # inside of <a class="tel">
        self._text: list[str] | None = None  # inside of <q>, .fn, .full-text and <title>
        self._text_tag = ""

    def open(self, tag: str, attributes: Mapping[str, str]) -> None:
        classes = set(attributes.get("class", "").split())
        if self._text is not None:
            if tag == "br":
                self._text.append("\n")
        elif tag == "div" and classes & {"message", "haudio"}:
            self._entry = Entry()
            self.page.entries.append(self._entry)
            self.page.is_call = "haudio" in classes
        elif tag == "abbr" and classes & {"dt", "published"}:
            self._entry.when = attributes.get("title", "")
        elif tag == "a" and "tel" in classes:
            self._person = Entry(number=attributes.get("href", "").removeprefix("tel:"))
        elif tag in ("q", "title") or "full-text" in classes or ("fn" in classes and self._person is not None):
            self._text, self._text_tag = [], tag
            if self._person is not None and tag == "abbr":  # the others stand in a <span>
                self._person.is_mine = True
        elif tag in ("img", "audio", "video") or (tag == "a" and classes & ATTACHED):
            self._entry.has_media = True

    def close(self, tag: str) -> None:
        if self._text is not None and tag == self._text_tag:
            self._take("".join(self._text))
            self._text = None
        elif tag == "a" and self._person is not None:
            self._belongs_to(self._person)
            self._person = None
        elif tag == "html":
            self.page.is_whole = True

    def text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(unescape(text))

    def _take(self, text: str) -> None:
        if self._text_tag == "title":
            self.page.title = " ".join(text.split())
        elif self._person is not None:
            self._person.name = " ".join(text.split())
        else:
            self._entry.text = text

    def _belongs_to(self, person: Entry) -> None:
        if not self.page.entries:
            if not person.is_mine:
                self.page.participants[person.number] = person.name
        elif not self._entry.number and not self._entry.name:
            self._entry.number, self._entry.name = person.number, person.name
            self._entry.is_mine = person.is_mine
