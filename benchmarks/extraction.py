"""How fast `ghost extract` reads a person's folder of exports, and a file of a million messages beside other parsers.

    python -m benchmarks.extraction --peers --before ../another-checkout

The folder has the shape of a real one: many chats, most of them short, on six platforms. Each contestant is a process
of its own on one core, from invented messages to CSV, start-up included. Contestants take turns, --repeats times; each
one's best by CPU time counts. The bare loop matches one regular expression a line (or loads the JSON) and writes a CSV,
nothing else: what a machine takes for that is the unit in which runs on two machines can be compared.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks.invented import conversation, distribution, write_folder, write_telegram, write_whatsapp

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "extraction.md"
PEERS = ("chat-miner==0.6.0", "whatstk==0.9.1")

# What `ghost extract` must keep to: docs/decisions/reading_exports.md.
MOST_SECONDS = 60  # of CPU for a million messages
MOST_MEMORY = 1024  # MiB
LEAST_RATE = 30_000  # messages of a person's folder by CPU second
FOLDER_MESSAGES = 44_800


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


class Contestant(NamedTuple):
    name: str
    command: list[str]  # it prints how many messages it read, or ghost's report
    checkout: Path = ROOT


def measure(contestants: Sequence[Contestant], scratch: Path, repeats: int) -> list[Run]:
    """The best run of each. In each round all of them run once, so that a busy minute is nobody's alone."""
    best: dict[str, Run] = {}
    for _ in range(repeats):
        for contestant in contestants:
            run = measure_once(contestant, scratch)
            before = best.setdefault(contestant.name, run)
            if run.read is None or (before.read is not None and run.cpu < before.cpu):
                best[contestant.name] = run
    return list(best.values())


def measure_once(contestant: Contestant, scratch: Path) -> Run:
    core = min(os.sched_getaffinity(0))
    environment = os.environ | {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "OPENBLAS", "MKL")}
    environment |= {"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(contestant.checkout)}
    # Modules are compiled in the first round, as they are when a package is installed.
    environment |= {"PYTHONPYCACHEPREFIX": str(scratch / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryFile() as output:
        started = perf_counter()
        process = subprocess.Popen(
            contestant.command,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=scratch,  # nobody's config/user_config.json
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode()
    read = None
    if process.returncode:
        print(f"{contestant.name}: exit status {process.returncode}", file=sys.stderr)
    else:
        read = json.loads(printed)["totals"]["message"] if printed.startswith("{") else int(printed.split()[-1])
    cpu = used.ru_utime + used.ru_stime
    print(f"{contestant.name}: {cpu:.2f} s", file=sys.stderr)
    return Run(contestant.name, read, wall, cpu, used.ru_maxrss / 1024)


def ours(name: str, source: Path, out: Path, checkouts: dict[str, Path], *options: str) -> Iterator[Contestant]:
    """`ghost extract` with and without masking, of each checkout."""
    for pii in ("off", "mask"):
        for said, checkout in checkouts.items():
            folder = f"{out}{' before' if said else ''}"  # an older version refuses files that it does not know
            command = [sys.executable, "-m", "ghost.cli", "extract", str(source), "--out", folder, "--json", *options]
            yield Contestant(f"{name}, --pii {pii}{said}", [*command, "--pii", pii], checkout)


def contestants(
    folder: Path, peers: Path | None, checkouts: dict[str, Path]
) -> Iterator[tuple[Path, list[Contestant]]]:
    """For each file of a million, those who read it; the bare loop comes first."""
    for name, file, loop, parser in (
        ("WhatsApp", "WhatsApp Chat with Priya Wexmoor.txt", BARE_WHATSAPP, "WhatsAppParser"),
        ("Telegram", "result.json", BARE_TELEGRAM, "TelegramJsonParser"),
    ):
        source, out = folder / file, str(folder / "out.csv")
        found = [Contestant(f"{name}, bare loop", [sys.executable, "-c", loop, str(source), out])]
        found += ours(name, source, folder / "out", checkouts)
        if peers:
            program = CHAT_MINER.format(parser=parser)
            found.append(Contestant(f"{name}, chat-miner", [str(peers), "-c", program, str(source), out]))
            if name == "WhatsApp":
                found.append(Contestant(f"{name}, whatstk", [str(peers), "-c", WHATSTK, str(source), out]))
        yield source, found


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
    yield "| | read | wall, s | CPU, s | messages/s | peak MiB | speed, bare loop = 1 | within a minute, 1 GB |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for run in runs:
        if run.read is None:
            yield f"| {run.name} | failed | {run.wall:.2f} | {run.cpu:.2f} | – | {run.memory:,.0f} | – |  |"
            continue
        verdict = ""
        if "--pii" in run.name:
            is_met = run.cpu <= MOST_SECONDS * messages / 1e6 and run.memory <= MOST_MEMORY
            verdict = "met" if is_met and run.read == words else "NOT met"
        yield (
            f"| {run.name} | {run.read:,} | {run.wall:.2f} | {run.cpu:.2f} | {messages / run.cpu:,.0f} |"
            f" {run.memory:,.0f} | {runs[0].cpu / run.cpu:.2f} | {verdict} |"
        )


def folder_table(words: int, runs: list[Run]) -> Iterator[str]:
    yield f"| | read | wall, s | CPU, s | messages/s | peak MiB | at least {LEAST_RATE:,}/s |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for run in runs:
        rate = FOLDER_MESSAGES / run.cpu
        verdict = "met" if rate >= LEAST_RATE and run.read == words else "NOT met"
        read = "failed" if run.read is None else f"{run.read:,}"
        yield (
            f"| {run.name} | {read} | {run.wall:.2f} | {run.cpu:.2f} | {rate:,.0f} | {run.memory:,.0f} | {verdict} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--messages", type=int, default=1_000_000, help="in each large file (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=3, help="of the messages (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts (default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help=f"measure {' and '.join(PEERS)} too, freshly installed")
    parser.add_argument("--before", type=Path, help="measure the code of another checkout, too")
    parser.add_argument(
        "--out", type=Path, default=RESULT, help="the table (default: benchmarks/results/extraction.md)"
    )
    args = parser.parse_args()
    checkouts = ({", before": args.before.absolute()} if args.before else {}) | {"": ROOT}
    lines = [
        "# Extraction, exports to CSV",
        "",
        f"```\npython -m benchmarks.extraction {' '.join(sys.argv[1:])}\n```",
        "",
        f"{date.today()}; {machine()}.",
        "",
        "Seconds are of one process on one core, start-up included, the best of"
        f" {args.repeats} (of the folder, {3 * args.repeats}) by CPU time, the contestants taking turns; the rate is"
        " messages in the file by CPU second."
        " `read` is each program's own count: notices and placeholders are messages to some. The bare loop matches one"
        " regular expression, or loads the JSON, and writes a CSV.",
        "",
        "## A person's folder",
        "",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        source = scratch / "folder"
        source.mkdir()
        words, described = write_folder(source, FOLDER_MESSAGES, args.seed)
        # The shortest chats hold no proof of their dates' order, as in a real folder.
        runs = measure(
            [*ours("Folder", source, scratch / "out", checkouts, "--date-order", "dmy")], scratch, 3 * args.repeats
        )
        lines += [*described, "", *folder_table(words, runs), "", "## One large file", ""]
        words, described = distribution(conversation(args.messages, args.seed))
        lines += described
        write_whatsapp(scratch / "WhatsApp Chat with Priya Wexmoor.txt", conversation(args.messages, args.seed))
        write_telegram(scratch / "result.json", conversation(args.messages, args.seed))
        peers = install_peers(scratch / "peers") if args.peers else None
        for source, found in contestants(scratch, peers, checkouts):
            runs = measure(found, scratch, args.repeats)
            lines += [
                "",
                f"`{source.name}`, {source.stat().st_size / 1e6:,.0f} MB:",
                "",
                *table(args.messages, words, runs),
            ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
