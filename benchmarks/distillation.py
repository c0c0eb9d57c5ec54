"""Does a student that is taught by a ghost keep more of the person than one trained on the person's lines alone?

    python -m benchmarks.distillation --scratch DIR

DIR is that of benchmarks.real_person. The teacher is SmolLM2-135M trained there by the recipe `conversations`; a
student has a third of its layers: of the teacher's, or, with other token ids, of the untrained base's, whose tokenizer
lost half of its merges. `direct` trains the student on the person's lines, by `ghost train`; `distilled` by `ghost
distill`. Both start from the same weights, at equal work in tokens that the student computes, to an epoch: what it runs
to sample its own replies counts, what the teacher runs does not.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import StatisticsError
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks.evaluation import value
from benchmarks.extraction import machine
from benchmarks.real_person import ROOT, TRAINING
from benchmarks.trainings import ghost
from ghost.demo import demo, real
from ghost.evaluation import evaluate
from ghost.evaluation.contenders import Contender
from ghost.evaluation.data import Estimate, Exchange, read_held_out, sample
from ghost.evaluation.intervals import ratio
from ghost.evaluation.likelihood import clusters, reply_nats
from ghost.evaluation.replies import run_contender
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, DEFAULT_LABELS
from replicate_deployment.engine import Engine
from replicate_deployment.tokenization import load_tokenizer
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning.data import read_split
from training.finetuning.distill import select_layers
from training.finetuning.packing import Plan

RESULT = Path(__file__).parent / "results" / "distillation.md"
TEACHER, DATA = "conversations-42", "0-conversations"
LAYERS = 10  # of 30
TOKENS = 24_576  # of 49,152
PAIRS = {"same ids": ("distilled", "direct"), "other ids": ("distilled-other", "direct-other")}
EPOCHS = {"same ids": 8, "other ids": 3}  # of `distilled`; with other ids an epoch has up to three times the lines
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
    held_out = read_held_out(args.scratch / "held_out" / "val.jsonl", CONTEXT_TURNS)
    exchanges = sample(held_out.exchanges, TURNS, 0)
    found = {"teacher": figures_of("teacher", teacher, args.out, exchanges)}
    for way, (distilled, direct) in PAIRS.items():
        base = args.out / f"{distilled}.base"
        if way == "other ids" and not base.exists():
            other_tokenizer(select_layers(real.fetch(ROOT / demo.REAL_CACHE)[0], LAYERS, base))
        train_pair(teacher, data, args.out, way, base)
        for name in (distilled, direct):
            if not (args.out / f"{name}-merged").exists():
                ghost("merge", args.out / name, "--base", base, "--out", args.out / f"{name}-merged")
            found[name] = figures_of(name, args.out / f"{name}-merged", args.out, exchanges)
    trainings = {name: report(args.out / name) for pair in PAIRS.values() for name in pair}
    gained = {way: gain(args.out, exchanges, *pair) for way, pair in PAIRS.items()}
    write(found, trainings, gained, args.out)
    print(RESULT.read_text(encoding="utf-8"))


def train_pair(teacher: Path, data: Path, out: Path, way: str, base: Path) -> None:
    distilled, direct = PAIRS[way]
    if not (out / distilled).exists():
        student = ("--student", base) if base.exists() else ("--layers", LAYERS)
        config, started = config_of(out, distilled, EPOCHS[way]), time.process_time()
        ghost("distill", teacher, *student, "--data", data, "--out", out / distilled, "--config", config, "--resume")
        (out / f"{distilled}.seconds").write_text(f"{time.process_time() - started:.0f}\n", encoding="utf-8")
    if not (out / direct).exists():
        split = read_split(data / "train.jsonl", load_tokenizer(base), ghost_json.read(data), config_with(1))
        epoch = sum(len(run.ids) for step in Plan(split, config_with(1)).steps() for run in step.segments)
        epochs = math.ceil(report(out / distilled)["tokens"]["computed"] / epoch)  # so it has a little more work
        config = config_of(out, direct, epochs)
        ghost("train", "--base", base, "--data", data, "--out", out / direct, "--config", config, "--resume")


def other_tokenizer(base: Path) -> None:
    """Leave the base the first TOKENS of its vocabulary: byte-level BPE numbers its tokens as they were merged, so the
    others are words that it now reads in pieces."""
    file, config = base / "tokenizer.json", json.loads((base / "config.json").read_text(encoding="utf-8"))
    model = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = {token: number for token, number in model["model"]["vocab"].items() if number < TOKENS}
    pairs = [one.split(" ") if isinstance(one, str) else one for one in model["model"]["merges"]]
    merges = [pair for pair in pairs if "".join(pair) in vocabulary]
    model["model"] |= {"vocab": vocabulary, "merges": merges}
    file.write_text(json.dumps(model, ensure_ascii=False), encoding="utf-8")
    weights = load_file(base / "model.safetensors")
    weights = {
        name: one[:TOKENS].clone() if one.shape[0] == config["vocab_size"] else one for name, one in weights.items()
    }
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": TOKENS}), encoding="utf-8")


def figures_of(name: str, folder: Path, out: Path, exchanges: Sequence[Exchange]) -> Any:
    path = out / f"{name}.json"
    if not path.exists():
        contender = Contender(name, Engine.load(folder, accelerate=False))
        result = run_contender(contender, exchanges, contender.engine.settings, SEED)
        figures = evaluate.contender_figures(result, None, exchanges, DEFAULT_LABELS, SEED)
        path.write_text(json.dumps(figures), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def gain(out: Path, exchanges: Sequence[Exchange], distilled: str, direct: str) -> Estimate:
    """By how many nats a character the same replies are likelier to `distilled` than to `direct`."""
    nats = {}
    for name in (distilled, direct):
        engine = Engine.load(out / f"{name}-merged", accelerate=False)
        nats[name] = [reply_nats(engine, one.context, one.reply).reply for one in exchanges]
    differences = [lines - taught for taught, lines in zip(nats[distilled], nats[direct], strict=True)]
    return ratio(differences, [len(one.reply) for one in exchanges], clusters(exchanges), SEED)


def config_with(epochs: int) -> TrainingConfig:
    # One conversation a step: a student without two thirds of its layers has to learn in many steps.
    keys = {**TRAINING, "seed": SEED, "train_on_inputs": False, "num_epochs": epochs, "micro_batch_size": 1}
    return dataclasses.replace(training_config.load(ROOT / demo.CONFIG), **keys)


def config_of(out: Path, name: str, epochs: int) -> Path:
    path = out / f"{name}.yaml"
    path.write_text(training_config.dump(config_with(epochs)), encoding="utf-8")
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


def verdict(found: Mapping[str, Any], way: str) -> str:
    distilled, direct = PAIRS[way]
    better = all(measured(found[distilled], one) < measured(found[direct], one) for one in DECIDING)
    return f"With {way}, distillation {'beats' if better else 'does not beat'} the direct student by the rule."


def write(found: Mapping[str, Any], trainings: Mapping[str, Any], gained: Mapping[str, Estimate], out: Path) -> None:
    lines = [
        "# A student of a third of the layers, taught or trained directly",
        "",
        "```",
        "python -m benchmarks.distillation --scratch DIR --out DIR",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}, shared with other work, so seconds "
        f"are rough. One seed, {TURNS} held-out replies. `other`: the tokenizer has {TOKENS:,} of 49,152 tokens.",
        "",
        "Rule, committed before the runs: the distilled student is better if it has both the lower loss a character "
        f"and the lower mean distance of style. {' '.join(verdict(found, way) for way in PAIRS)}",
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
    for way, (distilled, _) in PAIRS.items():
        one = gained[way]
        lines += [
            "",
            f"With {way}, the same replies are likelier to the distilled student by {one.value:.3f} nats a character "
            f"({one.low:.3f} to {one.high:.3f}, over conversations).",
        ]
        if replies := ghost_json.read(out / distilled).block("training")["config"]["distillation"]["teacher_replies"]:
            told = ", ".join(f"{number:,} {what}" for what, number in replies.items())
            seconds = int((out / f"{distilled}.seconds").read_text(encoding="utf-8"))
            lines += ["", f"Replies of the teacher: {told}; with them it took {seconds:,} CPU seconds."]
    lines += ["", "Held-out loss of replies, nats a token, after each epoch:", ""]
    for name, told in trainings.items():
        losses = ", ".join(f"{one['reply_loss']:.2f}" for one in told["evaluations"])
        lines.append(f"- {name}: {losses}")
    RESULT.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
