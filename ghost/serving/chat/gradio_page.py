"""The page: gradio's ChatInterface, which streams, stops, retries, undoes and clears."""

import asyncio
import html
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import Field, fields
from typing import Any

import gradio

from ghost.serving.chat.conversation import DISCLOSURE, Changes, Chat, Speaker, normalized, parse_seed
from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings

# Read what the page sends: messages as turns, sliders as settings.


def turns_of(history: Sequence[Mapping[str, Any]], labels: Labels) -> list[Turn]:
    """Return the page's messages as the turns of a Chat. Leave out messages without a reply."""
    turns: list[Turn] = []
    asked: Turn | None = None
    for message in history:
        text = text_of(message)
        if message["role"] == "user":
            asked = Turn(labels.other, normalized(text))
        elif asked and text.strip():
            turns += [asked, Turn(labels.me, text.strip())]
            asked = None
    return turns


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a gradio message, whose content is a string or a list of parts."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def kind_of(field: Field[Any]) -> type[int] | type[float]:
    return int if isinstance(field.default, int) else float


def changes_of(values: Sequence[float], shown: Settings) -> dict[str, float]:
    """Return the settings whose sliders were moved from where the page had `shown` them. Sliders sometimes send whole
    numbers as floats. Raises SettingsError on a value out of range.
    """
    named = {field.name: kind_of(field)(value) for field, value in zip(fields(Settings), values, strict=True)}
    Settings().replace(**named)
    return {name: value for name, value in named.items() if value != getattr(shown, name)}


TITLE = "Ghost"
HINT = {
    "max_new_tokens": "cut the reply after this many tokens",
    "temperature": "0 always takes the likeliest token",
    "top_p": "choose among the likeliest tokens of this total probability; 1 is off",
    "top_k": "choose among this many likeliest tokens; 0 is off",
    "repetition_penalty": "make tokens that were used before less likely; 1 is off",
}
# System fonts; gradio's own themes load fonts from Google.
THEME = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def plain(chatbot: gradio.Chatbot) -> gradio.Chatbot:
    """Show text as text. gradio renders HTML even without Markdown, so a typed "</s>" would vanish.

    Not a subclass, for which gradio would write a file beside this one.
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


def build(speaker: Speaker, changes: Changes, seed: int | None, worker: ThreadPoolExecutor) -> Any:
    """Build the page. `speaker` runs in `worker` only."""
    settings = speaker.settings.replace(**changes)

    async def reply(
        message: str, history: Sequence[Mapping[str, Any]], seed: str, *values: float
    ) -> AsyncIterator[str]:
        try:
            chat = Chat(
                speaker,
                {**changes, **changes_of(values, settings)},
                parse_seed(seed.strip()) if seed.strip() else None,
                turns_of(history, speaker.labels),
            )
            async for said in in_thread(chat, message, worker):
                yield said
        except GhostError as error:
            # Not gradio's Error, after which the message box stays locked. Shown as HTML, so escape it: a server may
            # have written it.
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
        info="the same seed and messages give the same replies; empty: a random seed",
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
        concurrency_limit=1,  # the model writes one reply at a time
        fill_height=True,
    )


async def in_thread(chat: Chat, message: str, worker: ThreadPoolExecutor) -> AsyncIterator[str]:
    """Yield the reply so far after each piece. Closing this generator (the stop button, a closed page) ends the work
    after the current step."""
    loop = asyncio.get_running_loop()
    pieces = chat.answer(message)
    said = ""
    try:
        while (piece := await loop.run_in_executor(worker, next, pieces, None)) is not None:
            said += piece
            yield said
    finally:
        await loop.run_in_executor(worker, pieces.close)
