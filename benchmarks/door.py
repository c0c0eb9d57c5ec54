"""What the port in front of Cog's server adds to a request: through it and past it in turn, on one server.

    python -m benchmarks.door

Each pair asks the same of the same server, over a new connection each, in changing order, so a machine that is busy
slows both. CPU is that of this process, which is the client and, through the port, the port.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from benchmarks.extraction import machine
from ghost.serving import serve
from tests import models
from tests.ghost.serving.cog_server import STREAM

LIMIT_MS = 2.0  # the median of what is added, of each kind of request; set before the run
RESULT = Path(__file__).parent / "results" / "door.md"
KINDS = {
    "health check": ("GET", 0, False),
    **{
        f"{tokens} tokens, {'streamed' if stream else 'whole'}": ("POST", tokens, stream)
        for tokens in (1, 32, 96)
        for stream in (False, True)
    },
}


class Took(NamedTuple):
    ms: float
    cpu: float


def ask(url: str, method: str, path: str, body: str = "", stream: bool = False) -> tuple[Took, bytes]:
    at = urlsplit(url)
    connection = HTTPConnection(at.hostname or "", at.port)
    headers = {"Content-Type": "application/json"} | (STREAM if stream else {})
    began, worked = time.perf_counter(), time.process_time()
    connection.request(method, path, body or None, headers)
    said = connection.getresponse().read()
    took = Took(1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - worked))
    connection.close()
    return took, said


def pairs(through: str, past: str, method: str, tokens: int, stream: bool, count: int) -> Iterator[tuple[Took, Took]]:
    inputs = {"prompt": "hey you", "temperature": 0, "repetition_penalty": 1, "max_new_tokens": tokens}
    for number in range(count):
        found = {}
        for url in (through, past) if number % 2 else (past, through):
            if method == "GET":
                found[url], _ = ask(url, "GET", "/health-check")
                continue
            while b"READY" not in ask(past, "GET", "/health-check")[1]:
                time.sleep(0.001)
            found[url], said = ask(url, "POST", "/predictions", json.dumps({"input": inputs}), stream)
            assert b'"succeeded"' in said, said
        yield found[through], found[past]


def row(kind: str, found: list[tuple[Took, Took]]) -> tuple[float, str]:
    added = [with_.ms - without.ms for with_, without in found]
    middle, late = statistics.median(added), statistics.quantiles(added, n=20)[-1]
    through, past = (statistics.median(took.ms for took in one) for one in zip(*found, strict=True))
    cpu = statistics.median(with_.cpu - without.cpu for with_, without in found)
    return middle, f"| {kind} | {past:.2f} | {through:.2f} | **{middle:.2f}** | {late:.2f} | {cpu:.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="pairs of each kind (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = models.write_tiny_merged(folder / "merged", models.write_tiny_base(folder / "base"))
        with serve._started(weights, 0, "127.0.0.1") as server:
            past = f"http://{server.door.host}:{server.door.port}"
            for kind, asked in KINDS.items():
                list(pairs(server.url, past, *asked, 10))  # warm
                rows[kind] = row(kind, list(pairs(server.url, past, *asked, args.requests)))
    slowest = max(middle for middle, _ in rows.values())
    lines = [
        "# What the port in front of Cog's server adds",
        f"```\n{' '.join(['python -m benchmarks.door', *sys.argv[1:]])}\n```",
        f"{date.today()}; {machine()}; cog {version('cog')}, uvicorn {version('uvicorn')}; load "
        f"{psutil.getloadavg()[0]:.1f} at the end. Milliseconds; {args.requests} pairs of each kind, a model of random "
        "weights.",
        f"- {'met' if slowest <= LIMIT_MS else 'NOT met'}: slowest median {slowest:.2f} ms (limit {LIMIT_MS:g})",
        "| request | past it | through it | added, median | added, 95% | CPU added |\n|---|---:|---:|---:|---:|---:|\n"
        + "\n".join(line for _, line in rows.values()),
    ]
    print("\n\n".join(lines))
    if args.record:
        RESULT.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return int(slowest > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
