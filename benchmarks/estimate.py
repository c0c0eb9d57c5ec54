"""`ghost estimate` for the recipe of record: 52,000 windows of 208 tokens × 8 epochs, beside the published 16 hours.

    python -m benchmarks.estimate

The chats of the published run are nobody's to have, so lengths are drawn and windows are cut from them by preparation's
own code: conversations as long as those of benchmarks.preparation, turns scaled until a window has 208 tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training import config as training_config
from training.config import TrainingConfig
from training.finetuning import estimate
from training.finetuning.base import Shapes, shapes_of
from training.finetuning.data import Example, Split
from training.finetuning.hardware import Gpu, Range, Work, gpu_of, load_of, on_gpu, spell_duration
from training.finetuning.packing import Plan
from training.preparation.dataset import make_examples, training_conversations

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "estimate.md"
SEED = 20261122

# What was published of the recipe of record.
WINDOWS, MEAN, HOURS, RATE = 52_000, 208, 16, 1_500

FloatArray = NDArray[np.float64]


def talks() -> list[FloatArray]:
    """Conversations, each the lengths of its turns in some unit.

    Half of them have 12 turns and a twentieth more than 52, as in benchmarks/results/preparation.md; a turn's length
    varies as that of messages there does, by a factor of three from the median to the 95th percentile.
    """
    rng = np.random.default_rng(SEED)
    sizes = np.clip(np.round(rng.lognormal(np.log(12), np.log(52 / 12) / 1.645, 8_000)), 1, 188).astype(int)
    return [rng.lognormal(0, np.log(3) / 1.645, size) for size in sizes]


def sample(config: TrainingConfig) -> tuple[Split, Split]:
    """WINDOWS windows to train on, instruct seeds among them, and those that preparation then holds out."""
    lengths = talks()
    sides = [[(place + number) % 2 == 1 for place in range(len(talk))] for number, talk in enumerate(lengths)]
    spans = make_examples("windows", sides).by_conversation
    # A tenth of all turns is held out, so about a tenth of all windows.
    count = int(np.searchsorted(np.cumsum([len(some) for some in spans]), 1.01 * WINDOWS / 0.9))
    training = training_conversations([len(talk) for talk in lengths[:count]])
    shown = [
        talk[start : last + 1] for talk, some in zip(lengths[:training], spans, strict=False) for start, last in some
    ]
    # Of a window's tokens one is BOS, and each turn has a newline or, the last, the end token.
    content = MEAN - 1 - float(np.mean([len(turns) for turns in shown]))
    scale = content / float(np.mean([turns.sum() for turns in shown]))
    halves = []
    for part in (range(training), range(training, count)):
        cut = [window for talk in part for window in windows_of(talk, lengths[talk] * scale, spans[talk])]
        fitting = [example for example in cut if len(example.ids) <= config.sequence_len]
        halves.append(Split("windows", fitting, len(cut), 0, len(cut) - len(fitting)))
    return replace(halves[0], examples=halves[0].examples[:WINDOWS]), halves[1]


def windows_of(talk: int, lengths: FloatArray, spans: Sequence[tuple[int, int]]) -> Iterator[Example]:
    """Ids that tell turns apart and nothing else: BOS, the turns with a newline between them, the end token."""
    counts = np.maximum(2, np.round(lengths)).astype(int) + 1
    ends = np.cumsum(counts)
    ids = np.repeat(1000 * talk + 3 + np.arange(len(lengths)), counts).astype(np.int32)
    ids[ends - 1] = 2  # newlines
    for start, last in spans:
        cut = np.concatenate([[0], ids[ends[start] - counts[start] : ends[last] - 1], [1]]).astype(np.int32)
        learnt = np.arange(len(cut)) > 0
        yield Example(cut, learnt, learnt)


def one_at_a_time(train: Split, val: Split, gpu: Gpu, shapes: Shapes, config: TrainingConfig) -> Range:
    """Seconds when each window goes through the model by itself, as in the published run."""
    epochs, measured = config.num_epochs, 1 + config.num_epochs * config.evals_per_epoch
    context = sum(len(example.ids) ** 2 for example in train.examples) / 2 / train.tokens
    work = Work(
        train.tokens * epochs,
        len(train.examples) * epochs,
        val.tokens * measured,
        len(val.examples) * measured,
        context,
    )
    return on_gpu(gpu, work, shapes, config, checkpointing=False)


def distribution(split: Split) -> str:
    lengths = sorted(len(example.ids) for example in split.examples)
    shares = ", ".join(
        f"{share}: {lengths[int(share / 100 * (len(lengths) - 1))]}" for share in (5, 25, 50, 75, 95, 100)
    )
    return (
        f"- {len(lengths):,} windows to train on, {split.tokens / len(lengths):.1f} tokens in the mean; by percentile "
        f"{shares}"
    )


def main() -> None:
    config = training_config.load(ROOT / "config" / "training_config.yaml")
    shapes = shapes_of(config.base_model, config.revision_of_model)
    train, val = sample(config)
    h100 = gpu_of("NVIDIA H100 80GB HBM3")
    assert h100 is not None
    found = {
        nested: estimate.estimate(settings, shapes, plan, train, val, load_of(plan, val, settings), "tokenizer")
        for nested in (False, True)
        for settings in [replace(config, collapse_nested_windows=nested)]
        for plan in [Plan(train, settings)]
    }
    rows = [("one window at a time", train.tokens, one_at_a_time(train, val, h100, shapes, config))]
    for name, nested in (("packed", False), ("packed, nested windows collapsed", True)):
        choice = next(choice for choice in found[nested].choices if choice.device.gpu == h100)
        assert choice.seconds is not None
        rows.append((name, found[nested].load.tokens, choice.seconds))
    table = [
        f"| {name} | {tokens:,} | {spell_duration(seconds)} | ${seconds.low / 3600 * h100.price:,.0f} to "
        f"${seconds.high / 3600 * h100.price:,.0f} | {config.num_epochs * train.tokens / seconds.high:,.0f} to "
        f"{config.num_epochs * train.tokens / seconds.low:,.0f} |"
        for name, tokens, seconds in rows
    ]
    page = [
        "# What the recipe of record will cost",
        "",
        "```",
        "python -m benchmarks.estimate",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}. Computed from the shapes of {config.base_model} and from data sheets; "
        "**nothing here was measured on a GPU**, and the ranges are assumptions (training/finetuning/hardware.py). "
        "Prices: config/gpu_prices.yaml.",
        "",
        distribution(train),
        "",
        f"Published: {HOURS} h on an H100, about {RATE:,} tokens/s, {WINDOWS:,} windows of {MEAN} tokens × "
        f"{config.num_epochs} epochs, one window at a time. On an H100, measuring the held-out loss "
        f"{1 + config.num_epochs * config.evals_per_epoch} times included:",
        "",
        f"| | tokens computed an epoch | time | at ${h100.price:.2f} an hour | window tokens/s |",
        "|---|---:|---:|---:|---:|",
        f"| published | {WINDOWS * MEAN:,} | {HOURS} h | ${HOURS * h100.price:,.0f} | {RATE:,} |",
        *table,
        "",
        "The first computed row is no prediction: what a micro-batch costs besides arithmetic was set so that the "
        "published figure is within it. The others are.",
        "",
        "`ghost estimate` of it:",
        "",
        "```",
        estimate.summary(found[True]),
        "```",
    ]
    text = "\n".join(page) + "\n"
    print(text)
    RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
