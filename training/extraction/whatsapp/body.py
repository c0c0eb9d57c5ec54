"""What a WhatsApp line is: somebody's words, or WhatsApp's own about a picture, a call, a deleted message, a group.

iOS marks its own wording with an invisible U+200E (U+200F in right-to-left locales); Android does not, so there a
body must equal one of WhatsApp's phrases as a whole. Either way what a person wrote, captions included, is kept.

The phrases are in wording/, one a line, some sixty languages together: which language a phrase is in does not matter.
They are those of WhatsApp's own string tables, iOS 2022/23 and Android 2017-2019, as collected by starkdmi/whats_json;
newer Android media marks and edit marks are from other public parsers. Only whole bodies match, case-folded, without
direction marks and without a final full stop: "I left my keys" and "the video omitted a detail" are a person's.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import PurePath
from typing import NamedTuple
from unicodedata import category

from training.extraction.platform import Kind
from training.extraction.source import ATTACHMENTS
from training.extraction.whatsapp import wording

# Direction marks and the byte order mark: invisible, never part of a name or a phrase.
MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
STOPS = ".。।۔"  # Latin, Chinese, Devanagari, Urdu
# Quotes and blanks differ between versions of one phrase.
LOOK_ALIKE = str.maketrans("“”„«»「」‘’\u00a0\u202f\u2009", '"""""""\'\'   ')


def normal(text: str) -> str:
    """The form in which phrases are compared."""
    return MARKS.sub("", text).translate(LOOK_ALIKE).strip().rstrip(STOPS).rstrip().casefold()


DELETED = wording("deleted")
CALLS_MADE = wording("calls_made")  # `{}` stands for who called
PLACES = wording("places")
ATTACHED = wording("attached")  # `{}` stands for the file's name
EDITED = wording("edited")
NOTICES = wording("notices")  # `…` stands for some words
EXPORT_TITLES = wording("titles")  # `{}` stands for the chat's name
PLACE_LABELS = frozenset(normal(place[:-1]) for place in PLACES if place.endswith(":"))
DELETED_BY = tuple(phrase for phrase in DELETED if "{}" in phrase)  # `{}` stands for an admin's name

# Whole bodies.
BODIES: dict[str, Kind] = {
    phrase: kind
    for kind, phrases in (
        (Kind.DELETED, [phrase for phrase in DELETED if "{}" not in phrase]),
        (Kind.CALL, wording("calls_missed")),
        (Kind.LOCATION, [place for place in PLACES if not place.endswith(":")]),
        (Kind.SYSTEM, wording("undelivered")),
        (Kind.MEDIA, wording("media")),
    )
    for phrase in phrases
}
# What iOS marks as its own words, in normal form: calls that were made, too, though people say "video call".
PHRASES = {
    **{normal(phrase): kind for phrase, kind in BODIES.items()},
    **{normal(phrase): Kind.CALL for phrase in CALLS_MADE if "{}" not in phrase},
}


# Lines with blanks, `{} added {}`, found again whatever fills the blanks: names with colons, numbers, emoji.
KEY = 4  # characters at a template's end or start that set most of them apart
# A literal of fewer letters could be part of a name, as Japanese が and Russian на are; at a line's start it is "you".
LETTERS, FIRST_LETTERS, IDEOGRAPHS = 4, 3, 3
EAST_ASIAN = "\u2e80"  # scripts from here on say much in few characters


class Template(NamedTuple):
    """What stands before, between and after the blanks, in normal form."""

    literals: tuple[str, ...]

    def fill(self, line: str) -> str | None:
        """What fills the first blank of a line in normal form, or None when the line is no such line."""
        start, *middle, end = self.literals
        if not (line.startswith(start) and line.endswith(end)):
            return None
        position, stop = len(start), len(line) - len(end)
        first = None
        for literal in middle:
            found = line.find(literal, position + 1, stop)
            if found < 0:
                return None
            first = line[position:found] if first is None else first
            position = found + len(literal)
        if position >= stop:
            return None
        return line[position:stop] if first is None else first

    def before_colon(self) -> list[str]:
        """The literals, up to a colon of their own, that a `: ` may follow: all but a last one at the line's end."""
        heads = [literal.partition(": ")[0] for literal in self.literals]
        if self.literals[-1] and ": " not in self.literals[-1]:
            heads.pop()
        return [head.removesuffix(":") for head in heads]

    def opens(self, text: str) -> bool:
        """Whether `text`, what precedes a line's colon, holds the first literal that tells the line from a name."""
        for index, head in enumerate(self.before_colon()):
            if is_distinctive(head, LETTERS if index else FIRST_LETTERS) or '"' in head:
                return text.startswith(head) if index == 0 else head in text
        return False


class Templates:
    """Many templates, asked at the cost of a few; those without a blank are whole lines."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.all = [Template(tuple(normal(line).split("{}"))) for line in lines]
        self._by_end: dict[str, list[Template]] = {}
        self._by_start: dict[str, list[Template]] = {}
        self._others: list[tuple[str, Template]] = []  # with their longest literal
        self._whole = frozenset(each.literals[0] for each in self.all if len(each.literals) == 1)
        for each in self.all:
            start, end = each.literals[0], each.literals[-1]
            if len(each.literals) == 1:
                continue
            if len(end) >= KEY:
                self._by_end.setdefault(end[-KEY:], []).append(each)
            elif len(start) >= KEY:
                self._by_start.setdefault(start[:KEY], []).append(each)
            else:
                self._others.append((max(each.literals, key=len), each))

    def __contains__(self, line: str) -> bool:
        """Whether a line in normal form is one of these."""
        return line in self._whole or next(self.filled(line), None) is not None

    def filled(self, line: str) -> Iterator[tuple[Template, str]]:
        """The templates that a line in normal form fills, each with what fills its first blank."""
        others = [each for literal, each in self._others if literal in line]
        for group in (self._by_end.get(line[-KEY:], ()), self._by_start.get(line[:KEY], ()), others):
            for each in group:
                if (first := each.fill(line)) is not None:
                    yield each, first


def is_distinctive(literal: str, letters: int) -> bool:
    """Whether a literal has too many letters, vowel signs included, or ideographs to be a part of a name."""
    plain = [character for character in literal if category(character)[0] in "LM"]
    return len(plain) >= letters or sum(letter >= EAST_ASIAN for letter in plain) >= IDEOGRAPHS


# What WhatsApp says about a group or a chat: who came and went, what changed, that messages are encrypted. Android
# writes such a line without a sender, and the line may hold the `: ` that ends a name elsewhere.
SOME_WORDS = 80  # characters that the … of a notice stands for, at most


def is_notice(body: str) -> bool:
    """The encryption notice, which on iOS and in old exports has a sender."""
    plain = normal(body)
    return any(_continues(plain, start, end) for start, end in _notices().get(plain[:4], ()))


@lru_cache(maxsize=4096)
def is_event(sender: str) -> bool:
    """Whether what precedes the first `: ` of an Android line may be the start of an event and no name.

    Fast, but wrong about a few names; `is_event_line` decides from the whole line.
    """
    plain = normal(sender)
    starts, others = _heads()
    return plain.count('"') % 2 == 1 or plain.startswith(starts) or any(head in plain for head in others)


def is_event_line(rest: str) -> bool:
    """Whether the rest of a line behind its stamp is an event, from its first character to its last.

    `rest` is one line; names and titles in it may hold anything. A line that starts `Name: ` is that person's, whatever
    follows: `Zoé: Bob left` is no event.
    """
    plain = normal(rest)
    before, colon, _ = plain.partition(": ")
    if not colon:
        return plain in _events()
    return any(each.opens(before) for each, _ in _events().filled(plain))


NUMBER = re.compile(r"\+?[\d\s()-]{6,}")
SURE = 12  # letters of an event that nobody types by chance


def is_event_under_a_name(sender: str, body: str, names: Container[str]) -> bool:
    """Whether a body is an event, as Android wrote it in 2013: `Bob: Ann joined`, `Bob: Changed the group icon`.

    names  the file's senders in normal form: people, too, say who left
    """
    plain, subject = normal(body), normal(sender)
    for template, first in _events().filled(plain):
        if first in names or NUMBER.fullmatch(first) or any('"' in literal for literal in template.literals):
            return True
    return len(plain) >= SURE and any(first == subject for _, first in _events().filled(f"{subject} {plain}"))


@cache
def _events() -> Templates:
    return Templates(wording("events"))  # `{}` stands for a name, a number or a title; the longest list by far


@cache
def _heads() -> tuple[tuple[str, ...], frozenset[str]]:
    """The literals that tell an event from a name: those at a line's start, and the others."""
    heads = [each.before_colon() for each in _events().all]
    starts = {first for first, *_ in filter(None, heads) if is_distinctive(first, FIRST_LETTERS)}
    return tuple(starts), frozenset(
        head for _, *rest in filter(None, heads) for head in rest if is_distinctive(head, LETTERS)
    )


@cache
def _notices() -> dict[str, list[tuple[str, str]]]:
    forms: dict[str, list[tuple[str, str]]] = {}
    for line in NOTICES:
        start, _, end = line.partition(" … ")
        forms.setdefault(normal(start)[:4], []).append((normal(start), normal(end)))
    return forms


def _continues(plain: str, start: str, end: str) -> bool:
    return plain.startswith(start) and end in plain[len(start) : len(start) + SOME_WORDS + len(end)]


Classify = Callable[[str, bool], tuple[Kind, str]]  # (body, header carries a mark) → kind, the person's text

MESSAGE = Kind.MESSAGE  # Python 3.11 takes 160 ns to look a member up; most bodies are messages

# "attached" stands in brackets, except in Persian and Tamil.
BARE_FILE = tuple(line.replace("{}", "").strip() for line in ATTACHED if "(" not in line)
LONGEST_FILE = 300  # characters of a name and of what stands around it

EDIT_MARK = re.compile(rf"<(?:{'|'.join(map(re.escape, EDITED))})\.?>", re.IGNORECASE)
# "<attached: 00000035-PHOTO-2022-03-27-21-41-55.jpg>" in any language: the number tells; "x.jpg <attached>" until 2015.
IOS_FILE = re.compile(r"<[^<>\n]{0,60}?\d{8}-(?P<name>[^<>\n]{1,300}?) ?(?: \w+)?>|^\S+\.\w{2,5} <\u200e?\w+>")
# A name without an extension ends in the dot before it; a sentence that does has blanks.
FILE_NAME = re.compile(r"[^\n]*\.\w{1,12}|\S+\.|[^\n]*\w{3}-\d{8}-wa\d{4}")
MAP = re.compile(r"(?P<label>[^\n:：]{1,40})[:：] ?https?://maps\.google\.com/\?q=-?\d\S*")
VENUE = re.compile(
    r"[^\n(]+\([^\n]*\): https://foursquare\.com/v/\w+|[^\n]+(?:\n[^\n]+){0,2}\nhttps://foursquare\.com/v/\w+"
)
# "POLL:" alone on the first line, and last of all "OPTION: pizza (3 votes)" and others, each word in its language. The
# label of every option is the same; languages with capitals write it in capitals.
POLL = re.compile(r"(?P<label>[^\n:：]{1,40}?)\s*[:：]\s*")
POLL_OPTION = re.compile(r"(?P<label>[^\n:：]{1,40}?)\s*[:：].*[(（][^()（）]{1,30}[)）]")

FILES = Templates(ATTACHED)
DELETERS = Templates(DELETED_BY)
CALLERS = Templates(CALLS_MADE)


def _spellings(phrases: Mapping[str, Kind]) -> dict[str, Kind]:
    """The phrases as apps write them: one look-up of the body decides, and no person writes like this."""
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
        if f"<{mark}" in body:  # until 2018
            body = re.sub(rf"<{mark}(?=[^<>\n]*>)", f"{mark}<", body)
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
        return _caption(rest) if marked else (MESSAGE, body)  # a mark on the header is media's

    return classify


def are_own_words(sender: str, body: str, text: str, people: Iterable[str]) -> bool:
    """Whether words behind a mark, which no list knows, are WhatsApp's: they recur, name somebody, or everything below
    the sender's name is marked. Not on more than one line, nor without a letter: that was pasted with its mark.

    text    the whole file
    people  the file's senders, as written
    """
    words = body[1:]
    if "\n" in words or not any(character.isalpha() for character in words):
        return False
    if any(name in words for name in people) or len(re.findall(re.sub(r"\d+", r"\\d+", re.escape(body)), text)) > 1:
        return True
    return re.search(f"{re.escape(sender)}: [^\u200e\u200f<]", text) is None


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
    """What a line that starts with a mark stands for; None where the words are not known."""
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
    if plain in CALLERS:
        return Kind.CALL
    # Several marks are seams between WhatsApp's sentences, "Your code with Bob changed. ‎Tap to learn more".
    is_own = len(re.findall("[\u200e\u200f]", line)) > 1 or plain in _events() or is_notice(line)
    return Kind.SYSTEM if is_own else None


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
    file = IOS_FILE.search(fragment) or IOS_FILE.fullmatch(MARKS.sub("", body))
    if file is None and PHRASES.get(normal(fragment.strip("<> "))) is not Kind.MEDIA:
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
    if "\n" in plain and _is_poll(plain.rstrip().split("\n")):
        return Kind.POLL, ""
    return MESSAGE, body


def _is_poll(lines: list[str]) -> bool:
    first, last = POLL.fullmatch(lines[0]), POLL_OPTION.fullmatch(lines[-1])
    if first is None or last is None or not any(character.isdigit() for character in lines[-1]):
        return False
    if any(match["label"] != match["label"].upper() for match in (first, last)):
        return False
    return len(lines) == 3 or lines[-2].startswith(last["label"])


def _caption(text: str) -> tuple[Kind, str]:
    text = text.strip("\n")
    return (Kind.MESSAGE, text) if text and not _is_file_name(text) else (Kind.MEDIA, "")


def _is_file_name(text: str) -> bool:
    return "\n" not in text and PurePath(MARKS.sub("", text)).suffix.lower() in ATTACHMENTS | {".txt", ".csv", ".zip"}
