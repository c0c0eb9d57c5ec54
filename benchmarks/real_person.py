"""Which recipe makes a real model sound like a real person, and does retrieval do it without training?

    python -m benchmarks.real_person --scratch DIR

Base: SmolLM2-135M-Instruct. Person: the writer with the most messages in the Chit Chat Challenge dataset. Both come
from the package index (ghost.demo.real). The newest tenth of their conversations is held out; some of the others, drawn
at random, are trained on. All contenders answer the same held-out contexts:

- `prompt`: the base, prompted in the format.
- `few turns`: the base, with a few of the person's exchanges in front of every prompt, always the same.
- `retrieval`: the base, with the exchanges of the person's past whose messages are most similar to the one to answer.
- `windows, all`, `windows, reply`, `conversations`: the three trainings, at equal work (tokens computed, within 5%).
- `wrong person`: the recipe of record on as many messages by the second busiest writer.

Does a reply fit its message, or any message of the person's? For each model the page ranks the true reply among fifty
of the person's own, in its context; also for `conversations` after one epoch.

Each finished part is kept in DIR, and the same command goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from benchmarks.evaluation import value
from benchmarks.extraction import machine
from benchmarks.trainings import ghost
from ghost import artifact
from ghost.demo import demo, real
from ghost.evaluation import evaluate
from ghost.evaluation.contenders import Contender, line_up
from ghost.evaluation.data import SHOTS, Exchange, read_held_out, read_learnt, sample, shots
from ghost.evaluation.intervals import ratio
from ghost.evaluation.likelihood import Ranks, clusters, ranks, reply_nats, scorer
from ghost.evaluation.replies import Result, answer
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, DEFAULT_LABELS, Recipe, Turn
from replicate_deployment.engine import Engine
from training import config as training_config

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "real_person.md"
SEEDS = (42,)
TRAINED = 800  # messages of the person, and the rest of the conversation in which that many are reached
HELD_OUT = 0.1  # of the conversations, the newest
TURNS = 60  # held-out replies
RANKED_REPLIES = 30  # of them; each takes some ten seconds of CPU a model
WINDOWS_EPOCHS = 1
# Whole weights: rounding to 4 bits cost this small base more than training on 400 messages gained (on 12 replies 3.593
# nats a token for the base, 3.511 for base + adapter on whole weights, 3.638 merged onto rounded ones).
TRAINING: dict[str, Any] = {
    "adapter": "lora",
    "load_in_4bit": False,
    "bf16": False,
    "learning_rate": 0.0005,
    "lora_dropout": 0.0,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "load_best_model_at_end": False,
    "sample_replies": 0,
    "evals_per_epoch": 1,
    "micro_batch_tokens": 1024,
}


@dataclass(frozen=True)
class Way:
    person: int  # 0: the busiest writer
    recipe: Recipe
    train_on_inputs: bool


WAYS = {
    "windows, all": Way(0, "windows", True),
    "windows, reply": Way(0, "windows", False),
    "conversations": Way(0, "conversations", False),
    "wrong person": Way(1, "windows", True),
}
MEASURES = {
    "nats_per_character": "loss of replies, nats a character",
    "style": "mean distance of the figures of style",
    "authorship": "classifier's AUC",
    "itself": "replies that end by themselves",
    "labels": "replies with a line such as `C: Hi`",
}

# Committed before the run. A recipe replaces `windows, all` as the one that README recommends if, on average over the
# seeds, it has the lower loss and the lower distance of style, with more replies that end by themselves.
DECIDING = ("nats_per_character", "style", "itself")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="some 3 GB; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="(default: %(default)s)")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    base, dataset = real.fetch(ROOT / demo.REAL_CACHE)
    prepare(args.scratch, base, dataset)
    held_out = read_held_out(args.scratch / "held_out" / "val.jsonl", CONTEXT_TURNS)
    exchanges = sample(held_out.exchanges, TURNS, 0)
    rows = [run(args.scratch, base, exchanges, seed) for seed in args.seeds]
    RESULT.write_text(page(args.scratch, rows, exchanges, args.seeds), encoding="utf-8")
    (RESULT.with_name("real_person_replies.md")).write_text(replies_page(rows[0], exchanges), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


def prepare(scratch: Path, base: Path, dataset: Path) -> None:
    """Write `held_out`, and `WRITER-RECIPE` for each way to train."""
    conversations = real.chats(dataset)
    people = real.busiest(conversations)
    for number in sorted({way.person for way in WAYS.values()}):
        theirs = [talk for talk in conversations if any(one.sender == people[number] for one in talk)]
        theirs.sort(key=lambda talk: talk[0].timestamp)
        border = round(len(theirs) * (1 - HELD_OUT))
        parts = {"train": some(theirs[:border], people[number], TRAINED)}
        if number == 0:
            parts["held_out"] = theirs[border:]
        for part, talks in parts.items():
            for recipe in ("windows", "conversations"):
                if part == "held_out" and recipe == "windows":
                    continue
                out = scratch / ("held_out" if part == "held_out" else f"{number}-{recipe}")
                if out.exists():
                    continue
                cleaned = scratch / f"{number}-{part}-cleaned"
                if not cleaned.exists():
                    real.write_exports(talks, people[number], scratch / f"{number}-{part}-raw")
                    ghost("extract", scratch / f"{number}-{part}-raw", "--out", cleaned)
                ghost(
                    *("prepare", "--cleaned", cleaned, "--me", people[number], "--recipe", recipe),
                    *("--config", config_of(scratch, WAYS["windows, all"], 0, 1), "--base", base, "--out", out),
                )
                if part == "held_out":
                    hold_out_everything(out)


def some(conversations: list[list[real.Message]], person: str, least: int) -> list[list[real.Message]]:
    """Draw whole conversations that together hold at least `least` messages of the person."""
    found, count = [], 0
    for talk in random.Random(0).sample(conversations, len(conversations)):
        if count >= least:
            break
        count += sum(one.sender == person for one in talk)
        found.append(talk)
    return found


def hold_out_everything(folder: Path) -> None:
    """Move all lines to val.jsonl: no model has learnt any of them."""
    lines = [(folder / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "val")]
    (folder / "val.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "val.about.jsonl").unlink(missing_ok=True)
    hashes = {f"{name}_sha256": ghost_json.sha256(folder / f"{name}.jsonl") for name in ("train", "val")}
    facts = ghost_json.read(folder).facts
    artifact.write(folder, None, text=facts["text"], data={**facts["data"], **hashes})


def config_of(scratch: Path, way: Way, seed: int, epochs: int) -> Path:
    config = dataclasses.replace(
        training_config.load(ROOT / demo.CONFIG),
        **TRAINING,
        seed=seed,
        train_on_inputs=way.train_on_inputs,
        num_epochs=epochs,
    )
    path = scratch / "config.yaml"
    path.write_text(training_config.dump(config), encoding="utf-8")
    return path


def train(scratch: Path, name: str, base: Path, seed: int, epochs: int) -> Path:
    """Return the merged model of one way to train."""
    way, folder = WAYS[name], scratch / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (folder / "merged").exists():
        folder.mkdir(exist_ok=True)
        data = scratch / f"{way.person}-{way.recipe}"
        paths = ("--data", data, "--base", base, "--out", folder / "adapter")
        ghost("train", "--config", config_of(scratch, way, seed, epochs), *paths, "--resume")
        ghost("merge", folder / "adapter", "--base", base, "--out", folder / "merged")
    return folder / "merged"


def computed(merged: Path) -> int:
    """Tokens that a training computed."""
    report = json.loads((merged.parent / "adapter" / "training_report.json").read_text(encoding="utf-8"))
    return int(report["tokens"]["computed"])


# Okapi BM25 (Robertson and Zaragoza 2009, doi:10.1561/1500000019), its usual constants.
K1, B = 1.2, 0.75


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class Retrieval(Contender):
    """The base, shown the SHOTS exchanges of training whose messages score highest for the message to answer."""

    past: Sequence[Exchange] = field(default=())

    @cached_property
    def counts(self) -> list[Counter[str]]:
        return [Counter(words(one.context[-1].text)) for one in self.past]

    @cached_property
    def rarity(self) -> dict[str, float]:
        holding = Counter(word for counts in self.counts for word in counts)
        total = len(self.counts)
        return {word: math.log(1 + (total - count + 0.5) / (count + 0.5)) for word, count in holding.items()}

    def score(self, asked: Sequence[str], counts: Counter[str], mean: float) -> float:
        length = 1 - B + B * counts.total() / mean
        return sum(
            self.rarity.get(word, 0.0) * counts[word] * (K1 + 1) / (counts[word] + K1 * length) for word in set(asked)
        )

    def prompt(self, context: tuple[Turn, ...]) -> tuple[Turn, ...]:
        asked, mean = words(context[-1].text), fmean(counts.total() for counts in self.counts)
        scores = [self.score(asked, counts, mean) for counts in self.counts]
        best = sorted(sorted(range(len(scores)), key=scores.__getitem__)[-SHOTS:], key=scores.__getitem__)
        shown = [turn for place in best for turn in (self.past[place].context[-1], Turn("A:", self.past[place].reply))]
        return (*shown, *context[-(CONTEXT_TURNS - len(shown)) :])


def run(scratch: Path, base: Path, exchanges: Sequence[Exchange], seed: int) -> dict[str, Any]:
    """Return the figures of each contender, and of the person beside themselves."""
    models = {name: train(scratch, name, base, seed, WINDOWS_EPOCHS) for name in WAYS if name != "conversations"}
    once = train(scratch, "conversations", base, 0, 1)  # one epoch, to know its work
    epochs = max(1, round(WINDOWS_EPOCHS * computed(models["windows, all"]) / computed(once)))
    models["conversations"] = train(scratch, "conversations", base, seed, epochs)
    judged: dict[str, dict[str, Any]] = {}

    def kept(name: str, contender: Contender) -> None:
        path = scratch / f"{seed}-{name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.exists():
            started = time.monotonic()
            nats = [reply_nats(contender.engine, contender.prompt(one.context), one.reply) for one in exchanges]
            answers = answer(contender, exchanges, contender.engine.settings, seed)
            found = Result(contender.kind, nats, None, None, answers)
            figures = evaluate.contender_figures(found, None, exchanges, DEFAULT_LABELS, seed)
            texts = [one.exchange.reply for one in found.answers.said]
            path.write_text(json.dumps({"figures": figures, "replies": texts, "seconds": time.monotonic() - started}))
        judged[name] = json.loads(path.read_text(encoding="utf-8"))

    trained = {
        name: Contender("merged", Engine.load(model, accelerate=False))
        for name, model in {**models, ONCE: once}.items()
    }
    for name in models:
        kept(name, trained[name])
    learnt = read_learnt(scratch / "0-windows" / "train.jsonl", ghost_json.read(scratch / "0-windows"))
    shown = shots(learnt, DEFAULT_LABELS, seed)
    # Not the fourth, which would put its adapter onto the base.
    _, prompted, few_turns = islice(line_up(models["windows, all"], None, str(base), shown, {}), 3)
    kept("prompt", prompted)
    kept("retrieval", Retrieval("few_shot", prompted.engine, past=learnt.exchanges))
    kept("few turns", few_turns)
    ranked = {
        name: ranked_replies(scratch, name, contender, exchanges, seed)
        for name, contender in {"prompt": prompted, **trained}.items()
    }
    return {
        "contenders": judged,
        "ranks": ranked,
        "person": evaluate.person_figures(exchanges, DEFAULT_LABELS, seed),
        "tokens": {name: computed(model) for name, model in models.items()},
        "epochs": epochs,
    }


def ranked_replies(scratch: Path, name: str, contender: Contender, exchanges: Sequence[Exchange], seed: int) -> Ranks:
    path = scratch / f"{seed}-ranks-{name.replace(', ', '-').replace(' ', '-')}.json"
    if not path.exists():
        shown = [contender.prompt(one.context) for one in exchanges]
        found = ranks(shown, exchanges, scorer(contender.engine), seed, lambda: None, RANKED_REPLIES)
        path.write_text(json.dumps(found), encoding="utf-8")
    return Ranks(*json.loads(path.read_text(encoding="utf-8")))


ONCE = "conversations, 1 epoch"
ORDER = ("prompt", "few turns", "retrieval", "windows, all", "windows, reply", "conversations", "wrong person")


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    def mean(name: str, measure: str) -> float:
        return fmean(value(row["contenders"][name]["figures"], measure) for row in rows)

    better = [
        name
        for name in ("windows, reply", "conversations")
        if all((mean(name, measure) < mean("windows, all", measure)) != (measure == "itself") for measure in DECIDING)
    ]
    return f"Better than `windows, all` by the rule: {', '.join(f'`{one}`' for one in better) or 'none'}."


def page(scratch: Path, rows: Sequence[Mapping[str, Any]], exchanges: Sequence[Exchange], seeds: Sequence[int]) -> str:
    lengths = [len(one.reply) for one in exchanges]
    contexts = [len(one.context) for one in exchanges]
    report = json.loads((scratch / "0-windows" / "preparation_report.json").read_text(encoding="utf-8"))
    lines = [
        "# A real person, a real base",
        "",
        "```",
        "python -m benchmarks.real_person --scratch DIR",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}, transformers "
        f"{version('transformers')}. Seeds {', '.join(map(str, seeds))}. At least {TRAINED} messages of the "
        f"person to train on ({report['windows']['total']:,} windows), {len(exchanges)} held-out "
        f"replies of later conversations: characters {_quartiles(lengths)}, turns of context {_quartiles(contexts)} "
        "(quartiles).",
        "",
        "Rule, committed before the run: another recipe replaces `windows, all` in the README if on average over the "
        f"seeds it has the lower loss and distance of style, and more replies that end by themselves. {verdict(rows)}",
        "",
        f"| contender | tokens computed | {' | '.join(MEASURES.values())} |",
        f"|---|---:|{'---:|' * len(MEASURES)}",
    ]
    for name in ORDER:
        tokens = fmean(row["tokens"][name] for row in rows) if name in rows[0]["tokens"] else 0
        cells = [_spread([value(row["contenders"][name]["figures"], one) for row in rows]) for one in MEASURES]
        lines.append(f"| {name} | {tokens:,.0f} | {' | '.join(cells)} |")
    person = rows[0]["person"]
    lines += [
        "",
        "The person beside themselves (two halves of their own replies): AUC "
        f"{person['authorship']['themselves']['value']:.3f}. "
        f"`conversations` trained {rows[0]['epochs']} epochs, `windows` {WINDOWS_EPOCHS}.",
        "",
        *ranking_table(rows, exchanges),
    ]
    return "\n".join(lines)


def ranking_table(rows: Sequence[Mapping[str, Any]], exchanges: Sequence[Exchange]) -> list[str]:
    """Of the first seed. All models rank the same replies among the same others."""
    of: dict[str, Ranks] = {name: rows[0]["ranks"][name] for name in (*ORDER, ONCE) if name in rows[0]["ranks"]}
    places, candidates = of["prompt"].places, of["prompt"].candidates
    groups = clusters([exchanges[place] for place in places])

    def mean(values: Sequence[float]) -> str:
        found = ratio(values, [1] * len(values), groups, 0)
        return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"

    chance = fmean(1 / rank for rank in range(1, candidates + 1))
    lines = [
        f"Rank of the true reply among {candidates} of the person's own, by how much likelier its context makes each: "
        f"mean of 1 / rank with its 95% interval, on the same {len(places)} replies. Chance: {chance:.3f}.",
        "",
        "| model | mean reciprocal rank | minus the base's | minus that of `windows, all` | rank, quartiles |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in of.items():
        minus = [
            mean([one - two for one, two in zip(found.reciprocals, of[other].reciprocals, strict=True)])
            if name != other
            else ""
            for other in ("prompt", "windows, all")
        ]
        quartiles = _quartiles([round(1 / one) for one in found.reciprocals])
        lines.append(f"| {name} | {mean(found.reciprocals)} | {' | '.join(minus)} | {quartiles} |")
    return [*lines, ""]


def replies_page(row: Mapping[str, Any], exchanges: Sequence[Exchange]) -> str:
    """Ten held-out messages with the person's reply (public, MIT) and each contender's."""
    lines = ["# Replies beside the person's own", "", "Held-out messages of [real_person.md](real_person.md).", ""]
    for number in range(0, len(exchanges), max(1, len(exchanges) // 10)):
        one = exchanges[number]
        lines += [f"**{_line(one.context[-1].text)}**", "", f"- *person*: {_line(one.reply)}"]
        for name in ORDER:
            said = row["contenders"][name]["replies"]
            if number < len(said):
                lines.append(f"- {name}: {_line(said[number])}")
        lines.append("")
    return "\n".join(lines)


def _line(text: str) -> str:
    return " / ".join(text.split("\n"))


def _quartiles(values: Sequence[int]) -> str:
    return ", ".join(f"{one:.0f}" for one in quantiles(values, n=4))


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f}–{max(values):.3f})"


if __name__ == "__main__":
    main()
