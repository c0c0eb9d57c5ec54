"""Exchanges of val.jsonl (held out) and train.jsonl (learnt).

An exchange is a reply of the person with the turns before it. Windows overlap, so a reply may be in several lines; take
it once, with its longest context.
"""

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghost.errors import DataError
from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.ghost_json import Ghost
from training.finetuning.data import read_facts, read_line
from training.preparation.prepare import ABOUT


@dataclass(frozen=True)
class Exchange:
    """The turns before a reply, and the reply of the person or of a model."""

    context: tuple[Turn, ...]
    """Turns of both sides, un-escaped, the last one by the other side."""
    reply: str
    """The turn's text, un-escaped and without its tag. Lines are a burst's messages or one message's lines."""
    language: str = ""
    """ISO 639-1 code of the conversation, where preparation recorded one."""
    platform: str = ""
    """The platform the conversation comes from, where preparation recorded one."""
    ended: str = ""
    """How a generated reply ended: `end_token`, `stop_sequence` or `length`. Empty for what the person wrote."""
    conversation: int = -1
    """The conversation's number in the data, where preparation recorded one: replies of one are not independent."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval, in the figure's unit."""

    value: float
    low: float
    high: float
    n: int
    """The number of observations."""


SHOTS = 4  # exchanges in the prompt of the few-shot base: 8 of the 20 turns that a prompt may have
LONGEST_SHOT = 200  # characters of its reply: a pasted text would fill the prompt
LEAST = 10  # held-out replies below which no figure is worth printing


@dataclass(frozen=True)
class HeldOut:
    """Every reply of val.jsonl that answers somebody, once, and the ghost.json beside it."""

    exchanges: list[Exchange]
    ghost: Ghost


def read_held_out(val: Path, longest: int) -> HeldOut:
    """`longest`: the most turns of a context. Raises DataError if files are missing or changed, or hold fewer than
    LEAST replies."""
    train = val.with_name("train.jsonl")
    ghost = read_facts(train, val)
    notes = _read_about(val.with_name(ABOUT))
    lines = [turns for _, turns in _lines(val, ghost)]
    sides: Sequence[dict[str, Any]] = notes if notes is not None and len(notes) == len(lines) else [{}] * len(lines)
    cut = _of_windows if ghost.recipe == "windows" else _of_conversations
    exchanges = cut(lines, sides, ghost.labels, longest)
    if len(exchanges) < LEAST:
        raise DataError(
            f"{val}: {len(exchanges)} held-out replies, but at least {LEAST} are needed; export more chats, then: "
            f"ghost prepare --out {val.parent}"
        )
    return HeldOut(exchanges, ghost)


def sample(exchanges: Sequence[Exchange], count: int, seed: int) -> list[Exchange]:
    """At most `count` random ones, in their order."""
    if len(exchanges) <= count:
        return list(exchanges)
    return [exchanges[place] for place in sorted(random.Random(seed).sample(range(len(exchanges)), count))]


@dataclass(frozen=True)
class Learnt:
    """The training data, each different turn once.

    own, others  the person's turns, and the other side's
    places       for each exchange (turn answered, reply), its place with the most turns before it: (line, turn), from
                 0. Storing whole windows, which overlap, would take many times the file
    """

    train: Path
    ghost: Ghost
    own: list[str]
    others: list[str]
    places: dict[tuple[Turn, str], tuple[int, int]]

    @property
    def exchanges(self) -> list[Exchange]:
        """All exchanges, with only the turn that they answer as context; `in_full` adds the others."""
        return [Exchange((context,), reply) for context, reply in self.places]

    def in_full(self, exchanges: Sequence[Exchange], longest: int) -> list[Exchange]:
        """The given exchanges of `exchanges` with all their context in training, at most `longest` turns."""
        places = [self.places[one.context[-1], one.reply] for one in exchanges]
        lines = dict(_lines(self.train, self.ghost, {line for line, _ in places}))
        return [
            Exchange(tuple(lines[line][max(0, turn - longest) : turn]), one.reply)
            for one, (line, turn) in zip(exchanges, places, strict=True)
        ]


def read_learnt(train: Path, ghost: Ghost) -> Learnt:
    own: dict[str, None] = {}
    others: dict[str, None] = {}
    places: dict[tuple[Turn, str], tuple[int, int]] = {}
    for line, turns in _lines(train, ghost):
        for place, turn in enumerate(turns):
            (own if turn.label == ghost.labels.me else others)[turn.text] = None
            if place and turn.label == ghost.labels.me != turns[place - 1].label:
                key = turns[place - 1], turn.text
                if key not in places or places[key][1] < place:
                    places[key] = line, place
    return Learnt(train, ghost, list(own), list(others), places)


def shots(learnt: Learnt, labels: Labels, seed: int, planted: Collection[str] = ()) -> tuple[Turn, ...]:
    """A few exchanges of training as few-shot examples for the base, but none of the `planted` canaries."""
    fitting = [
        one
        for one in learnt.exchanges
        if max(len(one.context[-1].text), len(one.reply)) <= LONGEST_SHOT and one.reply not in planted
    ]
    drawn = random.Random(seed).sample(fitting, min(SHOTS, len(fitting)))
    return tuple(turn for one in drawn for turn in (one.context[-1], Turn(labels.me, one.reply)))


def _lines(path: Path, ghost: Ghost, wanted: Collection[int] | None = None) -> Iterator[tuple[int, list[Turn]]]:
    """Each line, or each of the `wanted` ones, with its number from 0."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream):
            if wanted is None or number in wanted:
                yield number, read_line(line, ghost.labels, f"{path}, line {number + 1}", recipe=ghost.recipe)


def _read_about(path: Path) -> list[dict[str, Any]] | None:
    """None if it is missing or damaged, which is no error: it is only needed for breakdowns."""
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        keys = {"conversation": int, "last": int, "platform": str, "language": str}
        return found if all(isinstance(one[key], kind) for one in found for key, kind in keys.items()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_windows(
    lines: Sequence[list[Turn]], sides: Sequence[dict[str, Any]], labels: Labels, longest: int
) -> list[Exchange]:
    """A window is one exchange."""
    found: dict[Any, Exchange] = {}
    for turns, side in zip(lines, sides, strict=True):
        *context, reply = turns
        # Without places, take the same answer to the same turn for the same reply.
        key = (side["conversation"], side["last"]) if side else (context[-1], reply)
        known = found.get(key)
        if known is None or len(known.context) < len(context[-longest:]):
            found[key] = _exchange(context[-longest:], reply, side)
    return list(found.values())


def _of_conversations(
    lines: Sequence[list[Turn]], sides: Sequence[dict[str, Any]], labels: Labels, longest: int
) -> list[Exchange]:
    """A conversation has an exchange for each turn of the person that follows one of the other side."""
    return [
        _exchange(turns[max(0, place - longest) : place], turn, side or {"conversation": number})
        for number, (turns, side) in enumerate(zip(lines, sides, strict=True))
        for place, turn in enumerate(turns)
        if place and turn.label == labels.me != turns[place - 1].label
    ]


def _exchange(context: Sequence[Turn], reply: Turn, side: dict[str, Any]) -> Exchange:
    return Exchange(
        tuple(context),
        reply.text,
        language=side.get("language", ""),
        platform=side.get("platform", ""),
        conversation=side.get("conversation", -1),
    )
