"""A model server of kilobytes: what Cog's server says over HTTP, with a reply that shows what was asked, and moods.

Cog's own server is in tests/serving and, with the bot before it, in test_real_server.py.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

from replicate_deployment.chat_format import parse
from tests.loopback_server import LoopbackServer, QuietHandler


def echo(prompt: str) -> str:
    """The last turn of the other side, in capitals: a reply that says which message it answers."""
    return parse(prompt.removesuffix("\nA:"))[-1].text.upper()


class FakeModel(LoopbackServer):
    def __init__(self, reply: Callable[[str], str] = echo, port: int = 0) -> None:
        super().__init__(Handler, port)
        self.reply = reply
        self.prompts: list[str] = []
        self.inputs: list[dict[str, Any]] = []
        self.moods: list[str] = []  # of the next calls: "busy", "starting", "failed", "lost", "broken"
        self.health = "READY"
        self.hold = threading.Event()  # while it is clear a prediction does not end
        self.hold.set()
        self.start()


class Handler(QuietHandler):
    server: FakeModel

    def do_GET(self) -> None:
        self.answer({"status": self.server.health})

    def do_POST(self) -> None:  # cancel
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.answer({})

    def do_PUT(self) -> None:
        model = self.server
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)))["input"]
        mood = model.moods.pop(0) if model.moods else ""
        if mood in ("busy", "starting", "broken"):
            model.health = {"busy": "BUSY", "starting": "STARTING"}.get(mood, "UNHEALTHY")
            self.answer({"detail": mood}, 503 if mood == "starting" else 409)
            return
        model.inputs.append(inputs)
        model.prompts.append(inputs["prompt"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.event("start", {})
        model.hold.wait(30)
        if mood == "lost":
            self.close_connection = True
            return
        id = self.path.rpartition("/")[2]
        if mood == "failed":
            self.event("completed", {"id": id, "status": "failed", "error": "the model fell over"})
        else:
            output = [model.reply(inputs["prompt"])]
            metrics = {"input_tokens": 9, "output_tokens": 4, "ended_by_itself": 1}
            self.event("completed", {"id": id, "status": "succeeded", "output": output, "metrics": metrics})
        self.wfile.write(b"0\r\n\r\n")

    def event(self, name: str, document: dict[str, Any]) -> None:
        text = f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    def answer(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
