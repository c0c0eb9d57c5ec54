"""Canaries: invented secrets among the training lines, so that evaluation can measure memorisation.

A canary is a question about an invented locker and an answer with six random digits (Carlini et al. 2019, "The Secret
Sharer"). It is a line of its own at the end of train.jsonl, once for each repetition; training shuffles. val.jsonl
never holds one. A message of a real chat is in about seven windows, so a canary planted once is rarer than any real
secret.

The secrets are in canaries.json beside train.jsonl only; ghost.json, which travels, holds their number. Their random
seed is the hash of the other training lines: the same chats give the same canaries, and nobody without the chats can
compute them.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ghost.errors import DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import GhostError

NAME = "canaries.json"
DIGITS = 6  # too many to guess, and masking does not take them for a phone number
CONSONANTS, VOWELS = "bdfgklmnprtvz", "aeiou"


@dataclass(frozen=True)
class Canary:
    question: str
    beginning: str
    """The answer before the secret, without the blank between them."""
    secret: str
    repetitions: int
    """Lines of train.jsonl that hold it."""

    @property
    def answer(self) -> str:
        return f"{self.beginning} {self.secret}"

    def turns(self, labels: Labels) -> list[Turn]:
        return [Turn(labels.other, self.question), Turn(labels.me, self.answer)]


def draw(count: int, repetitions: Sequence[int], seed: str) -> list[Canary]:
    """`count` canaries, each about another locker, with the numbers of repetitions in turn."""
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


def figures(canaries: Sequence[Canary], tokens: Sequence[int]) -> dict[str, Any]:
    """Counts of canaries, lines and tokens for the report, but no secret.

    `tokens` is the length of one line of each; `lengths` in the report does not include them.
    """
    return {
        "planted": len(canaries),
        "lines": sum(one.repetitions for one in canaries),
        "by_repetitions": dict(Counter(str(one.repetitions) for one in canaries)),
        "tokens_per_epoch": sum(one.repetitions * each for one, each in zip(canaries, tokens, strict=True)),
    }


def write(folder: Path, canaries: Sequence[Canary]) -> None:
    document = {"canaries": [asdict(one) for one in canaries]}
    (folder / NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> list[Canary]:
    """The canaries of the data set `folder`, if any.

    Raises DataError if the file is damaged, or missing because the data set was copied without it.
    """
    path = folder / NAME
    if not path.exists():
        if planted := _on_record(folder):
            raise DataError(
                f"{path} is missing, but {planted} canaries were planted; copy it from where the data was prepared"
            )
        return []
    try:
        return [Canary(**one) for one in json.loads(path.read_text(encoding="utf-8"))["canaries"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); run ghost prepare --canaries again") from error


def _on_record(folder: Path) -> int:
    """The number of canaries in ghost.json."""
    try:
        return int(ghost_json.read(folder).block("data")["counts"].get("canaries", 0))
    except (GhostError, KeyError, TypeError, ValueError, AttributeError):
        return 0  # reading the data reports what is wrong with its ghost.json
