"""What each recipe teaches, on the bundled sample: losses of the same held-out turns, and how replies end and vary.

    python -m benchmarks.recipes --scratch DIR

The sample is `ghost demo`'s, extracted once and prepared by each recipe. Training is config/demo_config.yaml's but for
the keys that a row names and for `load_best_model_at_end`, which is off: it would choose by the turns that judge. Each
training is merged and then judged by the engine that serves it. Finished runs are kept in DIR/runs.jsonl, so that the
same command goes on where it was stopped; each is a line with its losses and replies, of invented people's chats.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks import recipe_runs
from benchmarks.extraction import machine
from benchmarks.recipe_runs import CONVERSATIONS_PER_WINDOWS, RATES, ROOT, SEEDS, WAYS, Run, Runs, equal_work
from ghost.demo import demo
from ghost.demo.starter import starter_base
from replicate_deployment.chat_format import CONTEXT_TURNS
from replicate_deployment.settings import Settings
from training import config as training_config
from training.finetuning.base import resolve_base

RESULT = Path(__file__).parent / "results" / "recipes.md"
Line = dict[str, Any]
HEADING = "## What follows"
CONTEXTS = {"history": "with history", "alone": "to the B: turn alone"}
NAMES = {
    ("windows", True): "windows, loss on all",
    ("windows", False): "windows, loss on the reply",
    ("conversations", False): "conversations",
}


@dataclass(frozen=True)
class Tables:
    """Lines at the demo's learning rate, which is `rate`; of the sweep; at each recipe's own rate. The person's
    held-out replies; how many of her turns there answer nobody."""

    rate: float
    equal: list[Line]
    sweep: list[Line]
    own: list[Line]
    person: list[str]
    others: int


def best(sweep: Sequence[Line]) -> Iterator[Run]:
    """With every seed, each recipe at the rate whose other chats' replies were likeliest; once all rates were tried."""
    for recipe, whole in WAYS:
        tried = [line for line in sweep if (line["run"]["recipe"], line["run"]["train_on_inputs"]) == (recipe, whole)]
        merged = [line for line in tried if "refused" not in line]
        if len(tried) == len(RATES) and merged:
            rate = min(merged, key=lambda line: loss(line["other"]))["run"]["learning_rate"]
            for seed in SEEDS:
                yield Run(recipe, whole, equal_work(recipe), rate, seed)


def loss(nats: Sequence[tuple[float, int, float]]) -> float:
    """Nats a token, the end tokens among them."""
    return sum(text + end for text, _, end in nats) / sum(count + 1 for _, count, _ in nats)


def loss_of_text(nats: Sequence[tuple[float, int, float]]) -> float:
    return sum(text for text, _, _ in nats) / sum(count for _, count, _ in nats)


def loss_of_end(nats: Sequence[tuple[float, int, float]]) -> float:
    return statistics.mean(end for _, _, end in nats)


def distinct(texts: Sequence[str], size: int, words: int) -> float:
    """Different n-grams of words among all, never across replies, in the first `words` words: the share falls as a
    text grows, so all are measured on as many (after Li et al. 2016, arXiv:1510.03055, section 5.2)."""
    grams: list[tuple[str, ...]] = []
    for text in texts:
        taken = text.lower().split()[:words]
        words -= len(taken)
        grams += zip(*(taken[start:] for start in range(size)), strict=False)
    return len(set(grams)) / max(len(grams), 1)


def word_count(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)


def spread(values: Iterable[float], form: str) -> str:
    """Mean and range."""
    found = list(values)
    low, high = (format(edge(found), form) for edge in (min, max))
    mean = format(statistics.mean(found), form)
    return mean if len(found) == 1 else f"{mean} ({low}–{high})"


def write(path: Path, tables: Tables) -> None:
    """Keeps what was written by hand under the heading for it."""
    kept = path.read_text(encoding="utf-8").partition(HEADING)[2] if path.exists() else "\n"
    path.write_text("\n".join(text(tables)) + f"\n\n{HEADING}{kept}", encoding="utf-8")


def text(tables: Tables) -> Iterator[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    yield "# The recipes beside each other, on the bundled sample"
    yield "\n```\npython -m benchmarks.recipes --scratch DIR\n```\n"
    yield paragraph(
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; {versions}. Base: the starter base (5.5 million parameters).",
        "Sample: `ghost demo`'s, extracted once and prepared by each recipe; both hold out the same conversations.",
        "Training: config/demo_config.yaml, of which differ train_on_inputs, num_epochs, seed",
        f"({', '.join(map(str, SEEDS))}), where a row says so learning_rate, and load_best_model_at_end, which is off:",
        "it would choose by the turns that judge here. A step is 8 windows, or 8 pieces of conversations. Each model",
        "is merged by `ghost merge` and judged by the engine that serves it, in float32.",
    )
    yield ""
    yield paragraph(
        "*Work* is tokens that went through the model, nested windows counted once. Rows of equal work stand together:",
        f"{CONVERSATIONS_PER_WINDOWS} epochs of the conversations are as much as one of the windows.",
    )
    yield ""
    yield paragraph(
        f"Every model is judged by the same {len(tables.person)} held-out replies of hers to a B: turn, each after up",
        f"to {CONTEXT_TURNS} turns of its conversation in the format of the model's recipe. ({tables.others} held-out",
        "turns of hers open a conversation or follow one of hers, and are left out.) Figures are means over the seeds,",
        "with the range in brackets.",
    )
    yield from table("Held-out loss, nats a token", tables, loss_columns, " | ".join(LOSSES))
    tokens = sum(count for _, count, _ in tables.equal[0]["losses"])
    yield f"\n{tokens:,} tokens of text, and an end token for each reply."
    words = min(
        word_count(texts)
        for texts in (tables.person, *(said(line, name) for line in tables.equal + tables.own for name in CONTEXTS))
    )
    for context, described in CONTEXTS.items():
        columns = partial(reply_columns, context=context, replies=len(tables.person), words=words)
        head = "ended: itself | stop | limit | empty | words | distinct-1 | -2 | -3"
        yield from table(f"Replies {described}", tables, columns, head)
        length = f"{word_count(tables.person) / len(tables.person):.1f}"
        yield row("*her own replies*", *["–"] * 7, length, *diversity([tables.person], words))
    settings = ", ".join(f"{name} {value:g}" for name, value in asdict(Settings()).items())
    yield ""
    yield paragraph(
        f"Sampled at the defaults: {settings}. *Ended*: by the end token (itself), by a stop sequence, by the limit.",
        "*words*: of a reply, in the mean. *distinct-n*: share of different n-grams of words among all of them, in the",
        f"first {words} words of the replies.",
    )
    yield from rates(tables.sweep)


def paragraph(*sentences: str) -> str:
    return fill(" ".join(sentences), 120, break_on_hyphens=False, break_long_words=False)


def table(title: str, tables: Tables, columns: Callable[[list[Line]], Iterable[str]], head: str) -> Iterator[str]:
    def key(line: Line) -> tuple[float, ...]:
        run = line["run"]
        epochs = run["epochs"]
        work = epochs if run["recipe"] == "conversations" else epochs * CONVERSATIONS_PER_WINDOWS
        return work, way(line), run["learning_rate"]

    yield f"\n## {title}"
    yield f"\n| recipe | epochs | steps | work | {head} |"
    yield "|---|---:|---:|---:|" + "---:|" * (head.count("|") + 1)
    lines = tables.equal + [line for line in tables.own if line not in tables.equal]
    for _, group in groupby(sorted(lines, key=key), key):
        kind = list(group)
        run, tokens = kind[0]["run"], statistics.mean(line["tokens"] for line in kind)
        work = [run["epochs"], f"{kind[0]['steps']:,}", f"{tokens:,.0f}"] if run["epochs"] else ["–"] * 3
        rate = f", rate {run['learning_rate']:g}" if run["learning_rate"] != tables.rate else ""
        yield row(name(kind[0]) + rate, *work, *columns(kind))


LOSSES = {"all": loss, "text": loss_of_text, "end token": loss_of_end}


def loss_columns(kind: list[Line]) -> Iterator[str]:
    for figure in LOSSES.values():
        yield spread((figure(line["losses"]) for line in kind), ".3f")


def reply_columns(kind: list[Line], *, context: str, replies: int, words: int) -> Iterator[str]:
    for why in ENDS:
        yield spread((statistics.mean(ended == why for _, ended in line[context]) for line in kind), ".0%")
    yield spread((statistics.mean(not reply for reply in said(line, context)) for line in kind), ".0%")
    yield spread((word_count(said(line, context)) / replies for line in kind), ".1f")
    yield from diversity([said(line, context) for line in kind], words)


def said(line: Line, context: str) -> list[str]:
    return [reply for reply, _ in line[context]]


ENDS = ("end_token", "stop_sequence", "length")


def diversity(pools: list[list[str]], words: int) -> Iterator[str]:
    for size in (1, 2, 3):
        yield spread((distinct(texts, size, words) for texts in pools), ".2f")


def way(line: Line) -> int:
    return list(NAMES).index((line["run"]["recipe"], line["run"]["train_on_inputs"]))


def name(line: Line) -> str:
    if not line["run"]["epochs"]:
        return f"*base, prompted as {line['run']['recipe']}*"
    return list(NAMES.values())[way(line)]


def row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def rates(sweep: list[Line]) -> Iterator[str]:
    yield "\n## Learning rates"
    yield ""
    yield paragraph(
        f"Seed {SEEDS[0]}, the work of one epoch of windows; loss of all tokens, of the held-out replies in *other*",
        "chats of the same people, so that what is chosen by it is not judged by it. Each recipe has",
        "rows at its best rate above. *Diverged*: `ghost merge` refused what training had made.",
    )
    yield "\n" + row("recipe", *(f"{rate:g}" for rate in RATES))
    yield "|---|" + "---:|" * len(RATES)
    for place, kind in groupby(sweep, way):
        by_rate = {line["run"]["learning_rate"]: shown(line) for line in kind}
        yield row(list(NAMES.values())[place], *(by_rate.get(rate, "") for rate in RATES))


def shown(line: Line) -> str:
    return "diverged" if "refused" in line else format(loss(line["other"]), ".3f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the sample, the models and the runs")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--most", type=int, help="stop after so many new runs; the same command goes on")
    args = parser.parse_args()
    base = resolve_base(str(starter_base(ROOT / ".cache" / "starter")), None)
    for name, seed in (("sample", recipe_runs.SAMPLE), ("other", recipe_runs.OTHER)):
        recipe_runs.prepare(args.scratch / name, base.folder, seed)
    runs = Runs(args.scratch, base, args.most)
    rate = training_config.load(ROOT / demo.CONFIG).learning_rate
    equal = runs.of(recipe_runs.planned(rate), answering=True)
    sweep = runs.of(recipe_runs.swept(), answering=False)
    own = runs.of(best(sweep), answering=True)
    held_out, others = recipe_runs.places(args.scratch / "sample")
    write(args.result, Tables(rate, equal, sweep, own, [place.reply.text for place in held_out], others))


if __name__ == "__main__":
    main()
