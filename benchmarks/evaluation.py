"""Do the measures of `ghost evaluate` measure? What they must put in order, they are held to.

    python -m benchmarks.evaluation --scratch DIR

Four models of one base answer the same held-out contexts of the sample's person: the base; one that learnt a quarter of
her training lines once (`little`); one that learnt all of them (`full`); and one that learnt as much of the same chats,
word for word but for her side, which somebody else's style wrote (`wrong`). The first three must come in that order,
and the wrong ghost must lose to the full one where style is all that tells them apart. Three seeds, of training and of
sampling.

They learn replies only (`train_on_inputs: false`). The recipe of record teaches a reply's end once a window and the
next tag three to six times, so there fewer replies end by themselves the more it has learnt, and are measured to: in a
trial of one seed and 80 replies 10% of the base's, 4% of `full`'s. In that trial `little` had learnt a tenth, and a
classifier told it from her as surely as the base (0.977 and 0.978). Both were changed before the run that counts.

The held-out replies are of other chats by the same people, since those of the demo's are too few. Whatever is finished
is kept in DIR, and a second start goes on.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks import trainings
from benchmarks.extraction import machine
from benchmarks.trainings import ROOT, ghost
from ghost import artifact
from ghost.demo import demo
from ghost.demo.people import NOA
from ghost.demo.starter import starter_base
from ghost.evaluation import evaluate
from ghost.evaluation.contenders import Contender, line_up
from ghost.evaluation.data import Exchange, read_held_out, sample
from ghost.evaluation.replies import Result, run_contender
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, DEFAULT_LABELS
from replicate_deployment.engine import Engine
from tests.ghost.demo.another import ROMY

RESULT = Path(__file__).parent / "results" / "evaluation.md"
SEEDS = (45, 46, 47)
TURNS = 200
HELD_OUT_SEED, HELD_OUT_MESSAGES = demo.SEED + 1, 16_000  # of which a tenth of the turns is held out
LITTLE = 4  # one line of so many
EPOCHS = {"little": 1, "full": 2, "wrong": 2}
CONTENDERS = ("base", "little", "full", "wrong")


class Measure(NamedTuple):
    """`ordered`: base, little and full must come in this order, on average over the seeds. `told`: in each seed the
    wrong ghost must be worse than the full one."""

    title: str
    lower_is_better: bool
    ordered: bool
    told: bool


# Committed before the run that they judge.
MEASURES = {
    "nats_per_token": Measure("loss of replies, nats a token", True, True, False),
    "nats_per_character": Measure("loss of replies, nats a character", True, True, False),
    "style": Measure("mean distance of the figures of style", True, True, True),
    # Asked of the first run (seeds 42 to 44), where nearly all were beyond it for each of the four: such a count tells
    # ghosts apart only near the person. Shown since, and judged by fresh seeds on the rest.
    "style_off": Measure("figures of style beyond her own variation", True, False, False),
    "authorship": Measure("authorship: area under the curve", True, True, True),
    "itself": Measure("replies that end by themselves", False, True, False),
    "context": Measure("gain by the true context, nats a token", False, False, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="some hundred megabytes; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="held-out replies (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    base = starter_base(ROOT / demo.CACHE)
    prepare(args.scratch, base)
    held_out = read_held_out(args.scratch / "held_out" / "val.jsonl", CONTEXT_TURNS)
    exchanges = sample(held_out.exchanges, args.turns, 0)
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        path = args.scratch / f"{seed}-{args.turns}.json"
        if not path.exists():
            path.write_text(json.dumps(run(args.scratch, base, exchanges, seed), indent=2), encoding="utf-8")
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    args.out.write_text(page(rows, exchanges, args.seeds), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    if failures(rows):
        raise SystemExit("; ".join(failures(rows)))


def prepare(scratch: Path, base: Path) -> None:
    """`full`, `wrong` and `held_out`, prepared; `little`, some lines of `full`."""
    for name, person, seed, messages in (
        ("full", NOA, demo.SEED, demo.MESSAGES),
        ("wrong", ROMY, demo.SEED, demo.MESSAGES),
        ("held_out", NOA, HELD_OUT_SEED, HELD_OUT_MESSAGES),
    ):
        trainings.prepare(scratch / name, person, base, seed=seed, messages=messages)
    if not (scratch / "little").exists():
        some(scratch / "full", scratch / "little")


def some(whole: Path, part: Path) -> None:
    """A prepared folder with every line of `whole`'s val.jsonl and one of LITTLE of its train.jsonl, drawn by lot."""
    part.mkdir()
    lines = (whole / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = sorted(random.Random(0).sample(range(len(lines)), len(lines) // LITTLE))
    (part / "train.jsonl").write_text("".join(lines[place] for place in kept), encoding="utf-8")
    (part / "val.jsonl").write_bytes((whole / "val.jsonl").read_bytes())
    hashes = {f"{name}_sha256": ghost_json.sha256(part / f"{name}.jsonl") for name in ("train", "val")}
    facts = ghost_json.read(whole).facts
    artifact.write(part, None, text=facts["text"], data={"counts": {"train_lines": len(kept)}, **hashes})


def train(scratch: Path, name: str, base: Path, seed: int) -> Path:
    """The merged model."""
    folder = scratch / f"{name}-{seed}"
    merged = folder / "merged"
    if not merged.exists():
        changes = {"seed": seed, "train_on_inputs": False, "num_epochs": EPOCHS[name]}
        adapter = trainings.train(folder, scratch / name, base, **changes)
        ghost("merge", adapter, "--base", base, "--out", merged)
    return merged


def run(scratch: Path, base: Path, exchanges: Sequence[Exchange], seed: int) -> dict[str, Any]:
    """The figures of each contender, and of the person beside herself."""
    models = {name: train(scratch, name, base, seed) for name in CONTENDERS[1:]}
    judged: dict[str, Result] = {}
    seconds: dict[str, float] = {}
    for contender in line_up(models["full"], None, str(base), (), {}):
        if contender.kind in ("merged", "base"):
            started = time.monotonic()
            name = "full" if contender.kind == "merged" else "base"
            judged[name] = run_contender(contender, exchanges, contender.engine.settings, seed)
            seconds[name] = round(time.monotonic() - started, 1)
        del contender
    for name in ("little", "wrong"):
        engine = Engine.load(models[name])
        judged[name] = run_contender(Contender("merged", engine), exchanges, engine.settings, seed)
    found = {
        name: evaluate.contender_figures(judged[name], judged["base"], exchanges, DEFAULT_LABELS, seed)
        for name in CONTENDERS
    }
    return {"contenders": found, "person": evaluate.person_figures(exchanges, DEFAULT_LABELS, seed), "seconds": seconds}


def value(found: Mapping[str, Any], measure: str) -> float:
    """One figure of a contender."""
    style = found["style"].values()
    values: dict[str, Any] = {
        "nats_per_token": lambda: found["likelihood"]["nats_per_token"]["value"],
        "nats_per_character": lambda: found["likelihood"]["nats_per_character"]["value"],
        "style": lambda: fmean(one["distance"] for one in style),
        "style_off": lambda: sum(one["off"] for one in style),
        "authorship": lambda: found["authorship"]["value"],
        "itself": lambda: found["stopping"]["itself"]["value"],
        "labels": lambda: found["stopping"]["other_labels"]["value"],
        "context": lambda: found["context"]["gain"]["value"],
    }
    return float(values[measure]())


def floor(row: Mapping[str, Any], measure: str) -> float | None:
    """The same of the person's own replies, where there is such a thing."""
    if measure == "style":
        return fmean(one["floor"] for one in row["contenders"]["full"]["style"].values())
    if measure == "authorship":
        return float(row["person"]["authorship"]["themselves"]["value"])
    return None


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the measures did not put in the order that MEASURES asks for."""
    found = []
    for key, measure in MEASURES.items():
        sign = 1 if measure.lower_is_better else -1
        base, little, full = (sign * mean(rows, name, key) for name in CONTENDERS[:3])
        if measure.ordered and not base > little > full:
            found.append(f"{measure.title}: not in the order base, little, full")
        lost = [
            sign * (value(row["contenders"]["wrong"], key) - value(row["contenders"]["full"], key)) > 0 for row in rows
        ]
        if measure.told and not all(lost):
            found.append(f"{measure.title}: the wrong ghost was not worse in {lost.count(False)} of {len(rows)} seeds")
    return found


def mean(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> float:
    return fmean(value(row["contenders"][name], key) for row in rows)


def page(rows: Sequence[Mapping[str, Any]], exchanges: Sequence[Exchange], seeds: Sequence[int]) -> str:
    verdict = failures(rows)
    seconds = fmean(sum(row["seconds"].values()) for row in rows)
    lines = [
        "# Do the measures measure?",
        "",
        "```",
        "python -m benchmarks.evaluation --scratch DIR",
        "```",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}. {len(exchanges)} held-out replies; "
        f"seeds {', '.join(map(str, seeds))}. `little` learnt one of {LITTLE} lines once, `full` all of them "
        f"{EPOCHS['full']} times, `wrong` the same chats in another person's style; replies only. Base and full "
        f"together took {seconds:,.0f} s for likelihoods and replies.",
        "",
        f"Rule, committed before the run: base > little > full wherever `order` says so, on average over the seeds; "
        f"wrong worse than full in each seed wherever `wrong` says so. **{'Failed' if verdict else 'Passed'}.**",
        *(f"- {one}" for one in verdict),
        "",
        "| measure | yourself | base | little | full | wrong ghost | order | wrong |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(rows, key, measure) for key, measure in MEASURES.items()),
        "",
        "Means over the seeds; in brackets the least and the most. *Yourself* is the person's distance from herself, "
        "by two halves of her own replies.",
        "",
        "## Each figure of style",
        "",
        "| figure | yourself | base | little | full | wrong ghost |",
        "|---|---|---|---|---|---|",
        *(_style_row(rows, key) for key in rows[0]["contenders"]["full"]["style"]),
        "",
    ]
    return "\n".join(lines)


def _row(rows: Sequence[Mapping[str, Any]], key: str, measure: Measure) -> str:
    floors = [one for row in rows if (one := floor(row, key)) is not None]
    cells = [_spread(floors)] + [_spread([value(row["contenders"][name], key) for row in rows]) for name in CONTENDERS]
    marks = ["must" if wanted else "" for wanted in (measure.ordered, measure.told)]
    return f"| {' | '.join([measure.title, *cells, *marks])} |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _style_row(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    title = rows[0]["contenders"]["full"]["style"][key]["title"]
    floors = fmean(row["contenders"]["full"]["style"][key]["floor"] for row in rows)
    cells = [fmean(row["contenders"][name]["style"][key]["distance"] for row in rows) for name in CONTENDERS]
    return f"| {title} | {floors:.3f} | {' | '.join(f'{cell:.3f}' for cell in cells)} |"


if __name__ == "__main__":
    main()
