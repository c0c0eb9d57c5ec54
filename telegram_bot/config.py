"""The bot's configuration file: names, types and defaults. config/bot.example.yaml explains each key.

The token is not in the file; it is read from the environment.
"""

import os
import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ghost import config
from ghost.errors import ConfigError
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels
from telegram_bot.texts import Texts

DEFAULT_PATH = Path("config/bot.yaml")
TOKEN = "TELEGRAM_BOT_TOKEN"

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
NonEmpty = Annotated[str, Meta(min_length=1)]
Days = Annotated[int, Meta(ge=1)]


class Names(Struct, frozen=True):
    me: str = Labels().me
    other: str = Labels().other


class Inputs(Struct, frozen=True, omit_defaults=True):
    """Keys left out take the model server's defaults."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None


class Typing(Struct, frozen=True):
    characters_per_second: Annotated[float, Meta(gt=0)] = 15.0
    longest_seconds: Seconds = 6.0

    def seconds(self, text: str) -> float:
        """Return the typing time for `text`, at most `longest_seconds`."""
        return min(self.longest_seconds, len(text) / self.characters_per_second)


class Limits(Struct, frozen=True):
    replies_per_minute: Count = 10
    commands_per_minute: Count = 10
    predictions_per_day: Count = 500
    prediction_seconds: Annotated[float, Meta(gt=0)] = 600.0
    predictions_at_once: Count = 1
    messages_per_reply: Count = 6


class Drafts(Struct, frozen=True):
    chats: list[int] = []


class Checks(Struct, frozen=True):
    """When a reply is broken. False alarms on people's own replies: benchmarks/results/live_quality.md."""

    retries: Annotated[int, Meta(ge=0, le=2)] = 2
    loop_share: Annotated[float, Meta(ge=0, lt=1)] = 0.45
    copied_words: Count = 6
    foreign_letters: Count = 30


class Retention(Struct, frozen=True):
    messages_days: Days = 30
    corrections_days: Days = 365


class BotConfig(Struct, frozen=True):
    owner: int
    backend: NonEmpty
    allow: list[int] = []
    telegram: Annotated[str, Meta(pattern="^https?://")] = "https://api.telegram.org"
    ghost: NonEmpty = "models/merged"
    database: NonEmpty = "data/bot/ghost.sqlite3"
    labels: Names = Names()
    inputs: Inputs = Inputs()
    context_turns: Count = CONTEXT_TURNS
    debounce_seconds: Seconds = 3.0
    waking_seconds: Seconds = 8.0
    typing: Typing = Typing()
    limits: Limits = Limits()
    drafts: Drafts = Drafts()
    checks: Checks = Checks()
    evaluation: str = ""
    retention: Retention = Retention()
    texts: Texts = Texts()

    def __post_init__(self) -> None:
        try:
            _ = self.sides
        except ValueError as error:
            raise ConfigError(f"labels: {error}") from error
        if not self.texts.notice.strip():
            raise ConfigError("texts.notice: must not be blank: everyone is told that this is an AI; reword it")

    @property
    def sides(self) -> Labels:
        return Labels(me=self.labels.me, other=self.labels.other)

    def is_allowed(self, person: int, chat: int) -> bool:
        return person == self.owner or person in self.allow or chat in self.allow


def load(path: Path) -> BotConfig:
    """Raises ConfigError naming the file, the key, what was found and the nearest valid name."""
    return config.load(BotConfig, DEFAULT_PATH.name, path)


def token() -> str:
    """Return the bot's token from the environment. Raises ConfigError, whose message never contains the value."""
    found = os.environ.get(TOKEN, "").strip()
    if not found:
        raise ConfigError(f"{TOKEN} is not set; get one from @BotFather, then: export {TOKEN}=…")
    if not re.fullmatch(r"\d+:[\w-]{10,}", found):
        raise ConfigError(f"{TOKEN} is not a bot token, which is a number, a colon and about 35 characters")
    return found
