"""What training takes on a device, in memory, time and dollars; and the one at hand."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ghost.errors import ConfigError, TrainingError
from ghost.installed import config_file
from training.config import TrainingConfig
from training.finetuning.base import Shapes
from training.finetuning.data import Split
from training.finetuning.packing import Plan, Segment, collapse, pack, segment

# config/gpu_prices.yaml: the GPUs that can be rented, what they can do and what an hour costs.

NAME = "gpu_prices.yaml"


@dataclass(frozen=True)
class Gpu:
    """What each field means stands at the top of config/gpu_prices.yaml."""

    gpu: str
    device: str
    sold: float
    memory: float
    tflops: float
    bandwidth: float
    price: float
    provider: str
    read: date
    host: str = "x86-64"

    @property
    def bytes(self) -> int:
        return int(self.memory * 2**30)


@dataclass(frozen=True)
class Prices:
    as_of: date
    gpus: list[Gpu]


def load_prices(path: Path | None = None) -> Prices:
    """Those of the current folder, or else ghost's own, unless another file is named.

    Raises ConfigError naming the file and the entry that is not what its head describes.
    """
    path = path or config_file(NAME)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({type(error).__name__})") from error
    if not isinstance(document, dict) or not isinstance(document.get("gpus"), list) or not document["gpus"]:
        raise ConfigError(f"{path}: expected a list of GPUs under the key gpus")
    if not isinstance(document.get("as_of"), date):
        raise ConfigError(f"{path}: as_of: expected a day such as 2026-11-22, found {document.get('as_of')!r}")
    return Prices(document["as_of"], [_gpu(entry, number, path) for number, entry in enumerate(document["gpus"], 1)])


def gpu_of(device: str, path: Path | None = None) -> Gpu | None:
    """The GPU that torch calls `device`; None when the file knows none. A part of one (MIG) has a name of its own."""
    return next((gpu for gpu in load_prices(path).gpus if gpu.device.casefold() == device.casefold()), None)


def _gpu(entry: Any, number: int, path: Path) -> Gpu:
    where = f"{path}: GPU {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected keys, found {entry!r}")
    fields = {field.name: field for field in dataclasses.fields(Gpu)}
    entry = {name: field.default for name, field in fields.items() if field.default is not dataclasses.MISSING} | entry
    names = {name: field.type for name, field in fields.items()}
    if odd := sorted(map(str, names.keys() ^ entry.keys())):
        raise ConfigError(f"{where}: {odd[0]} is {'missing' if odd[0] in names else 'no known key'}")
    for name, kind in names.items():
        value = entry[name]
        if kind is float and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ConfigError(f"{where}: {name}: expected a number above 0, found {value!r}")
        if kind is not float and not isinstance(value, kind):  # type: ignore[arg-type]
            raise ConfigError(f"{where}: {name}: expected {_WORDS[kind]}, found {value!r}")
    values: dict[str, Any] = {name: float(entry[name]) if names[name] is float else entry[name] for name in names}
    return Gpu(**values)


_WORDS: dict[Any, str] = {str: "text", date: "a day such as 2026-11-22"}


# What training needs of a device's memory, by component, and how many tokens may go through the model at once.
#
# Bytes, computed from shapes alone. The terms that grow with the tokens are those that PyTorch's autograd keeps of a
# block in transformers 5 and peft 0.21; a test counts them in a model and must find the same. On a GPU nothing has
# been measured yet. For Mistral-7B's shape at sequence 1024 they give, in GB at 4k, 8k, 16k and 32k tokens, 8, 11, 16
# and 25 with gradient checkpointing, and 40, 73 and 141 without.

CONTEXT = 500_000_000  # PyTorch's CUDA context with its libraries and their workspaces: assumed, 400 to 600 MB
HEADROOM = 0.9  # of what is free: micro-batches differ in length, and what they leave behind is not one piece
LOGITS = 1 << 25  # float32 logits that exist at once, as loss.py cuts them
STEP = 512  # budgets are multiples of it
# Below this many tokens at once, making each matrix of an nf4 base a bfloat16 one (22 to 31 ms a pass over a 7B on an
# H100) takes longer than computing the forward pass twice, so checkpointing with a larger budget is faster.
LEAST_WITHOUT_CHECKPOINTING = 1024
# What a CPU gains is little, and its caches are small. On one core, 5 million weights in float32: where windows have 40
# tokens, 330 tokens/s one at a time, 1,120 at 1,024, 1,360 at 4,096; where they have 208, 850, 860 and 840, 990 at 512.
CPU_TOKENS = 1024
MASK = 1  # bytes in which CUDA's dropout remembers what it dropped


@dataclass(frozen=True)
class Memory:
    """Bytes. `activations` and `working` grow with the tokens, the others do not.

    base         the blocks' linear layers, nf4
    rest         embeddings, head and norms
    adapter      LoRA matrices in float32, and the bfloat16 copy that computes
    gradients    of the adapter, float32
    optimizer    AdamW's two float32 moments
    activations  what the forward pass keeps for the backward pass
    working      gradients of activations, on the way through a block
    loss         logits of a chunk of targets, their softmax, their gradient
    context      CUDA itself
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
    """`tokens` go through the model at once, with gradient checkpointing or without; that takes `memory`."""

    tokens: int
    checkpointing: bool
    memory: Memory


def needed(shapes: Shapes, config: TrainingConfig, tokens: int, *, checkpointing: bool, cuda: bool = True) -> Memory:
    """The peak for micro-batches of `tokens`. Raises ConfigError on LoRA targets that the base lacks."""
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
    """Of an nf4 weight: half a byte, and a scale for each block of 64: float32, or one byte, of which each 256 share a
    float32 (QLoRA, arXiv:2305.14314, section 3)."""
    double = config.bnb_config_kwargs.bnb_4bit_use_double_quant
    return 0.5 + ((1 + 4 / 256) / 64 if double else 4 / 64)


def saved_by_block(shapes: Shapes, config: TrainingConfig, *, width: int, mask: int = MASK) -> int:
    """Bytes a token that a block keeps for its backward pass; `width` bytes a number, `mask` bytes for one dropped.

    The block itself: inputs of both norms in float32 and their inverse deviations; queries, keys, values, what
    attention gives and its log-normaliser; of the feed-forward the gate before and after its SiLU, and the other half.
    The adapters: A's output, and each one's own input after dropout with the mask of it. Without dropout that input is
    one that neighbours share: a norm's output, what attention gives, the feed-forward's product.
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
    shapes: Shapes,
    config: TrainingConfig,
    free: int,
    *,
    longest: int,
    most: int | None = None,
    cuda: bool = True,
) -> Budget:
    """How many tokens go through the model at once on a device with `free` bytes, and whether with checkpointing.

    `longest` is the longest segment, which any budget must hold; `most` what a step has at most: more would never be
    filled. A number in the config stands, and null for `gradient_checkpointing` means: only where memory asks for it.
    Raises TrainingError when it does not fit.
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
    """Tokens at once for which `free` bytes suffice; 0 or less when not even the model fits."""
    fixed = needed(shapes, config, 0, checkpointing=checkpointing, cuda=cuda).total
    each = needed(shapes, config, 1, checkpointing=checkpointing, cuda=cuda).total - fixed
    return int(free * HEADROOM - fixed) // each


def _round(tokens: int, longest: int, fitting: int) -> int:
    """To a multiple of STEP: up when that fits, else down, but never below the longest segment."""
    up = -(-tokens // STEP) * STEP
    return up if up <= fitting else max(tokens // STEP * STEP, longest)


def _refusal(shapes: Shapes, config: TrainingConfig, free: int, tokens: int, fitting: int, *, cuda: bool) -> str:
    checkpointing = config.gradient_checkpointing is not False
    need = needed(shapes, config, tokens, checkpointing=checkpointing, cuda=cuda).total / HEADROOM
    found = f"{tokens:,} tokens at once need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
    if fitting <= 0:
        return f"does not fit: {found}; take a device with more memory, or a smaller base_model"
    if not checkpointing:
        return f"does not fit: {found}; set gradient_checkpointing: null, or take a device with more memory"
    key = "sequence_len" if config.micro_batch_tokens == "auto" else "micro_batch_tokens"
    return f"does not fit: {found}; lower {key} to at most {fitting:,}, or take a device with more memory"


# How long training takes: operations from shapes, seconds from what a device can do at best and a share of it.
#
# Not measured on a GPU yet. The shares below are assumptions, so every answer is a range, and the benchmark is what
# will replace them. They agree with the one run that is published: 52,000 windows of 208 tokens × 8 epochs, one window
# at a time, took 16 hours on an H100: 139 ms a window, for which they give 89 to 156.


class Range(NamedTuple):
    """From the best that is expected to the worst."""

    low: float
    high: float

    def scaled(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


# Shares of the data sheet's peak, best and worst: of an H100's 989 TFLOP/s, 8,500 to 13,700 tokens/s of a 7B.
GPU_SHARE = Range(0.4, 0.25)
# Of what `measure_core` finds, on each core; 47% to 65% were measured on one, in blocks 256 and 512 wide. And seconds
# that a block costs for itself, each time: 9 to 11 ms were measured on a busy core.
CPU_SHARE = Range(0.72, 0.24)
CPU_BLOCK = Range(0.006, 0.02)
# Making all nf4 weights of a 7B bfloat16 takes 22 to 31 ms on an H100 (3.35 TB/s), so a weight costs as much as moving
# these many bytes. Once in the forward pass and once in the backward pass, and once more with checkpointing.
BYTES_MOVED = Range(10.6, 14.9)
# Seconds a micro-batch in which Python launches kernels and the GPU waits: what the above leaves of the published
# 139 ms is 53 to 80.
LAUNCHES = Range(0.03, 0.07)


@dataclass(frozen=True)
class Work:
    """What goes through the model in a whole training.

    tokens, batches    with a backward pass
    evaluated          without one: the held-out examples, as often as they are measured
    evaluations        batches of these
    context            tokens that a token attends to, in the mean
    """

    tokens: int
    batches: int
    evaluated: int
    evaluations: int
    context: float


@dataclass(frozen=True, eq=False)
class Load:
    """Segments of the first epoch, step by step, and of one held-out measurement; or a sample of each.

    share, heldout_share  of all segments that these are
    """

    steps: Sequence[Sequence[Segment]]
    heldout: Sequence[Segment]
    config: TrainingConfig
    share: float = 1.0
    heldout_share: float = 1.0

    @property
    def tokens(self) -> int:
        """That go through the model in an epoch."""
        return round(sum(len(run.ids) for step in self.steps for run in step) / self.share)

    @property
    def most(self) -> int:
        """Tokens of the largest step."""
        return max(sum(len(run.ids) for run in step) for step in self.steps)

    def work(self, budget: int) -> Work:
        """With `budget` tokens at a time. The other epochs are as the first: only the order of windows differs."""
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
    """The plan's first epoch, and the held-out examples as curve.py measures them."""
    first = takewhile(lambda step: step.epoch == 0, plan.steps())
    groups = collapse(val.examples) if config.collapse_nested_windows else [[example] for example in val.examples]
    return Load([step.segments for step in first], list(map(segment, groups)), config, plan.share, val.share)


def forward_flops(shapes: Shapes, config: TrainingConfig, context: float, *, head: bool = True) -> float:
    """Floating-point operations a token of a forward pass, a multiplication and an addition counted as two.

    Twice the weights that multiply (arXiv:2001.08361, section 2.1) with LoRA's, and attention's two products with each
    of `context` tokens. The head counts for every token, though nothing may be learnt at some.
    """
    weights = shapes.linear_parameters + shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    return 2 * (weights + (shapes.head_parameters if head else 0)) + 4 * context * shapes.queries * shapes.layers


def training_flops(shapes: Shapes, config: TrainingConfig, context: float, *, checkpointing: bool) -> float:
    """Of a forward and a backward pass, a token.

    The base is frozen: its backward pass makes gradients of activations only, once the forward pass again; those of
    attention and of LoRA are twice theirs. Checkpointing computes the blocks' forward pass once more, not the head's.
    """
    lora = 2 * shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    attention = 4 * context * shapes.queries * shapes.layers
    once = forward_flops(shapes, config, context)
    again = forward_flops(shapes, config, context, head=False) if checkpointing else 0
    return 2 * once + lora + attention + again


def on_gpu(gpu: Gpu, work: Work, shapes: Shapes, config: TrainingConfig, *, checkpointing: bool) -> Range:
    """Seconds of training and measuring; fetching and loading the base come before it."""
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
    """Seconds where all cores together reach `rate` operations a second, each as many as `measure_core` found."""
    flops = operations(work, shapes, config, checkpointing=checkpointing)
    blocks = (work.batches + work.evaluations / 3) * shapes.layers  # forwards and backwards, as against forwards
    return Range(*(flops / (rate * share) + blocks * each for share, each in zip(CPU_SHARE, CPU_BLOCK, strict=True)))


def operations(work: Work, shapes: Shapes, config: TrainingConfig, *, checkpointing: bool) -> float:
    training = training_flops(shapes, config, work.context, checkpointing=checkpointing)
    return work.tokens * training + work.evaluated * forward_flops(shapes, config, work.context)


def measure_core(clock: Callable[[], float] = time.thread_time) -> float:
    """Operations a second of float32 matrix products on one core that has nothing else to do.

    In the thread's own CPU time, and the best of many short runs: what else the machine does meanwhile does not count.
    Matrices this small stay on one thread in OpenBLAS (up to 64³ products), whose threads would wait for each other on
    a busy machine; on one core they reach 83% of what large ones do.
    """
    import numpy as np

    side, products = 64, 20
    matrix = np.ones((side, side), dtype=np.float32)
    product = np.empty_like(matrix)
    best, until = 0.0, clock() + 0.1
    while (started := clock()) < until:
        count = 0
        while (spent := clock() - started) < 1e-4:  # some clocks tick once in 16 ms
            for _ in range(products):
                np.matmul(matrix, matrix, out=product)
            count += products
        best = max(best, count / spent)
    return 2 * side**3 * best


@dataclass(frozen=True)
class Device:
    """name  as torch.cuda.get_device_name() says, or the CPU with its threads
    free  bytes that a training may take
    cuda  whether it is a GPU
    gpu   what config/gpu_prices.yaml knows of it; None when nothing
    count GPUs that share each step
    cores of the CPU that training uses; 0 for a GPU
    """

    name: str
    free: int
    cuda: bool
    gpu: Gpu | None
    count: int = 1
    cores: int = 0

    @property
    def price(self) -> float | None:
        """Dollars an hour, of all of them; None when nobody knows."""
        return self.gpu.price * self.count if self.gpu else None

    def budget(self, shapes: Shapes, config: TrainingConfig, load: Load, *, longest: int) -> Budget:
        """As memory.resolve_budget, which also says what `longest` is. Raises TrainingError as it does."""
        most = -(-load.most // self.count)
        return resolve_budget(shapes, config, self.free, longest=longest, most=most, cuda=self.cuda)

    def seconds(self, load: Load, shapes: Shapes, config: TrainingConfig, budget: Budget) -> Range | None:
        """Expected of training and measuring. None on a GPU that config/gpu_prices.yaml does not know."""
        work = load.work(budget.tokens)
        if not self.cuda:
            rate = self.cores * measure_core()
            return on_cpu(rate, work, shapes, config, checkpointing=budget.checkpointing)
        if self.gpu is None:
            return None
        return on_gpu(self.gpu, work, shapes, config, checkpointing=budget.checkpointing).scaled(1 / self.count)


def device_at_hand(count: int = 1) -> Device:
    """The GPU that torch would take, one of `count` alike, or else the CPU, which any number of processes share."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return Device(f"CPU, {threads} threads", free_memory(), False, None, cores=threads)
    name = torch.cuda.get_device_name()
    return Device(name, torch.cuda.mem_get_info()[0], True, gpu_of(name), count)


def free_memory(system: Path = Path("/")) -> int:
    """Bytes that programs can still take: what Linux calls available, and no more than the limits of a container or a
    batch system leave; elsewhere all there is."""
    try:
        with (system / "proc" / "meminfo").open(encoding="ascii") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([available, *_left_by_cgroups(system)])


def _left_by_cgroups(system: Path) -> Iterator[int]:
    """What each memory limit on this process leaves: cgroups(7), version 2 or 1.

    The limit of a group holds for those within it. Inside a container its own group is often the only one to be seen.
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
    """Bytes of files that count as used and are given up when memory is short."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    stat = {name: int(value) for name, value in map(str.split, lines)}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))  # version 1 counts groups within apart


def expectation(device: Device, seconds: Range | None) -> str:
    """Hours and dollars in words, and what they rest on."""
    if seconds is None:
        return f"unknown: config/gpu_prices.yaml has no line for {device.name}"
    if device.gpu is None or device.price is None:
        cores = "1 idle core" if device.cores == 1 else f"{device.cores} idle cores"
        return (
            f"{spell_duration(seconds)} on {cores}; computed, not measured: from how fast one core multiplies matrices"
        )
    dollars, gpu = seconds.scaled(device.price / 3600), device.gpu
    return (
        f"{spell_duration(seconds)}, {spell_dollars(dollars)} at ${device.price:.2f} an hour "
        f"({gpu.provider}, {gpu.read}); "
        f"computed, not measured: at {GPU_SHARE.high:.0%} to {GPU_SHARE.low:.0%} of the GPU's peak"
    )


def usable_cores() -> int:
    """Cores that this process may use; torch decides by itself, and is not asked where it is not installed."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


UNITS = {"days": 86400, "h": 3600, "min": 60, "s": 1}


def spell_duration(seconds: Range) -> str:
    """`40 to 65 min`: the largest unit of which the worse end has two."""
    unit = next((unit for unit, size in UNITS.items() if seconds.high >= 2 * size), "s")
    low, high = seconds.scaled(1 / UNITS[unit])
    return f"{_two_digits(low)} to {_two_digits(high)} {unit}"


def spell_dollars(dollars: Range) -> str:
    return f"${_cents(dollars.low)} to ${_cents(dollars.high)}"


def _two_digits(number: float) -> str:
    return f"{number:,.1f}" if number < 10 else f"{number:,.0f}"


def _cents(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars < 10 else f"{dollars:,.0f}"
