"""The chat on a page: gradio's ChatInterface, which streams, stops, retries and forgets.

Everything that gradio could send anywhere is off, and its page asks for nothing but itself: a test looks. What was said
lives in the page and in this process.
"""

import asyncio
import importlib.util
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import Field, fields
from typing import Any

from replicate_deployment.chat_format import Labels, Turn
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings
from serving.chat.conversation import DISCLOSURE, Chat, Speaker, seed_of
from training.console import console
from training.errors import ServerError, UsageError

TITLE = "Ghost"
HINT = {
    "max_new_tokens": "cut the reply after this many tokens",
    "temperature": "0 always takes the likeliest token",
    "top_p": "choose among the likeliest tokens of this total probability; 1 is off",
    "top_k": "choose among this many likeliest tokens; 0 is off",
    "repetition_penalty": "make what was already said less likely; 1 is off",
}
# Before gradio is imported: it asks for its newest version, and counts launches, unless told not to.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "GRADIO_MCP_SERVER": "False"}


def require() -> None:
    """Raises UsageError where gradio is missing: before a model is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("gradio is not installed; type: pip install -e '.[serve,chat]'")


def serve(load: Callable[[], Speaker], changes: Mapping[str, float], seed: int | None, host: str, port: int) -> int:
    """Serve the page until Ctrl-C. Raises ServerError when the port is taken, or what `load` raises."""
    port = free_port(host, port)
    # One thread loads the model and answers, always the same: what a compiled model keeps belongs to its thread.
    with ThreadPoolExecutor(1, "ghost") as worker:
        speaker = worker.submit(load).result()
        page = build(speaker, speaker.settings.replace(**changes), seed, worker)
        try:
            console.print(f"{launch(page, host, port)}; Ctrl-C ends it", soft_wrap=True)
            threading.Event().wait()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that training/cli.py turns into it
            return 0
        finally:
            page.close(verbose=False)
    return 0


def launch(page: Any, host: str, port: int) -> str:
    """The page's URL, once it answers."""
    import gradio

    # gradio asks itself whether it runs; a proxy would not reach this machine.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1"]))
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        max_file_size=1,  # byte: nothing is ever uploaded
        footer_links=[],
        # Fonts of the machine that looks, where gradio's own themes would name some of Google's.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return str(url)


def build(speaker: Speaker, settings: Settings, seed: int | None, worker: ThreadPoolExecutor) -> Any:
    """The page, not served yet. All that `speaker` does runs in `worker`."""
    os.environ.update(QUIET)
    import gradio

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
            raise gradio.Error(str(error), title="No reply", print_exception=False) from error

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
        chatbot=gradio.Chatbot(
            label=speaker.name,
            render_markdown=False,  # what people type is text
            allow_tags=False,
            buttons=["copy"],
            placeholder="Write something.",
            scale=1,
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


def kind_of(field: Field[Any]) -> type[int] | type[float]:
    return int if isinstance(field.default, int) else float


def settings_of(values: Sequence[float]) -> Settings:
    """Sliders tell whole numbers as floats now and then. Raises SettingsError on a value that no slider has."""
    named = zip(fields(Settings), values, strict=True)
    return Settings().replace(**{field.name: kind_of(field)(value) for field, value in named})


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


def turns_of(history: Sequence[Mapping[str, Any]], labels: Labels) -> list[Turn]:
    """The page's messages as turns. One that was not answered, such as one that was too long, is left out."""
    turns: list[Turn] = []
    asked: Turn | None = None
    for message in history:
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        if message["role"] == "user":
            asked = Turn(labels.other, text)
        elif asked and text.strip():
            turns += [asked, Turn(labels.me, text)]
            asked = None
    return turns


def free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ServerError(f"cannot listen on {host}:{port} ({error}); choose another with --port") from error
