"""How fast `ghost extract` reads a million messages, beside the parsers that most people use and a bare loop.

    python -m benchmarks.extraction --peers

Each contestant is a process of its own on one core, from a file of invented messages to a CSV, start-up included; the
best of --repeats by CPU time counts. The bare loop matches one regular expression a line (or loads the JSON) and writes
a CSV, nothing else: what a machine takes for that is the unit in which runs on two machines can be compared.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks.invented import conversation, distribution, write_telegram, write_whatsapp

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "extraction.md"
PEERS = ("chat-miner==0.6.0", "whatstk==0.9.1")

# What `ghost extract` must keep to: docs/decisions/reading_exports.md.
MOST_SECONDS = 60  # of CPU for a million messages
MOST_MEMORY = 1024  # MiB


class Run(NamedTuple):
    name: str
    read: int | None  # messages, by its own count
    wall: float  # seconds
    cpu: float
    memory: float  # MiB at its peak


BARE_WHATSAPP = r"""
import csv, re, sys
header = re.compile(r"(\d\d/\d\d/\d{4}, \d\d:\d\d) - ([^:\n]+): (.*)", re.DOTALL)
rows = []
with open(sys.argv[1], encoding="utf-8", newline="\n") as stream:
    for line in stream:
        found = header.match(line)
        if found:
            rows.append(list(found.groups()))
        elif rows:
            rows[-1][2] += line
with open(sys.argv[2], "w", encoding="utf-8", newline="") as stream:
    csv.writer(stream).writerows(rows)
print(len(rows))
"""
BARE_TELEGRAM = """
import csv, json, sys
with open(sys.argv[1], "rb") as stream:
    rows = json.load(stream)["messages"]
with open(sys.argv[2], "w", encoding="utf-8", newline="") as stream:
    csv.writer(stream).writerows((row["date"], row.get("from"), row["text"]) for row in rows)
print(len(rows))
"""
CHAT_MINER = """
import logging, sys
from chatminer.chatparsers import {parser}
logging.disable(logging.CRITICAL)
parser = {parser}(sys.argv[1])
parser.parse_file()
table = parser.parsed_messages.get_df()
table.write_csv(sys.argv[2])
print(len(table))
"""
WHATSTK = """
import sys
from whatstk import df_from_whatsapp
table = df_from_whatsapp(sys.argv[1], max_size=None)
table.to_csv(sys.argv[2])
print(len(table))
"""
VERSIONS = "from importlib.metadata import version as v; print(', '.join(f'{p} {v(p)}' for p in sys.argv[1:]))"


def measure(name: str, command: list[str], repeats: int) -> Run:
    """The best of some runs of a command that prints how many messages it read, or ghost's report, on one core."""
    core = min(os.sched_getaffinity(0))
    environment = os.environ | {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "OPENBLAS", "MKL")}
    environment |= {"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryFile() as output:
            started = perf_counter()
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=environment,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
            _, status, used = os.wait4(process.pid, 0)
            wall = perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            printed = output.read().decode()
        if process.returncode:
            print(f"{name}: exit status {process.returncode}", file=sys.stderr)
            return Run(name, None, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
        read = json.loads(printed)["totals"]["message"] if printed.startswith("{") else int(printed.split()[-1])
        runs.append(Run(name, read, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    best = min(runs, key=lambda run: run.cpu)
    print(f"{name}: {best.cpu:.2f} s", file=sys.stderr)
    return best


def contestants(folder: Path, peers: Path | None) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """For each file, the names and commands of those who read it; the bare loop comes first."""
    ghost = [sys.executable, "-m", "ghost.cli", "extract"]
    has_pii = "--pii" in subprocess.run([*ghost, "--help"], capture_output=True, text=True, cwd=ROOT).stdout
    bare = [sys.executable, "-c"]
    for name, file, loop, parser in (
        ("WhatsApp", "WhatsApp Chat with Priya Wexmoor.txt", BARE_WHATSAPP, "WhatsAppParser"),
        ("Telegram", "result.json", BARE_TELEGRAM, "TelegramJsonParser"),
    ):
        source, out = str(folder / file), str(folder / "out.csv")
        ours = [*ghost, source, "--out", str(folder / "out"), "--json"]
        lines = [(f"{name}, bare loop", [*bare, loop, source, out])]
        lines.append((f"{name}, --pii off", [*ours, "--pii", "off"] if has_pii else ours))
        if has_pii:
            lines.append((f"{name}, --pii mask", [*ours, "--pii", "mask"]))
        if peers:
            lines.append((f"{name}, chat-miner", [str(peers), "-c", CHAT_MINER.format(parser=parser), source, out]))
            if name == "WhatsApp":
                lines.append((f"{name}, whatstk", [str(peers), "-c", WHATSTK, source, out]))
        yield source, lines


def install_peers(folder: Path) -> Path:
    """A Python that has the peers and nothing of ours."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True, stderr=subprocess.DEVNULL)
    return python


def machine() -> str:
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    started, number = perf_counter(), 0
    while number < 10_000_000:
        number += 1
    return (
        f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores (one used), {memory:.0f} GiB; Python"
        f" {platform.python_version()}, msgspec {version('msgspec')}; counting to 10,000,000 takes it"
        f" {perf_counter() - started:.2f} s"
    )


def table(messages: int, words: int, runs: list[Run]) -> Iterator[str]:
    for run in runs:
        if run.read is None:
            yield f"| {run.name} | failed | {run.wall:.2f} | {run.cpu:.2f} | – | {run.memory:,.0f} | – |  |"
            continue
        rate = messages / run.cpu
        verdict = ""
        if "--pii" in run.name:
            is_met = run.cpu <= MOST_SECONDS * messages / 1e6 and run.memory <= MOST_MEMORY
            verdict = "met" if is_met and run.read == words else "NOT met"
        yield (
            f"| {run.name} | {run.read:,} | {run.wall:.2f} | {run.cpu:.2f} | {rate:,.0f} | {run.memory:,.0f} |"
            f" {runs[0].cpu / run.cpu:.2f} | {verdict} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--messages", type=int, default=1_000_000, help="in each file (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=3, help="of the messages (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts (default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help=f"measure {' and '.join(PEERS)} too, freshly installed")
    parser.add_argument(
        "--out", type=Path, default=RESULT, help="the table (default: benchmarks/results/extraction.md)"
    )
    args = parser.parse_args()
    lines = [
        "# A million messages, file to CSV"
        if args.messages == 1_000_000
        else f"# {args.messages:,} messages, file to CSV",
        "",
        f"```\npython -m benchmarks.extraction {' '.join(sys.argv[1:])}\n```",
        "",
        f"{date.today()}; {machine()}.",
        "",
        "Seconds are of one process on one core, start-up included, the best of"
        f" {args.repeats} by CPU time; the rate is messages in the file by CPU second. `read` is each program's own"
        " count: notices and placeholders are messages to some. The bare loop matches one regular expression, or"
        " loads the JSON, and writes a CSV.",
        "",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words, described = distribution(conversation(args.messages, args.seed))
        lines += described
        write_whatsapp(folder / "WhatsApp Chat with Priya Wexmoor.txt", conversation(args.messages, args.seed))
        write_telegram(folder / "result.json", conversation(args.messages, args.seed))
        peers = install_peers(folder / "peers") if args.peers else None
        for source, commands in contestants(folder, peers):
            size = Path(source).stat().st_size / 1e6
            lines += [
                "",
                f"`{Path(source).name}`, {size:,.0f} MB:",
                "",
                "| | read | wall, s | CPU, s | messages/s | peak MiB | speed, bare loop = 1 | within a minute, 1 GB |",
                "|---|---:|---:|---:|---:|---:|---:|---|",
            ]
            runs = [measure(name, command, args.repeats) for name, command in commands]
            lines += table(args.messages, words, runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
