"""What a WhatsApp body is: somebody's words, or WhatsApp's own about a picture, a call, a poll, a deleted message.

iOS marks its own wording with an invisible U+200E (U+200F in right-to-left locales); Android does not, so there a
body must equal one of WhatsApp's phrases as a whole. Either way what a person wrote, captions included, is kept.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePath

from training.extraction.platform import Kind
from training.extraction.source import ATTACHMENTS
from training.extraction.whatsapp.markers import (
    ATTACHED,
    BODIES,
    CALLS_MADE,
    DELETED_BY,
    EDITED,
    MARKS,
    PHRASES,
    PLACE_LABELS,
    normal,
)
from training.extraction.whatsapp.templates import EAST_ASIAN, Templates

Classify = Callable[[str, bool], tuple[Kind, str]]  # (body, header carries a mark) → kind, the person's text

MESSAGE = Kind.MESSAGE  # Python 3.11 takes 160 ns to look a member up; most bodies are messages

# "attached" stands in brackets, except in Persian and Tamil.
BARE_FILE = tuple(line.replace("{}", "").strip() for line in ATTACHED if "(" not in line)
LONGEST_FILE = 300  # characters of a name and of what stands around it

EDIT_MARK = re.compile(rf"<(?:{'|'.join(map(re.escape, EDITED))})\.?>", re.IGNORECASE)
# "<attached: 00000035-PHOTO-2022-03-27-21-41-55.jpg>" in any language: the number tells; "x.jpg <attached>" until 2015.
IOS_FILE = re.compile(r"<[^<>\n]{0,60}?\d{8}-(?P<name>[^<>\n]{1,300}?) ?(?: \w+)?>|^\S+\.\w{2,5} <\u200e?\w+>")
FILE_NAME = re.compile(r"[^\n]*\.\w{2,5}")
MAP = re.compile(r"(?P<label>[^\n:：]{1,40})[:：] ?https?://maps\.google\.com/\?q=-?\d\S*")
VENUE = re.compile(
    r"[^\n(]+\([^\n]*\): https://foursquare\.com/v/\w+|[^\n]+(?:\n[^\n]+){0,2}\nhttps://foursquare\.com/v/\w+"
)
# "POLL:" alone on the first line, and last of all "OPTION: pizza (3 votes)", each word in its language.
POLL = re.compile(r"[^\W\d_a-z]+[:：] ?")
POLL_OPTION = re.compile(r"[^\W\d_a-z]+[:：] .* \(\d+ \w+\)")

FILES = Templates(ATTACHED)
DELETERS = Templates(DELETED_BY)
CALLERS = Templates(CALLS_MADE)


def _spellings(phrases: Mapping[str, Kind]) -> dict[str, Kind]:
    """The phrases as apps write them: one look-up of an untouched body answers, and hits nobody's words."""
    return {
        f"{mark}{written}{end}": kind
        for phrase, kind in phrases.items()
        for written in {phrase, phrase.lower(), phrase.capitalize(), phrase.replace("'", "’")}
        for mark in ("", "\u200e", "\u200f")
        for end in ("", " ", *_stops(phrase[-1]))
    }


def _stops(last: str) -> str:
    """The full stops that a phrase with this last character may have: `.`, and its script's own."""
    if last >= EAST_ASIAN:
        return ".。"
    return ".।" if "\u0900" <= last < "\u0b80" else ".۔" if "\u0600" <= last < "\u0700" else "."


AS_WRITTEN = _spellings(BODIES)
# Android puts a placeholder in brackets: there "image omitted" is somebody's words. `null` was to be viewed once.
ON_ANDROID = {body: kind for body, kind in AS_WRITTEN.items() if kind is not Kind.MEDIA or "<" in body}
ON_ANDROID["null"] = Kind.MEDIA


def android_body(body: str, marked: bool) -> tuple[Kind, str]:
    """A body of Android, which marks nothing."""
    return _whole_body(body, ON_ANDROID)


def unmarked_body(body: str, marked: bool) -> tuple[Kind, str]:
    """A body of an iOS file whose marks an editor has lost."""
    return _whole_body(body, AS_WRITTEN)


def ios_body(mark: str) -> Classify:
    """The classifier of a file whose own wording starts with `mark`."""

    def classify(body: str, marked: bool) -> tuple[Kind, str]:
        if body.endswith(">"):
            body = _without_edit_mark(body, mark)
        if mark not in body:
            return _shape(body) if "://" in body else (MESSAGE, body)  # polls are marked
        if not body.startswith(mark):
            return _file_or_caption(body, mark)
        first, _, rest = body.partition("\n")
        kind = _own_words(first)
        if kind is Kind.MEDIA:
            return _caption(rest)
        if kind is None:
            kind, _ = _shape(body, any_label=True)
        if kind is not MESSAGE:
            return kind, ""
        # The words are WhatsApp's, in a wording we do not know; a mark on the header is media's. It says nothing on
        # more than one line, nor without a letter: that is a number or a text pasted with its mark.
        if marked:
            return _caption(rest)
        if rest or not any(character.isalpha() for character in first):
            return MESSAGE, body
        return Kind.SYSTEM, ""

    return classify


def _whole_body(body: str, phrases: Mapping[str, Kind]) -> tuple[Kind, str]:
    if body in phrases:
        return phrases[body], ""
    if body.endswith(">"):
        body = _without_edit_mark(body)
    first, _, rest = body.partition("\n")
    # A placeholder without brackets above other words, `null` or "image omitted", is somebody's first line.
    if (rest and ">" in first and phrases.get(first) is Kind.MEDIA) or _is_attached(first):
        return _caption(rest)
    return _shape(body)


def _is_attached(line: str) -> bool:
    """`IMG-20220323-WA0002.jpg (file attached)`; the name may be any behind a mark, which nobody types."""
    if len(line) > LONGEST_FILE or not ((line[-1:] == ")" and " (" in line) or any(bare in line for bare in BARE_FILE)):
        return False
    return any(line[0] in "\u200e\u200f" or FILE_NAME.fullmatch(name) for _, name in FILES.filled(normal(line)))


@lru_cache(maxsize=4096)
def _own_words(line: str) -> Kind | None:
    """What a line that starts with a mark stands for; None where the words are an event's, or not known."""
    plain = normal(line)
    # "Missed voice call. ‎Tap to call back" and "Resume.pdf • ‎2 pages ‎document omitted" are known by a part.
    fragments = [normal(fragment) for fragment in MARKS.split(line)]
    for part in (plain, *fragments, *re.split("[.,،。]", plain)[:1], plain.strip("<> ")):
        if part in PHRASES:
            return PHRASES[part]
    if IOS_FILE.search(line):
        return Kind.MEDIA
    if plain in DELETERS:
        return Kind.DELETED
    return Kind.CALL if plain in CALLERS else None


def _without_edit_mark(body: str, mark: str = "") -> str:
    """The words before `<This message was edited>`; iOS marks it, so there it is known in every language."""
    start = body.rfind("<")
    words = body[:start].rstrip(" \u200e\u200f")
    if not words or EDIT_MARK.fullmatch(body, start):
        return words or body
    is_own = mark != "" and body[start - 1] == mark
    is_file = IOS_FILE.search(body, start) is not None or normal(body[start:]) in PHRASES
    return words if is_own and not is_file else body


def _file_or_caption(body: str, mark: str) -> tuple[Kind, str]:
    """`Some file.txt ‎document omitted` is a file and its name; other words before the mark are a caption."""
    before, _, fragment = body.rpartition(mark)
    file = IOS_FILE.search(fragment)
    if file is None and PHRASES.get(normal(fragment)) is not Kind.MEDIA:
        return _shape(body)
    words = before.split(f" • {mark}")[0].strip(" •")
    named = file["name"] if file else ""
    if words and not _is_file_name(words) and words not in (named or ""):
        return Kind.MESSAGE, words
    return Kind.MEDIA, ""


def _shape(body: str, any_label: bool = False) -> tuple[Kind, str]:
    """What shows by its form: a map's address behind one of WhatsApp's labels, a venue, a poll in any language."""
    if ":" not in body and "：" not in body:
        return MESSAGE, body
    plain = MARKS.sub("", body)
    if "://" in plain:
        place = MAP.fullmatch(plain)
        if place and (any_label or normal(place["label"]) in PLACE_LABELS):
            return Kind.LOCATION, ""
        if VENUE.fullmatch(plain):
            return Kind.LOCATION, ""
    if "\n" in plain:
        lines = plain.rstrip().split("\n")
        if POLL.fullmatch(lines[0]) and POLL_OPTION.fullmatch(lines[-1]):
            return Kind.POLL, ""
    return MESSAGE, body


def _caption(text: str) -> tuple[Kind, str]:
    text = text.strip("\n")
    return (Kind.MESSAGE, text) if text and not _is_file_name(text) else (Kind.MEDIA, "")


def _is_file_name(text: str) -> bool:
    return "\n" not in text and PurePath(MARKS.sub("", text)).suffix.lower() in ATTACHMENTS | {".txt", ".csv", ".zip"}
