"""How long training takes: operations from shapes, seconds from what a device can do at best and a share of it.

Not measured on a GPU yet. The shares below are assumptions, so every answer is a range, and the benchmark is what will
replace them. They agree with the one run that is published: 52,000 windows of 208 tokens × 8 epochs, one window at a
time, took 16 hours on an H100: 139 ms a window, for which they give 89 to 156.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split
from training.finetuning.packing import pack
from training.finetuning.plan import Plan
from training.finetuning.prices import Gpu
from training.finetuning.segments import Segment, collapse, segment
from training.finetuning.shapes import Shapes


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
    """The plan's first epoch, and the held-out examples as heldout.py measures them."""
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
