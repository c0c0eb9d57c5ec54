"""`ghost chat --web`: serve the page of gradio_page.py on this machine.

gradio's telemetry and sharing are off, and the page loads nothing from elsewhere (a test checks). The conversation is
kept only in the page and in this process.
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

# Set before gradio is imported, which otherwise checks for a newer version and counts launches.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "GRADIO_MCP_SERVER": "False"}


def require() -> None:
    """Raises UsageError if gradio is missing, before a model is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise UsageError(f"gradio is not installed; type: {install_command('serve,chat')}")


def serve(load: Callable[[], Speaker], changes: Mapping[str, float], seed: int | None, host: str, port: int) -> int:
    """Serve the page until Ctrl-C. Raises ServerError if the port is taken, or what `load` raises."""
    port = free_port(host, port)
    # Load the model and reply in the same thread: the state of a compiled model belongs to its thread.
    with ThreadPoolExecutor(1, "ghost") as worker:
        speaker = worker.submit(load).result()
        page = prepared(speaker, changes, seed, worker)
        try:
            url = launch(page, host, port)
            console.print(f"{url}; Ctrl-C stops it")
            threading.Event().wait()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that ghost/cli.py turns into it
            return 0
        finally:
            page.close(verbose=False)
    return 0


def prepared(speaker: Speaker, changes: Mapping[str, float], seed: int | None, worker: ThreadPoolExecutor) -> Any:
    """Build the page."""
    os.environ.update(QUIET)
    from ghost.serving.chat.gradio_page import build

    return build(speaker, changes, seed, worker)


def launch(page: Any, host: str, port: int) -> str:
    """Serve the page and return its URL."""
    import uvicorn.config
    from starlette.middleware import Middleware

    from ghost.serving.chat.gradio_page import THEME
    from ghost.serving.guard import Bounded, Guard

    # gradio has no option for the protocol of its server.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{Bounded.__module__}:{Bounded.__name__}"

    # gradio sends itself a request to see whether it runs; a proxy could not reach this machine.
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
        max_file_size=1,  # byte; nothing is uploaded
        footer_links=[],
        app_kwargs={"middleware": [Middleware(Guard, host=host)]},
    )
    return str(url)
