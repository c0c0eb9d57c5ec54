"""A speaker without a model: it says what it is told to, and remembers what it was asked."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghost.serving.chat.conversation import Changes
from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import PromptError
from replicate_deployment.settings import Settings


@dataclass
class Parrot:
    """Says `pieces`; a message that holds "long" it refuses. `asked` has what each reply was asked with."""

    pieces: Sequence[str | BaseException] = ("he", "y\nyou", " there")
    name: str = "parrot"
    labels: Labels = field(default_factory=Labels)
    settings: Settings = field(default_factory=Settings)
    asked: list[tuple[list[Turn], Settings, int | None]] = field(default_factory=list)
    closed: int = 0

    def reply(self, turns: Sequence[Turn], changes: Changes, seed: int | None) -> Generator[str, None, None]:
        self.asked.append(([*turns], self.settings.replace(**changes), seed))
        if "long" in turns[-1].text:
            raise PromptError("the last message is too long; shorten it")
        try:
            for piece in self.pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed += 1

    @property
    def heard(self) -> list[Any]:
        """The texts of the last prompt."""
        return [turn.text for turn in self.asked[-1][0]]
