"""The bot's configuration file: names, types and defaults. config/bot.example.yaml explains each key.

The token is not in the file; it is read from the environment.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, Struct

from ghost.errors import ConfigError
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels

DEFAULT_PATH = Path("config/bot.yaml")
TOKEN = "TELEGRAM_BOT_TOKEN"

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
NonEmpty = Annotated[str, Meta(min_length=1)]
Line = Annotated[str, Meta(min_length=1, max_length=1000)]  # notice and help must fit into one Telegram message
Days = Annotated[int, Meta(ge=1)]


class Names(Struct, frozen=True, forbid_unknown_fields=True):
    me: str = Labels().me
    other: str = Labels().other


class Inputs(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Keys left out take the model server's defaults."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None


class Typing(Struct, frozen=True, forbid_unknown_fields=True):
    characters_per_second: Annotated[float, Meta(gt=0)] = 15.0
    longest_seconds: Seconds = 6.0

    def seconds(self, text: str) -> float:
        """Return the typing time for `text`, at most `longest_seconds`."""
        return min(self.longest_seconds, len(text) / self.characters_per_second)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    replies_per_minute: Count = 10
    commands_per_minute: Count = 10
    predictions_per_day: Count = 500
    prediction_seconds: Annotated[float, Meta(gt=0)] = 600.0
    predictions_at_once: Count = 1
    messages_per_reply: Count = 6


class Drafts(Struct, frozen=True, forbid_unknown_fields=True):
    chats: list[int] = []


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    messages_days: Days = 30
    corrections_days: Days = 365


class Texts(Struct, frozen=True, forbid_unknown_fields=True):
    """The bot's own messages. All can be reworded; none can be empty."""

    notice: Annotated[str, Meta(min_length=10, max_length=1000)] = (
        "Before you start: you are writing to an AI that imitates a person's style. It is not that person, "
        "it makes things up, and what you write here is stored to answer you. Send /help for more."
    )
    help: Line = (
        "I am an AI that imitates a person's way of writing. I know the last twenty turns or so of this chat, "
        "and nothing else.\n"
        "/reset – start afresh: ignore what was said so far\n"
        "/forget – delete all that is stored of this chat\n"
        "/status – how I am doing\n"
        "/help – this text"
    )
    stranger: Line = "Thanks for writing. This bot only talks to people its owner has allowed, so it will stay silent."
    only_text: Line = "I can only read text."
    waking: Line = "waking up…"
    down: Line = "I cannot think right now. I will answer when I can."
    failed: Line = "I lost my thread there. Say it again?"
    enough: Line = "That is enough for today. Write to me tomorrow."
    slower: Line = "That was a lot of commands. Try again in a minute."
    reset: Line = "Done: we start afresh."
    forgotten: Line = "Done: what was stored of this chat is deleted."


class BotConfig(Struct, frozen=True, forbid_unknown_fields=True):
    owner: int
    backend: NonEmpty
    allow: list[int] = []
    telegram: Annotated[str, Meta(pattern="^https?://")] = "https://api.telegram.org"
    database: NonEmpty = "data/bot/ghost.sqlite3"
    labels: Names = Names()
    inputs: Inputs = Inputs()
    context_turns: Count = CONTEXT_TURNS
    debounce_seconds: Seconds = 3.0
    waking_seconds: Seconds = 8.0
    typing: Typing = Typing()
    limits: Limits = Limits()
    drafts: Drafts = Drafts()
    retention: Retention = Retention()
    texts: Texts = Texts()

    @property
    def sides(self) -> Labels:
        return Labels(me=self.labels.me, other=self.labels.other)

    def is_allowed(self, person: int, chat: int) -> bool:
        return person == self.owner or person in self.allow or chat in self.allow


def load(path: Path) -> BotConfig:
    """Raises ConfigError naming the file, the key, what was found and the nearest valid name."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `ghost init` writes {DEFAULT_PATH} to fill in") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line}: not YAML ({getattr(error, 'problem', None) or error})") from error
    _refuse_unknown(BotConfig, document, "", path)
    try:
        config = msgspec.convert(document, BotConfig)
    except msgspec.ValidationError as error:
        complaint, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"{path}: {place.rstrip('`') or 'the file'}: {complaint}") from error
    try:
        Labels(me=config.labels.me, other=config.labels.other)
    except ValueError as error:
        raise ConfigError(f"{path}: labels: {error}") from error
    if not config.texts.notice.strip():
        raise ConfigError(f"{path}: texts.notice: must not be blank: everyone is told that this is an AI; reword it")
    return config


def token() -> str:
    """Return the bot's token from the environment. Raises ConfigError, whose message never contains the value."""
    found = os.environ.get(TOKEN, "").strip()
    if not found:
        raise ConfigError(f"{TOKEN} is not set; get one from @BotFather, then: export {TOKEN}=…")
    if not re.fullmatch(r"\d+:[\w-]{10,}", found):
        raise ConfigError(f"{TOKEN} is not a bot token, which is a number, a colon and about 35 characters")
    return found


def _refuse_unknown(kind: type[Struct], document: Any, prefix: str, path: Path) -> None:
    if not isinstance(document, dict):
        return  # msgspec reports it
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in document.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise ConfigError(f"{path}: unknown key {prefix}{key}; {hint}")
        if isinstance(fields[key].type, type) and issubclass(fields[key].type, Struct):
            _refuse_unknown(fields[key].type, value, f"{prefix}{key}.", path)
