"""A headless Chromium over its debugging pipe: no driver to install, and no port that another program could reach.

The protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import json
import os
import shutil
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which neither root nor most containers can have; what it opens are our own pages, offline
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def found() -> str | None:
    """Its path: that of the variable BROWSER, or the first known name on PATH."""
    return next(filter(None, map(shutil.which, [os.environ.get("BROWSER", ""), *NAMES])), None)


@contextmanager
def browser(program: str, *options: str) -> Iterator["Browser"]:
    """One page, offline. Raises RuntimeError when the browser ends before it is told to."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [program, *OPTIONS, *options, f"--user-data-dir={home}"]
        # The pipe is file descriptors 3 and 4 of the browser, which Python may have given to something else.
        shell = f'exec "$@" 3<&{to_read} 4>&{from_write}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", *command],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
            start_new_session=True,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            with open(to_write, "wb", buffering=0) as requests, open(from_read, "rb") as replies:
                opened = Browser(requests, replies)
                yield opened
                opened.call("Browser.close", on_page=False)
                process.wait(timeout=10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """`requested` are the addresses that the page asked for, `complaints` what it wrote to the console."""

    def __init__(self, requests: Any, replies: Any) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._requests, self._replies, self._number, self._session = requests, replies, 0, ""
        page = self.call("Target.createTarget", on_page=False, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", on_page=False, targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def show(self, page: Path, *, width: int, scheme: str, height: int = 900) -> None:
        """Open a file in a window of this size, light or dark, and wait until it is drawn."""
        self._open(page.resolve().as_uri(), width, height, scheme)

    def visit(self, url: str, *, width: int, scheme: str, height: int = 900) -> None:
        """Open a page that this machine serves. The network is there from now on: look at `requested`."""
        self.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        self._open(url, width, height, scheme)

    def _open(self, url: str, width: int, height: int, scheme: str) -> None:
        # mobile: its scroll bars take no width, and a page that is too wide is not shrunk to fit in silence.
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._read()

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Its value once it is true. Raises RuntimeError when it is not for so long."""
        deadline = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not true within {seconds:g} s: {expression}")
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click the first element of a CSS selector, once there is one."""
        self.wait(f"!!document.querySelector({json.dumps(selector)})")
        self.ask(f"document.querySelector({json.dumps(selector)}).click()")

    def write(self, selector: str, text: str) -> None:
        """Replace what a field holds, as a paste does, and press Enter in it."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.disabled === false")
        self.ask(f"document.querySelector({json.dumps(selector)}).focus()")
        self.ask(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter)
        self.call("Input.dispatchKeyEvent", type="keyUp", **enter)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, *, whole: bool = True) -> bytes:
        """PNG of the whole page, or of the window."""
        return b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def paper(self) -> bytes:
        """PDF, as it is printed."""
        return b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def call(self, method: str, *, on_page: bool = True, **params: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if on_page:
            request["sessionId"] = self._session
        self._requests.write(json.dumps(request).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                result: dict[str, Any] = reply["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """The next message; what happened in the page is noted on the way."""
        content = bytearray()
        while (byte := self._replies.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser ended")
            content += byte
        message: dict[str, Any] = json.loads(content)
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return message
