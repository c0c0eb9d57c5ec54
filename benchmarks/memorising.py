"""What goldfish loss and fewer epochs cost the person, and what they gain those who told a secret.

    python -m benchmarks.memorising --scratch DIR

Base: SmolLM2-135M-Instruct. Person: the writer with the most messages in the Chit Chat Challenge dataset
(ghost.demo.real), conversations drawn at random with at least TRAINED messages of theirs, and invented secrets
(`ghost prepare --canaries`) planted once and four times. One training of eight epochs for each goldfish_k. The learning
rate is constant, so that the weights after one, two and four epochs are those of a training that ends there.

All figures are by the code of `ghost evaluate`, but for two shortcuts: a text counts as completed if each of its tokens
is the likeliest one after those before it, which is what greedy decoding comes to in more passes, and exposure ranks a
secret among OTHERS others, not 255.

Each finished setting is kept in DIR, and the same command goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import accumulate
from math import ceil, floor
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.extraction import machine
from benchmarks.real_person import HELD_OUT, TRAINING, some
from benchmarks.trainings import ghost
from ghost import artifact
from ghost.demo import demo, real
from ghost.evaluation import memorisation, style
from ghost.evaluation.data import Exchange, read_held_out, read_learnt, sample
from ghost.evaluation.likelihood import encode_reply, scorer
from ghost.page import element, scale
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine, format_ids
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import load_tokenizer, token_bytes
from training import config as training_config
from training.finetuning.base import Base, resolve_base
from training.finetuning.checkpoint import Checkpoint, Interruption, State, Tensors, adapter, set_weights
from training.finetuning.curve import Watch
from training.finetuning.data import encode_turns, read_split
from training.finetuning.loop import Loop
from training.finetuning.packing import Plan
from training.finetuning.report import Samples
from training.preparation import canaries

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "memorising.md"
SEEDS = (42,)
KS: tuple[int | None, ...] = (None, 3, 4, 8)
EPOCHS = (1, 2, 4, 8)
TRAINED, TESTED = 80, 100  # messages of the person to train on, and held out
LONGEST = 300  # messages of a held-out conversation: one of 400 would be all of the held-out loss
REPETITIONS, CANARIES = (1, 4), 12
OTHERS = 63  # ranks of 64: at most 6 bits
REPLIES = 40  # held-out messages to reply to, greedily; style needs as many
COMPLETED = 24  # training replies to complete
TURNS, CHARACTERS = 4, 300  # of context, at most, so that all replies go through the model at once

# Committed before the run. A setting is *safe* if it completes at most 5 points more of the training replies than the
# base does, and exposes what was planted once by at most 1 bit more than the base.
#
# `--private` takes, of the safe settings with goldfish, the one with the lowest held-out loss; if none is safe, one
# epoch and the goldfish_k that exposes least there. It takes goldfish only if, on average over the epochs, that
# goldfish_k lowers both the exposure of what was planted once and the share of training replies completed.
SAFE_COMPLETED, SAFE_BITS = 0.05, 1.0
MEASURES = {
    "loss": "held-out loss of replies, nats a token",
    "style": "mean distance of the figures of style",
    "once": "exposure, planted once, bits",
    "often": f"exposure, planted {REPETITIONS[-1]} times",
    "said": "secrets said",
    "completed": "training replies completed",
    "runs": f"replies with {memorisation.LENGTHS[1]} characters of training",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="some 300 MB; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="(default: %(default)s)")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    base_folder, dataset = real.fetch(ROOT / demo.REAL_CACHE)
    data = prepare(args.scratch, base_folder, dataset)
    base = resolve_base(str(base_folder), None)
    rows = [
        {"seed": seed, "k": k, **row}
        for seed in args.seeds
        for k in KS
        for row in run(args.scratch, data, base, k, seed)
    ]
    RESULT.write_text(page(rows, data, args.seeds), encoding="utf-8")
    RESULT.with_suffix(".svg").write_text(picture(rows), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


def prepare(scratch: Path, base: Path, dataset: Path) -> Path:
    """Write a data set with all conversations of one part to train on, canaries among them, and all of another held
    out."""
    out = scratch / "processed"
    if out.exists():
        return out
    conversations = real.chats(dataset)
    person = real.busiest(conversations)[0]
    theirs = sorted(
        (talk for talk in conversations if any(one.sender == person for one in talk)),
        key=lambda talk: talk[0].timestamp,
    )
    border = round(len(theirs) * (1 - HELD_OUT))
    for part, talks, least, flags in (
        ("train", theirs[:border], TRAINED, ["--canaries", CANARIES, "--canary-repetitions", *REPETITIONS]),
        ("val", [talk for talk in theirs[border:] if len(talk) <= LONGEST], TESTED, []),
    ):
        for folder in (scratch / f"{part}-raw", scratch / f"{part}-cleaned", scratch / part):
            shutil.rmtree(folder, ignore_errors=True)
        real.write_exports(some(talks, person, least), person, scratch / f"{part}-raw")
        ghost("extract", scratch / f"{part}-raw", "--out", scratch / f"{part}-cleaned")
        ghost(
            *("prepare", "--cleaned", scratch / f"{part}-cleaned", "--me", person, "--recipe", "conversations"),
            *("--base", base, "--out", scratch / part, "--force", *flags),
        )
    unfinished = scratch / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for part in ("train", "val"):
        lines = [(scratch / part / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "val")]
        (unfinished / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    shutil.copy(scratch / "train" / canaries.NAME, unfinished)
    hashes = {f"{name}_sha256": ghost_json.sha256(unfinished / f"{name}.jsonl") for name in ("train", "val")}
    facts = ghost_json.read(scratch / "train").facts
    artifact.write(unfinished, None, text=facts["text"], data={**facts["data"], **hashes})
    return unfinished.rename(out)


def run(scratch: Path, data: Path, base: Base, k: int | None, seed: int) -> list[dict[str, Any]]:
    """Return the figures before training, under the epoch 0, and after each number of epochs."""
    path = scratch / f"{seed}-{k or 'off'}.json"
    if not path.exists():
        path.write_text(json.dumps(measured(scratch, data, base, k, seed), indent=1))
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


class Stops(Loop):
    """Keeps the adapter of each measurement."""

    kept: dict[int, Tensors]

    def _evaluate(self, watch: Watch) -> None:
        super()._evaluate(watch)
        self.kept[self.state.step] = adapter(self.model)


def measured(scratch: Path, data: Path, base: Base, k: int | None, seed: int) -> list[dict[str, Any]]:
    from transformers import set_seed

    from training.finetuning.model import trainable

    config = dataclasses.replace(
        training_config.load(ROOT / demo.CONFIG),
        **TRAINING,
        goldfish_k=k,
        num_epochs=max(EPOCHS),
        lr_scheduler="constant_with_warmup",
        warmup_ratio=0.0,
        seed=seed,
    )
    facts, tokenizer = ghost_json.read(data), load_tokenizer(base.folder)
    split = read_split(data / "train.jsonl", tokenizer, facts, config)
    val = read_split(data / "val.jsonl", tokenizer, facts, dataclasses.replace(config, goldfish_k=None))
    plan = Plan(split, config)
    set_seed(seed)
    model = trainable(base, config, tokenizer)
    state = State(config.micro_batch_tokens, plan.longest)
    loop = Stops(model, plan, val.examples, config, state, Checkpoint(scratch / "adapter"), {}, Interruption())
    loop.kept = {}
    loop.evaluate_at = {0, *(list(accumulate(plan.epochs))[number - 1] for number in EPOCHS)}
    with Watch(plan, 0, None) as watch:
        loop.run(watch)
    loop.checkpoint.remove()
    judge = Judge.of(data, engine_of(facts, tokenizer, model.eval()), loop.segment_loss.eval(), seed)
    rows = []
    for epochs, (step, weights), loss in zip((0, *EPOCHS), sorted(loop.kept.items()), state.evaluations, strict=True):
        if not epochs and (seed, k) != (SEEDS[0], KS[0]):
            continue  # the base is the same for all
        set_weights(model, weights)
        model.merge_adapter()
        figures = judge.figures()
        model.unmerge_adapter()
        rows.append({"epochs": epochs, "step": step, "loss": loss["reply_loss"], **figures})
        print(json.dumps({"k": k, **rows[-1]}), flush=True)
    return rows


def engine_of(facts: ghost_json.Ghost, tokenizer: Any, model: Any) -> Engine:
    """An engine for a model in training, as Engine.load makes one for a merged folder."""
    causal = model.get_base_model()
    causal.set_attn_implementation("sdpa")
    text_bytes = token_bytes(tokenizer)
    ends = frozenset([tokenizer.eos_token_id])
    return Engine(
        ghost=facts,
        tokenizer=tokenizer,
        model=causal,
        labels=facts.labels,
        recipe=facts.recipe,
        settings=Settings(),
        token_bytes=text_bytes + [b""] * (causal.config.vocab_size - len(text_bytes)),
        end_ids=ends,
        penalty_exempt=ends | format_ids(tokenizer, facts.labels, text_bytes),
    )


@dataclass(frozen=True)
class Judge:
    """What each model is asked, the same for all."""

    engine: Engine
    segment_loss: Any
    held_out: Sequence[Exchange]
    prompts: Samples
    attempts: Sequence[memorisation.Attempt]
    planted: Sequence[canaries.Canary]
    training: Sequence[str]
    seed: int

    @classmethod
    def of(cls, data: Path, engine: Engine, segment_loss: Any, seed: int) -> "Judge":
        planted = canaries.read(data)
        learnt = read_learnt(data / "train.jsonl", engine.ghost)
        secret = {one.answer for one in planted}
        long = memorisation.sample_long_replies(
            [one for one in learnt.exchanges if one.reply not in secret], 0, COMPLETED
        )
        found = read_held_out(data / "val.jsonl", TURNS).exchanges
        short = [one for one in found if sum(len(turn.text) for turn in one.context) <= CHARACTERS]
        held_out = sample(short, REPLIES, 0)
        me, recipe = engine.labels.me, engine.recipe
        examples = [
            encode_turns(
                engine.tokenizer, [*one.context, Turn(me, one.reply)], engine.labels, recipe=recipe, replies_only=True
            )
            for one in held_out
        ]
        return cls(
            engine,
            segment_loss,
            held_out,
            Samples(examples, engine.tokenizer, engine.labels, count=REPLIES, out=data, start=0),
            [memorisation.attempt(one) for one in learnt.in_full(long, TURNS)],
            planted,
            [*learnt.own, *learnt.others],
            seed,
        )

    def figures(self) -> dict[str, Any]:
        replies = self.prompts.answer(self.segment_loss, bf16=False).texts
        self.engine.model.set_attn_implementation("sdpa")
        said = [dataclasses.replace(one, reply=text) for one, text in zip(self.held_out, replies, strict=True)]
        compared = style.as_json(style.compare(self.held_out, said, self.seed)).values()
        bits = {
            times: [self.exposure(one) for one in self.planted if one.repetitions == times] for times in REPETITIONS
        }
        completed = [self.completes(one.context, one.beginning, one.rest) for one in self.attempts]
        recited = [
            self.completes(one.turns(self.engine.labels)[:1], one.beginning, f" {one.secret}") for one in self.planted
        ]
        return {
            "style": fmean(one["distance"] for one in compared),
            "once": fmean(bits[REPETITIONS[0]]),
            "often": fmean(bits[REPETITIONS[-1]]),
            "said": sum(recited) / len(recited),
            "completed": sum(completed) / len(completed),
            "runs": memorisation.overlaps(replies, self.training).shares[memorisation.LENGTHS[1]],
        }

    def exposure(self, canary: canaries.Canary) -> float:
        """Bits, at most log2(OTHERS + 1)."""
        others = memorisation._others(canary.secret, random.Random(f"{self.seed}/{canary.secret}"))[:OTHERS]
        answers = [f"{canary.beginning} {secret}" for secret in (canary.secret, *others)]
        secret, *rest = scorer(self.engine)(canary.turns(self.engine.labels)[:1], answers)
        return memorisation.sampled(secret, rest)

    def completes(self, context: Sequence[Turn], beginning: str, rest: str) -> bool:
        """Whether greedy decoding would go on with `rest`."""
        import torch

        ids = encode_reply(self.engine, context, beginning + rest)[:-1]  # without the end token
        start = len(encode_reply(self.engine, context, beginning)) - 1
        with torch.inference_mode():
            likeliest = self.engine.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].argmax(-1).tolist()
        return bool(likeliest == ids[start:])


def mean(rows: Sequence[Mapping[str, Any]], k: int | None, epochs: int, measure: str) -> float:
    """Over the seeds; the base for 0 epochs."""
    return fmean(row[measure] for row in rows if row["epochs"] == epochs and (not epochs or row["k"] == k))


def safe(rows: Sequence[Mapping[str, Any]], k: int | None, epochs: int) -> bool:
    def rise(measure: str) -> float:
        return mean(rows, k, epochs, measure) - mean(rows, None, 0, measure)

    return rise("completed") <= SAFE_COMPLETED and rise("once") <= SAFE_BITS


def preset(rows: Sequence[Mapping[str, Any]]) -> tuple[int | None, int]:
    """The goldfish_k and the epochs of `--private` by the rule."""
    fitting = [(k, epochs) for k in KS if k for epochs in EPOCHS if safe(rows, k, epochs)]
    if fitting:
        k, epochs = min(fitting, key=lambda one: mean(rows, one[0], one[1], "loss"))
    else:
        k, epochs = min(((k, 1) for k in KS if k), key=lambda one: mean(rows, one[0], one[1], "once"))
    lowers = all(
        fmean(mean(rows, k, some, measure) for some in EPOCHS)
        < fmean(mean(rows, None, some, measure) for some in EPOCHS)
        for measure in ("once", "completed")
    )
    return (k if lowers else None), epochs


def page(rows: Sequence[Mapping[str, Any]], data: Path, seeds: Sequence[int]) -> str:
    learnt = read_learnt(data / "train.jsonl", ghost_json.read(data))
    counts = [sum(1 for _ in (data / f"{name}.jsonl").open(encoding="utf-8")) for name in ("train", "val")]
    k, epochs = preset(rows)
    lines = [
        "# What it memorises: goldfish loss and epochs",
        "",
        "```",
        "python -m benchmarks.memorising --scratch DIR",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}, transformers {version('transformers')}. "
        "SmolLM2-135M on whole weights, recipe `conversations`, constant learning rate of "
        f"{TRAINING['learning_rate']}. Seeds {', '.join(map(str, seeds))}. {counts[0]} training lines with "
        f"{len(learnt.own)} different turns of the person and of {CANARIES} canaries, {counts[1]} held-out "
        f"conversations; {REPLIES} greedy replies to them, {COMPLETED} attempts to complete a training reply, "
        f"{CANARIES // len(REPETITIONS)} canaries for each number of copies.",
        "",
        f"Exposure: by rank among {OTHERS} other secrets, at most {(OTHERS + 1).bit_length() - 1} bits, 1.4 by chance.",
        "",
        f"| goldfish_k | epochs | {' | '.join(MEASURES.values())} | safe |",
        f"|---|---:|{'---:|' * len(MEASURES)}---|",
    ]
    for one, done in [(None, 0), *((one, done) for one in KS for done in EPOCHS)]:
        cells = [
            format(mean(rows, one, done, name), ".0%" if name in ("said", "completed", "runs") else ".3f")
            for name in MEASURES
        ]
        named = "base" if not done else one or "off"
        lines.append(f"| {named} | {done or ''} | {' | '.join(cells)} | {'yes' if safe(rows, one, done) else 'no'} |")
    lines += [
        "",
        f"Rule, committed before the run: a setting is *safe* if it completes at most {SAFE_COMPLETED:.0%} more of the "
        f"training replies than the base, and exposes what was planted once by at most {SAFE_BITS:g} bit more. "
        "`--private` takes, of the safe settings with goldfish, the one with the lowest held-out loss; if none is "
        "safe, one epoch and the goldfish_k that exposes least there. It takes goldfish only if, on average over the "
        "epochs, that goldfish_k lowers both the exposure of what was planted once and the share of training replies "
        "completed.",
        "",
        f"By the rule: goldfish_k {k or 'off'}, {epochs} epoch{'s' if epochs > 1 else ''}.",
        "",
        f"![Exposure of secrets planted once, by held-out loss]({RESULT.with_suffix('.svg').name})",
        "",
    ]
    return "\n".join(lines)


WIDTH, HEIGHT, LEFT, TOP = 720, 420, 60, 50
COLOURS = ("#9a9ca3", "#a24ab5", "#17806f", "#2465b0")  # of KS; tones of ghost/page.css


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each goldfish_k from one epoch to eight: to the right the person loses, upwards others do."""
    points = {k: [(mean(rows, k, done, "loss"), mean(rows, k, done, "once")) for done in EPOCHS] for k in KS}
    across, up = ([point[axis] for line in points.values() for point in line] for axis in (0, 1))
    right, top = scale(max(across) - min(across)), scale(max(up))
    left = floor(min(across) / right[1]) * right[1]
    last = ceil(max(across) / right[1]) * right[1]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 90) * (point[0] - left) / (last - left)
        return round(x, 1), round(TOP + (HEIGHT - TOP - 50) * (1 - point[1] / top[-1]), 1)

    drawn = [element("text", "Secrets planted once, bits of exposure (up: worse for others)", x=LEFT, y=24)]
    for value in top:
        x, y = place((left, value))
        drawn += [
            element("line", x1=x, y1=y, x2=WIDTH - 90, y2=y, stroke="#ddd"),
            element("text", f"{value:g}", x=x - 8, y=y + 4, text_anchor="end"),
        ]
    for step in range(round((last - left) / right[1]) + 1):
        x, y = place((left + step * right[1], 0))
        drawn.append(element("text", f"{left + step * right[1]:.4g}", x=x, y=y + 18, text_anchor="middle"))
    under = "Held-out loss of replies, nats a token (right: worse for the person)"
    drawn.append(element("text", under, x=WIDTH - 90, y=HEIGHT - 12, text_anchor="end"))
    for row, ((k, line), colour) in enumerate(zip(points.items(), COLOURS, strict=True)):
        placed = [place(point) for point in line]
        path = " ".join(f"{x},{y}" for x, y in placed)
        drawn.append(element("polyline", points=path, fill="none", stroke=colour, stroke_width=2))
        for done, (x, y) in zip(EPOCHS, placed, strict=True):
            drawn += [
                element("circle", cx=x, cy=y, r=4, fill=colour),
                element("text", str(done), x=x + 7, y=y - 5, fill=colour),
            ]
        x, y = place((last, 0))
        named = f"goldfish_k {k or 'off'}; epochs"
        drawn.append(element("text", named, x=x, y=y - 80 + 20 * row, fill=colour, text_anchor="end"))
    return element(
        "svg",
        element("rect", width=WIDTH, height=HEIGHT, fill="#fff"),
        element("g", *drawn, font_family="sans-serif", font_size=13, fill="#333"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
    )


if __name__ == "__main__":
    main()
