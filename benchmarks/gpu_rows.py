"""The rows of benchmarks/training_gpu.py: ways to train, each run by the training loop itself for some seconds."""

import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_base import DENSE, EACH, FLASH, attending, checkpointed, random_base
from benchmarks.training import Sample, make_sample
from ghost.errors import TrainingError
from training.config import TrainingConfig
from training.finetuning.checkpoint import Checkpoint, Interruption, State
from training.finetuning.data import Example, Split
from training.finetuning.hardware import Load, Work
from training.finetuning.loop import Loop
from training.finetuning.model import adapted
from training.finetuning.packing import Plan, pack

WARM = 1  # steps before
FOREVER = 10**4  # epochs: the rows end by the clock

NESTED, APART, LONG = "nested windows", "one window at a time", "1,024 tokens each"


@dataclass(frozen=True)
class Row:
    """One way to train. `full`: a step has windows for four micro-batches of `budget` tokens, if those are more than
    the recipe's 64, so that budgets beyond a step can be told apart; else 64."""

    segments: str
    nf4: bool
    attention: str
    checkpointing: bool
    budget: int
    full: bool = True


@dataclass(frozen=True)
class Measured:
    """`tokens` went through the model in `steps` steps. `peak` bytes of a GPU's memory; None elsewhere."""

    seconds: float
    steps: int
    tokens: int
    peak: int | None


Outcome = Measured | str | None
"""What was measured, why it could not be, or nothing yet."""


def rows(budgets: tuple[int, ...]) -> list[Row]:
    middle = budgets[len(budgets) // 2]
    found = [Row(NESTED, True, FLASH, checkpointing, middle, full=False) for checkpointing in (False, True)]
    found.append(Row(APART, True, FLASH, False, 1, full=False))
    for nf4 in (True, False):
        found += [Row(NESTED, nf4, FLASH, checkpointing, size) for checkpointing in (False, True) for size in budgets]
    found += [Row(NESTED, True, backend, False, size) for backend in (EACH, DENSE) for size in budgets[1:3]]
    return [*found, *(Row(LONG, True, FLASH, checkpointing, middle) for checkpointing in (False, True))]


@dataclass(frozen=True, eq=False)
class Bench:
    """What all rows share: the shape as in its config.json, the recipe, the sample, its windows in the base's ids."""

    facts: dict[str, Any]
    recipe: TrainingConfig
    sample: Sample
    windows: Split


@dataclass(frozen=True, eq=False)
class Job:
    """A row, ready to be run. Of an epoch: its `work`, `window_tokens` one example at a time, `most` tokens that ever
    go through the model at once."""

    row: Row
    config: TrainingConfig
    split: Split
    work: Work
    most: int

    @property
    def plan(self) -> Plan:
        """That never ends."""
        return Plan(self.split, dataclasses.replace(self.config, num_epochs=FOREVER))


def prepared(row: Row, bench: Bench) -> Job:
    split = long_segments(row, bench) if row.segments == LONG else bench.windows
    config = dataclasses.replace(
        bench.recipe,
        num_epochs=1,
        adapter="qlora" if row.nf4 else "lora",
        load_in_4bit=row.nf4,
        micro_batch_tokens=row.budget,
        collapse_nested_windows=row.segments != APART,
    )
    plan = Plan(split, config)
    if row.full:
        windows = max(round(4 * row.budget / plan.tokens * len(split.examples)), config.windows_per_step)
        config = dataclasses.replace(config, micro_batch_size=1, gradient_accumulation_steps=windows)
        plan = Plan(split, config)
    load = Load([step.segments for step in plan.steps()], [], config)
    batches = (batch for step in load.steps for batch in pack(step, row.budget))
    most = max(sum(len(run.ids) for run in batch) for batch in batches)
    return Job(row, config, split, load.work(row.budget), most)


def long_segments(row: Row, bench: Bench) -> Split:
    """For four micro-batches."""
    length = bench.recipe.sequence_len
    shape = (max(4 * row.budget // length, 1), length)
    tokens = np.random.default_rng(0).integers(3, bench.facts["vocab_size"], shape).astype(np.int32)
    learnt = np.arange(length) > 0
    return Split("windows", [Example(ids, learnt, learnt) for ids in tokens], len(tokens), 0, 0)


def make_bench(facts: dict[str, Any], recipe: TrainingConfig, conversations: int) -> Bench:
    """The sample's tokens become random ones of the base's vocabulary, the same everywhere, so that what began alike
    still does."""
    from itertools import islice

    from ghost.demo import starter

    numbers = starter.RECIPE
    texts = islice(starter.windows(numbers.seed), numbers.tokenizer_windows)
    tokenizer = starter.make_tokenizer(texts, numbers.vocab_size)
    sample = make_sample(tokenizer, conversations, recipe)
    ids = np.random.default_rng(0).integers(3, facts["vocab_size"], len(tokenizer)).astype(np.int32)
    ids[:3] = range(3)  # unknown, BOS, end
    examples = [dataclasses.replace(example, ids=ids[example.ids]) for example in sample.split.examples]
    return Bench(facts, recipe, sample, dataclasses.replace(sample.split, examples=examples))


class OutOfMemory(Exception):
    pass


class Enough(Exception):
    pass


class StrictLoop(Loop):
    """Memory that does not suffice is a result here, and no reason to go on with less."""

    def _halve(self) -> None:
        raise OutOfMemory


class Stopwatch:
    """Stands where `ghost train` has its progress bar. Raises Enough after `seconds` of steps."""

    def __init__(self, seconds: float, device: str) -> None:
        self.limit, self.device = seconds, device
        self.started = self.seconds = 0.0
        self.done = self.steps = self.tokens = 0

    def step(self, number: int, loss: float, tokens: int, seconds: float) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()  # the optimiser's kernels too
        now = time.perf_counter()
        self.done += 1
        if self.done == WARM:
            self.started = now
        if self.done <= WARM:
            return
        self.steps += 1
        self.tokens += tokens
        self.seconds = now - self.started
        if self.seconds >= self.limit:
            raise Enough


def measure(model: Any, job: Job, device: str, seconds: float) -> Outcome:
    import torch

    row, config = job.row, dataclasses.replace(job.config, num_epochs=FOREVER, checkpoint_minutes=1e9)
    watch: Any = Stopwatch(seconds, device)
    memory = Memory(device)
    try:
        with attending(model, row.attention), checkpointed(model, row.checkpointing):
            state, nowhere = State(row.budget, row.budget), Checkpoint(Path("never written"))
            StrictLoop(model, job.plan, [], config, state, nowhere, {}, Interruption()).run(watch)
    except Enough:
        return Measured(watch.seconds, watch.steps, watch.tokens, memory.peak())
    except (OutOfMemory, torch.OutOfMemoryError):
        return "out of memory"
    except (TrainingError, RuntimeError) as error:  # a kernel that this GPU lacks costs its row only
        return f"failed: {(str(error).splitlines() or [repr(error)])[0]}"
    finally:
        model.zero_grad()
    raise AssertionError("a plan without end has ended")


class Memory:
    """A GPU's, from here on."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = device == "cuda"
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """What PyTorch held at most, in use or not, and what the driver counts besides: CUDA itself, and whoever else
        uses the card."""
        import torch

        if not self.cuda:
            return None
        free, total = torch.cuda.mem_get_info()
        return int(torch.cuda.max_memory_reserved() + total - free - torch.cuda.memory_reserved())


def measured(jobs: Sequence[Job], bench: Bench, device: str, seconds: float) -> Iterator[tuple[Row, Outcome]]:
    """Row by row: those on nf4, then those on bfloat16, a model for each."""
    import torch

    for nf4 in (True, False):
        adapter: Any = "qlora" if nf4 else "lora"
        config = dataclasses.replace(bench.recipe, adapter=adapter, load_in_4bit=nf4, gradient_checkpointing=False)
        model = None
        with suppress(torch.OutOfMemoryError):
            model = adapted(random_base(bench.facts, config, device), config, "the random base")
        for job in jobs:
            if job.row.nf4 == nf4:
                outcome = measure(model, job, device, seconds) if model else "out of memory: the base alone"
                yield job.row, outcome
        del model
