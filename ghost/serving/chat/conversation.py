"""A chat: who answers, how, and what was said so far, which is kept in memory and nowhere else."""

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ghost.console import progress
from ghost.errors import UsageError
from replicate_deployment.chat_format import Labels, Turn, render_prompt
from replicate_deployment.errors import PromptError
from replicate_deployment.settings import Settings

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


# Who answers in a chat: a merged model in this process, or a server over HTTP.


def find_speaker(model: str, labels: Labels | None) -> Speaker:
    """The speaker that a person named: a URL, `replicate:OWNER/NAME`, or a folder.

    `labels` are a server's, which does not tell; a folder's ghost.json does. Raises WeightsError on a folder that is
    no merged model, UsageError on an address that cannot be one.
    """
    if is_server(model):
        asyncio.run(_check(model))
        return There(model, labels or Labels())
    from transformers.utils.logging import set_verbosity_error

    from replicate_deployment.engine import Engine

    set_verbosity_error()  # it warns of a message that is too long, which the engine refuses by name
    with progress("loading the model"):
        return Here(model, Engine.load(Path(model)))


def is_server(model: str) -> bool:
    return model.startswith(("http://", "https://", "replicate:"))


@dataclass(frozen=True)
class Here:
    """A merged folder, loaded."""

    name: str
    engine: Any

    @property
    def labels(self) -> Labels:
        labels: Labels = self.engine.labels
        return labels

    @property
    def settings(self) -> Settings:
        settings: Settings = self.engine.settings
        return settings

    def reply(self, turns: Sequence[Turn], settings: Settings, seed: int | None) -> Generator[str, None, None]:
        yield from self.engine.reply(turns, settings, seed=seed)


@dataclass(frozen=True)
class There:
    """A server. It is sent rendered turns, never what somebody typed: a pasted tag forges nothing there either."""

    name: str
    labels: Labels
    settings: Settings = field(default_factory=Settings)

    def reply(self, turns: Sequence[Turn], settings: Settings, seed: int | None) -> Generator[str, None, None]:
        from ghost.serving.client import backend

        inputs: dict[str, Any] = {"prompt": render_prompt(turns, self.labels), **self._changed(settings)}
        if seed is not None:
            inputs["seed"] = seed
        # The loop runs only while a piece is being asked for, so a chat's other threads and signals never meet it.
        with asyncio.Runner() as runner:
            server = runner.run(backend(self.name).__aenter__())
            pieces = server.stream(inputs)
            try:
                while (piece := runner.run(_next(pieces))) is not None:
                    yield piece
            finally:
                runner.run(_end(server, pieces))

    def _changed(self, settings: Settings) -> dict[str, float]:
        """Only what the person has changed is sent. The rest is as the server's model says, which is not known here."""
        known = asdict(self.settings)
        return {name: value for name, value in asdict(settings).items() if value != known[name]}


async def _next(pieces: Any) -> str | None:
    piece: str | None = await anext(pieces, None)
    return piece


async def _end(server: Any, pieces: Any) -> None:
    """Close the stream, which cancels the prediction if it still runs. A Ctrl-C leaves the last step waiting."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await pieces.aclose()
    await server.__aexit__(None, None, None)


async def _check(where: str) -> None:
    from ghost.serving.client import backend

    async with backend(where):
        pass
