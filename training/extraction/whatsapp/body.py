"""What a WhatsApp body is: somebody's words, or WhatsApp's own about a picture, a call, a poll, a deleted message.

iOS marks its own wording with an invisible U+200E (U+200F in right-to-left locales); Android does not, so there a
body must equal one of WhatsApp's phrases as a whole. Either way what a person wrote, captions included, is kept.
"""

import re
from collections.abc import Callable
from pathlib import PurePath

from training.extraction.record import Kind
from training.extraction.source import ATTACHMENTS
from training.extraction.whatsapp.markers import (
    EDITED,
    ENCRYPTION,
    EVENTS_WITH_COLON,
    FILE_ATTACHED,
    MARKS,
    PHRASES,
    normal,
)

Classify = Callable[[str, bool], tuple[Kind, str]]  # (body, header carries a mark) → kind, the person's text

MESSAGE = Kind.MESSAGE  # Python 3.11 takes 160 ns to look a member up; most bodies are messages
START = 4  # characters that tell most bodies apart from every phrase, at a fraction of the cost of normalising them
STARTS = frozenset(phrase[:START] for phrase in PHRASES)
INVISIBLE = frozenset("\u200e\u200f\u202a\u202b\u2066\u2067\u2068\ufeff")

EDIT_MARK = re.compile(rf"<(?:{'|'.join(map(re.escape, EDITED))})\.?>", re.IGNORECASE)
ANDROID_FILE = re.compile(
    rf"[\u200e\u200f]?[^\n]*\.\w{{2,5}} \((?:{'|'.join(map(re.escape, FILE_ATTACHED))})\)(?:\n|$)", re.IGNORECASE
)
# "<attached: 00000035-PHOTO-2022-03-27-21-41-55.jpg>" in any language: the number tells; "x.jpg <attached>" until 2015.
IOS_FILE = re.compile(r"<[^<>\n]{0,60}?\d{8}-(?P<name>[^<>\n]{1,300}?) ?(?: \w+)?>|^\S+\.\w{2,5} <\u200e?\w+>")
LOCATION = re.compile(
    r"[\u200e\u200f]?[^\n:：]{1,40}[:：] ?https?://maps\.google\.com/\?q=-?\d\S*"
    r"|[^\n(]+\([^\n]*\): https://foursquare\.com/v/\w+"
    r"|[^\n]+(?:\n[^\n]+){0,2}\nhttps://foursquare\.com/v/\w+"
)
# "POLL:" alone on the first line, and last of all "OPTION: pizza (3 votes)", each word in its language.
POLL = re.compile(r"[\u200e\u200f]?[^\W\d_a-z]+: ?")
POLL_OPTION = re.compile(r"[\u200e\u200f]?[^\W\d_a-z]+: .* \(\d+ \w+\)")
NOTICE = re.compile("|".join(".{0,80}".join(map(re.escape, form.split(" … "))) for form in ENCRYPTION))


def is_notice(body: str) -> bool:
    """The encryption notice, which on iOS and in old exports has a sender."""
    return NOTICE.match(MARKS.sub("", body)) is not None


def is_event(sender: str) -> bool:
    """Whether what precedes the first colon is the start of an Android event and no name."""
    return any(stem in sender for stem in EVENTS_WITH_COLON)


def android_body(body: str, marked: bool) -> tuple[Kind, str]:
    if body == "null":  # what was to be viewed once
        return Kind.MEDIA, ""
    return unmarked_body(body, marked)


def unmarked_body(body: str, marked: bool) -> tuple[Kind, str]:
    """A body without U+200E to go by: Android's, or an iOS export whose marks an editor has lost."""
    if body.endswith(">"):
        body = _without_edit_mark(body)
    if body[:START].casefold() in STARTS or body[:1] in INVISIBLE:
        first, _, rest = body.partition("\n")
        kind = PHRASES.get(normal(first))
        if kind is Kind.MEDIA and rest:
            return _caption(rest)
        if kind is not None and not rest:
            return kind, ""
    if ")" in body and (file := ANDROID_FILE.match(body)):
        return _caption(body[file.end() :])
    return _shape(body)


def ios_body(mark: str) -> Classify:
    """The classifier of a file whose own wording starts with `mark`."""

    def classify(body: str, marked: bool) -> tuple[Kind, str]:
        if body.endswith(">"):
            body = _without_edit_mark(body)
        if not body.startswith(mark):
            return _file_or_caption(body, mark) if mark in body else _shape(body)
        first, _, rest = body.partition("\n")
        fragments = [normal(fragment) for fragment in first.split(mark)]
        plain = normal(first)
        kind = PHRASES.get(plain) or next((PHRASES[fragment] for fragment in fragments if fragment in PHRASES), None)
        if kind is Kind.MEDIA or IOS_FILE.search(first):
            return _caption(rest)
        if kind is None:
            kind = next((PHRASES[phrase] for phrase in PHRASES if plain.startswith(phrase)), None)
        if kind is None:
            kind, _ = _shape(body)
        if kind is Kind.MESSAGE:
            # The words are WhatsApp's, in a language we have no phrases of; a mark on the header is media's.
            kind = Kind.MEDIA if marked else Kind.SYSTEM
        return kind, ""

    return classify


def _without_edit_mark(body: str) -> str:
    start = body.rfind("<")
    return body[:start].rstrip(" \u200e\u200f") if EDIT_MARK.fullmatch(body, start) else body


def _file_or_caption(body: str, mark: str) -> tuple[Kind, str]:
    """`Some file.txt ‎document omitted` is a file and its name; other words before the mark are a caption."""
    before, _, fragment = body.rpartition(mark)
    file = IOS_FILE.search(fragment)
    if file is None and PHRASES.get(normal(fragment)) is not Kind.MEDIA:
        return _shape(body)
    words = before.split(f" • {mark}")[0].strip()
    named = file["name"] if file else ""
    if words and not _is_file_name(words) and words not in (named or ""):
        return Kind.MESSAGE, words
    return Kind.MEDIA, ""


def _shape(body: str) -> tuple[Kind, str]:
    """What shows by its form in every language."""
    if ":" not in body:
        return MESSAGE, body
    if "://" in body and LOCATION.fullmatch(body):
        return Kind.LOCATION, ""
    if "\n" in body:
        lines = body.rstrip().split("\n")
        if POLL.fullmatch(lines[0]) and POLL_OPTION.fullmatch(lines[-1]):
            return Kind.POLL, ""
    return MESSAGE, body


def _caption(text: str) -> tuple[Kind, str]:
    text = text.strip("\n")
    return (Kind.MESSAGE, text) if text and not _is_file_name(text) else (Kind.MEDIA, "")


def _is_file_name(text: str) -> bool:
    return "\n" not in text and PurePath(MARKS.sub("", text)).suffix.lower() in ATTACHMENTS | {".txt", ".csv", ".zip"}
