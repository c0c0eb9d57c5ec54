"""Who wrote, and whom they mention, under another name: `Contact N` for a phone number, or invented names for all."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from training.extraction.privacy import phone
from training.extraction.privacy.names import EVERYDAY, INVENTED
from training.extraction.privacy.recognisers import emails
from training.speakers import fold

# WhatsApp isolates a mentioned name (U+2068 … U+2069); of a number it writes the digits, with or without the plus.
MENTION = re.compile(r"@(?:\u2068([^\u2068\u2069\n]{1,200})\u2069|(?=\+?\d))")
DIGITS = re.compile(r"\d{8,15}(?!\w)")
LIKE_A_NUMBER = re.compile(rf"(?<![^\W_])\+?\d(?:{phone.GAP}{{0,2}}\d){{6,14}}")
WORD = re.compile(r"[^\W_]+")
BETWEEN = re.compile(r"[ \u00a0\u202f.'’-]{1,2}")  # words of one name
SENTENCE_END = re.compile(r"(?:^|[.!?…\n:])[\s\"'«“(*_~-]*$")


class People(Protocol):
    """How people are called in what is written; each answer is stable over all conversations of a run."""

    def sender(self, name: str) -> str:
        """For the sender column. The same object when the name stays."""

    def title(self, title: str) -> str:
        """For a chat's title and its file's name; of a group's title only the people in it change."""

    def body(self, text: str) -> str:
        """For a message: mentions. Call it before `Masker.mask`. The same object when nothing changes."""


def identity(name: str, regions: Sequence[str]) -> str | None:
    """What is equal in every spelling of a phone number or e-mail address that stands for a person; None for names."""
    if number := phone.canonical(name, regions):
        return number
    plain = phone.plain(name)
    return plain.casefold() if any(span == (0, len(plain)) for span in emails(plain)) else None


def _key(name: str, regions: Sequence[str]) -> str:
    return identity(name, regions) or fold(phone.plain(name))


class Contacts:
    """`Contact N` for every phone number or e-mail address that stands for a person: N by first meeting, the same
    number the same N however it is spelled. Names in `me` stay as senders, as `--me` must find them later.

    names  those of Pseudonyms: a number that a title or a path holds may show by them alone
    """

    def __init__(
        self, names: Iterable[str] = (), me: Iterable[str] = (), regions: Sequence[str] = phone.DEFAULT_REGIONS
    ) -> None:
        self._me = frozenset(_key(name, regions) for name in me)
        self._regions = regions
        self._known = frozenset(filter(None, (identity(name, regions) for name in names)))
        self._contacts: dict[str, str] = {}
        self._senders: dict[str, str] = {}

    def sender(self, name: str) -> str:
        known = self._senders.get(name)
        if known is None:
            known = self._senders[name] = name if _key(name, self._regions) in self._me else self._named(name)
        return known

    def title(self, title: str) -> str:
        return self.sender(title)

    def body(self, text: str) -> str:
        return mentions(text, self._regions, self._mentioned) if "@" in text else text

    def _named(self, name: str) -> str:
        key = identity(name, self._regions)
        return self._contact(key) if key else numbers(name, self._regions, self._contact, self._known)

    def _mentioned(self, name: str) -> str:
        key = identity(name, self._regions)
        return self._contact(key) if key else name

    def _contact(self, key: str) -> str:
        return self._contacts.setdefault(key, f"Contact {len(self._contacts) + 1}")


class Pseudonyms:
    """`--pseudonyms`: everyone but `me` gets an invented name, numbers included, and no two people the same.

    names  every sender of the run and every title of a one-to-one chat: known before the first answer, so that an
           answer depends on the set of names and not on the order of files

    In bodies full names and first names are replaced too, in any case, with or without accents. Not replaced: surnames
    and nicknames alone, user names, names in scripts that leave no blanks between words, people who neither wrote nor
    are mentioned, and, but for a capital in the middle of a sentence, first names that are words (Rose, Will).
    """

    def __init__(
        self, names: Iterable[str], me: Iterable[str] = (), regions: Sequence[str] = phone.DEFAULT_REGIONS
    ) -> None:
        self._me = frozenset(_key(name, regions) for name in me)
        self._regions = regions
        everyone = set(names)
        words = {word for name in (*everyone, *self._me) for word in WORD.findall(fold(name))}
        self._free = [name for name in INVENTED if name.casefold() not in words]
        self._invented: dict[str, str] = {}
        self._taken: set[str] = set()
        self._senders: dict[str, str] = {}
        keys = {key for name in everyone if (key := _key(name, regions)) not in self._me}
        for key in sorted(keys):
            self._invent(key)
        self._by_word = self._spellings(key for key in keys if not identity(key, regions))

    def sender(self, name: str) -> str:
        known = self._senders.get(name)
        if known is None:
            key = _key(name, self._regions)
            known = self._senders[name] = name if key in self._me else self._invent(key)
        return known

    def title(self, title: str) -> str:
        key = _key(title, self._regions)
        if key in self._me or key in self._invented:
            return self.sender(title)
        title = numbers(title, self._regions, self._invent, self._invented)
        spaced = title.replace("_", " ")  # in a file's name it is a blank, in a message a part of a user name
        renamed = self._plain(spaced)
        return title if renamed == spaced else renamed

    def body(self, text: str) -> str:
        if "@" in text:
            text = mentions(text, self._regions, self.sender)
        return self._plain(text)

    def _invent(self, key: str) -> str:
        """The key's hash chooses; a name that is taken gives way to the next, and after all of them to "Name 2"."""
        if key not in self._invented:
            first = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big")
            round_, place = divmod(len(self._invented), len(self._free))
            names = self._free if not round_ else [f"{name} {round_ + 1}" for name in self._free]
            place = first % len(names)
            while names[place] in self._taken:
                place = (place + 1) % len(names)
            self._invented[key] = names[place]
            self._taken.add(names[place])
        return self._invented[key]

    def _spellings(self, keys: Iterable[str]) -> dict[str, list[tuple[list[str], str]]]:
        """By first word, what to look for in bodies and what it becomes, the longest first."""
        spellings: dict[str, dict[tuple[str, ...], set[str]]] = {}
        for key in sorted(keys):
            for spelling in dict.fromkeys((key, _without_accents(key))):
                if words := WORD.findall(spelling):
                    of_word = spellings.setdefault(words[0], {})
                    of_word.setdefault(tuple(words), set()).add(key)
                    of_word.setdefault(_first(spelling), set()).add(key)
        mine = {_first(spelling) for name in self._me for spelling in (name, _without_accents(name))}
        by_word = {}
        for word, wanted in spellings.items():
            for first in mine.intersection(wanted):
                del wanted[first]
            # A first name that two people share is nobody's in particular: it gets a name of its own.
            by_word[word] = [
                (list(words), self._invent(keys.pop() if len(keys) == 1 else _without_accents(" ".join(words))))
                for words, keys in sorted(wanted.items(), key=lambda item: -len(item[0]))
            ]
        return by_word

    def _plain(self, text: str) -> str:
        if not unicodedata.is_normalized("NFC", text):  # Macs write é as two characters, which are not one word
            composed = unicodedata.normalize("NFC", text)
            renamed = self._plain(composed)
            return text if renamed == composed else renamed
        if self._by_word.keys().isdisjoint(WORD.findall(text.casefold())):
            return text
        tokens = [(match.start(), match.end(), fold(match[0])) for match in WORD.finditer(text)]
        pieces: list[str] = []
        end = index = 0
        while index < len(tokens):
            start, _, word = tokens[index]
            step = 1
            for words, invented in self._by_word.get(word, ()):
                here = tokens[index : index + len(words)]
                if [token[2] for token in here] == words and _is_name(text, here):
                    pieces += text[end:start], invented
                    end, step = here[-1][1], len(words)
                    break
            index += step
        return "".join(pieces) + text[end:] if pieces else text


def _first(name: str) -> tuple[str, ...]:
    """The words of a first name: Jean-Pierre has two, and neither is his."""
    return next((words for part in name.split() if (words := tuple(WORD.findall(part)))), ())


def _without_accents(name: str) -> str:
    """As people type names in haste."""
    return "".join(char for char in unicodedata.normalize("NFD", name) if not unicodedata.combining(char))


WORDS = frozenset(map(_without_accents, EVERYDAY))


def _is_name(text: str, tokens: list[tuple[int, int, str]]) -> bool:
    """Whether words that spell a name stand for it: close together, or, alone and also a word, written as a name."""
    if "_" in (text[max(0, tokens[0][0] - 1) : tokens[0][0]], text[tokens[-1][1] : tokens[-1][1] + 1]):
        return False  # a part of somebody's user name
    if len(tokens) > 1:
        return all(BETWEEN.fullmatch(text, left[1], right[0]) for left, right in pairwise(tokens))
    start, _, word = tokens[0]
    if len(word) > 2 and _without_accents(word) not in WORDS:
        return True
    if start and text[start - 1] in "@\u2068":
        return True
    return text[start].isupper() and not SENTENCE_END.search(text[max(0, start - 16) : start])


def mentions(text: str, regions: Sequence[str], rename: Callable[[str], str]) -> str:
    """The text with every mention of a number or an isolated name renamed; the @ and the isolates stay."""
    pieces: list[str] = []
    end = 0
    for match in MENTION.finditer(text):
        if match[1]:
            start, stop = match.span(1)
        else:
            start = match.end()
            digits = DIGITS.match(text, start)
            stop = digits.end() if digits else phone.international_end(text, start) or start
        if start < stop and not (match.start() and text[match.start() - 1].isalnum()):
            # Bare digits start with the country code: read as national ones they could be another country's.
            bare = match[1] is None and text[start].isdigit()
            pieces += text[end:start], rename(f"+{text[start:stop]}" if bare else text[start:stop])
            end = stop
    return "".join(pieces) + text[end:] if pieces else text


def numbers(name: str, regions: Sequence[str], rename: Callable[[str], str], known: Container[str] = ()) -> str:
    """A name or title with every phone number and e-mail address in it renamed.

    known  identities of people: digits that are one of them are a number wherever they stand
    """
    pieces: list[str] = []
    end = 0
    for start, stop in _stretches(name, regions, known):
        if start >= end and (key := identity(name[start:stop], regions)):
            pieces += name[end:start], rename(key)
            end = stop
    return "".join(pieces) + name[end:] if pieces else name


def _stretches(name: str, regions: Sequence[str], known: Container[str]) -> list[tuple[int, int]]:
    found = [*_known_numbers(name, regions, known), *phone.spans(name, regions), *emails(name)]
    return sorted(found, key=lambda span: (span[0], -span[1]))


def _known_numbers(name: str, regions: Sequence[str], known: Container[str]) -> Iterator[tuple[int, int]]:
    """In `33612345678 (1).txt` the number ends at one of the groups of digits."""
    for match in LIKE_A_NUMBER.finditer(name):
        for group in reversed(list(re.finditer(r"\d+", match[0]))):
            start, end = match.start(), match.start() + group.end()
            if not name[end : end + 1].isdigit() and identity(name[start:end], regions) in known:
                yield start, end
                break
