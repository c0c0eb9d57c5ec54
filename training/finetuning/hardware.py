"""Compute what training takes on a device in memory, time and dollars, and find this machine's device."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta

from ghost.config import load
from ghost.errors import TrainingError
from training.config import PositiveFloat, TrainingConfig
from training.finetuning.base import Shapes
from training.finetuning.data import Split
from training.finetuning.packing import Plan, Segment, collapse, pack, segment

# config/gpu_prices.yaml: GPUs for rent, their speed and price.

NAME = "gpu_prices.yaml"


@dataclass(frozen=True)
class Gpu:
    """An entry of config/gpu_prices.yaml, whose head explains the fields."""

    gpu: str
    device: str
    sold: PositiveFloat
    memory: PositiveFloat
    tflops: PositiveFloat
    bandwidth: PositiveFloat
    price: PositiveFloat
    provider: str
    read: date
    host: str = "x86-64"

    @property
    def bytes(self) -> int:
        return int(self.memory * 2**30)

    @property
    def tested(self) -> bool:
        return self.host == "x86-64"


@dataclass(frozen=True)
class Prices:
    as_of: date
    gpus: Annotated[list[Gpu], Meta(min_length=1)]
    sources: dict[str, str] = field(default_factory=dict)


def load_prices() -> Prices:
    """Load the file in the current folder, or else ghost's own. Raises ConfigError."""
    return load(Prices, NAME)


def gpu_of(device: str) -> Gpu | None:
    """Return the GPU that torch calls `device`, or None if the file has none. A MIG slice has another name."""
    return next((gpu for gpu in load_prices().gpus if gpu.device.casefold() == device.casefold()), None)


# Compute the memory that training needs, by component, and how many tokens can go through the model at once.
#
# Bytes, from shapes alone. The terms that grow with the tokens are what PyTorch's autograd saves of a block in
# transformers 5 and peft 0.21; a test counts it in a model and compares. Not measured on a GPU yet. For Mistral-7B at
# sequence_len 1024: 8, 11, 16 and 25 GB at 4k, 8k, 16k and 32k tokens with gradient checkpointing; 40, 73 and 141 GB at
# 4k, 8k and 16k without.

CONTEXT = 500_000_000  # CUDA context with libraries and workspaces: assumed, 400 to 600 MB
HEADROOM = 0.9  # share of free memory to use: micro-batches of different lengths fragment it
LOGITS = 1 << 25  # float32 logits at once, as in loss.py
STEP = 512  # budgets are multiples of it
# With fewer tokens at once, dequantising the nf4 base to bfloat16 (22 to 31 ms per pass over a 7B on an H100) takes
# longer than a second forward pass, so checkpointing with a larger budget is faster.
LEAST_WITHOUT_CHECKPOINTING = 1024
# A CPU gains little from more tokens at once. On one core, with 5 million weights in float32: for windows of 40 tokens,
# 330 tokens/s one at a time, 1,120 at 1,024, 1,360 at 4,096; for windows of 208 tokens, 850, 860 and 840, and 990 at
# 512.
CPU_TOKENS = 1024
MASK = 1  # bytes per element of the mask that CUDA's dropout saves


@dataclass(frozen=True)
class Memory:
    """Bytes. `activations` and `working` grow with the tokens, the others do not.

    base         the blocks' linear layers, in nf4 or whole
    rest         embeddings, head and norms
    adapter      LoRA matrices in float32, and their bfloat16 copy for computing
    gradients    gradients of the adapter, float32
    optimizer    AdamW's two float32 moments
    activations  what the forward pass saves for the backward pass
    working      gradients of activations within a block
    loss         logits of a chunk of targets, their softmax and gradient
    context      the CUDA context
    """

    base: int
    rest: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    loss: int
    context: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


@dataclass(frozen=True)
class Budget:
    """`tokens` that go through the model at once, with or without gradient checkpointing, and the `memory` they
    take."""

    tokens: int
    checkpointing: bool
    memory: Memory


def needed(shapes: Shapes, config: TrainingConfig, tokens: int, *, checkpointing: bool, cuda: bool = True) -> Memory:
    """Return the peak for micro-batches of `tokens`. Raises ConfigError on LoRA targets that the base lacks."""
    width = 2 if config.bf16 else 4
    lora = shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    block = saved_by_block(shapes, config, width=width)
    kept = shapes.layers * shapes.hidden * width + block if checkpointing else shapes.layers * block
    return Memory(
        base=round(shapes.linear_parameters * bytes_of_a_weight(config)),
        rest=shapes.other_parameters * width,
        adapter=lora * (4 + (width if config.bf16 else 0)),
        gradients=lora * 4,
        optimizer=lora * 8,
        activations=tokens * kept,
        working=tokens * 2 * (shapes.hidden + shapes.inner) * width,
        loss=LOGITS * (4 + 4 + width),
        context=CONTEXT if cuda else 0,
    )


def bytes_of_a_weight(config: TrainingConfig) -> float:
    """Bytes per weight of the frozen base. nf4: half a byte, plus one scale per block of 64: float32, or with double
    quantisation one byte, plus a float32 per 256 scales (QLoRA, arXiv:2305.14314, section 3)."""
    if not config.load_in_4bit:
        return 2 if config.bf16 else 4
    double = config.bnb_config_kwargs.bnb_4bit_use_double_quant
    return 0.5 + ((1 + 4 / 256) / 64 if double else 4 / 64)


def saved_by_block(shapes: Shapes, config: TrainingConfig, *, width: int, mask: int = MASK) -> int:
    """Return the bytes per token that a block saves for its backward pass, at `width` bytes per number and `mask` bytes
    per element of a dropout mask.

    The block: inputs of both norms in float32 with their inverse deviations; queries, keys, values, attention output
    and log-normaliser; the gate before and after SiLU, and the up-projection. The adapters: A's output, and their input
    after dropout with its mask. Without dropout, targets share their input: a norm's output, the attention output, the
    product in the feed-forward.
    """
    norms = 2 * (4 * shapes.hidden + 4)
    attention = width * (2 * shapes.queries + 2 * shapes.keys) + 4 * shapes.heads
    feed_forward = width * 3 * shapes.inner
    targets = [shapes.linear[name][0] for name in config.lora_target_modules]
    if config.lora_dropout:
        inputs = (width + mask) * sum(targets)
    else:
        shared = ({"q_proj", "k_proj", "v_proj"}, shapes.hidden), ({"gate_proj", "up_proj"}, shapes.hidden)
        inputs = width * sum(size for names, size in shared if names & set(config.lora_target_modules))
        inputs += width * shapes.inner * ("down_proj" in config.lora_target_modules)
    return norms + attention + feed_forward + inputs + width * config.lora_r * len(targets)


def resolve_budget(
    shapes: Shapes, config: TrainingConfig, free: int, *, longest: int, most: int | None = None, cuda: bool = True
) -> Budget:
    """Decide how many tokens go through the model at once on a device with `free` bytes, and whether with
    checkpointing.

    `longest`: tokens of the longest segment, which any budget must hold. `most`: tokens of the largest step; a larger
    budget would never be filled. A number in the config is kept; null for `gradient_checkpointing` means: only if
    memory requires it. Raises TrainingError if it does not fit.
    """
    wanted = None if config.micro_batch_tokens == "auto" else max(int(config.micro_batch_tokens), longest)
    if wanted is None and not cuda:
        wanted = max(CPU_TOKENS, longest)
    modest = max(longest, min(LEAST_WITHOUT_CHECKPOINTING, most or LEAST_WITHOUT_CHECKPOINTING), wanted or 0)
    choices = (False, True) if config.gradient_checkpointing is None else (config.gradient_checkpointing,)
    fitting = 0
    for checkpointing in choices:
        fitting = _fitting(shapes, config, free, checkpointing=checkpointing, cuda=cuda)
        last = checkpointing == choices[-1]
        if fitting >= (max(longest, wanted or 0) if last else modest):
            tokens = wanted or _round(min(fitting, most or fitting), longest, fitting)
            return Budget(tokens, checkpointing, needed(shapes, config, tokens, checkpointing=checkpointing, cuda=cuda))
    raise TrainingError(_refusal(shapes, config, free, max(longest, wanted or 0), fitting, cuda=cuda))


def _fitting(shapes: Shapes, config: TrainingConfig, free: int, *, checkpointing: bool, cuda: bool) -> int:
    """Return how many tokens at once fit into `free` bytes; 0 or less if not even the model fits."""
    fixed = needed(shapes, config, 0, checkpointing=checkpointing, cuda=cuda).total
    each = needed(shapes, config, 1, checkpointing=checkpointing, cuda=cuda).total - fixed
    return int(free * HEADROOM - fixed) // each


def _round(tokens: int, longest: int, fitting: int) -> int:
    """Round to a multiple of STEP: up if that fits, else down, but never below the longest segment."""
    up = -(-tokens // STEP) * STEP
    return up if up <= fitting else max(tokens // STEP * STEP, longest)


def _refusal(shapes: Shapes, config: TrainingConfig, free: int, tokens: int, fitting: int, *, cuda: bool) -> str:
    checkpointing = config.gradient_checkpointing is not False
    need = needed(shapes, config, tokens, checkpointing=checkpointing, cuda=cuda).total / HEADROOM
    found = f"{tokens:,} tokens at once need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    if fitting <= 0:
        return f"does not fit: {found}; use a device with more memory, or a smaller base_model"
    if not checkpointing:
        return f"does not fit: {found}; set gradient_checkpointing: null, or use a device with more memory"
    key = "sequence_len" if config.micro_batch_tokens == "auto" else "micro_batch_tokens"
    return f"does not fit: {found}; lower {key} to at most {fitting:,}, or use a device with more memory"


# Compute how long training takes: operations from shapes, seconds from the device's peak and an assumed share of it.
#
# Not measured on a GPU yet, so every answer is a range. The shares agree with the one published run: 52,000 windows of
# 208 tokens × 8 epochs, one window at a time, took 16 hours on an H100, or 139 ms per window; computed: 89 to 156 ms.


class Range(NamedTuple):
    """Best and worst expected value."""

    low: float
    high: float

    def scaled(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


# Shares of the data sheet's peak, best and worst: on an H100 (989 TFLOP/s), 8,500 to 13,700 tokens/s for a 7B.
GPU_SHARE = Range(0.4, 0.25)
# Shares of the rate that `measure_core` finds, per core; 47% to 65% were measured on one core, in blocks 256 and 512
# wide. Then the fixed cost of a block, seconds per pass: 9 to 11 ms were measured on a busy core.
CPU_SHARE = Range(0.72, 0.24)
CPU_BLOCK = Range(0.006, 0.02)
# Dequantising all nf4 weights of a 7B to bfloat16 takes 22 to 31 ms on an H100 (3.35 TB/s), so a weight costs as much
# as moving this many bytes: once in the forward and once in the backward pass, and once more with checkpointing.
BYTES_MOVED = Range(10.6, 14.9)
# Seconds per micro-batch in which the GPU waits for Python to launch kernels: 53 to 80 of the published 139 ms are not
# explained by the above.
LAUNCHES = Range(0.03, 0.07)


@dataclass(frozen=True)
class Work:
    """What goes through the model in a whole training.

    tokens, batches  with a backward pass
    evaluated        tokens without a backward pass: the held-out examples, at every measurement
    evaluations      batches of these
    context          mean number of tokens that a token attends to
    """

    tokens: int
    batches: int
    evaluated: int
    evaluations: int
    context: float


@dataclass(frozen=True, eq=False)
class Load:
    """Segments of the first epoch, step by step, and of one held-out measurement; or a sample of each.

    share, heldout_share  the sample's share of all segments
    """

    steps: Sequence[Sequence[Segment]]
    heldout: Sequence[Segment]
    config: TrainingConfig
    share: float = 1.0
    heldout_share: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens that go through the model in an epoch."""
        return round(sum(len(run.ids) for step in self.steps for run in step) / self.share)

    @property
    def most(self) -> int:
        """Tokens of the largest step."""
        return max(sum(len(run.ids) for run in step) for step in self.steps)

    def work(self, budget: int) -> Work:
        """Compute the work with `budget` tokens at a time. All epochs are like the first: only the order of windows
        differs."""
        epochs = self.config.num_epochs
        measured = 1 + epochs * self.config.evals_per_epoch
        runs = [len(run.ids) for step in self.steps for run in step]
        return Work(
            tokens=epochs * self.tokens,
            batches=round(epochs * sum(len(pack(step, budget)) for step in self.steps) / self.share),
            evaluated=round(measured * sum(len(run.ids) for run in self.heldout) / self.heldout_share),
            evaluations=round(measured * len(pack(self.heldout, budget)) / self.heldout_share),
            context=sum(length * (length + 1) / 2 for length in runs) / sum(runs),
        )


def load_of(plan: Plan, val: Split, config: TrainingConfig) -> Load:
    """Return the plan's first epoch, and the held-out examples as curve.py measures them."""
    first = takewhile(lambda step: step.epoch == 0, plan.steps())
    groups = collapse(val.examples) if config.collapse_nested_windows else [[example] for example in val.examples]
    return Load([step.segments for step in first], list(map(segment, groups)), config, plan.share, val.share)


def forward_flops(shapes: Shapes, config: TrainingConfig, context: float, *, head: bool = True) -> float:
    """Return floating-point operations per token of a forward pass; a multiplication and an addition count as two.

    Twice the weights that multiply (arXiv:2001.08361, section 2.1), LoRA's included, and attention's two products with
    each of `context` tokens. The head counts for every token, even where nothing is learnt.
    """
    weights = shapes.linear_parameters + shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    return 2 * (weights + (shapes.head_parameters if head else 0)) + 4 * context * shapes.queries * shapes.layers


def training_flops(shapes: Shapes, config: TrainingConfig, context: float, *, checkpointing: bool) -> float:
    """Return floating-point operations per token of a forward and a backward pass.

    The base is frozen: its backward pass computes only gradients of activations, as much as the forward pass; attention
    and LoRA take twice theirs. Checkpointing repeats the blocks' forward pass, not the head's.
    """
    lora = 2 * shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    attention = 4 * context * shapes.queries * shapes.layers
    once = forward_flops(shapes, config, context)
    again = forward_flops(shapes, config, context, head=False) if checkpointing else 0
    return 2 * once + lora + attention + again


def on_gpu(gpu: Gpu, work: Work, shapes: Shapes, config: TrainingConfig, *, checkpointing: bool) -> Range:
    """Return the seconds of training and evaluation, without fetching and loading the base."""
    flops = operations(work, shapes, config, checkpointing=checkpointing)
    passes = (3 if checkpointing else 2) * work.batches + work.evaluations
    moved = passes * shapes.linear_parameters / (gpu.bandwidth * 1e12)
    batches = work.batches + work.evaluations
    return Range(
        *(
            flops / (gpu.tflops * 1e12 * share) + moved * weight + batches * launch
            for share, weight, launch in zip(GPU_SHARE, BYTES_MOVED, LAUNCHES, strict=True)
        )
    )


def on_cpu(rate: float, work: Work, shapes: Shapes, config: TrainingConfig, *, checkpointing: bool) -> Range:
    """Return the seconds of training and evaluation. `rate`: operations per second of all cores (see
    `measure_core`)."""
    flops = operations(work, shapes, config, checkpointing=checkpointing)
    blocks = (work.batches + work.evaluations / 3) * shapes.layers  # forward and backward, against forward alone
    return Range(*(flops / (rate * share) + blocks * each for share, each in zip(CPU_SHARE, CPU_BLOCK, strict=True)))


def operations(work: Work, shapes: Shapes, config: TrainingConfig, *, checkpointing: bool) -> float:
    training = training_flops(shapes, config, work.context, checkpointing=checkpointing)
    return work.tokens * training + work.evaluated * forward_flops(shapes, config, work.context)


def measure_core(clock: Callable[[], float] = time.thread_time) -> float:
    """Measure operations per second of float32 matrix products on one idle core.

    Use the thread's CPU time, and the best of many short runs, so that other load does not count. OpenBLAS keeps
    matrices of up to 64³ products on one thread, while its threads would wait for each other on a busy machine; on one
    core these reach 83% of the rate of large matrices.
    """
    import numpy as np

    side, products = 64, 20
    matrix = np.ones((side, side), dtype=np.float32)
    product = np.empty_like(matrix)
    best, until = 0.0, clock() + 0.1
    while (started := clock()) < until:
        count = 0
        while (spent := clock() - started) < 1e-4:  # some clocks tick every 16 ms
            for _ in range(products):
                np.matmul(matrix, matrix, out=product)
            count += products
        best = max(best, count / spent)
    return 2 * side**3 * best


@dataclass(frozen=True)
class Device:
    """name   as torch.cuda.get_device_name() returns it, or the CPU with its threads
    free   bytes that a training may take
    cuda   whether it is a GPU
    gpu    its entry in config/gpu_prices.yaml, or None
    count  GPUs that share each step
    cores  CPU cores that training uses; 0 for a GPU
    """

    name: str
    free: int
    cuda: bool
    gpu: Gpu | None
    count: int = 1
    cores: int = 0

    @property
    def price(self) -> float | None:
        """Dollars per hour for all of them; None if unknown."""
        return self.gpu.price * self.count if self.gpu else None

    def budget(self, shapes: Shapes, config: TrainingConfig, load: Load, *, longest: int) -> Budget:
        """Call resolve_budget for this device. Raises TrainingError as it does."""
        most = -(-load.most // self.count)
        return resolve_budget(shapes, config, self.free, longest=longest, most=most, cuda=self.cuda)

    def seconds(self, load: Load, shapes: Shapes, config: TrainingConfig, budget: Budget) -> Range | None:
        """Return the expected seconds of training and evaluation; None for a GPU missing in config/gpu_prices.yaml."""
        work = load.work(budget.tokens)
        if not self.cuda:
            rate = self.cores * measure_core()
            return on_cpu(rate, work, shapes, config, checkpointing=budget.checkpointing)
        if self.gpu is None:
            return None
        return on_gpu(self.gpu, work, shapes, config, checkpointing=budget.checkpointing).scaled(1 / self.count)


def device_at_hand(count: int = 1) -> Device:
    """Return the GPU that torch would use, one of `count` alike, or else the CPU, shared by all processes."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return cpu(f"CPU, {threads} threads", threads)
    name = torch.cuda.get_device_name()
    return Device(name, torch.cuda.mem_get_info()[0], True, gpu_of(name), count)


def cpu(name: str, cores: int | None = None) -> Device:
    """Return the CPU, with all cores that this process may use unless `cores` says how many."""
    return Device(name, free_memory(), False, None, cores=cores or usable_cores())


def free_memory(system: Path = Path("/")) -> int:
    """Return the bytes that programs can still take: on Linux the available memory, within the limits of a container or
    batch system; elsewhere all memory."""
    try:
        with (system / "proc" / "meminfo").open(encoding="ascii") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([available, *_left_by_cgroups(system)])


def _left_by_cgroups(system: Path) -> Iterator[int]:
    """Yield what each memory limit on this process leaves: cgroups(7), version 2 or 1.

    A group's limit also holds for the groups within it. Inside a container, often only its own group is visible.
    """
    try:
        lines = (system / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, usage = system / "sys" / "fs" / "cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = system / "sys" / "fs" / "cgroup" / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                with suppress(OSError, ValueError):  # no such file; "max" is no number
                    used = int((folder / usage).read_text(encoding="ascii")) - _page_cache(folder)
                    yield max(0, int((folder / limit).read_text(encoding="ascii")) - used)


def _page_cache(group: Path) -> int:
    """Return the bytes of page cache that count as used but are freed when memory is short."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    stat = {name: int(value) for name, value in map(str.split, lines)}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))  # version 1 counts inner groups separately


def expectation(device: Device, seconds: Range | None) -> str:
    """Describe hours and dollars, and how they were computed."""
    if seconds is None:
        return f"unknown: config/gpu_prices.yaml has no entry for {device.name}"
    if device.gpu is None or device.price is None:
        cores = "1 idle core" if device.cores == 1 else f"{device.cores} idle cores"
        return (
            f"{spell_duration(seconds)} on {cores}; computed, not measured: "
            "from the speed of one core at multiplying matrices"
        )
    dollars, gpu = seconds.scaled(device.price / 3600), device.gpu
    return (
        f"{spell_duration(seconds)}, {spell_dollars(dollars)} at ${device.price:.2f} an hour "
        f"({gpu.provider}, {gpu.read}); "
        f"computed, not measured: at {GPU_SHARE.high:.0%} to {GPU_SHARE.low:.0%} of the GPU's peak"
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use, without importing torch."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


UNITS = {"days": 86400, "h": 3600, "min": 60, "s": 1}


def spell_duration(seconds: Range) -> str:
    """Format as `40 to 65 min`, in the largest unit of which the worse value is at least two."""
    unit = next((unit for unit, size in UNITS.items() if seconds.high >= 2 * size), "s")
    low, high = (f"{some:,.1f}" if some < 10 else f"{some:,.0f}" for some in seconds.scaled(1 / UNITS[unit]))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def spell_dollars(dollars: Range) -> str:
    low, high = (f"${some:,.2f}" if some < 10 else f"${some:,.0f}" for some in dollars)
    if low != "$0.00":
        return low if low == high else f"{low} to {high}"
    return "less than $0.01" if high in ("$0.00", "$0.01") else f"up to {high}"


def align(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Align the columns of a table: those numbered in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
