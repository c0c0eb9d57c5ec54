"""Who answers in a chat: a merged model in this process, or a server over HTTP."""

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from replicate_deployment.chat_format import Labels, Turn, render_prompt
from replicate_deployment.settings import Settings
from serving.chat.conversation import Speaker
from training.console import progress


def find(model: str, labels: Labels | None) -> Speaker:
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
        from serving.client import backend

        inputs: dict[str, Any] = {"prompt": render_prompt(turns, self.labels), **asdict(settings)}
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
    from serving.client import backend

    async with backend(where):
        pass
