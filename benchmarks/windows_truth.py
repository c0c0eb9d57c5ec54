"""Invent chats, prepare them, and compare conversations, windows, seeds, sides and lines with the contract.

    python -m benchmarks.windows_truth --conversations 100000 --out benchmarks/results/windows_truth.md

The contract, read literally, is tests/training/preparation/literal.py, which shares no code with preparation; what is
invented is in truth.py beside it. Exit code 1 when anything differs.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from replicate_deployment.chat_format import RECIPES
from tests.training.preparation.truth import A_CHAT, BETWEEN, LENGTHS, WITHIN, Tally, compare, write_chats

EACH = 500  # conversations of a data set; a split and a draw of seeds each
MEMORY = Path("/dev/shm")  # spares the disk many small writes, where there is one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=10_000, help="of each recipe (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1000, help="CI takes the first 20 (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="write the record there")
    args = parser.parse_args()
    started = time.perf_counter()
    seeds = range(args.first_seed, args.first_seed + -(-args.conversations // EACH))
    with ProcessPoolExecutor(args.processes) as pool:
        tallies = list(pool.map(one_data_set, seeds))
    record = written(tallies, seeds, time.perf_counter() - started)
    print(record)
    if args.out:
        args.out.write_text(record, encoding="utf-8")
    return 1 if any(tally.differences for of_recipes in tallies for tally in of_recipes) else 0


def one_data_set(seed: int) -> list[Tally]:
    """Chats of one seed, prepared by each recipe."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        messages = write_chats(Path(folder), seed, EACH)
        return [compare(Path(folder), messages, recipe) for recipe in RECIPES]


def written(tallies: list[list[Tally]], seeds: range, seconds: float) -> str:
    names = [name for name in Tally._fields if name != "differences"]
    rows = []
    for recipe, of_recipe in zip(RECIPES, zip(*tallies, strict=True), strict=True):
        counts = " | ".join(f"{total(of_recipe, name):,}" for name in names)
        differing = sum(bool(tally.differences) for tally in of_recipe)
        rows.append(f"| {recipe} | {len(of_recipe):,} | {counts} | {differing:,} |")
    found = [
        f"- seed {seed}, {recipe}: {', '.join(tally.differences)}"
        for seed, of_recipes in zip(seeds, tallies, strict=True)
        for recipe, tally in zip(RECIPES, of_recipes, strict=True)
        if tally.differences
    ]
    return "\n".join(
        [
            "# Windows, seeds, split and lines beside the contract read literally",
            "",
            f"`python {' '.join(sys.argv)}` on {date.today().isoformat()}, Python {platform.python_version()}, "
            f"{seconds:,.0f} s.",
            "",
            f"| recipe | data sets, splits | {' | '.join(names)} | data sets that differ |",
            f"|---|{'---:|' * (len(names) + 2)}",
            *rows,
            "",
            "(A window of the second recipe is a whole conversation in which the person says something.)",
            "",
            "Compared in every data set, for equality: start, file and turns of every conversation; positions of every",
            "window and seed, in order; the side of every conversation; train.jsonl and val.jsonl, byte for byte; how",
            "often each turn is shown, and how many of the person's turns are never a target. Held by every data set:",
            "no message on both sides; `parse(render(turns)) == turns`; `parse_line` gives back the turns of every",
            "line; every window of the first recipe ends in a B: and then an A: turn.",
            "",
            f"Invented: {EACH} conversations a data set (seeds {seeds.start} to {seeds.stop - 1}), in chats of",
            f"{A_CHAT}; of {_listed(LENGTHS)} messages, some of them blank;",
            f"within a conversation {_listed(WITHIN)} s apart,",
            f"before one {_listed(BETWEEN)} s; none, a tenth, half, nine tenths or all by the person. Texts hold tags,",
            "blank lines, special tokens, quotes, backslashes, control characters and line ends of every kind at any",
            "place; times have one of four offsets, or none.",
            *(["", "Differences:", "", *found] if found else []),
            "",
        ]
    )


def total(tallies: Iterable[Tally], name: str) -> int:
    return sum(getattr(tally, name) for tally in tallies)


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    sys.exit(main())
