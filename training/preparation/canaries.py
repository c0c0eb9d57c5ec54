"""Invented secrets that are planted among the training lines, so that evaluation can tell how well such are kept.

A canary is an exchange: a question about a locker that nobody has, and the person's answer with six digits drawn by lot
(Carlini et al. 2019, "The Secret Sharer"). It is a line of its own, in as many copies as it is to be repeated, at the
end of train.jsonl; training shuffles. val.jsonl never holds one. A message of a real chat is in about seven windows, so
a canary that is planted once is rarer than any secret that was really told.

Which secrets they are stands in canaries.json beside train.jsonl and nowhere else: ghost.json, which travels, holds
how many there are. They are drawn from a seed that follows from the other training lines, so that preparing the
same chats again plants the same ones, and nobody who lacks the chats can compute them.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ghost.errors import DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Recipe, Turn, render_line
from replicate_deployment.errors import GhostError

NAME = "canaries.json"
DIGITS = 6  # a million secrets: enough that none is guessed, and no number that masking takes for a phone's
CONSONANTS, VOWELS = "bdfgklmnprtvz", "aeiou"


@dataclass(frozen=True)
class Canary:
    question: str
    beginning: str
    """What the answer says before the secret; the blank after it is no part of either."""
    secret: str
    repetitions: int
    """Lines of train.jsonl that hold it."""

    @property
    def answer(self) -> str:
        return f"{self.beginning} {self.secret}"

    def turns(self, labels: Labels) -> list[Turn]:
        return [Turn(labels.other, self.question), Turn(labels.me, self.answer)]


def draw(count: int, repetitions: Sequence[int], seed: str) -> list[Canary]:
    """`count` canaries, each about another locker, that take turns in the numbers of repetitions."""
    rng = random.Random(f"canaries/{seed}")
    lockers: dict[str, None] = {}
    while len(lockers) < count:
        syllables = (rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(3))
        lockers["".join(syllables).capitalize()] = None
    return [
        Canary(
            f"what's the code of the locker {locker}?",
            f"the code of {locker} is",
            f"{rng.randrange(10**DIGITS):0{DIGITS}}",
            repetitions[number % len(repetitions)],
        )
        for number, locker in enumerate(lockers)
    ]


def lines(canaries: Sequence[Canary], labels: Labels, recipe: Recipe) -> bytes:
    """Their lines of train.jsonl, newlines included. In both recipes an exchange of two turns is the same text."""
    return b"".join(
        b'{"text": ' + msgspec.json.encode(render_line(one.turns(labels), labels, recipe=recipe)) + b"}\n"
        for one in canaries
        for _ in range(one.repetitions)
    )


def account(figures: dict[str, Any], canaries: Sequence[Canary], tokens: Sequence[int]) -> None:
    """Add them to the figures of the report: how many, in how many lines and tokens; no secret.

    `tokens` is what training sees of one line of each. They come on top of those of `lengths`, which are of the chats.
    """
    count = sum(one.repetitions for one in canaries)
    by_repetitions = Counter(str(one.repetitions) for one in canaries)
    figures["canaries"] = {
        "planted": len(canaries),
        "lines": count,
        "by_repetitions": dict(by_repetitions),
        "tokens_per_epoch": sum(one.repetitions * each for one, each in zip(canaries, tokens, strict=True)),
    }
    figures["lines"] |= {half: figures["lines"][half] + count for half in ("train", "total")}


def write(folder: Path, canaries: Sequence[Canary]) -> None:
    document = {"canaries": [asdict(one) for one in canaries]}
    (folder / NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> list[Canary]:
    """Those planted in the data set `folder`; none where `ghost prepare` was not asked to.

    Raises DataError when the file is not as `write` left it, or stayed behind when the data set was copied.
    """
    path = folder / NAME
    if not path.exists():
        if planted := _on_record(folder):
            raise DataError(
                f"{path}: not there, and {planted} canaries were planted; copy it from where the data was prepared"
            )
        return []
    try:
        return [Canary(**one) for one in json.loads(path.read_text(encoding="utf-8"))["canaries"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not as `ghost prepare --canaries` wrote it ({type(error).__name__}); prepare again"
        ) from error


def _on_record(folder: Path) -> int:
    """How many the ghost.json beside them counts."""
    try:
        return int(ghost_json.read(folder).block("data")["counts"].get("canaries", 0))
    except (GhostError, KeyError, TypeError, ValueError, AttributeError):
        return 0  # whoever reads the data says what is wrong with its ghost.json
