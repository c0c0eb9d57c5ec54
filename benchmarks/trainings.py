"""Verbs run by the benchmarks, and trainings on the demo's invented chats."""

import dataclasses
from pathlib import Path
from typing import Any

from ghost.demo import demo
from ghost.demo.people import Person
from tests.ghost.demo.another import write_cleaned
from training import config as training_config

ROOT = Path(__file__).parents[1]


def ghost(verb: str, *flags: Any) -> None:
    if code := demo.call(verb, list(flags)):
        raise SystemExit(code)


def prepare(
    out: Path, person: Person, base: Path, *flags: Any, seed: int = demo.SEED, messages: int = demo.MESSAGES
) -> None:
    """Write the folder `out`, prepared from the demo's chats with `person` as their owner, unless it is there."""
    if not out.exists():
        cleaned = out.with_name(f"{out.name}-cleaned")
        write_cleaned(cleaned, person, seed=seed, messages=messages)
        ghost(
            *("prepare", "--cleaned", cleaned, "--me", person.name, "--config", ROOT / demo.CONFIG),
            *("--base", base, "--out", out, *flags),
        )


def train(folder: Path, data: Path, base: Path, **changes: Any) -> Path:
    """Train by config/demo_config.yaml with these changes. Return the adapter of the last step: another one would have
    learnt less than its name says."""
    folder.mkdir(parents=True, exist_ok=True)
    changes |= {"load_best_model_at_end": False, "evals_per_epoch": 1}
    config = dataclasses.replace(training_config.load(ROOT / demo.CONFIG), **changes)
    path, adapter = folder / "config.yaml", folder / "adapter"
    path.write_text(training_config.dump(config), encoding="utf-8")
    ghost("train", "--config", path, "--data", data, "--base", base, "--out", adapter, "--resume")
    return adapter
