"""Render random WhatsApp exports in every header variant, read them back, print what differs.

    python -m benchmarks.roundtrip --cases 100000 --out benchmarks/results/roundtrip.md

A case is one small file. Exit code 1 when one does not come back.
"""

import argparse
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.training.extraction.whatsapp.generator import export
from tests.training.extraction.whatsapp.roundtrip import round_trip
from tests.training.extraction.whatsapp.spelling import VARIANTS

MEMORY = Path("/dev/shm")  # spares the disk a million small writes, where there is one


class Tally(NamedTuple):
    """One variant: messages, files whose order of day and month was asked for, what is wrong with files that differ."""

    messages: int
    asked: int
    complaints: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="files in all (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of each variant (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="write the record there")
    args = parser.parse_args()
    started = time.perf_counter()
    each = -(-args.cases // len(VARIANTS))
    seeds = range(args.first_seed, args.first_seed + each)
    with ProcessPoolExecutor(args.processes) as pool:
        tallies = list(pool.map(partial(run, seeds=seeds), VARIANTS))
    files = each * len(VARIANTS)
    record = written(tallies, files, f"--cases {files} --first-seed {seeds.start}", time.perf_counter() - started)
    print(record)
    if args.out:
        args.out.write_text(record, encoding="utf-8")
    return 1 if any(tally.complaints for tally in tallies) else 0


def run(variant: str, seeds: range) -> Tally:
    messages = asked = 0
    complaints = []
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        for seed in seeds:
            rendered = export(variant, seed)
            messages += len(rendered.messages)
            try:
                outcome = round_trip(rendered, Path(folder, "chat.txt"))
            except Exception as error:
                raise RuntimeError(f"{variant}, seed {seed}: {error!r}") from error
            asked += outcome.asked
            if outcome.complaint:
                complaints.append(f"{variant}, seed {seed}: {outcome.complaint}")
    return Tally(messages, asked, complaints)


def written(tallies: list[Tally], files: int, options: str, seconds: float) -> str:
    messages, asked = sum(tally.messages for tally in tallies), sum(tally.asked for tally in tallies)
    complaints = [complaint for tally in tallies for complaint in tally.complaints]
    lines = [
        "# WhatsApp round trip",
        "",
        "```",
        f"python -m benchmarks.roundtrip {options}",
        "```",
        "",
        f"{date.today()}, Python {platform.python_version()}: **{files:,} files with {messages:,} messages in"
        f" {len(tallies)} header variants, {len(complaints):,} of them different when read back**; {seconds:,.0f} s.",
        "",
        "A random chat of 1 to 12 records, of one in a hundred 50 to 600, is rendered with headers that are spelled",
        "independently of the parser (`spelling.py`); bodies hold any Unicode and lines that look like headers",
        "(`generator.py`, which also says what cannot be decided and is not generated). Read back through recognition",
        "and `read`; timestamps, senders and texts must be equal, and no record may be lost. *Asked*: every date of",
        f"the file fits day/month and month/day, and the reader asked for `--date-order`, not guessing ({asked:,}).",
        "",
        *(f"- {complaint}" for complaint in complaints),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
