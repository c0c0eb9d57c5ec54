"""Lines with blanks, `{} added {}`, found again whatever fills the blanks: names with colons, numbers, emoji."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from unicodedata import category

from training.extraction.whatsapp.markers import normal

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
            if tells(head, LETTERS if index else FIRST_LETTERS) or '"' in head:
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


def tells(literal: str, letters: int) -> bool:
    """Whether so many letters, vowel signs included, or fewer ideographs make a literal more than a part of a name."""
    plain = [character for character in literal if category(character)[0] in "LM"]
    return len(plain) >= letters or sum(letter >= EAST_ASIAN for letter in plain) >= IDEOGRAPHS
