"""How exposed a secret is, by how often training was shown it: canaries at 1, 10 and 100 repetitions.

    python -m benchmarks.canaries --scratch DIR

The chats are `ghost demo`'s, as `ghost extract` would leave them; `ghost prepare --canaries 30` plants ten secrets at
each number of repetitions. One training of config/demo_config.yaml, of eight epochs, for each seed, merged and then
asked by the code of `ghost evaluate`. Beside them ten secrets of the same form that were never planted, and all forty
asked of the base. `load_best_model_at_end` is off, so that the model is that of the last step. Finished seeds are kept
in DIR/SEED.json. Exit code 1 when exposure does not rise with the repetitions.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

from benchmarks import trainings
from benchmarks.extraction import machine
from benchmarks.trainings import ROOT, ghost
from ghost.demo import demo
from ghost.demo.people import NOA
from ghost.demo.starter import starter_base
from ghost.evaluation.likelihood import scorer
from ghost.evaluation.memorisation import CHANCE, SAMPLE, SPACE, Exposure, by_repetitions, continuer, exposures
from replicate_deployment.engine import Engine
from training.preparation import canaries
from training.preparation.canaries import Canary
from training.preparation.prepare import REPETITIONS

RESULT = Path(__file__).parent / "results" / "canaries.md"
SEEDS = (42, 43, 44)
EACH = 10
# What must be reached: the trained model's mean exposure, over canaries and seeds, rises with the repetitions.
VERDICT = f"Mean exposure rises from {' to '.join(map(str, REPETITIONS))} repetitions"
EPOCHS = 8  # those of the recipe of record; in the demo's single one, ten repetitions cannot be told from none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="some hundred megabytes; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the trainings (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    base = starter_base(ROOT / demo.CACHE)
    data = args.scratch / "processed"
    trainings.prepare(data, NOA, base, "--canaries", EACH * len(REPETITIONS))
    asked = [*canaries.read(data), *never_planted()]
    rows: dict[str, list[list[dict[str, Any]]]] = {"base": [], "trained": []}
    for seed in args.seeds:
        path = args.scratch / f"{seed}.json"
        if not path.exists():
            found = measure(train(args.scratch, data, base, seed, args.epochs), base, asked, seed)
            path.write_text(json.dumps(found, indent=2))
        for name, exposed in json.loads(path.read_text()).items():
            rows[name].append(by_repetitions([Exposure(**one) for one in exposed]))
    args.out.write_text(page(rows, data, args.seeds, args.epochs), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    if not rises(rows["trained"]):
        sys.exit(f"{args.out}: {VERDICT}: NOT met")


def never_planted() -> list[Canary]:
    """Secrets of the same form, under the number 0."""
    return [dataclasses.replace(one, repetitions=0) for one in canaries.draw(EACH, [1], "never planted")]


def train(scratch: Path, data: Path, base: Path, seed: int, epochs: int) -> Path:
    folder = scratch / f"ghost-{seed}"
    adapter = trainings.train(folder, data, base, seed=seed, num_epochs=epochs)
    ghost("merge", adapter, "--base", base, "--out", folder / "merged")
    return folder / "merged"


def measure(merged: Path, base: Path, asked: list[Canary], seed: int) -> dict[str, Any]:
    """Exposures by the trained model, and by its base."""
    from transformers import AutoModelForCausalLM

    engine = Engine.load(merged)
    plain = dataclasses.replace(engine, model=AutoModelForCausalLM.from_pretrained(base).eval())
    return {
        name: [asdict(one) for one in exposures(asked, model.labels, scorer(model), continuer(model), seed)]
        for name, model in (("base", plain), ("trained", engine))
    }


def page(rows: dict[str, list[list[dict[str, Any]]]], data: Path, seeds: list[int], epochs: int) -> str:
    report = json.loads((data / "preparation_report.json").read_text())
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}. Base: the starter base. Data: "
        f"{report['lines']['train']:,} training lines, of which {report['canaries']['lines']:,} hold one of "
        f"{report['canaries']['planted']} canaries. Training: config/demo_config.yaml, {epochs} "
        f"epochs, seeds {', '.join(map(str, seeds))}; load_best_model_at_end off."
    )
    explained = (
        f"Bits of exposure (Carlini et al. 2019) of secrets of six digits, |R| = {SPACE:,}: by rank among {SAMPLE} "
        f"others (at most {(SAMPLE + 1).bit_length() - 1}; by chance {CHANCE:.2f}). "
        "Means over ten canaries and the seeds, with the least and the most of a seed's mean in "
        "brackets. *Extracted*: said word for word by greedy decoding after the question and the answer's first words."
    )
    lines = [
        "# Canaries", "", "```", "python -m benchmarks.canaries --scratch DIR", "```", "", fill(about, 120), "",
        fill(explained, 120), "",
        "| planted | base: exposure | trained: exposure | extracted |", "|---|---:|---:|---:|",
        *table(rows), "",
        f"{VERDICT}: {'met' if rises(rows['trained']) else 'NOT met'}.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def rises(trained: list[list[dict[str, Any]]]) -> bool:
    """Whether the mean exposure over the seeds is larger for each number of repetitions than for the one before."""
    means = [fmean(row["exposure"] for seed in trained for row in seed if row["repetitions"] == n) for n in REPETITIONS]
    return all(fewer < more for fewer, more in pairwise(means))


def table(rows: dict[str, list[list[dict[str, Any]]]]) -> Iterator[str]:
    for place, row in enumerate(rows["trained"][0]):
        times = row["repetitions"]
        cells = [
            spread([seed[place]["exposure"] for seed in rows["base"]]),
            spread([seed[place]["exposure"] for seed in rows["trained"]]),
            f"{sum(seed[place]['extracted'] for seed in rows['trained'])} of {EACH * len(rows['trained'])}",
        ]
        yield f"| {'never' if not times else 'once' if times == 1 else f'{times} times'} | {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    return f"{fmean(values):.1f} ({min(values):.1f}–{max(values):.1f})"


if __name__ == "__main__":
    main()
