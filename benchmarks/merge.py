"""How long `ghost merge` takes and how much memory, beside a plain copy of the same files and beside peft's own merge.

    python -m benchmarks.merge --scratch FOLDER

The base has Mistral-7B's full shape and random weights, in bfloat16; it is made in the scratch folder, which needs room
for twice its size. It lies there as the Hub's cache keeps it, in files that are named by their hash, so its identity
takes no reading; what reading would take is measured apart. Each part starts with the base's pages dropped from memory
and ends when the last byte is on the disk. Memory is the peak of a process as the kernel counts it, mapped pages
included, asked from outside when it has ended.

peft holds the whole model, so it merges fewer layers (--peft-layers), beside `ghost merge` on the same ones.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from benchmarks.extraction import machine
from benchmarks.large_model import LAYERS, RANK, write_adapter, write_base
from training.finetuning.base import resolve_base, weight_files

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "merge.md"

# What must be reached. Set before anything was measured.
MOST_MEMORY = 1.5e9  # bytes at the peak, mapped pages included
MOST_TIME = 1.5  # times the plain copy, without the proof
MOST_SECONDS = 300  # the whole verb, with its proof

GHOST = "import sys; from ghost.cli import main; sys.exit(main(sys.argv[1:]))"
PEFT = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
model.half().save_pretrained(out)
"""


class Process(NamedTuple):
    seconds: float
    memory: float
    """Bytes at its peak."""
    output: str


class Run(NamedTuple):
    """One size of model: the files' bytes, what was measured of each way."""

    layers: int
    size: int
    copy: float
    identity: float
    merge: Process
    report: dict[str, Any]
    dequantized: dict[str, Any] | None
    """The report of a merge onto what 4 bits left of the base."""
    peft: Process | None


def measured(code: str, *arguments: str | Path) -> Process:
    """A Python process, waited for by the kernel's own accounting."""
    started = monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments}: exit code {process.returncode}")
    os.sync()
    scale = 1 if sys.platform == "darwin" else 1024
    return Process(monotonic() - started, usage.ru_maxrss * scale, output)


def drop_pages(files: list[Path]) -> None:
    """Nothing of these files is in memory afterwards."""
    os.sync()
    for path in files:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_files(files: list[Path], folder: Path) -> float:
    """Seconds for a plain copy, until it is on the disk."""
    folder.mkdir()
    started = monotonic()
    for path in files:
        target = folder / path.name
        shutil.copyfile(path, target)
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
    seconds = monotonic() - started
    shutil.rmtree(folder)
    return seconds


def run(scratch: Path, layers: int, *, with_others: bool) -> Run:
    base, adapter, out = write_base(scratch / "base", layers), scratch / "adapter", scratch / "merged"
    write_adapter(adapter, base, layers)
    files = weight_files(base)
    size = sum(path.stat().st_size for path in files)
    drop_pages(files)
    copy = copy_files(files, scratch / "copy")
    merges = {}
    for onto in ("original", "dequantized") if with_others else ("original",):
        drop_pages(files)
        merges[onto] = measured(GHOST, "merge", adapter, "--base", base, "--out", out, "--base-weights", onto, "--json")
        shutil.rmtree(out)
    merge = merges["original"]
    dequantized = json.loads(merges["dequantized"].output) if with_others else None
    peft = None
    if with_others:
        drop_pages(files)
        peft = measured(PEFT, base, adapter, out)
        shutil.rmtree(out)
    plain = scratch / "plain"
    plain.mkdir()
    for path in base.iterdir():  # the same files, under names that say nothing
        os.link(path.resolve(), plain / path.name)
    drop_pages(files)
    started = monotonic()
    resolve_base(str(plain), None)
    identity = monotonic() - started
    for name in ("base", "adapter", "plain"):
        shutil.rmtree(scratch / name)
    return Run(layers, size, copy, identity, merge, json.loads(merge.output), dequantized, peft)


def report(runs: list[Run], arguments: str) -> Iterator[str]:
    whole = runs[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    yield "# The merge: a copy's time, a tensor's memory"
    yield ""
    yield f"```\npython -m benchmarks.merge {arguments}".rstrip() + "\n```"
    yield ""
    yield f"{date.today()}; {machine()}; {versions}."
    yield ""
    yield (
        f"Mistral-7B's shapes, random weights in bfloat16; LoRA of rank {RANK} on the seven projections. The base's "
        "pages are dropped before each row; every row ends with its last byte on the disk. Peaks are the kernel's, "
        "mapped pages included."
    )
    for run in runs:
        yield ""
        yield f"## {run.layers} layers, {run.size / 1e9:.2f} GB"
        yield ""
        yield "| | s | of the copy | peak, GB |"
        yield "|---|---:|---:|---:|"
        seconds = run.report["seconds"]

        def row(name: str, value: float, memory: float | None = None, copy: float = run.copy) -> str:
            peak = "" if memory is None else f"{memory / 1e9:.2f}"
            return f"| {name} | {value:.1f} | {value / copy:.2f} | {peak} |"

        yield row("plain copy of the files", run.copy)
        yield row("**merge**: read, W + s·B·A, rounded, hashed, written", seconds["merge"])
        if run.dequantized is not None:
            yield row("the same onto what 4 bits left of the base", run.dequantized["seconds"]["merge"])
        yield row("identity of a base in the Hub's cache", seconds["identity"])
        yield row("identity of a base in a plain folder: its files hashed", run.identity)
        yield row("proof: the arithmetic of sampled rows", seconds["arithmetic"])
        yield row("proof: the merged model beside base + adapter, layer by layer", seconds["parity"])
        yield row("`ghost merge`, from start to end", run.merge.seconds, run.merge.memory)
        if run.peft is not None:
            yield row("peft: load in float32, merge_and_unload, save", run.peft.seconds, run.peft.memory)
        figures = run.report["merge"]
        yield ""
        yield (
            f"Parity with base + adapter: mean |Δlogp| {figures['parity']['mean_abs_logprob']:.1e} nats; rounding "
            f"alone changes {figures['parity']['rounding']:.1e}, the limit is {figures['parity']['limit']:.1e}."
        )
    ratio, memory = whole.report["seconds"]["merge"] / whole.copy, whole.merge.memory
    yield ""
    seconds = whole.merge.seconds
    yield f"- at most {MOST_SECONDS} s in all: {'met' if seconds <= MOST_SECONDS else 'NOT met'} ({seconds:.0f} s)"
    yield f"- at most {MOST_TIME:g} times a plain copy: {'met' if ratio <= MOST_TIME else 'NOT met'} ({ratio:.2f})"
    yield (
        f"- at most {MOST_MEMORY / 1e9:g} GB at the peak, the proof included: "
        f"{'met' if memory <= MOST_MEMORY else 'NOT met'} ({memory / 1e9:.2f})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder on the disk to be measured")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the whole model (default: %(default)s)")
    parser.add_argument("--peft-layers", type=int, default=8, help="of the one that peft merges (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT, help="(default: benchmarks/results/merge.md)")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    runs = [run(args.scratch, args.layers, with_others=False)]
    if args.peft_layers:
        runs.append(run(args.scratch, args.peft_layers, with_others=True))
    arguments = " ".join(("--scratch FOLDER", *sys.argv[sys.argv.index(str(args.scratch)) + 1 :]))
    lines = list(report(runs, arguments))
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
