"""Scripted exchanges: who says what, and what may be answered.

A script is a block of lines. `?` opens (the initiator speaks); each `+` starts one way to go on, and its lines
alternate: responder, initiator, responder. Within a line ` | ` parts alternatives, ` / ` the clauses of one
alternative, and `¶` is a line break inside a message. `{slot}` is filled once per exchange, so a reply speaks of the
very place, hour or dish that was asked about; `{slot2}` is a second value from the same list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple, TypeVar

from training.sample import topics_en, topics_fr

Choice = TypeVar("Choice")
Clauses = tuple[str, ...]
Beat = tuple[Clauses, ...]  # the alternatives of one speaker's move


class Move(NamedTuple):
    """What one side has to say: neutral, well-spelled clauses, before a style makes messages of them."""

    initiator: bool
    clauses: list[str]


@dataclass(frozen=True)
class Script:
    opening: Beat
    paths: tuple[tuple[Beat, ...], ...]


@dataclass(frozen=True)
class Repertoire:
    """All that can be talked about in one language."""

    slots: dict[str, tuple[str, ...]]
    greetings: tuple[Script, ...]
    goodbyes: tuple[Script, ...]
    topics: tuple[Script, ...]


@cache
def repertoire(language: str) -> Repertoire:
    source = {"fr": topics_fr, "en": topics_en}[language]
    return Repertoire(
        {name: tuple(values.split(", ")) for name, values in source.SLOTS.items()},
        _read(source.GREETINGS),
        _read(source.GOODBYES),
        _read(source.TOPICS),
    )


def play(script: Script, slots: dict[str, tuple[str, ...]], rng: Random) -> Iterator[Move]:
    """One run through a script: the opening, then one of its paths, with the same slot values throughout."""
    filled = _Filled(slots, rng)
    beats = (script.opening, *pick(script.paths, rng))
    for number, beat in enumerate(beats):
        yield Move(number % 2 == 0, [clause.format_map(filled) for clause in pick(beat, rng)])


def pick(choices: tuple[Choice, ...], rng: Random) -> Choice:
    """`rng.choice`, at a third of its cost; a million messages take some ten million picks."""
    return choices[int(rng.random() * len(choices))]


class _Filled(dict[str, str]):
    """Slot values, drawn when first asked for and kept; two numbered values of one list differ."""

    def __init__(self, slots: dict[str, tuple[str, ...]], rng: Random) -> None:
        self._slots, self._rng = slots, rng

    def __missing__(self, name: str) -> str:
        values = self._slots[name.rstrip("23")]
        value = pick(values, self._rng)
        while value in self.values():
            value = pick(values, self._rng)
        if "{" in value:
            value = value.format_map(self)
        self[name] = value
        return value


def _read(source: str) -> tuple[Script, ...]:
    return tuple(_read_script(block) for block in source.strip().split("\n\n"))


def _read_script(block: str) -> Script:
    opening, *lines = block.split("\n")
    paths: list[list[Beat]] = []
    for line in lines:
        if line.startswith("+"):
            paths.append([])
        paths[-1].append(_read_beat(line))
    return Script(_read_beat(opening), tuple(tuple(path) for path in paths))


def _read_beat(line: str) -> Beat:
    alternatives = line[2:].replace("¶", "\n").split(" | ")
    return tuple(tuple(alternative.split(" / ")) for alternative in alternatives)
