"""`ghost serve` and the bot for 10,000 predictions, with attacks and faults at random: is anything stuck, does it grow?

    python -m benchmarks.soak --record          # some twelve minutes on a quiet machine of two cores

The program is `ghost serve --openai` itself, with Cog's own server below it; only the model is replaced by one that
answers in a millisecond, and the times after which something counts as slow or stuck by seconds. Clients of Cog's API,
of OpenAI's and the bot share it. What each fault must be answered with is written beside it. A client whose prediction
was refused as busy, or lost with a server that was started again, asks again until it is answered.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from http.client import HTTPConnection, HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.bot import Scene, account
from benchmarks.extraction import machine
from ghost import cli
from ghost.serving import door, guard, serve
from tests import models

RESULT = Path(__file__).parent / "results" / "soak.md"
GROWTH_MB = 20.0  # resident, from a fifth of the way to the end
SLOW = 120  # slow connections that are held at once
PREDICTOR = """
import time
from cog import BaseRunner, ConcatenateIterator, Input, streaming

class Predictor(BaseRunner):
    def setup(self):
        pass

    @streaming
    def run(self, prompt: str = Input(), **rest) -> ConcatenateIterator[str]:
        said = prompt.removesuffix("\\nA:").rpartition("B: ")[2]
        while said == "hang":
            try:
                time.sleep(1)
            except BaseException:
                pass
        if said == "half":
            yield "\\ud83d"
        if said == "long":
            for _ in range(2000):
                yield "a "
                time.sleep(0.005)
        yield said.upper()
"""
SLOW_BODY = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
JSON = {"Content-Type": "application/json"}
HEY = json.dumps({"input": {"prompt": "hey"}}).encode()


def serving(weights: str, context: str) -> int:
    """`ghost serve` with seconds in place of minutes."""
    serve._started = partial(serve._started, context=Path(context))  # type: ignore[assignment]
    serve.LOOK_SECONDS, serve.HEALTH_SECONDS = 0.25, 2  # type: ignore[assignment]
    door.PROMPT_SECONDS, door.TOKEN_SECONDS, door.FREE_SECONDS = 4, 0, 4
    guard.REQUEST_SECONDS = 3
    return cli.main(["serve", weights, "--port", "0", "--openai", "0", "--log", f"{context}/server.log"])


class Soak:
    def __init__(self, cog: str, openai: str, process: psutil.Process, predictions: int, seed: int) -> None:
        self.cog, self.openai, self.process, self.predictions = urlsplit(cog), urlsplit(openai), process, predictions
        self.lock, self.seed = threading.Lock(), seed
        self.answered: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.slow: list[socket.socket] = []
        self.numbers = iter(range(10**9))

    def number(self) -> int:
        with self.lock:
            return next(self.numbers)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, at: Any = None
    ) -> tuple[int, bytes]:
        connection = HTTPConnection((at or self.cog).hostname, (at or self.cog).port, timeout=60)
        try:
            connection.request(method, path, body or None, (JSON if body else {}) | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    # What people do

    def predict(self, rng: random.Random) -> None:
        """One prediction of a random kind, asked until it is answered."""
        kind = rng.choice(["whole", "stream", "put", "async", "openai", "openai stream"])
        word, deadline = f"w{self.number()}", time.monotonic() + 120
        while (why := self.attempt(kind, word)) is not None:
            with self.lock:
                self.retried[why] += 1
            if time.monotonic() > deadline:
                self.wrong.append(f"{kind} was not answered within two minutes: {why}")
                return
            time.sleep(rng.uniform(0.005, 0.05))
        with self.lock:
            self.answered[kind] += 1

    def attempt(self, kind: str, word: str) -> str | None:
        """Why it was not answered; None if it was."""
        body = json.dumps({"input": {"prompt": word}}).encode()
        try:
            if kind.startswith("openai"):
                fields = {"messages": [{"role": "user", "content": word}], "stream": "stream" in kind}
                status, said = self.ask("POST", "/v1/chat/completions", json.dumps(fields).encode(), at=self.openai)
            elif kind == "whole":
                status, said = self.ask("POST", "/predictions", body)
            elif kind == "stream":
                status, said = self.ask("POST", "/predictions", body, {"Accept": "text/event-stream"})
            else:
                wait = {"Prefer": "respond-async"} if kind == "async" else {}
                status, said = self.ask("PUT", f"/predictions/{word}-{self.number()}", body, wait)
        except (OSError, HTTPException) as error:
            return type(error).__name__
        if status in (200, 202) and (kind == "async" or word.upper().encode() in said):
            return None
        return f"{status}" if status != 200 else "200, failed"

    # What attackers and accidents do, with what they must get

    def refused(self, rng: random.Random) -> None:
        long = b" " * (guard.BODY_BYTES + 1)
        name, method, path, body, headers, right = rng.choice(
            [
                ("id %00", "PUT", "/predictions/%00", HEY, {}, (422,)),
                ("id of 300 letters", "PUT", f"/predictions/{'a' * 300}", HEY, {}, (422,)),
                ("id that is a path", "PUT", "/predictions/%2Ftmp%2Fx", HEY, {}, (404,)),
                ("id in the body", "POST", "/predictions", b'{"id": "../x", "input": {"prompt": "hey"}}', {}, (422,)),
                ("cancel of a path", "POST", "/predictions/%2e%2e/cancel", b"", {}, (404, 422)),
                ("foreign Host", "POST", "/predictions", HEY, {"Host": "site.example"}, (403,)),
                ("foreign Origin", "POST", "/predictions", HEY, {"Origin": "http://site.example"}, (403,)),
                ("image of a page", "GET", "/health-check", b"", {"Sec-Fetch-Site": "cross-site"}, (403,)),
                ("webhook", "POST", "/predictions", HEY[:-1] + b', "webhook": "http://127.0.0.1:9/"}', {}, (403,)),
                (
                    "list with a webhook",
                    "POST",
                    "/predictions",
                    b'["a", {}, {}, "http://127.0.0.1:9/", []]',
                    {},
                    (422,),
                ),
                ("half a surrogate pair", "POST", "/predictions", b'{"input": {"prompt": "\\ud83d"}}', {}, (400,)),
                ("deep JSON", "POST", "/predictions", b'{"input": ' + b"[" * 50_000, {}, (400,)),
                ("no JSON", "POST", "/predictions", b"\xff\xfe", {}, (400,)),
                ("oversized body", "POST", "/predictions", long, {}, (413, 0)),
                ("shutdown", "POST", "/shutdown", b"", {}, (403,)),
                ("unknown path", "GET", "/etc/passwd", b"", {}, (404,)),
                ("unknown method", "DELETE", "/predictions", b"", {}, (405,)),
                ("escape sequences in a header", "GET", "/health-check", b"", {"Origin": "\x1b[2Jx"}, (400, 403)),
            ]
        )
        try:
            status, _ = self.ask(method, path, body, headers)
        except (OSError, HTTPException):  # closed while a body that is too long was being sent
            status = 0
        self.count(name, str(status) if status else "closed", status in right)
        fields = json.dumps({"messages": [{"role": "user", "content": "hey"}]}).encode()
        status, _ = self.ask("POST", "/v1/chat/completions", fields, {"Origin": "http://site.example"}, self.openai)
        self.count("foreign Origin, OpenAI's API", str(status), status == 403)

    def slow_client(self, rng: random.Random) -> None:
        """Connections that never send all they announce; those that were not given up in time are wrong."""
        begun = rng.choice([b"", b"POST /pred", SLOW_BODY % b"/predictions", SLOW_BODY % b"/v1/completions"])
        for _ in range(10):
            at = rng.choice([self.cog, self.openai])
            connection = socket.create_connection((at.hostname, at.port), timeout=30)
            with suppress(OSError):
                connection.sendall(begun)
            with self.lock:
                self.slow.append(connection)
                first = self.slow.pop(0) if len(self.slow) > SLOW else None
            if first:
                self.given_up(first)

    def given_up(self, connection: socket.socket) -> None:
        with connection:
            try:
                closed = b"HTTP/1.1 4" in (said := connection.recv(4096)) or not said
            except ConnectionResetError:
                closed = True
            except TimeoutError:
                closed = False
        self.count("slow connection", "closed" if closed else "open", closed)

    def leave(self, rng: random.Random) -> None:
        """Start a long reply, and hang up."""
        body = json.dumps({"input": {"prompt": "long"}}).encode()
        accept = rng.choice(["text/event-stream", "*/*"])
        head = f"PUT /predictions/left-{self.number()} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((self.cog.hostname, self.cog.port)) as leaving:
            leaving.sendall(head.encode() + body)
            time.sleep(rng.uniform(0, 0.1))
        self.count(f"hung up on a reply ({accept})", "left", True)

    def cancel(self, rng: random.Random) -> None:
        name = f"/predictions/cancel-{self.number()}"
        body = json.dumps({"input": {"prompt": "long"}}).encode()
        status, _ = self.ask("PUT", name, body, {"Prefer": "respond-async"})
        if status == 202:
            time.sleep(rng.uniform(0, 0.05))
            status, _ = self.ask("POST", f"{name}/cancel")
        self.count("canceled", str(status), status in (200, 404, 409, 503))

    def half(self, rng: random.Random) -> None:
        """A model that answers half a surrogate pair: a reply that failed, or none."""
        status, said = self.ask("POST", "/predictions", json.dumps({"input": {"prompt": "half"}}).encode())
        self.count("half a pair in a reply", str(status), status in (409, 503) or b'"failed"' in said)

    def hang(self, rng: random.Random) -> None:
        body = json.dumps({"input": {"prompt": "hang"}}).encode()
        how = rng.choice(["whole", "stream", "async"])
        headers = {"stream": {"Accept": "text/event-stream"}, "async": {"Prefer": "respond-async"}}.get(how, {})
        status, said = self.ask("POST", "/predictions", body, headers)
        self.count(f"a reply that never ends, {how}", str(status), status in (202, 409, 503) or b'"failed"' in said)

    def no_folder(self, rng: random.Random) -> None:
        """The folder of a prediction cannot be made, as on a full disk."""
        obstacle = door.FOLDERS / f"obstacle-{os.getpid()}-{self.number()}"
        obstacle.write_text("")
        try:
            status, said = self.ask("PUT", f"/predictions/{obstacle.name}", HEY)
        finally:
            obstacle.unlink()
        self.count("a folder that cannot be made", str(status), status in (409, 503) or b'"failed"' in said)

    def silence(self, rng: random.Random) -> None:
        with suppress(IndexError, psutil.NoSuchProcess):
            self.process.children()[0].send_signal(signal.SIGSTOP)
        self.count("Cog's server stopped by a signal", "sent", True)

    def count(self, name: str, outcome: str, right: bool) -> None:
        with self.lock:
            self.faults[name, outcome] += 1
            if not right:
                self.wrong.append(f"{name}: {outcome}")

    def person(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        common = [self.refused] * 12 + [self.slow_client, self.leave, self.leave, self.cancel, self.cancel, self.half]
        rare = [self.hang, self.no_folder, self.silence]
        while self.done < self.predictions:
            chance = rng.random()
            try:
                if chance < 0.003:
                    rng.choice(rare)(rng)
                elif chance < 0.2:
                    rng.choice(common)(rng)
            except (OSError, HTTPException) as error:  # a server that is being started again
                self.count("any of them", type(error).__name__, False)
            self.predict(rng)

    @property
    def done(self) -> int:
        return sum(self.answered.values())


def held(process: psutil.Process) -> tuple[float, int]:
    """Resident MB and open descriptors."""
    return process.memory_info().rss / 1e6, process.num_fds()


@contextmanager
def running(weights: Path, context: Path, output: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    (context / "predict.py").write_text(PREDICTOR)
    command = [sys.executable, "-m", "benchmarks.soak", "--serve", str(weights), str(context)]
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        while not (found := re.search(r"OpenAI's API: (\S+)", output.read_text())):
            if process.poll() is not None:
                raise RuntimeError(output.read_text())
            time.sleep(0.1)
        cog = re.findall(r"http://\S+(?=/predictions)", output.read_text())[0]
        yield psutil.Process(process.pid), cog, found[1].removesuffix("/v1")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def soak(predictions: int, chats: int, clients: int, seed: int) -> list[str]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = models.write_tiny_merged(folder / "merged", models.write_tiny_base(folder / "base"))
        (folder / "context").mkdir()
        output, errors = folder / "serve.txt", folder / "bot.txt"
        with running(weights, folder / "context", output) as (process, cog, openai):
            one = Soak(cog, openai, process, predictions, seed)
            kept = os.dup(2)
            with errors.open("w") as file:
                os.dup2(file.fileno(), 2)  # the bot's, which it inherits
            try:
                rows, bots = _run(one, Scene(folder, chats, seed, cog), process, clients)
            finally:
                os.dup2(kept, 2)
                os.close(kept)
            scratch = Path(process.children()[0].environ()["TMPDIR"])
            files = sum(len(names) for _, _, names in os.walk(scratch.parent))
            health = json.loads(one.ask("GET", "/health-check")[1])["status"]
        ids = set(re.findall(r'"prediction_id":"([^"]*)"', (folder / "context" / "server.log").read_text()))
        left = [id for id in ids if (door.FOLDERS / id).exists()]
        said, bot = output.read_text(), errors.read_text()
    restarts = said.count("loading the model again")
    first, last = rows[len(rows) // 5], rows[-1]
    grown = [last[column] - first[column] for column in (1, 2, 3, 4)]
    verdicts = {
        f"each of {predictions:,} predictions is answered, each fault as it must be": not one.wrong,
        f"at the end the server is READY (is {health})": health == "READY",
        f"no folder of {len(ids):,} predictions is left (are {len(left)})": not left,
        f"no file more in the server's own folder (are {files})": files <= 3,
        "no traceback and no escape sequence in any output": not re.search(r"Traceback|\x1b", said + bot),
        f"descriptors from a fifth of the way: ghost serve {grown[1]:+}, bot {grown[3]:+} (limit 5)": max(grown[1::2])
        <= 5,
        f"memory: ghost serve {grown[0]:+.1f} MB, bot {grown[2]:+.1f} MB (limit {GROWTH_MB:g})": max(grown[::2])
        <= GROWTH_MB,
        **bots,
    }
    kinds = sorted({name for name, _ in one.faults})
    outcomes = {
        kind: ", ".join(
            f"{outcome} × {count:,}" for (name, outcome), count in sorted(one.faults.items()) if name == kind
        )
        for kind in kinds
    }
    return [
        "\n".join(f"- {'met' if met else 'NOT met'}: {what}" for what, met in verdicts.items()),
        f"{time.monotonic() - began:.0f} s; {restarts} times stuck and started again. Answered: "
        + ", ".join(f"{kind} {count:,}" for kind, count in sorted(one.answered.items()))
        + ". Asked again after: "
        + ", ".join(f"{why} × {count:,}" for why, count in sorted(one.retried.items()))
        + ".",
        *([f"```\n{said[-3000:]}\n{bot[-3000:]}\n```"] if re.search(r"Traceback|\x1b", said + bot) else []),
        *([f"Wrong: {'; '.join(map(str, Counter(one.wrong).most_common(20)))}"] if one.wrong else []),
        "| fault | answered with |\n|---|---|\n" + "\n".join(f"| {kind} | {outcomes[kind]} |" for kind in kinds),
        "| predictions | ghost serve MB | descriptors | bot MB | descriptors |\n|---:|---:|---:|---:|---:|\n"
        + "\n".join(f"| {row[0]:,} | {row[1]:.1f} | {row[2]} | {row[3]:.1f} | {row[4]} |" for row in rows),
    ]


def _run(one: Soak, scene: Scene, process: psutil.Process, clients: int) -> tuple[list[Any], dict[str, bool]]:
    """Rows of (predictions, MB and descriptors of ghost serve, of the bot), and the bot's verdict."""
    bot = psutil.Process(scene.bot.tell("0"))
    scene.api.names |= {chat: f"\x1b[2JNoa {chat}" for chat in scene.chats}
    people = [threading.Thread(target=one.person, args=[number]) for number in range(clients)]
    for person in people:
        person.start()
    rows, total, said, waits = [], one.predictions // 10, 0, dict.fromkeys(scene.chats, 0.0)
    try:
        while any(person.is_alive() for person in people) or said < total:
            for reply in scene.look():
                waits[int(reply[1:].split("N")[0])] = 0.0
            free = [chat for chat in scene.chats if time.monotonic() - waits[chat] > 60]
            if free and said < total and said * 10 <= one.done + 10:
                scene.say(chat := scene.rng.choice(free), said)
                waits[chat], said = time.monotonic(), said + 1
            if one.done * 20 >= one.predictions * len(rows):
                rows.append((one.done, *held(process), *held(bot)))
            time.sleep(0.02)
        for connection in one.slow:
            one.given_up(connection)
        left = time.monotonic() + 120
        while len(scene.came) < total and time.monotonic() < left:
            scene.look()
            time.sleep(0.1)
        time.sleep(6)  # for connections that are kept, and the folders of replies that somebody left
        rows.append((one.done, *held(process), *held(bot)))
        scene.bot.tell("stop")
        figures, met = account(scene, total)
        return rows, {f"the bot's: {', '.join(f'{name} {count:,}' for name, count in figures.items())}": met}
    finally:
        scene.close()


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        return serving(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--predictions", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--chats", type=int, default=50, help="of the bot (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="at once, besides the bot (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    os.environ.setdefault("TELEGRAM_BOT_TOKEN", "unused")
    versions = ", ".join(f"{name} {version(name)}" for name in ("cog", "starlette", "uvicorn"))
    parts = ["# Soak", f"```\n{' '.join(['python -m benchmarks.soak', *sys.argv[1:]])}\n```"]
    parts.append(f"{date.today()}; {machine()}; {versions}.")
    parts += soak(args.predictions, args.chats, args.clients, args.seed)
    print("\n\n".join(parts), flush=True)
    if args.record:
        RESULT.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return int(any("NOT met" in part for part in parts))


if __name__ == "__main__":
    sys.exit(main())
