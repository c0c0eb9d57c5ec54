"""A local server that answers as Replicate's HTTP API does, and misbehaves when told to."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback_server import LoopbackServer, QuietHandler

TOKEN = "r8_not-a-real-token"
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
NEXT_VERSION = "1f" * 32
PIECES = ["oui", " carrément", " 😂", "\n", "on se voit", " là-bas ?"]
TERMINAL = {"succeeded", "failed", "canceled", "aborted"}


@dataclass(frozen=True)
class Fault:
    """What happens to one request instead of the answer, or after the request was carried out."""

    status: int = 0  # 0: no answer, the connection is closed
    carried_out: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    detail: str = ""


LOST_BEFORE = Fault()
LOST_AFTER = Fault(carried_out=True)


class FakeReplicate:
    """`states` is what each look at a new prediction finds, one after the other; the last one stays."""

    def __init__(self) -> None:
        self.states = ["starting", "processing", "succeeded"]
        self.pieces = list(PIECES)
        self.error = "the model ran out of memory"
        self.streams = True
        self.cut_streams_after: list[int] = []  # pieces, of one opened stream after the other
        self.next_version = NEXT_VERSION  # of the next push
        self.silent = 0  # so many creates are carried out and then not answered
        self.lists = True  # new predictions appear in the list
        self.predictions: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.deployments: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self._faults: list[tuple[str, re.Pattern[str], Fault]] = []
        handler = type("Handler", (_Handler,), {"fake": self})
        self.server = LoopbackServer(handler)
        self.url = self.server.url
        self.add_model("ana/ghost")

    def add_model(self, name: str, *, visibility: str = "private", version: str | None = VERSION) -> None:
        latest = {"id": version, "created_at": now(), "cog_version": "0.23.1"} if version else None
        owner, _, short = name.partition("/")
        self.models[name] = {
            "url": f"https://replicate.com/{name}",
            "owner": owner,
            "name": short,
            "visibility": visibility,
            "latest_version": latest,
        }

    def fail(self, method: str, path: str, *faults: Fault) -> None:
        """The next requests of this method whose path matches meet these faults, one each."""
        self._faults += [(method, re.compile(path), fault) for fault in faults]

    def fault(self, method: str, path: str) -> Fault | None:
        for index, (of, pattern, fault) in enumerate(self._faults):
            if of == method and pattern.search(path):
                del self._faults[index]
                return fault
        return None

    def asked(self, method: str, path: str) -> int:
        """How many requests of this method had this very path."""
        return self.requests.count((method, path))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        id = f"fake{len(self.predictions):022d}"
        row = {
            "id": id,
            "version": body.get("version", "hidden"),
            "input": body["input"],
            "status": "starting",
            "output": None,
            "error": None,
            "logs": "",
            "metrics": {},
            "created_at": now(),
            "started_at": None,
            "completed_at": None,
            "data_removed": False,
            "urls": {
                "get": f"{self.url}/v1/predictions/{id}",
                "cancel": f"{self.url}/v1/predictions/{id}/cancel",
                **({"stream": f"{self.url}/streams/{id}"} if self.streams else {}),
            },
        }
        self.predictions[id] = row | {"looks": 0, "body": body}
        return row

    def look(self, id: str) -> dict[str, Any]:
        row = self.predictions[id]
        if row["status"] not in TERMINAL:
            self.move(row, self.states[min(row["looks"], len(self.states) - 1)])
            row["looks"] += 1
        return told(row)

    def move(self, row: dict[str, Any], status: str) -> None:
        row["status"] = status
        if status != "starting":
            row["started_at"] = row["started_at"] or now()
        if status in TERMINAL:
            row["completed_at"] = now()
            row["metrics"] = {"predict_time": 0.25, "input_tokens": 9, "output_tokens": 20, "time_to_first_token": 0.04}
        if status == "succeeded":
            row["output"] = self.pieces
        if status == "failed":
            row["error"] = self.error


def told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("looks", "body")}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def running() -> Iterator[FakeReplicate]:
    fake = FakeReplicate()
    fake.server.start()
    try:
        yield fake
    finally:
        fake.server.stop()


class _Handler(QuietHandler):
    fake: FakeReplicate

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        path = urlsplit(self.path).path
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.fake.requests.append((method, path))
        self.fake.headers.append(dict(self.headers))
        self.fake.bodies.append(body)
        fault = self.fake.fault(method, path)
        if fault and fault.carried_out:
            self._route(method, path, body)
        if fault and not fault.status:
            self.close_connection = True
            return
        if fault:
            self._json(fault.status, {"detail": fault.detail}, fault.headers)
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json(401, {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token"})
            return
        if match := re.fullmatch(r"/streams/(\w+)", path):
            self._stream(self.fake.predictions[match[1]])
            return
        status, answer = self._route(method, path, body)
        if method == "POST" and status == 201 and self.fake.silent:
            self.fake.silent -= 1
            self.rfile.read(1)  # until the client has gone
            self.close_connection = True
            return
        self._json(status, answer)

    def _route(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        fake = self.fake
        if method == "POST":
            if (name := path.removeprefix("/pushed/")) in fake.models:  # told by the `cog` of a test
                fake.add_model(name, visibility=fake.models[name]["visibility"], version=fake.next_version)
                return 200, {}
            if path == "/v1/models":
                name = f"{body['owner']}/{body['name']}"
                fake.add_model(name, visibility=body["visibility"], version=None)
                return 201, fake.models[name]
            if path == "/v1/predictions" or path.startswith("/v1/deployments/"):
                if path == "/v1/predictions" and not re.fullmatch("[0-9a-f]{64}", body.get("version", "")):
                    return 422, {"title": "Invalid version or not permitted", "detail": "The version does not exist"}
                return 201, fake.create(body)
            if match := re.fullmatch(r"/v1/predictions/(\w+)/cancel", path):
                if match[1] not in fake.predictions:
                    return 404, {"detail": "The requested resource could not be found."}
                row = fake.predictions[match[1]]
                if row["status"] not in TERMINAL:
                    fake.move(row, "canceled")
                return 200, told(row)
        if match := re.fullmatch(r"/v1/predictions/(\w+)", path):
            return (200, fake.look(match[1])) if match[1] in fake.predictions else (404, {"detail": "not found"})
        if path == "/v1/predictions":
            since = parse_qs(urlsplit(self.path).query)["created_after"][0]
            rows = [told(row) for row in fake.predictions.values() if row["created_at"][:19] >= since[:19]]
            return 200, {"next": None, "previous": None, "results": rows[::-1] if fake.lists else []}
        if path == "/v1/hardware":
            return 200, [{"name": "CPU", "sku": "cpu"}, {"name": "Nvidia L40S GPU", "sku": "gpu-l40s"}]
        if (name := path.removeprefix("/v1/models/")) in fake.models:
            return 200, fake.models[name]
        if (name := path.removeprefix("/v1/deployments/")) in fake.deployments:
            return 200, {"owner": name.partition("/")[0], "name": name.partition("/")[2]}
        return 404, {"detail": "The requested resource could not be found."}

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, row: dict[str, Any]) -> None:
        """Chunked server-sent events, from behind Last-Event-ID; without a last chunk where it is cut."""
        fake = self.fake
        cut = fake.cut_streams_after.pop(0) if fake.cut_streams_after else None
        first = int(self.headers.get("Last-Event-ID", "0:-1").partition(":")[2]) + 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        final = fake.states[-1]
        pieces = fake.pieces if final == "succeeded" else fake.pieces[:2]
        for index, piece in enumerate(pieces[first:], first):
            if cut is not None and index - first == cut:
                self.close_connection = True
                return
            self._chunk("output", piece, f"id: 1690212292:{index}\n")
        if final not in TERMINAL:  # it goes on saying nothing until it is canceled
            while row["status"] not in TERMINAL:
                time.sleep(0.01)
        elif row["status"] not in TERMINAL:
            fake.move(row, final)
        if row["status"] == "failed":
            self._chunk("error", json.dumps({"detail": fake.error}))
        reason = {"succeeded": {}, "canceled": {"reason": "canceled"}}.get(row["status"], {"reason": "error"})
        self._chunk("done", json.dumps(reason))
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: str, data: str, id: str = "") -> None:
        lines = "".join(f"data: {line}\n" for line in data.split("\n"))
        content = f"event: {event}\n{id}{lines}\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()
