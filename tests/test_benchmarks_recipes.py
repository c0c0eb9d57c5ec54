"""The benchmark of the recipes: its figures, and that it goes on where it was stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipe_runs, recipes
from benchmarks.recipe_runs import RATES, SEEDS, WAYS, Run, Runs, equal_work
from training.finetuning.base import Base


def test_the_distinct_share_is_of_the_first_words_and_never_across_replies() -> None:
    said = ["a b a", "a b"]
    assert recipes.distinct(said, 1, 100) == 2 / 5
    assert recipes.distinct(said, 2, 100) == 2 / 3  # a b, b a, a b
    assert recipes.distinct(said, 1, 2) == 1
    assert recipes.distinct(["A", "a"], 1, 2) == 1 / 2
    assert recipes.distinct(["a"], 2, 1) == 0


def test_a_loss_is_of_all_tokens_together_whatever_the_replies_lengths() -> None:
    nats = [(6.0, 2, 1.0), (2.0, 4, 3.0)]  # nats of the text, its tokens, nats of the end token
    assert recipes.loss(nats) == 12 / 8
    assert recipes.loss_of_text(nats) == 8 / 6
    assert recipes.loss_of_end(nats) == 2


def test_a_learning_rate_is_chosen_by_other_chats_and_only_when_all_were_tried() -> None:
    def line(recipe: Any, whole: bool, rate: float, other: float) -> dict[str, Any]:
        run = Run(recipe, whole, equal_work(recipe), rate, SEEDS[0])
        return {"run": vars(run), "losses": [(-other, 1, 0.0)], "other": [(other, 1, 0.0)]}

    sweep = [line(*WAYS[0], rate, abs(rate - RATES[2])) for rate in RATES]
    sweep[0] = {"run": sweep[0]["run"], "refused": True}
    sweep += [line(*WAYS[2], rate, rate) for rate in RATES[1:]]
    assert list(recipes.best(sweep)) == [Run(*WAYS[0], 1, RATES[2], seed) for seed in SEEDS]


def test_a_run_is_kept_and_half_a_line_of_a_killed_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe in ("windows", "conversations"):
        (tmp_path / "sample" / recipe).mkdir(parents=True)
        (tmp_path / "sample" / recipe / "train.jsonl").write_text("{}\n")
    base, first, second = Base(tmp_path, "base", "local", "0" * 64), *(Run(*WAYS[0], 1, 0.1, seed) for seed in (1, 2))
    done = []

    def do(run: Run, *_: Any, **__: Any) -> dict[str, Any]:
        done.append(run)
        return {"run": vars(run), "alone": []}

    monkeypatch.setattr(recipe_runs, "do", do)
    assert len(Runs(tmp_path, base, 1).of([first, second], answering=True)) == 1
    kept = tmp_path / "runs.jsonl"
    with kept.open("a") as stream:
        stream.write('{"run": {"seed"')
    assert len(Runs(tmp_path, base, None).of([first, second], answering=True)) == 2
    assert done == [first, second]
    assert [json.loads(line)["run"]["seed"] for line in kept.read_text().splitlines()] == [1, 2]
    other = Base(tmp_path, "base", "local", "1" * 64)
    assert Runs(tmp_path, other, 0).of([first], answering=True) == []
