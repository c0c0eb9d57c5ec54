"""The port in front of Cog's server: what passes unchanged, what is refused, and how a stuck server is replaced."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from ghost.serving import door, guard, serve
from tests.ghost.serving.cog_server import ASYNC, STREAM, wait_until

HEY = {"input": {"prompt": "hey you"}}
# A predictor of milliseconds; "hang" is never answered, nor canceled.
PREDICTOR = """
import os, time
from cog import BaseRunner, ConcatenateIterator, Input, streaming

class Predictor(BaseRunner):
    def setup(self):
        pass

    @streaming
    def run(self, prompt: str = Input(), **rest) -> ConcatenateIterator[str]:
        while prompt == "hang":
            try:
                time.sleep(1)
            except BaseException:
                pass
        if prompt == "environment":
            yield " ".join(f"{name}={value}" for name, value in os.environ.items())
        for word in prompt.split():
            yield f"{word} "
            time.sleep(0.01)
"""


@contextmanager
def served(weights: Path, context: Path, **options: Any) -> Iterator[tuple[serve._Server, httpx2.Client]]:
    (context / "predict.py").write_text(PREDICTOR)
    with (
        serve._started(weights, 0, "127.0.0.1", context, **options) as server,
        httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as http,
    ):
        yield server, http


@pytest.fixture(scope="module")
def server(
    tiny_merged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[serve._Server, httpx2.Client]]:
    with served(tiny_merged, tmp_path_factory.mktemp("context")) as found:
        yield found


@pytest.fixture
def http(server: tuple[serve._Server, httpx2.Client]) -> httpx2.Client:
    wait_until(server[1], "READY")
    return server[1]


class Canned(socketserver.ThreadingTCPServer):
    """Takes one request after the other, keeps it, and sends `answer` as it is."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, answer: bytes) -> None:
        self.answer, self.asked = answer, b""
        super().__init__(("127.0.0.1", 0), CannedHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class CannedHandler(socketserver.StreamRequestHandler):
    server: Canned

    def handle(self) -> None:
        lines, length = [], 0
        while (line := self.rfile.readline()).strip():
            lines.append(line)
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.server.asked = b"".join(lines) + self.rfile.read(length)
        self.wfile.write(self.server.answer)


@contextmanager
def in_front_of(answer: bytes, **options: Any) -> Iterator[tuple[Canned, httpx2.Client]]:
    """The port in front of a server of one answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Canned(answer) as cog:
        front = door.Door("127.0.0.1", cog.server_address[1], 96, **options)
        front.reset()
        with guard.running(front.app("127.0.0.1"), listener), httpx2.Client(base_url=url, trust_env=False) as http:
            yield cog, http
        cog.shutdown()


def test_it_serves_with_standard_output_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with in_front_of(WHOLE % (200, len(BODY), BODY)) as (_, http):
        assert http.get("/health-check").content == BODY


def test_a_stop_while_the_server_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start, running = threading.Thread.start, set(threading.enumerate())

    def start_and_stop(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "server":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_stop)
    listener = socket.create_server(("127.0.0.1", 0))
    front = door.Door("127.0.0.1", 1, 96)
    with pytest.raises(KeyboardInterrupt), guard.running(front.app("127.0.0.1"), listener):
        raise AssertionError
    assert "server" not in {thread.name for thread in set(threading.enumerate()) - running}


BODY = b'{"output": ["\xc3\xa9", "\\u0000"],\n "n": 1.0e3, "id" : "x"}\r\n'
WHOLE = (
    b"HTTP/1.1 %d Some\r\nContent-Type: application/json\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: %d\r\n\r\n%s"
)


@pytest.mark.parametrize("status", [200, 201, 202, 400, 404, 409, 422, 503])
def test_what_passes_is_cogs_byte_for_byte(status: int) -> None:
    with in_front_of(WHOLE % (status, len(BODY), BODY)) as (cog, http):
        sent = b'{ "input":{"prompt":"\\u00e9\xc3\xa9"} , "extra":[1.50] }'
        json_headers = {"Content-Type": "application/json; charset=utf-8", "Cookie": "secret", "Prefer": "wait"}
        for method, path in (("PUT", "/predictions/my-id_1"), ("POST", "/predictions")):
            answer = http.request(method, path, content=sent, headers=json_headers)
            assert (answer.status_code, answer.content) == (status, BODY)
            assert answer.headers.get_list("x-twice") == ["1", "2"]
            assert answer.headers["content-type"] == "application/json"
            assert ("retry-after" in answer.headers) == (status in (409, 503))
            assert cog.asked.endswith(sent)
            assert b"charset=utf-8" in cog.asked
            assert b"prefer: wait" in cog.asked.lower()
            assert b"secret" not in cog.asked
        for path in ("/", "/health-check", "/openapi.json"):
            assert http.get(path).content == BODY
            assert cog.asked.startswith(f"GET {path} HTTP/1.1\r\n".encode())
        assert http.post("/predictions/a/cancel").content == BODY
        assert cog.asked.startswith(b"POST /predictions/a/cancel HTTP/1.1\r\n")


def test_a_stream_passes_piece_by_piece(http: httpx2.Client) -> None:
    pieces = [b"event: start\ndata: {}\n\n", b"\xff\x00\n", b"data: x\n\n"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with in_front_of(head + chunks + b"0\r\n\r\n") as (_, canned):
        assert canned.post("/predictions", json=HEY, headers=STREAM).content == b"".join(pieces)
    with in_front_of(head + chunks) as (_, cut), cut.stream("POST", "/predictions", json=HEY, headers=STREAM) as lost:
        assert list(lost.iter_lines())[-2].startswith('data: {"status":"failed"')
    with http.stream("POST", "/predictions", json={"input": {"prompt": "a " * 300}}, headers=STREAM) as response:
        next(response.iter_lines())
        assert http.get("/health-check").json()["status"] == "BUSY"


def test_chunks_pass_whole_however_they_arrive() -> None:
    body = b"3\r\n0\r\n\r\n1f;name=value\r\n" + b"0\r\n\r\n" * 6 + b"x\r\n" + b"0\r\nTrailer: 1\r\n\r\n"
    last = body.index(b"0\r\nTrailer")
    for step in range(1, len(body)):
        passed = rest = b""
        ended = False
        for start in range(0, len(body), step):
            chunks, rest, ended = door.whole_chunks(rest + body[start : start + step])
            passed += chunks
            if ended:
                break
        assert (ended, passed) == (True, body[:last])
    with pytest.raises(door.h11.RemoteProtocolError):
        door.whole_chunks(b"data\r\n")


def test_a_client_of_http_1_0_gets_the_stream_without_chunks(http: httpx2.Client) -> None:
    sent = json.dumps(HEY).encode()
    lines = ["POST /predictions HTTP/1.0", "Host: localhost", f"Content-Length: {len(sent)}"]
    lines += ["Content-Type: application/json", "Accept: text/event-stream"]
    head = "\r\n".join([*lines, "", ""])
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as old:
        old.sendall(head.encode() + sent)
        old.settimeout(30)
        said = b""
        while more := old.recv(10_000):
            said += more
    body = said.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"event: start\n")
    assert b"event: completed\n" in body


IDS = ["%00", "a" * 65, "..", "%2Ftmp%2Fx", "a%2Fb", "a.b", "é", "a%20", "a%0A", "%"]


@pytest.mark.parametrize("id", IDS)
def test_an_id_that_is_no_plain_name_is_refused(http: httpx2.Client, id: str) -> None:
    host, port = http.base_url.host, http.base_url.port
    for line in (f"PUT /predictions/{id}", f"POST /predictions/{id}/cancel"):
        with socket.create_connection((host, port or 0)) as raw:
            head = f"{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            raw.sendall(head.encode())
            assert int(raw.recv(1000).split()[1]) in (400, 404, 422)
    assert http.get("/health-check").json()["status"] == "READY"


@pytest.mark.parametrize("id", ["", "\x00", "a" * 65, "../x", "/tmp/x", "a\n", 5, True, ["a"], {}])
def test_nor_does_the_body_name_one(http: httpx2.Client, id: Any) -> None:
    assert http.post("/predictions", json=HEY | {"id": id}).status_code == 422
    assert http.get("/health-check").json()["status"] == "READY"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"input": {"prompt": "hey"}, "webhook": "http://192.0.2.1/"}', 403),
        (b'{"input": {"prompt": "hey"}, "webh\\u006fok": "http://192.0.2.1/"}', 403),
        (b'{"webhook": null, "input": {"prompt": "hey"}, "webhook": "http://192.0.2.1/"}', 403),
        (b'["id", {"prompt": "hey"}, {}, "http://192.0.2.1/", []]', 422),
        (b'{"input": {"prompt": "\\ud800"}}', 400),
        (b'{"input": ' + b"[" * 100_000, 400),
        (b'{"input": {"prompt": "hey", "max_new_tokens": 1' + b"0" * 400 + b"}}", 400),
        (b" " * (guard.BODY_BYTES + 1), 413),
    ],
)
def test_no_body_gets_around_it(
    http: httpx2.Client, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = http.post("/predictions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert not caplog.records
    wait_until(http, "READY")
    assert http.post("/predictions", json=HEY | {"webhook": None}).json()["status"] == "succeeded"


def test_a_twin_of_webhook_reaches_nobody(http: httpx2.Client) -> None:
    """Our parser takes the last of two fields; Cog's refuses both."""
    twins = b'{"input": {"prompt": "hey"}, "webhook": "http://192.0.2.1/", "webhook": null}'
    answer = http.post("/predictions", content=twins, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_shutdown_and_webhook_are_closed_until_they_are_allowed(http: httpx2.Client) -> None:
    answer = http.post("/shutdown")
    assert (answer.status_code, "--allow shutdown" in answer.json()["detail"]) == (403, True)
    with in_front_of(WHOLE % (200, len(BODY), BODY), allowed=["shutdown", "webhook"]) as (cog, open_):
        assert open_.post("/shutdown").content == BODY
        assert open_.post("/predictions", json=HEY | {"webhook": "http://192.0.2.1/"}).content == BODY
        assert b"192.0.2.1" in cog.asked


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://site.example"},
        {"Origin": "null"},
        {"Host": "site.example"},
        {"Host": "site.example", "Origin": "http://site.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_no_web_page_reaches_it(http: httpx2.Client, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/health-check"), ("POST", "/predictions"), ("POST", "/shutdown"), ("OPTIONS", "/")):
        assert http.request(method, path, headers=headers).status_code == 403


def test_slow_clients_keep_nobody_out(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "CONNECTIONS", 20)
    at = (http.base_url.host, http.base_url.port or 0)
    beginnings = [
        b"",
        b"POST /predictions HT",
        b"POST /predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ]
    slow = []
    try:
        for number in range(90):
            slow.append(socket.create_connection(at))
            with suppress(OSError):
                slow[-1].sendall(beginnings[number % 3])
        with httpx2.Client(base_url=http.base_url, trust_env=False) as new:
            wait_until(new, "READY")
            assert new.post("/predictions", json=HEY).json()["status"] == "succeeded"
        until(lambda: sum(map(closed, slow)) >= 70)
        assert not caplog.records
    finally:
        for connection in slow:
            connection.close()


def closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "begun", [b"", b"GET /health-", b"PUT /predictions/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_request_that_does_not_arrive_is_given_up(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as slow:
        slow.sendall(begun)
        slow.settimeout(30)
        with suppress(ConnectionResetError):
            assert slow.recv(1) == b""


def test_the_environment_is_chosen_and_the_temporary_folder_its_own(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = (
        "SENTRY_DSN",
        "HF_TOKEN",
        "REPLICATE_API_TOKEN",
        "GHOST_API_KEY",
        "http_proxy",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    for name in secrets:
        monkeypatch.setenv(name, "http://192.0.2.1/zebracorn")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with served(tiny_merged, tmp_path) as (_, http):
        told = "".join(http.post("/predictions", json={"input": {"prompt": "environment"}}).json()["output"])
    assert "zebracorn" not in told
    assert "CUDA_VISIBLE_DEVICES=3" in told
    scratch = Path(told.split("TMPDIR=")[1].split()[0])
    assert scratch.parent.name.startswith("ghost-serve-")
    assert not scratch.exists()


KILLED = """
import os, sys
from pathlib import Path
from ghost.serving import serve
with serve._started(Path(sys.argv[1]), 0, "127.0.0.1", Path(sys.argv[2])) as server:
    print(server.process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_cogs_server_ends_with_a_ghost_that_is_killed(tiny_merged: Path, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(PREDICTOR)
    command = [sys.executable, "-c", KILLED, str(tiny_merged), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    group = int(done.stdout)  # of the server and its worker
    until(lambda: not any(os.getpgid(one.pid) == group for one in psutil.process_iter() if alive(one)))


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_no_prediction_leaves_a_folder(tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.05)
    kept = set(os.listdir(door.FOLDERS)) if door.FOLDERS.exists() else set()
    ours = [f"left-{os.getpid()}-{number}" for number in range(4)]
    with served(tiny_merged, tmp_path) as (server, http):
        threading.Thread(target=until_it_ends, args=[server], daemon=True).start()
        id = http.post("/predictions", json=HEY).json()["id"]
        wait_until(http, "READY")
        http.put(f"/predictions/{ours[0]}", json=HEY)
        wait_until(http, "READY")
        http.put(f"/predictions/{ours[1]}", json=HEY, headers=STREAM)
        wait_until(http, "READY")
        http.put(f"/predictions/{ours[2]}", json=HEY, headers=ASYNC)
        wait_until(http, "READY")
        with http.stream("PUT", f"/predictions/{ours[3]}", json={"input": {"prompt": "a " * 99}}, headers=STREAM):
            pass
        until(lambda: not any((door.FOLDERS / one).exists() for one in [id, *ours]))
        assert server.log.read_bytes() == serve.LOG, "nor a line in a log that nobody asked for"
    assert id not in kept


def until_it_ends(server: serve._Server) -> None:
    with suppress(Exception):  # the test stops it
        server.wait_until_it_ends()


def until(done: Callable[[], bool]) -> None:
    for _ in range(3000):
        if done():
            return
        time.sleep(0.01)
    raise TimeoutError


def no_folder(server: serve._Server, http: httpx2.Client) -> None:
    """As when the disk of the temporary folder is full for a moment: Cog never frees the slot."""
    door.FOLDERS.mkdir(parents=True, exist_ok=True)
    obstacle = door.FOLDERS / f"obstacle-{os.getpid()}"
    obstacle.write_text("")
    try:
        assert http.put(f"/predictions/{obstacle.name}", json=HEY).json()["status"] == "failed"
    finally:
        obstacle.unlink()
    assert http.post("/predictions", json=HEY).status_code == 409


def hang(server: serve._Server, http: httpx2.Client) -> None:
    answer = http.post("/predictions", json={"input": {"prompt": "hang"}})
    assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)


def hang_unseen(server: serve._Server, http: httpx2.Client) -> None:
    http.post("/predictions", json={"input": {"prompt": "hang"}}, headers=ASYNC)


def hang_streaming(server: serve._Server, http: httpx2.Client) -> None:
    with http.stream("POST", "/predictions", json={"input": {"prompt": "hang"}}, headers=STREAM) as response:
        assert '"failed"' in list(response.iter_lines())[-2]


def silence(server: serve._Server, http: httpx2.Client) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)


@pytest.mark.parametrize("fault", [no_folder, hang, hang_unseen, hang_streaming, silence])
def test_a_stuck_server_is_found_and_started_again(
    tiny_merged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: Callable[[serve._Server, httpx2.Client], None],
) -> None:
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(serve, "HEALTH_SECONDS", 0.5)
    for name, seconds in {"FREE_SECONDS": 1.5, "PROMPT_SECONDS": 1.5, "TOKEN_SECONDS": 0}.items():
        monkeypatch.setattr(door, name, seconds)
    with served(tiny_merged, tmp_path) as (server, http):
        first = server.process.pid
        threading.Thread(target=until_it_ends, args=[server], daemon=True).start()
        fault(server, http)
        until(lambda: server.process.pid != first)
        if http.get("/health-check").json()["status"] == "STARTING":
            for headers in ({}, STREAM):
                answer = http.post("/predictions", json=HEY, headers=headers)
                assert (answer.status_code, "retry-after" in answer.headers) in ((503, True), (200, False))
        assert http.get("/health-check").json()["status"] in ("STARTING", "READY")
        wait_until(http, "READY")
        assert http.post("/predictions", json=HEY).json()["status"] == "succeeded"
        assert json.loads(http.get("/health-check").content)["status"] in ("READY", "BUSY")
    assert "was stuck" in capfd.readouterr().out
