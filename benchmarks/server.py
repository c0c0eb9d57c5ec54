"""What Cog's server adds to a reply: milliseconds a request, and the time to cancel.

    python -m benchmarks.server --weights demo/merged

The overhead is the time of a request, as its client sees it, minus the time that the engine worked on it, clocked in
the server's own worker around `Engine.reply` and each of its pieces. What remains is HTTP, validation, the way between
the server's two processes and back for each piece, and our run(). One client, one request at a time, each over a new
connection, as our client does it, and sent when the server is free again.

A connection that is kept costs a stream 40 ms more, less what the engine works meanwhile: the server sends small
packets and waits for each one's ACK, which the client's kernel delays. A first run was over one kept connection, and a
streamed reply of one token then took 7.4 ms in the middle and 28 in the worst twentieth; its row remains, unjudged.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path

import httpx2
import psutil

from ghost.console import progress
from ghost.serving.serve import running_server
from replicate_deployment import ghost_json
from tests.ghost.serving.cog_server import ENDLESS, STREAM, events, wait_until
from tests.models import write_tiny_base, write_tiny_merged

# Committed before the run that they judge.
OVERHEAD_MS = 5.0  # the median, of each kind of request
CANCEL_MS = 500.0  # the slowest

RESULT = Path(__file__).parent / "results" / "server.md"
# The real predictor, with a clock in its engine.
PREDICTOR = """
import time
from replicate_deployment import predict

class Reply:
    def __init__(self, predictor, began, reply):
        self._predictor, self._seconds, self._reply = predictor, time.perf_counter() - began, reply
    def __getattr__(self, name):
        return getattr(self._reply, name)
    def __iter__(self):
        return self
    def __next__(self):
        began = time.perf_counter()
        try:
            piece = next(self._reply)
        except StopIteration:
            self._predictor.record_metric("engine_time", self._seconds + time.perf_counter() - began)
            raise
        self._seconds += time.perf_counter() - began
        return piece

class Engine:
    def __init__(self, predictor, engine):
        self._predictor, self._engine = predictor, engine
    def __getattr__(self, name):
        return getattr(self._engine, name)
    def reply(self, *arguments, **settings):
        began = time.perf_counter()
        return Reply(self._predictor, began, self._engine.reply(*arguments, **settings))

class Predictor(predict.Predictor):
    def setup(self):
        super().setup()
        self.engine = Engine(self, self.engine)
"""


def histories() -> Iterator[str]:
    """Prompts of 1, 3, 5, … 19 turns, round and round."""
    lines = ["B: hey tu fais quoi ce soir", "A: pas grand chose, I was about to cook something 😂"] * 10
    while True:
        for turns in range(1, 20, 2):
            yield "\n".join(lines[:turns])


def overheads(http: httpx2.Client, requests: int, tokens: int, stream: bool, keep: bool = False) -> list[float]:
    """Milliseconds of each of `requests` predictions that the engine did not work.

    By the standard library's client, and parsed after the clock: httpx2 alone would add one or two.
    """
    found = []
    connection = HTTPConnection(http.base_url.host, http.base_url.port or 80)  # opens itself when it is closed
    headers = {"Content-Type": "application/json"} | (STREAM if stream else {})
    for prompt, seed in zip(histories(), range(requests), strict=False):
        body = json.dumps({"input": {"prompt": prompt, "max_new_tokens": tokens, "seed": seed}}).encode()
        wait_until(http, "READY")
        began = time.perf_counter()
        connection.request("POST", "/predictions", body, headers)
        said = connection.getresponse().read().decode()
        seconds = time.perf_counter() - began
        if not keep:
            connection.close()
        answer = list(events(iter(said.splitlines())))[-1].data if stream else json.loads(said)
        assert answer["status"] == "succeeded", answer["status"]
        found.append(1e3 * (seconds - answer["metrics"]["engine_time"]))
    connection.close()
    return found


def cancels(times: int, scratch: Path) -> list[float]:
    """Milliseconds from asking to cancel a long prediction until the server is free for the next.

    Of a model of random weights: a trained one ends too soon.
    """
    merged, found = write_tiny_merged(scratch / "merged", write_tiny_base(scratch / "base")), []
    with running_server(merged) as url, httpx2.Client(base_url=url, trust_env=False, timeout=600) as http:
        for number in range(times):
            wait_until(http, "READY")
            name = f"/predictions/long-{number}"
            http.put(name, json={"input": ENDLESS}, headers={"Prefer": "respond-async"})
            time.sleep(0.2)  # well into the reply
            began = time.perf_counter()
            assert http.post(f"{name}/cancel").status_code == 200
            wait_until(http, "READY")
            found.append(1e3 * (time.perf_counter() - began))
    return found


def spread(values: Sequence[float]) -> str:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return (
        f"{min(values):.1f} | **{statistics.median(values):.1f}** | {cuts[94]:.1f} | {cuts[98]:.1f} | {max(values):.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("demo/merged"), help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=300, help="of each kind (default: %(default)s)")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    kinds = {f"{tokens} tokens, {'streamed' if stream else 'whole'}": (tokens, stream)
             for tokens in (1, 32, 96) for stream in (False, True)}  # fmt: skip
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "predict.py").write_text(PREDICTOR, encoding="utf-8")
        with (
            running_server(args.weights, context=Path(folder)) as url,
            progress("asking", len(kinds)) as bar,
            httpx2.Client(base_url=url, trust_env=False, timeout=600) as http,
        ):
            overheads(http, 20, 8, stream=True)  # warm
            for kind, (tokens, stream) in kinds.items():
                rows[kind] = overheads(http, args.requests, tokens, stream)
                bar.advance()
            rows["1 tokens, streamed, over a kept connection"] = overheads(http, args.requests, 1, True, keep=True)
        rows["cancel"] = cancels(max(2, args.requests // 15), Path(folder))
    slowest = max(statistics.median(rows[kind]) for kind in kinds)
    verdicts = [
        (slowest <= OVERHEAD_MS, f"overhead, slowest median of a kind: {slowest:.1f} ms (limit {OVERHEAD_MS:g})"),
        (max(rows["cancel"]) <= CANCEL_MS, f"cancel, slowest: {max(rows['cancel']):.0f} ms (limit {CANCEL_MS:g})"),
    ]
    said = [f"- {'met' if met else 'NOT MET'}: {what}" for met, what in verdicts]
    model = ghost_json.read(args.weights).block("files")
    size = sum(file["size"] for name, file in model.items() if name.endswith(".safetensors")) / 1e6
    versions = ", ".join(f"{package} {version(package)}" for package in ("cog", "torch", "transformers"))
    lines = [
        "# What the server adds",
        "",
        f"```\npython -m benchmarks.server --weights {args.weights}\n```",
        "",
        f"{date.today()}; {versions}; {platform.machine()}, {psutil.cpu_count()} cores, load "
        f"{psutil.getloadavg()[0]:.1f} at the end; weights of {size:,.1f} MB, on a CPU.",
        "",
        *said,
        "",
        "A request's time at its client minus the engine's time in the worker, in milliseconds; histories of 1 to 19",
        f"turns, {args.requests} requests a kind. Last row: from asking to cancel until the server is free, of a reply",
        "by a small model of random weights, which does not end by itself.",
        "",
        "| request | least | median | 95% | 99% | most |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {kind} | {spread(values)} |" for kind, values in rows.items()),
        "",
    ]
    args.result.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join([*said, str(args.result)]))
    return 0 if all(met for met, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
