"""`ghost chat --web`: the page of gradio_page.py, served to this machine.

Everything that gradio could send anywhere is off, and its page asks for nothing but itself: a test looks. What was said
lives in the page and in this process.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ghost.console import console
from ghost.errors import UsageError
from ghost.installed import install_command
from ghost.serving.chat.conversation import Speaker
from ghost.serving.serve import free_port

# Before gradio is imported: it asks for its newest version, and counts launches, unless told not to.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "GRADIO_MCP_SERVER": "False"}


def require() -> None:
    """Raises UsageError where gradio is missing: before a model is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise UsageError(f"gradio is not installed; type: {install_command('serve,chat')}")


def serve(load: Callable[[], Speaker], changes: Mapping[str, float], seed: int | None, host: str, port: int) -> int:
    """Serve the page until Ctrl-C. Raises ServerError when the port is taken, or what `load` raises."""
    port = free_port(host, port)
    # One thread loads the model and answers, always the same: what a compiled model keeps belongs to its thread.
    with ThreadPoolExecutor(1, "ghost") as worker:
        speaker = worker.submit(load).result()
        page = prepared(speaker, changes, seed, worker)
        try:
            url = launch(page, host, port)
            console.print(f"{url} until Ctrl-C", soft_wrap=True)
            threading.Event().wait()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that ghost/cli.py turns into it
            return 0
        finally:
            page.close(verbose=False)
    return 0


def prepared(speaker: Speaker, changes: Mapping[str, float], seed: int | None, worker: ThreadPoolExecutor) -> Any:
    """The page, not served yet."""
    os.environ.update(QUIET)
    from ghost.serving.chat.gradio_page import build

    return build(speaker, speaker.settings.replace(**changes), seed, worker)


def launch(page: Any, host: str, port: int) -> str:
    """The page's URL, once it answers."""
    from ghost.serving.chat.gradio_page import THEME

    # gradio asks itself whether it runs; a proxy would not reach this machine.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1"]))
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=THEME,
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
    )
    return str(url)
