"""Training rows: ways to train, each run by the loop of `ghost train` for some seconds of steps."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.models import BASE, DENSE, EACH, FLASH, FLOOR_GPU, Scale, attending, peak_memory, random_base
from benchmarks.training import Sample, distribution, make_sample, met
from training.config import TrainingConfig
from training.finetuning.base import read_shapes
from training.finetuning.checkpoint import Checkpoint, Interruption, State
from training.finetuning.data import Example, Split
from training.finetuning.hardware import Gpu, Load, Work, needed, on_gpu, operations, training_flops
from training.finetuning.loop import Loop
from training.finetuning.packing import Plan, pack

LIMIT = 240  # seconds that a row may take, its base made included
WARM = 2  # steps before the clock starts
FOREVER = 10**4  # epochs: the rows end by the clock
PUBLISHED = 52_000 * 8  # windows of the recipe of record, all epochs; 16 hours on an H100
GIB = 2**30

# What must be reached on FLOOR_GPU. Set before anything was measured.
FLOOR, GOAL = 10_000, 13_700  # tokens/s, nf4, nested windows of at most 1,024 tokens, packed
MOST_MEMORY = 7.5  # GiB at micro_batch_tokens 1024, nf4, with checkpointing

NESTED, APART, LONG = "nested windows", "one window at a time", "1,024 tokens each"


@dataclass(frozen=True)
class Way:
    """`budget`: tokens at once. `full`: a step has windows for four micro-batches, if those are more than the recipe's
    64, so that budgets beyond a step can be told apart; else 64."""

    segments: str = NESTED
    budget: int = 8192
    nf4: bool = True
    checkpointing: bool = False
    attention: str = FLASH
    compiled: bool = False
    liger: bool = False
    full: bool = False

    @property
    def name(self) -> str:
        said = [self.segments, "nf4" if self.nf4 else "bfloat16", f"{self.budget:,} at once"]
        said += ["checkpointing"] * self.checkpointing + [self.attention] * (self.attention != FLASH)
        said += ["torch.compile"] * self.compiled + ["Liger"] * self.liger + ["full steps"] * self.full
        return ", ".join(said)

    @property
    def standard(self) -> bool:
        """As `ghost train` does it, so `ghost estimate` expects a speed and computes a peak."""
        return self.nf4 and self.attention == FLASH and not self.compiled and not self.liger


STEPS = [
    Way(),
    Way(checkpointing=True),
    Way(APART, 1),
    Way(compiled=True),
    Way(liger=True),
    Way(attention=EACH),
    Way(attention=DENSE),
    Way(nf4=False),
    Way(nf4=False, checkpointing=True),
]
BUDGETS = [Way(budget=size, checkpointing=True, full=True) for size in (1024, 4096, 8192, 16384, 32768)]
BUDGETS += [Way(budget=size, full=True) for size in (1024, 4096, 8192, 16384)]
BUDGETS += [Way(LONG, full=True, checkpointing=checkpointing) for checkpointing in (True, False)]
ROWS = {way.name: way for way in STEPS + BUDGETS}


@dataclass(frozen=True, eq=False)
class Job:
    """A row, ready to be run. Of an epoch: its `work`, `most` tokens that ever go through the model at once."""

    way: Way
    budget: int
    config: TrainingConfig
    split: Split
    work: Work
    most: int


@cache
def sample(scale: Scale) -> tuple[Sample, Split]:
    """The windows of benchmarks/training.py; and the same in random tokens of the base's vocabulary, equal where the
    text is, so that what began alike still does."""
    from ghost.demo import starter

    numbers = starter.RECIPE
    texts = islice(starter.windows(numbers.seed), numbers.tokenizer_windows)
    found = make_sample(starter.make_tokenizer(texts, numbers.vocab_size), scale.conversations, scale.recipe())
    ids = np.random.default_rng(0).integers(3, scale.facts["vocab_size"], numbers.vocab_size).astype(np.int32)
    ids[:3] = range(3)  # unknown, BOS, end
    examples = [dataclasses.replace(example, ids=ids[example.ids]) for example in found.split.examples]
    return found, dataclasses.replace(found.split, examples=examples)


def prepared(way: Way, scale: Scale) -> Job:
    budget, recipe = max(way.budget // scale.divisor, 1), scale.recipe(nf4=way.nf4)
    split = long_segments(4 * budget, recipe.sequence_len, scale) if way.segments == LONG else sample(scale)[1]
    config = dataclasses.replace(recipe, num_epochs=1, collapse_nested_windows=way.segments != APART)
    if way.full:
        windows = max(round(4 * budget / Plan(split, config).tokens * len(split.examples)), config.windows_per_step)
        config = dataclasses.replace(config, micro_batch_size=1, gradient_accumulation_steps=windows)
    load = Load([step.segments for step in Plan(split, config).steps()], [], config)
    batches = (batch for step in load.steps for batch in pack(step, budget))
    most = max(sum(len(run.ids) for run in batch) for batch in batches)
    return Job(way, budget, config, split, load.work(budget), most)


def long_segments(tokens: int, length: int, scale: Scale) -> Split:
    shape = (max(tokens // length, 1), length)
    rows = np.random.default_rng(0).integers(3, scale.facts["vocab_size"], shape).astype(np.int32)
    learnt = np.arange(length) > 0
    return Split("windows", [Example(ids, learnt, learnt) for ids in rows], len(rows), 0, 0)


class Enough(Exception):
    pass


class StrictLoop(Loop):
    """Memory that does not suffice is a result here, and no reason to go on with less."""

    def _halve(self) -> None:
        import torch

        raise torch.OutOfMemoryError


class Stopwatch:
    """Stands where `ghost train` has its progress bar. Raises Enough after `seconds` of steps."""

    def __init__(self, seconds: float, device: str) -> None:
        self.limit, self.device = seconds, device
        self.started = self.seconds = 0.0
        self.steps, self.tokens = -WARM, 0

    def step(self, number: int, loss: float, tokens: int, seconds: float) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()  # the optimiser's kernels too
        now = time.perf_counter()
        self.steps += 1
        if self.steps <= 0:
            self.started = now
            return
        self.tokens += tokens
        self.seconds = now - self.started
        if self.seconds >= self.limit:
            raise Enough


def measure(name: str, scale: Scale, scratch: Path) -> dict[str, Any]:
    """Seconds, steps and tokens; `peak` bytes of a GPU's memory, None elsewhere."""
    from training.finetuning.model import adapted

    way = ROWS[name]
    job = prepared(way, scale)
    config = dataclasses.replace(job.config, num_epochs=FOREVER, checkpoint_minutes=1e9)
    model = adapted(random_base(scale.facts, config, scale.device), config, "the random base")
    watch: Any = Stopwatch(scale.seconds, scale.device)
    with ExitStack() as stack:
        stack.enter_context(attending(model, way.attention))
        base = model.get_base_model()
        if way.checkpointing:
            base.activation_checkpointing_enable()
        if way.compiled:
            stack.enter_context(compiled(base, scale.backend))
        if way.liger:
            use_liger(base)
        state, nowhere = State(job.budget, job.budget), Checkpoint(scratch / "never written")
        loop = StrictLoop(model, Plan(job.split, config), [], config, state, nowhere, {}, Interruption())
        try:
            loop.run(watch)
        except Enough:
            return {"seconds": watch.seconds, "steps": watch.steps, "tokens": watch.tokens, "peak": peak_memory()}
    raise AssertionError("a plan without end has ended")


@contextmanager
def compiled(base: Any, backend: str) -> Iterator[None]:
    """Compile each block but its attention. The lengths of segments go to attention beside the compiled code: as an
    argument, each new number of segments would be compiled anew."""
    import torch
    from transformers import AttentionInterface

    from training.finetuning import attention

    lengths: list[int] = []

    def keep(module: Any, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        lengths[:] = named.pop("lengths")
        return given, named

    @torch.compiler.disable
    def attend(*given: Any, **named: Any) -> Any:
        return attention.attend(*given, lengths=lengths, **named)

    AttentionInterface.register("kept segments", attend)
    base.set_attn_implementation("kept segments")
    hook = base.model.register_forward_pre_hook(keep, with_kwargs=True)
    for layer in base.model.layers:
        layer.compile(backend=backend, dynamic=True)
    try:
        yield
    finally:
        hook.remove()


def use_liger(base: Any) -> None:
    """Liger's kernels for rotation, norms and feed-forward; the loss is fused already."""
    from liger_kernel.transformers.monkey_patch import apply_liger_kernel_to_mistral

    apply_liger_kernel_to_mistral(fused_linear_cross_entropy=False, model=base)


COLUMNS = {
    "way": "|---|",
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
Found = dict[str, dict[str, Any]]


def page(found: Found, scale: Scale, gpu: Gpu | None) -> Iterator[str]:
    """`found`: results by the row's name. `gpu`: whose data sheet counts; None for one that the price list lacks."""
    jobs = {name: prepared(way, scale) for name, way in ROWS.items()}
    yield "\n## Training\n"
    yield "Random weights of Mistral-7B's shape, LoRA as in the recipe of record, trained by the loop of `ghost train`."
    yield "Windows of random tokens, of these lengths and nested as they are:\n"
    yield from distribution(sample(scale)[0])
    yield f"\n| {' | '.join(COLUMNS)} |"
    yield "".join(COLUMNS.values())
    yield from (line(job, found.get(name, {}), scale, gpu) for name, job in jobs.items())
    yield "\n*tokens/s*: that went through the model, nested ones once, no padding; *window tokens/s*: what that"
    yield "would be one window at a time. *micro-batch*: its mean tokens. *full steps*: windows for four"
    yield "micro-batches, not the recipe's 64. *of the peak*: operations done, recomputed ones as well, of the data"
    yield "sheet's. *expected*, *computed*: by `ghost estimate`. *peak*: all that PyTorch held, and CUDA's own.\n"
    yield from (f"- {verdict}" for verdict in verdicts(found, jobs, gpu))
    yield "\n### What `ghost estimate` should assume\n"
    yield from ranges({jobs[name]: row for name, row in found.items() if "tokens" in row}, scale, gpu)


def line(job: Job, row: dict[str, Any], scale: Scale, gpu: Gpu | None) -> str:
    work, shapes = job.work, read_shapes(scale.facts, BASE)
    windows = min(job.config.windows_per_step, len(job.split.examples))
    cells = [job.way.name, f"{windows:,}", f"{work.tokens / work.batches:,.0f}"]
    if "tokens" in row:
        rate = row["tokens"] / row["seconds"]
        flops = training_flops(shapes, job.config, work.context, checkpointing=job.way.checkpointing)
        cells += [
            f"{row['seconds'] / row['steps']:.3f}",
            f"{rate:,.0f}",
            f"{rate * job.split.tokens / work.tokens:,.0f}",
        ]
        cells += [f"{rate * flops / (gpu.tflops * 1e12):.0%}" if gpu else "–"]
    else:
        cells += ["–", row.get("failed", "not measured"), "–", "–"]
    expected = computed = "–"
    if job.way.standard:
        if gpu:
            seconds = on_gpu(gpu, work, shapes, job.config, checkpointing=job.way.checkpointing)
            expected = f"{work.tokens / seconds.high:,.0f}–{work.tokens / seconds.low:,.0f}"
        need = needed(shapes, job.config, job.most, checkpointing=job.way.checkpointing)
        computed = f"{need.total / GIB:.1f}"
    peak = f"{row['peak'] / GIB:.1f}" if row.get("peak") else "–"
    return f"| {' | '.join([*cells, expected, peak, computed])} |"


def verdicts(found: Found, jobs: dict[str, Job], gpu: Gpu | None) -> Iterator[str]:
    done = {ROWS[name]: row for name, row in found.items() if "tokens" in row}
    nested = {way: row for way, row in done.items() if way.segments == NESTED and way.standard}
    speed = f"{FLOOR:,} tokens/s on an {FLOOR_GPU}, nf4, nested windows; towards {GOAL:,}"
    rates = {way.name: row["tokens"] / row["seconds"] for way, row in nested.items()}
    if rates and not (gpu and gpu.gpu == FLOOR_GPU):
        yield f"{speed}: not measured, this is another device"
    elif rates:
        fastest = max(rates, key=lambda name: rates[name])
        yield f"{speed}: {rates[fastest]:,.0f} ({fastest}), {met(rates[fastest] >= FLOOR)}"
    else:
        yield f"{speed}: not measured"
    peaks = [
        row["peak"] / GIB for way, row in nested.items() if way.budget == 1024 and way.checkpointing and row["peak"]
    ]
    memory = f"{MOST_MEMORY} GiB at most at 1,024 tokens at once, nf4, with checkpointing"
    yield f"{memory}: " + (f"{peaks[0]:.1f}, {met(peaks[0] <= MOST_MEMORY)}" if peaks else "not measured")
    hours = [
        PUBLISHED / jobs[way.name].config.windows_per_step * row["seconds"] / row["steps"] / 3600
        for way, row in nested.items()
        if not way.full
    ]
    recipe = f"the recipe of record, {PUBLISHED:,} windows, published as 16 h on an H100"
    yield f"{recipe}: " + (f"{min(hours):.1f} h of windows like these" if hours else "not measured")


def ranges(measured: dict[Job, dict[str, Any]], scale: Scale, gpu: Gpu | None) -> Iterator[str]:
    """The constants of training/finetuning/hardware.py that these rows suggest: the least squares of the relative error
    of its own formula, widened until every row lies within."""
    rows = {job: row for job, row in measured.items() if job.way.standard}
    if len(rows) < 4 or gpu is None:
        yield "Not measured: needs four rows in nf4, as `ghost train` does them, on a GPU of config/gpu_prices.yaml."
        return
    from scipy.optimize import nnls

    shapes = read_shapes(scale.facts, BASE)
    seconds = np.array([row["seconds"] / row["tokens"] * job.work.tokens for job, row in rows.items()])
    terms = np.array(
        [
            [
                operations(job.work, shapes, job.config, checkpointing=job.way.checkpointing) / (gpu.tflops * 1e12),
                (3 if job.way.checkpointing else 2)
                * job.work.batches
                * shapes.linear_parameters
                / (gpu.bandwidth * 1e12),
                job.work.batches,
            ]
            for job in rows
        ]
    )
    fitted, _ = nnls(terms / seconds[:, None], np.ones(len(rows)))
    spread = seconds / (terms @ fitted)
    low, high = float(spread.min()), float(spread.max())
    flops, moved, launches = map(float, fitted)
    share = f"Range({1 / (flops * low):.3f}, {1 / (flops * high):.3f})" if flops else "not determined by these rows"
    yield f"From {len(rows)} rows on an {gpu.gpu}; each took {low:.2f} to {high:.2f} times what the fit says.\n"
    yield "```"
    yield f"GPU_SHARE = {share}"
    yield f"BYTES_MOVED = Range({moved * low:.1f}, {moved * high:.1f})"
    yield f"LAUNCHES = Range({launches * low:.3f}, {launches * high:.3f})"
    yield "```"
    memory = [
        row["peak"] / needed(shapes, job.config, job.most, checkpointing=job.way.checkpointing).total
        for job, row in rows.items()
        if row["peak"]
    ]
    if memory:
        yield f"\nPeak memory was {min(memory):.2f} to {max(memory):.2f} times the computed one."
