"""How fast `ghost train` is on a GPU and what memory it takes there, for a base of Mistral-7B's shape.

    python -m benchmarks.training_gpu

Weights and tokens are random, made on the spot: nothing is downloaded. Windows, their lengths and how they nest are
those of benchmarks/training.py. The training loop is the one of `ghost train`, with the recipe of record; every row has
one step to warm up, and then some seconds of steps. Each row is written as it is measured, and one that runs out of
memory says so. `--unmeasured` writes the table with what can be computed without a GPU.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

from benchmarks.extraction import machine
from benchmarks.gpu_rows import LONG, NESTED, Bench, Job, Measured, Outcome, Row, make_bench, measured, prepared, rows
from benchmarks.random_base import FLASH
from benchmarks.training import distribution, met
from training import config as training_config
from training.finetuning import hardware
from training.finetuning.base import Shapes, config_at_hand, read_shapes
from training.finetuning.hardware import Gpu, needed, on_gpu, training_flops

CONFIG = Path(__file__).parents[1] / training_config.DEFAULT_PATH
BASE = "mistralai/Mistral-7B-v0.3"
RESULT = Path(__file__).parent / "results" / "training_gpu.md"
BUDGETS = (1024, 4096, 8192, 16384, 32768)
SECONDS = 6.0
PUBLISHED = 52_000 * 8  # windows of the recipe of record, all epochs; 16 hours on an H100
GIB = 2**30

# What must be reached. Set before anything was measured.
FLOOR, GOAL = 10_000, 13_700  # tokens/s on an H200, nf4, nested windows of at most 1,024 tokens, packed
MOST_MEMORY = 7.5  # GiB at micro_batch_tokens 1024, nf4
FLOOR_GPU = "H200"

COLUMNS = {
    "way": "|---|",
    "micro_batch_tokens": "---:|",
    "windows a step": "---:|",
    "micro-batch": "---:|",
    "s a step": "---:|",
    "tokens/s": "---:|",
    "window tokens/s": "---:|",
    "of the peak": "---:|",
    "expected tokens/s": "---:|",
    "peak GiB": "---:|",
    "computed GiB": "---:|",
}


@dataclass(frozen=True, eq=False)
class Table:
    """`device` is as torch calls it; None: nothing is measured. `outcomes` are filled in as rows are."""

    head: list[str]
    shapes: Shapes
    device: str | None
    jobs: dict[Row, Job]
    outcomes: dict[Row, Outcome]

    @cached_property
    def gpu(self) -> Gpu | None:
        """Whose peak and whose expected speed the table tells."""
        if self.device is None:
            return next(gpu for gpu in hardware.load_prices().gpus if gpu.gpu == FLOOR_GPU)
        return hardware.gpu_of(self.device)


def name_of(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def write(path: Path, table: Table) -> None:
    path.write_text("\n".join(text(table)) + "\n", encoding="utf-8")


def text(table: Table) -> Iterator[str]:
    yield "# Training on a GPU"
    yield "\n```\npython -m benchmarks.training_gpu\n```\n"
    yield from table.head
    for title, wanted in sections(list(table.outcomes)).items():
        yield f"\n## {title}\n"
        yield f"| {' | '.join(COLUMNS)} |"
        yield "".join(COLUMNS.values())
        yield from (line(table, row) for row in wanted)
    yield "\n*tokens/s*: that went through the model, nested ones once, no padding; *window tokens/s*: what that would"
    yield "be one window at a time. *micro-batch*: its mean tokens. *of the peak*: operations done, recomputed ones as"
    yield "well, of the data sheet's. *expected*, *computed*: what `ghost estimate` says. *peak GiB*: all that PyTorch"
    yield "held, and CUDA's own. torch.compile and Liger were not tried; nothing here uses them."
    yield "\n## Floors\n"
    yield from (f"- {verdict}" for verdict in verdicts(table))


def head(bench: Bench, shapes: Shapes, base: str, device: str | None) -> Iterator[str]:
    """What was run, and on what."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    if device is None:
        yield "**Not measured**: no GPU was at hand. What stands here is computed, for an H200 where that matters.\n"
    else:
        yield f"{datetime.now(UTC):%Y-%m-%d}; {device}; {machine()}; {versions}.\n"
    recipe, matrices = bench.recipe, len(bench.recipe.lora_target_modules)
    what = (
        f"Random weights of the shape of {base} ({shapes.parameters / 1e9:.2f} billion parameters), LoRA of rank "
        f"{recipe.lora_r} on {matrices} matrices of each layer, dropout {recipe.lora_dropout:g}, trained by the loop "
        "of `ghost train`. Windows of random tokens, of these lengths and nested as they are:"
    )
    yield fill(what, 120, break_on_hyphens=False) + "\n"
    yield from distribution(bench.sample)


def sections(wanted: list[Row]) -> dict[str, list[Row]]:
    flash = [row for row in wanted if row.attention == FLASH]
    filled = [row for row in flash if row.full and row.segments == NESTED]
    others = [row for row in wanted if row.attention != FLASH]
    beside = [row for row in filled if row.nf4 and not row.checkpointing and row.budget in {o.budget for o in others}]
    return {
        "The recipe's own steps": [row for row in wanted if not row.full],
        "By budget, nf4 base": [row for row in filled if row.nf4],
        "By budget, bfloat16 base": [row for row in filled if not row.nf4],
        "By attention": beside + others,
        "Segments of 1,024 tokens, nothing nested": [row for row in wanted if row.segments == LONG],
    }


def line(table: Table, row: Row) -> str:
    job, outcome, gpu = table.jobs[row], table.outcomes[row], table.gpu
    work = job.work
    way = [row.segments, "nf4" if row.nf4 else "bfloat16", *(["checkpointing"] if row.checkpointing else [])]
    cells = [", ".join([*way, *([row.attention] if row.attention != FLASH else [])]), f"{row.budget:,}"]
    windows = min(job.config.windows_per_step, len(job.split.examples))
    cells += [f"{windows:,}", f"{work.tokens / work.batches:,.0f}"]
    if isinstance(outcome, Measured):
        rate = outcome.tokens / outcome.seconds
        flops = training_flops(table.shapes, job.config, work.context, checkpointing=row.checkpointing)
        cells += [f"{outcome.seconds / outcome.steps:.3f}", f"{rate:,.0f}"]
        cells += [f"{rate * job.split.tokens / work.tokens:,.0f}"]
        cells += [f"{rate * flops / (gpu.tflops * 1e12):.0%}" if gpu else "–"]
        peak = f"{outcome.peak / GIB:.1f}" if outcome.peak else "–"
    else:
        cells += ["–", outcome or "not measured", "–", "–"]
        peak = "–"
    expected = computed = "–"
    if row.attention == FLASH and row.nf4:  # what `ghost estimate` knows
        if gpu:
            seconds = on_gpu(gpu, work, table.shapes, job.config, checkpointing=row.checkpointing)
            expected = f"{work.tokens / seconds.high:,.0f}–{work.tokens / seconds.low:,.0f}"
        need = needed(table.shapes, job.config, job.most, checkpointing=row.checkpointing)
        computed = f"{need.total / GIB:.1f}"
    return f"| {' | '.join([*cells, expected, peak, computed])} |"


def verdicts(table: Table) -> Iterator[str]:
    nested = {row: out for row, out in table.outcomes.items() if row.segments == NESTED and row.nf4}
    done = {row: out for row, out in nested.items() if isinstance(out, Measured)}
    speed = f"{FLOOR:,} tokens/s on an {FLOOR_GPU}, nf4, nested windows; towards {GOAL:,}"
    rates = {row: out.tokens / out.seconds for row, out in done.items()}
    if FLOOR_GPU not in (table.device or FLOOR_GPU):
        yield f"{speed}: not measured, this is another device"
    elif not rates:
        yield f"{speed}: not measured"
    else:
        fastest = max(rates, key=lambda row: rates[row])
        yield f"{speed}: {rates[fastest]:,.0f} at {fastest.budget:,} tokens, {met(rates[fastest] >= FLOOR)}"
    memory = f"{MOST_MEMORY} GiB at most at micro_batch_tokens {min(BUDGETS):,}, nf4, with checkpointing"
    small = [out for row, out in done.items() if row.budget == min(BUDGETS) and row.checkpointing and out.peak]
    peaks = [out.peak / GIB for out in small if out.peak]
    yield f"{memory}: " + (f"{max(peaks):.1f}, {met(max(peaks) <= MOST_MEMORY)}" if peaks else "not measured")
    recipe = f"the recipe of record, {PUBLISHED:,} windows, published as 16 h on an H100"
    hours = [
        PUBLISHED / job.config.windows_per_step * out.seconds / out.steps / 3600
        for row, job in table.jobs.items()
        if not row.full and row.segments == NESTED and isinstance(out := table.outcomes[row], Measured)
    ]
    yield f"{recipe}: " + (f"{min(hours):.1f} h of windows like these" if hours else "not measured")


def main(argv: list[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the recipe (default: that of record)")
    parser.add_argument("--base", default=BASE, help="whose shape; its weights are not read (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial with a tiny shape")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--conversations", type=int, default=200, help="that windows are cut from")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each row, at least (default: %(default)s)")
    parser.add_argument("--unmeasured", action="store_true", help="only write the table, its rows not measured")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not args.unmeasured and not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing measured, nothing written; a table that says so: --unmeasured")
    facts = config_at_hand(args.base, None)
    if facts is None:
        raise SystemExit(f"{args.base}: no config.json at hand")
    bench = make_bench(facts, training_config.load(args.config), args.conversations)
    jobs = {row: prepared(row, bench) for row in rows(tuple(args.budgets))}
    outcomes: dict[Row, Outcome] = dict.fromkeys(jobs)
    device = None if args.unmeasured else name_of(args.device)
    shapes = read_shapes(facts, args.base)
    table = Table(list(head(bench, shapes, args.base, device)), shapes, device, jobs, outcomes)
    write(args.result, table)
    if device:
        for row, outcome in measured(list(jobs.values()), bench, args.device, args.seconds):
            outcomes[row] = outcome
            write(args.result, table)
            print(line(table, row), flush=True)


if __name__ == "__main__":
    main()
