"""What the page sends, read: messages as turns, sliders as settings. Without gradio, which takes seconds to import."""

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.settings import Settings
from serving.chat.conversation import cleaned


def turns_of(history: Sequence[Mapping[str, Any]], labels: Labels) -> list[Turn]:
    """The page's messages as the turns that a Chat keeps.

    One that was not answered, such as one that was too long, is left out.
    """
    turns: list[Turn] = []
    asked: Turn | None = None
    for message in history:
        text = text_of(message)
        if message["role"] == "user":
            asked = Turn(labels.other, cleaned(text))
        elif asked and text.strip():
            turns += [asked, Turn(labels.me, text.strip())]
            asked = None
    return turns


def text_of(said: Mapping[str, Any]) -> str:
    """The text of one of gradio's messages, whose content is a text or a list of parts."""
    content = said["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def kind_of(field: Field[Any]) -> type[int] | type[float]:
    return int if isinstance(field.default, int) else float


def settings_of(values: Sequence[float]) -> Settings:
    """Sliders tell whole numbers as floats now and then. Raises SettingsError on a value that no slider has."""
    named = zip(fields(Settings), values, strict=True)
    return Settings().replace(**{field.name: kind_of(field)(value) for field, value in named})
