"""A chat: who answers, how, and what was said so far, which is kept in memory and nowhere else."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import PromptError
from replicate_deployment.settings import Settings
from training.errors import UsageError

SEEDS = 2**32  # what predict.py takes: from 0 to one less
DISCLOSURE = "This is an imitation, made by a machine from somebody's messages. What it says, nobody has said."


class Speaker(Protocol):
    """Whoever answers: a model in this process, or a server."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Labels: ...

    @property
    def settings(self) -> Settings:
        """What it samples by unless told otherwise."""

    def reply(self, turns: Sequence[Turn], settings: Settings, seed: int | None) -> Generator[str, None, None]:
        """The next turn of `labels.me`, in pieces; closing it ends the work. Raises GhostError when there is none."""


@dataclass
class Chat:
    """One conversation. What was not answered is not kept: a message that is too long does not spoil the next one."""

    speaker: Speaker
    settings: Settings
    seed: int | None = None
    """The first reply's; the second has the next number, and so on: the same messages then get the same replies."""
    turns: list[Turn] = field(default_factory=list)

    def answer(self, message: str) -> Generator[str, None, None]:
        """The reply in pieces. Once there is some, it is kept with the message, also when it is stopped halfway."""
        asked = Turn(self.speaker.labels.other, cleaned(message))
        if not asked.text:
            raise PromptError("the message is empty; write something")
        seed = None if self.seed is None else (self.seed + len(self.turns) // 2) % SEEDS
        said = ""
        pieces = self.speaker.reply([*self.turns, asked], self.settings, seed)
        try:
            for piece in pieces:
                said += piece
                yield piece
        finally:
            pieces.close()
            if said.strip():
                self.turns += [asked, Turn(self.speaker.labels.me, said.strip())]


def cleaned(message: str) -> str:
    """A message as it goes into a turn: lines end in "\\n", none is blank at either end, and it is valid Unicode."""
    text = message.replace("\r\n", "\n").replace("\r", "\n").strip()
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair, from a pipe that is not UTF-8


def seed_of(text: str) -> int:
    """Raises UsageError on what is no seed."""
    if text.isascii() and text.isdigit() and int(text) < SEEDS:
        return int(text)
    raise UsageError(f"seed: {text!r} is not a whole number from 0 to {SEEDS - 1}")
