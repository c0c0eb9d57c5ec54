"""Read each platform's smallest file with a message of 10 MB on one line: time must grow as the file does.

python -m benchmarks.long_lines --out benchmarks/results/long_lines.md
"""

import argparse
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.training.extraction.examine import examine
from tests.training.extraction.seeds import BESIDE, SEEDS, content
from training.extraction.source import Source

SIZES = (2_500_000, 10_000_000)
# What regular expressions are tempted to retry at every character, and JSON's, CSV's and HTML's own signs.
FILLS = (
    "x",
    "1",
    " ",
    "\u200e",
    "[",
    "(",
    "@",
    "/",
    ": ",
    " - ",
    "12:30 ",
    "13/03/2022, ",
    "&amp;",
    "*",
    "<",
    ",",
    "😀",
)
WORDS = (b"hi", b"yo", b" x", b"Lea left")  # of the seeds' messages: what the line is put in the place of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the record there")
    args = parser.parse_args()
    lines = [
        "# A message of 10 MB on one line",
        "",
        "```",
        "python -m benchmarks.long_lines",
        "```",
        "",
        f"{date.today()}, Python {platform.python_version()}, one core. In each platform's smallest file a word is"
        f" replaced by each of {len(FILLS)} fillings; processor seconds to read it with the slowest of them.",
        "",
        "| file | read as | 2.5 MB | 10 MB | times | slowest filling |",
        "|---|---|---:|---:|---:|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in BESIDE:
            save(Path(folder, name), content(name))
        for name in SEEDS:
            if isinstance(SEEDS[name], bytes):
                continue
            taken = {fill: [measure(Path(folder, name), name, fill, size) for size in SIZES] for fill in FILLS}
            slowest = max(taken, key=lambda fill: taken[fill][1][0])
            (small, _), (large, found) = taken[slowest]
            lines.append(f"| {name} | {found} | {small:.2f} | {large:.2f} | {large / small:.1f} | `{slowest}` |")
            print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def measure(path: Path, name: str, fill: str, size: int) -> tuple[float, str]:
    """Seconds, and the platform that took the file."""
    seed = content(name)
    word = next((word for word in WORDS if word in seed), b"")
    line = fill.encode() * (size // len(fill.encode()))
    save(path, seed.replace(word, line, 1) if word else seed + line)
    started = time.process_time()
    found = examine(Source(path))
    seconds = time.process_time() - started
    path.unlink()
    return seconds, found


def save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
