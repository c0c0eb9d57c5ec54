"""How fast `ghost prepare` turns a million messages from CSV into JSONL, stage by stage, on one core.

    python -m benchmarks.preparation

The rate is of everything between opening the first CSV and the last byte of the JSONL. The bare loop takes each row
from csv.reader and writes its message as a line of JSON, nothing else: what a machine takes for that is the unit in
which runs on two machines, or on one that others use too, can be compared.
"""

import argparse
import csv
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

from benchmarks.extraction import machine
from benchmarks.invented import NAMES, START, ZONE, conversation

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "preparation.md"
CHATS = 40
DAY = 86_400

# What `ghost prepare` must keep to.
MOST_SECONDS = 60  # of CPU for a million messages
MOST_MEMORY = 1024  # MiB


def write_chats(folder: Path, count: int, seed: int) -> None:
    """`count` messages with words in CHATS chats: the first a quarter of all, the others ever smaller.

    Every fifth is a group of four to seven. Every other chat is as WhatsApp's: local times, minutes only.
    """
    rng = Random(seed)
    shares = [1 / place for place in range(1, CHATS + 1)]
    sizes = [round(count * share / sum(shares)) for share in shares]
    sizes[0] += count - sum(sizes)
    words = (message for message in conversation(2 * count + 1000, seed) if message.kind == "words")
    for number, size in enumerate(sizes):
        is_local = number % 2 == 0
        people = [f"Person {number}"] if number % 5 else [f"Person {number}-{n}" for n in range(3 + number // 5 % 4)]
        path = folder / ("whatsapp" if is_local else "telegram") / f"Chat {number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        shift = 0
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("timestamp", "sender", "message"))
            for message in islice(words, size):
                shift = shift or START + number * DAY - message.time
                time = datetime.fromtimestamp(message.time + shift, ZONE if is_local else UTC)
                stamp = f"{time:%Y-%m-%dT%H:%M}:00" if is_local else time.isoformat()
                writer.writerow((stamp, NAMES[0] if message.sender == 0 else rng.choice(people), message.text))


def bare_loop(cleaned: Path, out: Path) -> None:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    with out.open("w", encoding="utf-8", newline="\n") as target:
        for path in sorted(cleaned.rglob("*.csv")):
            with path.open(encoding="utf-8", newline="") as source:
                rows = csv.reader(source)
                next(rows)
                for _, _, text in rows:
                    target.write(encode({"text": text}) + "\n")


def stages(cleaned: Path, out: Path) -> dict[str, Any]:
    """CPU seconds by stage, and what the messages are like. The steps of `training.preparation.prepare.run`."""
    from replicate_deployment.chat_format import Labels
    from training.extraction.speakers import UserConfig, recognise
    from training.preparation import dataset as chats
    from training.preparation import privacy
    from training.preparation.dataset import training_conversations

    config, labels = UserConfig((NAMES[0],), timezone=ZONE.key), Labels()
    gc.disable()
    names = ["read the CSVs", "who is who, consent", "bursts and silences", "turns", "windows and split", "JSONL"]
    times = [process_time()]
    messages = chats.read(cleaned, config.zone)
    times.append(process_time())
    mine = recognise(config, [], chats.senders(messages.table))
    kept = privacy.keep(config, messages.table, mine, cleaned)
    times.append(process_time())
    table = chats.arrange(kept.table, mine, kept.borders)
    times.append(process_time())
    talks = chats.conversations(table, labels)
    times.append(process_time())
    found = chats.make_examples("windows", [talk.sides(labels) for talk in talks])
    training_conversations([len(talk.turns) for talk in talks])
    times.append(process_time())
    with out.open("wb") as stream:
        for talk, windows in zip(talks, found.by_conversation, strict=True):
            stream.write(chats.make_lines("windows", talk.turns, windows, labels))
    times.append(process_time())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lengths, turns = sorted(map(len, table["text"])), [len(talk.turns) for talk in talks]
    days = [f"{time:%Y-%m-%d}" for time in (table["instant"].min(), table["instant"].max())]
    groups = [size > 2 for size in kept.sizes.values()]
    rows = table["path"].value_counts()
    return {
        "messages": len(table),
        "seconds": {name: after - before for name, (before, after) in zip(names, pairwise(times), strict=True)},
        "memory": memory,
        "distribution": [
            f"{len(table):,} messages, {days[0]} to {days[1]}, in {len(rows)} chats of {rows.min():,} to "
            f"{rows.max():,}; {sum(groups)} are groups; {messages.without_offset / len(table):.0%} without offset",
            f"characters of a message, by percentile: {_percentiles(lengths)}; with a line break "
            f"{sum(chr(10) in text for text in table['text']) / len(table):.1%}",
            f"{sum(turns):,} turns; of the {len(talks):,} conversations, by percentile: {_percentiles(sorted(turns))}",
            f"{sum(map(len, found.windows)):,} windows and {sum(map(len, found.seeds)):,} seeds, in"
            f" {out.stat().st_size / 1e6:,.0f} MB of JSONL",
        ],
    }


def _percentiles(values: list[int]) -> str:
    return ", ".join(f"{share}: {values[int(share / 100 * (len(values) - 1))]}" for share in (5, 25, 50, 75, 95, 100))


def measure(task: str, cleaned: Path, out: Path) -> dict[str, Any]:
    """One run, in a process of its own on one core."""
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.preparation", "--task", task, str(cleaned), str(out)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=os.environ | {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "OPENBLAS", "MKL")},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return dict(json.loads(ran.stdout))


def task(name: str, cleaned: Path, out: Path) -> dict[str, Any]:
    if name == "stages":
        return stages(cleaned, out)
    started = process_time()
    if name == "bare":
        bare_loop(cleaned, out)
    else:
        from ghost.cli import main

        stdout, sys.stdout = sys.stdout, sys.stderr
        code = main(["prepare", "--cleaned", str(cleaned), "--out", str(out), "--me", NAMES[0], "--json"])
        sys.stdout = stdout
        if code:
            raise SystemExit(code)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": process_time() - started, "memory": memory}


def report(best: dict[str, Any], bare: float, whole: dict[str, Any], messages: int, repeats: int) -> Iterator[str]:
    total = _total(best)
    memory, command = whole["memory"], whole["seconds"]
    yield f"# {'A million' if messages == 1_000_000 else f'{messages:,}'} messages, CSV to JSONL"
    yield ""
    yield f"```\npython -m benchmarks.preparation {' '.join(sys.argv[1:])}".rstrip() + "\n```"
    yield ""
    yield f"{date.today()}; {machine()}; numpy {version('numpy')}, pandas {version('pandas')}."
    yield ""
    yield from (f"- {line}" for line in best["distribution"])
    yield ""
    yield f"CPU seconds on one core, the best of {repeats} runs. The bare loop is `csv.reader` → a JSON line a message."
    yield ""
    yield "| | CPU, s | µs a message | messages/s | speed, bare loop = 1 |"
    yield "|---|---:|---:|---:|---:|"
    for name, value in best["seconds"].items():
        yield f"| {name} | {value:.2f} | {value / messages * 1e6:.2f} | | |"
    for name, value in (
        ("**CSV to JSONL**", total),
        ("bare loop", bare),
        ("`ghost prepare`, its start and report", command),
    ):
        yield (
            f"| {name} | {value:.2f} | {value / messages * 1e6:.2f} | {messages / value:,.0f} | {bare / value:.2f} |"
        )
    yield ""
    is_met = command <= MOST_SECONDS * messages / 1e6
    yield f"- at most {MOST_SECONDS} s for a million messages: {'met' if is_met else 'NOT met'} ({command:.1f})"
    yield (
        f"- at most {MOST_MEMORY:,} MiB: {'met' if memory <= MOST_MEMORY else 'NOT met'}"
        f" ({memory:,.0f} at the peak of `ghost prepare`, {best['memory']:,.0f} without its report)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--messages", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=4, help="of the messages (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT, help="(default: benchmarks/results/preparation.md)")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        name, cleaned, out = args.task
        print(json.dumps(task(name, Path(cleaned), Path(out))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        cleaned, out = Path(scratch) / "cleaned", Path(scratch) / "out.jsonl"
        write_chats(cleaned, args.messages, args.seed)
        runs, bare = [], []
        for _ in range(args.repeats):
            bare.append(measure("bare", cleaned, out)["seconds"])
            runs.append(measure("stages", cleaned, out))
            print(f"bare {bare[-1]:.2f} s, stages {_total(runs[-1]):.2f} s", file=sys.stderr)
        whole = measure("whole", cleaned, Path(scratch) / "processed")
    lines = list(report(min(runs, key=_total), min(bare), whole, args.messages, args.repeats))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


def _total(run: dict[str, Any]) -> float:
    return float(sum(run["seconds"].values()))


if __name__ == "__main__":
    sys.exit(main())
