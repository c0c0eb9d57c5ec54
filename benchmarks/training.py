"""Seconds per epoch, packed and nested, beside one window at a time, on a CPU, in one run.

    python -m benchmarks.training

The windows are cut by `ghost prepare`'s own code from conversations of the sample's people, each turn a burst of up to
three of theirs, so that a window has about 208 tokens as the published run's have. Base: the starter base in nf4. Four
copies of one adapter take the same steps, one after the other within each step, so that a machine that is busy slows
all four; their losses are compared step by step.

    one window at a time    transformers' own forward pass and loss, unpadded, 64 of them summed: micro batch 1 × 64
    packed                  the same windows in micro-batches of so many tokens
    nested                  windows that begin alike collapsed, one run at a time
    packed and nested       what `ghost train` does
"""

import argparse
import dataclasses
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.extraction import machine
from ghost.demo.chats import conversations, noa_chats, turns
from ghost.demo.people import NOA
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from training.config import TrainingConfig
from training.finetuning.base import Base
from training.finetuning.data import Split, encode_turns
from training.finetuning.packing import Plan, Step
from training.preparation import dataset

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "training.md"

# What must be reached. Set before anything was measured.
FLOOR = 2.5  # times fewer seconds per epoch, packed and nested beside one window at a time
TOLERANCE = 2e-3  # relative; between the losses of a step after dozens of steps in float32
MEAN = (190, 226)  # tokens a window, of the sample that the figure is to be of

PLAIN = 0  # transformers' own forward pass and loss


@dataclass
class Way:
    """One way to compute a step, with a model of its own."""

    name: str
    plan: Plan
    budget: int  # tokens, or PLAIN
    model: Any = None
    parameters: Any = None
    optimizer: Any = None
    seconds: float = 0.0
    tokens: int = 0
    batches: int = 0
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """The windows, and what they were cut from."""

    split: Split
    messages: int
    turns: Counter[int]  # conversations by their number of turns


def talks(count: int, seed: int) -> Iterator[list[Turn]]:
    """Conversations of Noa's chats; each turn is up to three of the sample by the same side, a longer burst."""
    streams = [(chat, conversations(chat, seed=seed, mean_gap=24)) for chat in noa_chats().values()]
    for number in range(count):
        _, stream = streams[number % len(streams)]
        said, more = (list(turns(next(stream), NOA)) for _ in range(2))
        added = {side: [text for mine, text in more if mine is side] for side in (True, False)}
        yield [
            Turn(
                "A:" if mine else "B:",
                "\n".join([text, *islice(added[mine], place // 2, place // 2 + 1 + place // 2 % 2)]),
            )
            for place, (mine, text) in enumerate(said)
        ]


def make_sample(tokenizer: Any, count: int, config: TrainingConfig) -> Sample:
    """The windows and instruct seeds of `count` conversations."""
    spoken = list(talks(count, seed=11))
    found = dataset.make_examples("windows", [[turn.label == "A:" for turn in talk] for talk in spoken])
    cut = [*zip(spoken, found.by_conversation, strict=True), *zip(spoken, found.seeds, strict=True)]
    lines = [talk[start : last + 1] for talk, spans in cut for start, last in spans]
    examples = [
        encode_turns(tokenizer, line, DEFAULT_LABELS, recipe="windows", replies_only=not config.train_on_inputs)
        for line in lines
    ]
    fitting = [example for example in examples if len(example.ids) <= config.sequence_len]
    messages = sum(turn.text.count("\n") + 1 for talk in spoken for turn in talk)
    split = Split("windows", fitting, len(lines), 0, len(lines) - len(fitting))
    return Sample(split, messages, Counter(map(len, spoken)))


def gradients(way: Way, step: Step) -> float:
    """Leave the step's gradients in the parameters; gives its loss in nats a label."""
    import torch

    from training.finetuning.loss import SegmentLoss
    from training.finetuning.packing import flatten, pack

    total = 0.0
    if way.budget == PLAIN:
        batches: list[Any] = step.segments
        for run in step.segments:
            logits = way.model(input_ids=torch.from_numpy(run.ids).long()[None], use_cache=False).logits[0].float()
            labels = torch.from_numpy(run.labels).long()
            loss = torch.nn.functional.cross_entropy(logits[run.places], labels, reduction="sum")
            (loss / step.labels).backward()
            total += float(loss.detach()) / step.labels
    else:
        batches = pack(step.segments, way.budget)
        for batch in batches:
            loss = SegmentLoss(way.model)(**flatten(batch, "cpu")) / step.labels
            loss.backward()
            total += float(loss.detach())
    way.batches += len(batches)
    return total


def take(way: Way, step: Step, config: TrainingConfig) -> None:
    import torch

    started = time.perf_counter()
    loss = gradients(way, step)
    torch.nn.utils.clip_grad_norm_(way.parameters, config.max_grad_norm)
    way.optimizer.step()
    way.optimizer.zero_grad()
    way.seconds += time.perf_counter() - started
    way.tokens += sum(len(run.ids) for run in step.segments)
    way.losses.append(loss)


def make_ways(base: Base, tokenizer: Any, split: Split, config: TrainingConfig, budgets: list[int]) -> list[Way]:
    import torch
    from transformers import set_seed

    from training.finetuning.model import trainable

    nested, apart = (
        Plan(split, dataclasses.replace(config, collapse_nested_windows=collapse)) for collapse in (True, False)
    )
    ways = [Way("one window at a time", apart, PLAIN), Way("nested, one run at a time", nested, 1)]
    ways += [Way(f"packed to {budget:,}", apart, budget) for budget in budgets]
    ways += [Way(f"packed to {budget:,} and nested", nested, budget) for budget in budgets]
    for way in ways:
        set_seed(config.seed)
        way.model = trainable(base, config, tokenizer).train()
        if way.budget == PLAIN:
            way.model.get_base_model().set_attn_implementation("sdpa")
        way.parameters = [parameter for parameter in way.model.parameters() if parameter.requires_grad]
        way.optimizer = torch.optim.AdamW(way.parameters, lr=config.learning_rate, weight_decay=0.0)
    return ways


def distribution(sample: Sample) -> Iterator[str]:
    lengths = sorted(len(example.ids) for example in sample.split.examples)
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    quantiles = ", ".join(f"{share:.0%}: {lengths[int(share * (len(lengths) - 1))]}" for share in shares)
    talks = sum(sample.turns.values())
    yield f"- {len(lengths):,} windows and seeds of {talks:,} conversations, {sample.messages:,} messages"
    yield f"- tokens a window: mean {statistics.mean(lengths):.0f}; {quantiles}; longest {lengths[-1]}"
    yield "- conversations by turns: " + ", ".join(f"{turns}: {count}" for turns, count in sorted(sample.turns.items()))
    if sample.split.skipped:
        yield f"- {sample.split.skipped:,} windows longer than sequence_len left out"


def main() -> None:
    from ghost.demo.starter import starter_base
    from replicate_deployment.tokenization import load_tokenizer
    from training import config as training_config
    from training.finetuning.base import resolve_base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--budgets", type=int, nargs="+", default=[2048, 4096, 16384])
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    base = resolve_base(str(starter_base(ROOT / ".cache" / "starter")), None)
    recipe = training_config.load(ROOT / "config" / "training_config.yaml")
    # The recipe of record, but in float32 and without dropout, so that losses can be compared; its learning rate is
    # for another base, and at it a hundred steps would not move the loss: a hundred times that.
    config = dataclasses.replace(recipe, bf16=False, lora_dropout=0.0, num_epochs=1, learning_rate=5e-3)
    tokenizer = load_tokenizer(base.folder)
    sample = make_sample(tokenizer, args.conversations, config)
    mean = statistics.mean(len(example.ids) for example in sample.split.examples)
    if not MEAN[0] <= mean <= MEAN[1]:
        raise SystemExit(f"a mean of {mean:.0f} tokens a window, and the figure is to be of {MEAN[0]} to {MEAN[1]}")
    ways = make_ways(base, tokenizer, sample.split, config, args.budgets)
    take_all(ways, config)
    text = "\n".join(report(sample, ways, config))
    args.result.write_text(text + "\n", encoding="utf-8")
    print(text)


def take_all(ways: list[Way], config: TrainingConfig) -> None:
    """Every step, by all ways in turn."""
    for number, steps in enumerate(zip(*(way.plan.steps() for way in ways), strict=True), start=1):
        for way, step in zip(ways, steps, strict=True):
            take(way, step, config)
        print(f"step {number} of {len(ways[0].plan)}: loss {ways[0].losses[-1]:.4f}", flush=True)


def report(sample: Sample, ways: list[Way], config: TrainingConfig) -> Iterator[str]:
    import torch

    plain, best = ways[0], min(ways[1:], key=lambda way: way.seconds)
    pairs = [pair for way in ways[1:] for pair in zip(way.losses, plain.losses, strict=True)]
    apart = max(abs(loss - right) / right for loss, right in pairs)
    ratio = plain.seconds / best.seconds
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield "# Training on a CPU: packed and nested, beside one window at a time"
    yield "\n```\npython -m benchmarks.training\n```\n"
    threads = torch.get_num_threads()
    yield f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch on {threads} threads; {versions}."
    yield "Base: the starter base (5.5 million parameters) in nf4, computing in float32, LoRA r 16 on all matrices."
    yield f"One epoch, {config.windows_per_step} windows a step, {len(plain.plan)} steps. Every way takes a step before"
    yield "any takes the next, so that they share the machine's moods.\n"
    yield from distribution(sample)
    yield "\n| way | seconds an epoch | times faster | tokens computed | a message | runs of the model | tokens/s |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for way in ways:
        yield (
            f"| {way.name} | {way.seconds:.1f} | {plain.seconds / way.seconds:.2f} | {way.tokens:,}"
            f" | {way.tokens / sample.messages:.1f} | {way.batches:,} | {way.tokens / way.seconds:,.0f} |"
        )
    yield f"\nFloor: {FLOOR} times fewer seconds an epoch. Reached: {ratio:.2f} ({best.name}), {met(ratio >= FLOOR)}."
    yield f"Losses of one step, relative: {apart:.1e} apart at most; {TOLERANCE:g} allowed, {met(apart <= TOLERANCE)}."
    yield f"The first loss is {plain.losses[0]:.4f}, the last {plain.losses[-1]:.4f}."
    yield f"\nPeak memory of the whole run, all ways together: {memory:,.0f} MiB."


def met(reached: bool) -> str:
    return "met" if reached else "NOT met"


if __name__ == "__main__":
    main()
