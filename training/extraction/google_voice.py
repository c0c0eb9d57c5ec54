"""One HTML page of Google Voice's Takeout: a piece of a conversation in texts, or one call.

Takeout writes every tag by one template. The standard library's parser takes 40 s for 100 kB of `<!--` that nothing
closes (Python 3.11.7); one expression that finds tags takes milliseconds for anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape

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
