"""Does a student that is taught by a ghost keep more of the person than one trained on the person's lines alone?

    python -m benchmarks.distillation --scratch DIR

DIR is that of benchmarks.real_person. The teacher is SmolLM2-135M trained there by the recipe `conversations`; the
student has a third of its layers. `direct` trains the student on the person's lines, by `ghost train`; `distilled` by
`ghost distill`. Both start from the same layers of the teacher, at equal work in tokens that the student computes, to
an epoch: what it runs to sample its own replies counts, what the teacher runs does not.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import StatisticsError
from typing import Any

from benchmarks.evaluation import value
from benchmarks.extraction import machine
from benchmarks.real_person import ROOT, TRAINING
from benchmarks.trainings import ghost
from ghost.demo import demo
from ghost.evaluation import evaluate
from ghost.evaluation.contenders import Contender
from ghost.evaluation.data import Exchange, read_held_out, sample
from ghost.evaluation.intervals import Estimate, ratio
from ghost.evaluation.likelihood import clusters, reply_nats
from ghost.evaluation.replies import run_contender
from replicate_deployment.chat_format import CONTEXT_TURNS, DEFAULT_LABELS
from replicate_deployment.engine import Engine
from training import config as training_config

RESULT = Path(__file__).parent / "results" / "distillation.md"
TEACHER, DATA = "conversations-42", "0-conversations"
LAYERS = 10  # of 30
STUDENTS = ("distilled", "direct")
EPOCHS = 8
TURNS = 60  # held-out replies
SEED = 42
MEASURES = {
    "nats_per_character": "loss of replies, nats a character",
    "style": "mean distance of the figures of style",
    "authorship": "classifier's AUC",
    "itself": "replies that end by themselves",
}

# Committed before the run. Distillation beats the baseline if the distilled student has both the lower loss a character
# and the lower mean distance of style on the held-out replies. Anything else is written down as not better.
DECIDING = ("nats_per_character", "style")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="the folder of benchmarks.real_person")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is trained here; kept")
    args = parser.parse_args()
    teacher, data = args.scratch / TEACHER / "merged", args.scratch / DATA
    args.out.mkdir(parents=True, exist_ok=True)
    base = args.out / "distilled.base"
    if not (args.out / "distilled").exists():
        student = ("--student", base) if base.exists() else ("--layers", LAYERS)
        paths = ("--data", data, "--out", args.out / "distilled", "--config", config_of(args.out, "distilled", EPOCHS))
        ghost("distill", teacher, *student, *paths, "--resume")
    if not (args.out / "direct").exists():
        done = report(args.out / "distilled")["tokens"]
        epochs = -(-done["computed"] // done["epoch"])  # whole ones, so the baseline has a little more work
        paths = ("--data", data, "--out", args.out / "direct", "--config", config_of(args.out, "direct", epochs))
        ghost("train", "--base", base, *paths, "--resume")
    for name in STUDENTS:
        if not (args.out / f"{name}-merged").exists():
            ghost("merge", args.out / name, "--base", base, "--out", args.out / f"{name}-merged")
    held_out = read_held_out(args.scratch / "held_out" / "val.jsonl", CONTEXT_TURNS)
    exchanges = sample(held_out.exchanges, TURNS, 0)
    folders = {name: args.out / f"{name}-merged" for name in STUDENTS} | {"teacher": teacher}
    found: dict[str, Any] = {}
    for name, folder in folders.items():
        path = args.out / f"{name}.json"
        if not path.exists():
            contender = Contender(name, Engine.load(folder, accelerate=False))
            result = run_contender(contender, exchanges, contender.engine.settings, SEED)
            figures = evaluate.contender_figures(result, None, exchanges, DEFAULT_LABELS, SEED)
            path.write_text(json.dumps(figures), encoding="utf-8")
            del contender
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    write(found, {name: report(args.out / name) for name in STUDENTS}, gain(args.out, exchanges))
    print(RESULT.read_text(encoding="utf-8"))


def gain(out: Path, exchanges: Sequence[Exchange]) -> Estimate:
    """By how many nats a character the same replies are likelier to `distilled` than to `direct`."""
    nats = {}
    for name in STUDENTS:
        engine = Engine.load(out / f"{name}-merged", accelerate=False)
        nats[name] = [reply_nats(engine, one.context, one.reply).reply for one in exchanges]
    differences = [direct - taught for taught, direct in zip(nats["distilled"], nats["direct"], strict=True)]
    return ratio(differences, [len(one.reply) for one in exchanges], clusters(exchanges), SEED)


def config_of(out: Path, name: str, epochs: int) -> Path:
    # One conversation a step: a student without two thirds of its layers has to learn in many steps.
    keys = {**TRAINING, "seed": SEED, "train_on_inputs": False, "num_epochs": epochs, "micro_batch_size": 1}
    path = out / f"{name}.yaml"
    config = dataclasses.replace(training_config.load(ROOT / demo.CONFIG), **keys)
    path.write_text(training_config.dump(config), encoding="utf-8")
    return path


def report(adapter: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((adapter / "training_report.json").read_text(encoding="utf-8"))
    return found


def measured(figures: Mapping[str, Any], measure: str) -> float:
    """NaN where too few of its replies can be compared, which no rule counts as better."""
    try:
        return value(figures, measure)
    except StatisticsError:
        return math.nan


def verdict(found: Mapping[str, Any]) -> str:
    better = all(measured(found["distilled"], one) < measured(found["direct"], one) for one in DECIDING)
    return f"Distillation {'beats' if better else 'does not beat'} the direct student by the rule."


def write(found: Mapping[str, Any], trainings: Mapping[str, Any], gained: Estimate) -> None:
    lines = [
        "# A student of a third of the layers, taught or trained directly",
        "",
        "```",
        "python -m benchmarks.distillation --scratch DIR --out DIR",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}, shared with other work, so seconds "
        f"are rough. One seed, {TURNS} held-out replies.",
        "",
        "Rule, committed before the run: the distilled student is better if it has both the lower loss a character and "
        f"the lower mean distance of style. {verdict(found)}",
        "",
        "| | weights | MB in memory | tokens computed in training | seconds of it | tokens/s when it replies | "
        f"{' | '.join(MEASURES.values())} |",
        f"|---|---:|---:|---:|---:|---:|{'---:|' * len(MEASURES)}",
    ]
    for name, figures in found.items():
        cost = figures["cost"]
        told = trainings.get(name)
        work = f"{told['tokens']['computed']:,} | {told['seconds']['training']:.0f}" if told else " | "
        cells = [f"{measured(figures, one):.3f}" for one in MEASURES]
        size = f"{cost['parameters'] / 1e6:.0f} million | {cost['bytes'] / 1e6:,.0f}"
        lines.append(f"| {name} | {size} | {work} | {cost['tokens_a_second']:.1f} | {' | '.join(cells)} |")
    lines += [
        "",
        f"The same replies are likelier to the distilled student by {gained.value:.3f} nats a character "
        f"({gained.low:.3f} to {gained.high:.3f}, over conversations).",
        "",
        "Held-out loss of replies, nats a token, after each epoch:",
        "",
    ]
    for name, told in trainings.items():
        losses = ", ".join(f"{one['reply_loss']:.2f}" for one in told["evaluations"])
        lines.append(f"- {name}: {losses}")
    RESULT.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
