"""A chat: the speaker, the sampling settings and the turns so far, which are kept in memory only."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost.console import progress
from ghost.errors import UsageError
from ghost.serving import client
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, render_prompt, well_formed
from replicate_deployment.errors import PromptError
from replicate_deployment.settings import Settings

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

COMPLETIONS = "completions:"
SEEDS = 2**32  # predict.py accepts 0 to one less
DISCLOSURE = "This is an imitation, made by a machine from somebody's messages. What it says, nobody has said."

Changes = Mapping[str, float]


@dataclass
class Chat:
    """One conversation. A message without a reply is not kept, so one that is too long does not affect the next."""

    speaker: "Speaker"
    changes: dict[str, float] = field(default_factory=dict)
    """Sampling settings that the user has set; the others are the model's own."""
    seed: int | None = None
    """For the first reply; each further one adds 1, so the same messages get the same replies."""
    turns: list[Turn] = field(default_factory=list)

    def answer(self, message: str) -> Generator[str, None, None]:
        """Yield the reply in pieces. Keep it with the message, even if it is stopped halfway."""
        asked = Turn(self.speaker.labels.other, normalized(message))
        if not asked.text:
            raise PromptError("the message is empty; write something")
        seed = None if self.seed is None else (self.seed + len(self.turns) // 2) % SEEDS
        said = ""
        pieces = self.speaker.reply([*self.turns, asked], self.changes, seed)
        try:
            for piece in pieces:
                said += piece
                yield piece
        finally:
            pieces.close()
            if said.strip():
                self.turns += [asked, Turn(self.speaker.labels.me, said.strip())]


def normalized(message: str) -> str:
    """Return the message for a turn: lines end in "\\n", no blank lines at either end, valid Unicode."""
    return well_formed(message.replace("\r\n", "\n").replace("\r", "\n").strip())


def parse_seed(text: str) -> int:
    """Raises UsageError if it is not a seed."""
    if text.isascii() and text.isdigit() and int(text) < SEEDS:
        return int(text)
    raise UsageError(f"seed: {text!r} is not a whole number from 0 to {SEEDS - 1}")


# The two kinds of speakers: a model in this process, and a server over HTTP. `reply` yields the next turn of
# `labels.me` in pieces; closing it ends the work. `changes` replace sampling defaults. Raises GhostError if
# there is no reply.


def find_speaker(
    model: str, labels: Labels | None, folder: Path = Path("models/merged"), lora: Path | None = None
) -> "Speaker":
    """Return the speaker for a server, for the folder of a merged model, or for a GGUF file and the adapter `lora`.

    `labels` are those of a server's model. A folder and a file say their own, and `folder` has the ghost.json of a
    server of completions. Raises WeightsError if a folder or a file is not what it must be, UsageError or ServerError
    if the address is not valid.
    """
    if is_server(model):
        asyncio.run(_check(model, folder))
        if model.startswith(COMPLETIONS):
            labels = ghost_json.read(folder).labels
        return ServerSpeaker(model, labels or Labels(), folder)
    if is_gguf(model):
        from ghost.serving.llama_cpp import load_engine

        with progress("loading the model"):
            return LocalSpeaker(model, load_engine(Path(model), lora))
    ghost_json.read_merged(Path(model))  # before torch is imported, which takes seconds
    from transformers.utils.logging import set_verbosity_error

    from replicate_deployment.engine import Engine

    set_verbosity_error()  # the engine refuses a message that is too long; transformers warns as well
    with progress("loading the model"):
        return LocalSpeaker(model, Engine.load(Path(model)))


def is_server(model: str) -> bool:
    return model.startswith(("http://", "https://", "replicate:", COMPLETIONS))


def is_gguf(model: str) -> bool:
    return not is_server(model) and model.endswith(".gguf")


@dataclass(frozen=True)
class LocalSpeaker:
    """A merged model or a GGUF file, loaded in this process."""

    name: str
    engine: "Engine"

    @property
    def labels(self) -> Labels:
        return self.engine.labels

    @property
    def settings(self) -> Settings:
        return self.engine.settings

    def reply(self, turns: Sequence[Turn], changes: Changes, seed: int | None) -> Generator[str, None, None]:
        yield from self.engine.reply(turns, self.settings.replace(**changes), seed=seed)


@dataclass(frozen=True)
class ServerSpeaker:
    """A server. Send it rendered turns, never raw text, so that a pasted tag cannot forge a turn."""

    name: str
    labels: Labels
    folder: Path = Path("models/merged")
    """Of ghost.json and tokenizer, for a server of completions."""
    settings: Settings = field(default_factory=Settings)
    """A guess: the server does not tell its sampling defaults."""

    def reply(self, turns: Sequence[Turn], changes: Changes, seed: int | None) -> Generator[str, None, None]:
        inputs: dict[str, Any] = {"prompt": render_prompt(turns, self.labels), **changes}
        if seed is not None:
            inputs["seed"] = seed
        # Run the event loop only while waiting for a piece, so that it does not meet other threads and signals.
        with asyncio.Runner() as runner:
            server = runner.run(client.backend(self.name, self.folder).__aenter__())
            pieces = server.stream(inputs)
            try:
                while (piece := runner.run(_next(pieces))) is not None:
                    yield piece
            finally:
                runner.run(_end(server, pieces))


Speaker = LocalSpeaker | ServerSpeaker


async def _next(pieces: Any) -> str | None:
    piece: str | None = await anext(pieces, None)
    return piece


async def _end(server: Any, pieces: Any) -> None:
    """Close the stream, which cancels a running prediction. After Ctrl-C the last step may still be waiting."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await pieces.aclose()
    await server.__aexit__(None, None, None)


async def _check(where: str, folder: Path) -> None:
    async with client.backend(where, folder):
        pass
