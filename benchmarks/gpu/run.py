"""Measure training, serving and correctness on a GPU, row by row; run it again and it goes on with what is left.

    python -m benchmarks.gpu.run [--results FILE]      # in a kit: bash run.sh

Each row runs in a process of its own with a time limit, and stands in FILE, one line of JSON each, as soon as it is
done; a row that fails is a line that says why, and the next one runs. A call ends after nine minutes, so that it fits
machines that are lent for ten. FILE with another ending, .md, is the page.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.gpu import correctness, serving, training
from benchmarks.gpu.models import FLOOR_GPU, REAL, TRIAL, Scale
from training.finetuning import hardware

HOME = Path("~/ghost_gpu").expanduser()  # outside of the repository
PARTS: dict[str, Any] = {"correctness": correctness, "training": training, "serving": serving}
ROWS = [f"{part}: {name}" for part, module in PARTS.items() for name in module.ROWS]
LEAST = 60  # seconds: with fewer left, no row is started
MARK = "row done: "  # before the line of JSON that a child prints
Results = dict[str, dict[str, Any]]  # by row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HOME / "results.jsonl", help="(default: %(default)s)")
    parser.add_argument("--scratch", type=Path, default=HOME / "scratch", help="15 GB of models (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call, at most (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="rows that hold TEXT, measured again if they were")
    parser.add_argument("--trial", action="store_true", help="rehearse on a CPU with a tiny shape; no figure counts")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="measure nothing; write the page of the results there"
    )
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    scale = TRIAL if args.trial else REAL
    if args.row:
        print(MARK + json.dumps(measure(args.row, scale, args.scratch)), flush=True)
        return 0
    results = read(args.results, args.trial)
    if not args.page:
        measure_rows(args, results)
    write(args.page or args.results.with_suffix(".md"), page(results, scale))
    return 0


def write(path: Path, lines: Iterable[str]) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    aside.replace(path)


def read(path: Path, trial: bool) -> Results:
    try:
        found = {row.pop("row"): row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
        trials = {row["trial"] for row in found.values()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SystemExit(f"{path}: not results of this program ({error!r}); name another file: --results") from None
    if not trials <= {trial}:
        raise SystemExit(f"{path} holds rows {'of a GPU' if trial else 'of a trial'}; name another file: --results")
    return found


def measure_rows(args: argparse.Namespace, results: Results) -> None:
    end = time.monotonic() + 60 * args.minutes
    rows = [row for row in ROWS if not args.only or any(text in row for text in args.only)]
    if not rows:
        raise SystemExit(f"no row holds {' or '.join(args.only)}; the rows are:\n" + "\n".join(ROWS))
    seen = [sys.executable, "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"]
    if not args.trial and subprocess.run(seen, check=False).returncode:
        raise SystemExit("no torch here that sees a GPU: nothing measured; rehearse on a CPU: --trial")
    left = [row for row in rows if args.only or row not in results]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.scratch.mkdir(parents=True, exist_ok=True)
    while left and (seconds := end - time.monotonic()) >= LEAST:
        row, limit = left[0], float(PARTS[left[0].split(": ")[0]].LIMIT)
        started = time.monotonic()
        found = in_child(row, min(limit, seconds), args)
        if found is None and seconds < limit:
            print(f"{row}: cut off by the end of this call", flush=True)
            break
        del left[0]
        found = found or {"failed": f"not done within {limit:.0f} s"}
        spent = {"took": round(time.monotonic() - started, 1), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        results[row] = {"trial": args.trial, **spent, **found}
        write(args.results, (json.dumps({"row": row, **of}) for row, of in results.items()))
        print(f"{spent['took']:6.1f} s  {row}: {found.get('failed', 'done')}", flush=True)
    print(f"{len(left)} rows left: run the same command again" if left else "every row is done", flush=True)


def in_child(row: str, seconds: float, args: argparse.Namespace) -> dict[str, Any] | None:
    """Return what a process of its own measures, or why it could not; None if `seconds` did not suffice. What it says
    goes to the log beside the results."""
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--row", row, "--scratch", str(args.scratch)]
    with args.results.with_suffix(".log").open("a", encoding="utf-8") as log:
        print(f"── {row}", file=log, flush=True)
        command += ["--trial"] * args.trial
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True) as child:
            try:
                said, _ = child.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started
    for line in said.splitlines():
        if line.startswith(MARK):
            return dict(json.loads(line.removeprefix(MARK)))
    return {"failed": f"the process ended with {child.returncode}: see the log"}


def measure(row: str, scale: Scale, scratch: Path) -> dict[str, Any]:
    """In a child: what the row measures, or why it cannot, and on what."""
    import torch

    part, name = row.split(": ", 1)
    try:
        found = PARTS[part].measure(name, scale, scratch)
    except torch.OutOfMemoryError:
        found = {"failed": "out of memory"}
    except Exception as error:  # of any library, kernel or driver: it costs this row only
        import traceback

        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    return {**found, "device": device, "versions": versions}


def page(results: Results, scale: Scale) -> Iterator[str]:
    yield "# On a GPU"
    yield "\n```\npython -m benchmarks.gpu.run\n```\n"
    machines = sorted({row["device"] for row in results.values() if "device" in row})
    if scale is TRIAL:
        yield "**A trial on a CPU with a tiny shape: no figure here means anything.**"
    elif machines:
        versions = next(row["versions"] for row in results.values() if "versions" in row)
        dates = sorted({row["date"] for row in results.values()})
        listed = ", ".join(f"{name} {number}" for name, number in versions.items())
        yield fill(f"{dates[0]} to {dates[-1]}; {', '.join(machines)}; {listed}.", 120)
    else:
        yield f"**Not measured**: no GPU was at hand. What stands here is computed, for an {FLOOR_GPU}."
    gpus = hardware.load_prices().gpus
    gpu = hardware.gpu_of(machines[0]) if machines else next(gpu for gpu in gpus if gpu.gpu == FLOOR_GPU)
    for part, module in PARTS.items():
        found = {row.removeprefix(f"{part}: "): of for row, of in results.items() if row.startswith(f"{part}: ")}
        yield from module.page(found, scale, gpu)


if __name__ == "__main__":
    raise SystemExit(main())
