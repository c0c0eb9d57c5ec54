"""The page: gradio's ChatInterface, which streams, stops, retries, takes back and forgets."""

import asyncio
import html
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import Field, fields
from typing import Any

import gradio

from ghost.serving.chat.conversation import DISCLOSURE, Chat, Speaker, cleaned, seed_of
from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings

# What the page sends, read: messages as turns, sliders as settings. Without gradio, which takes seconds to import.


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


TITLE = "Ghost"
HINT = {
    "max_new_tokens": "cut the reply after this many tokens",
    "temperature": "0 always takes the likeliest token",
    "top_p": "choose among the likeliest tokens of this total probability; 1 is off",
    "top_k": "choose among this many likeliest tokens; 0 is off",
    "repetition_penalty": "make what was already said less likely; 1 is off",
}
# Fonts of the machine that looks, where gradio's own themes name some of Google's.
THEME = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def plain(chatbot: gradio.Chatbot) -> gradio.Chatbot:
    """Show text as text. gradio shows HTML, also where it renders no Markdown: a typed "</s>" would be missing.

    Not a subclass: for one of those gradio writes a file beside this one.
    """
    received, shown = chatbot.preprocess, chatbot.postprocess

    def preprocess(payload: Any) -> Any:
        return [said | as_text(html.unescape(text_of(said))) for said in received(payload)]

    def postprocess(value: Any) -> Any:
        return shown([said | as_text(html.escape(text_of(said), quote=False)) for said in value or []])

    chatbot.preprocess, chatbot.postprocess = preprocess, postprocess  # type: ignore[method-assign]
    return chatbot


def as_text(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def build(speaker: Speaker, settings: Settings, seed: int | None, worker: ThreadPoolExecutor) -> Any:
    """The page, not served yet. All that `speaker` does runs in `worker`."""

    async def reply(
        message: str, history: Sequence[Mapping[str, Any]], seed: str, *values: float
    ) -> AsyncIterator[str]:
        try:
            chat = Chat(
                speaker,
                settings_of(values),
                seed_of(seed.strip()) if seed.strip() else None,
                turns_of(history, speaker.labels),
            )
            async for said in in_thread(chat, message, worker):
                yield said
        except GhostError as error:
            # Not gradio's Error: after one its message box stays locked. Shown as HTML, and another server may have
            # written it.
            gradio.Warning(html.escape(str(error), quote=False), title="No reply")

    controls = [
        gradio.Slider(
            *RANGES[field.name],
            value=getattr(settings, field.name),
            step=1 if kind_of(field) is int else 0.05,
            label=field.name,
            info=HINT[field.name],
        )
        for field in fields(Settings)
    ]
    first = gradio.Textbox(
        "" if seed is None else str(seed),
        label="seed",
        info="the same seed and the same messages give the same replies; leave it empty for new ones",
    )
    return gradio.ChatInterface(
        reply,
        chatbot=plain(
            gradio.Chatbot(
                label=speaker.name, render_markdown=False, buttons=["copy"], placeholder="Write something.", scale=1
            )
        ),
        textbox=gradio.Textbox(
            show_label=False, placeholder="a message", max_lines=10, submit_btn=True, stop_btn=True, scale=7
        ),
        additional_inputs=[first, *controls],
        additional_inputs_accordion=gradio.Accordion("Settings", open=False),
        title=TITLE,
        description=DISCLOSURE,
        flagging_mode="never",
        analytics_enabled=False,
        api_visibility="private",
        save_history=False,
        concurrency_limit=1,  # the model answers one at a time
        fill_height=True,
    )


async def in_thread(chat: Chat, message: str, worker: ThreadPoolExecutor) -> AsyncIterator[str]:
    """What has been said so far, after each piece. When this is closed, by the stop button or a page that has gone,
    the step that runs is the last one."""
    loop = asyncio.get_running_loop()
    pieces = chat.answer(message)
    said = ""
    try:
        while (piece := await loop.run_in_executor(worker, next, pieces, None)) is not None:
            said += piece
            yield said
    finally:
        await loop.run_in_executor(worker, pieces.close)
