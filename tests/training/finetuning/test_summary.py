import dataclasses
from pathlib import Path
from typing import Any

import pytest

from training.config import TrainingConfig
from training.finetuning import report

OUT = Path("models") / "adapter"


def entry(step: int, loss: float, reply_loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "tokens": 100, "reply_loss": reply_loss, "reply_tokens": 10}


def facts(replies: list[float], *, falls: bool = True, per_epoch: int = 10, **changes: Any) -> dict[str, Any]:
    """The report of a training whose held-out replies had these losses: before it, and then every 10 steps. The loss
    of training falls from 3 or rises to it."""
    evaluations = [entry(10 * number, loss + 1, loss) for number, loss in enumerate(replies)]
    steps = 10 * (len(replies) - 1)
    best = min(evaluations[1:], key=lambda found: float(found["reply_loss"]), default=entry(steps, 0, 0))
    log = [{"step": step, "loss": 3 - (step if falls else 100 - step) / 100} for step in range(1, steps + 1)]
    found = {
        "tokens": {"saved": 0.0},
        "steps": steps,
        "planned_steps": steps,
        "steps_per_epoch": [per_epoch] * (steps // per_epoch),
        "kept_step": best["step"],
        "evaluations": evaluations,
        "log": log,
        "seconds": {"training": 3500.0, "evaluating": 20.0, "total": 3600.0},
        "tokens_per_second": 1234.5,
        "dollars_per_hour": None,
        **changes,
    }
    found["heldout"] = {
        key: next(({**one} for one in evaluations if one["step"] == step), None)
        for key, step in (("before", 0), ("after", found["kept_step"]))
    }
    return found


def said(found: dict[str, Any], config: TrainingConfig, **keys: Any) -> list[str]:
    config = dataclasses.replace(config, **keys)
    return report.after({**found, "notes": report.notes(found, config)}, config, OUT).splitlines()


def test_a_training_that_went_well_is_said_without_a_note(recipe: TrainingConfig) -> None:
    assert said(facts([4.0, 3.0, 2.5]), recipe, num_epochs=2) == [
        "trained   in 60 min, 1,234 tokens/s",
        "held out  loss of replies 4.000 → 2.500 nats a token",
        "          of all tokens   5.000 → 3.500",
        "kept      the last step, 20, epoch 2: of 2 measurements the lowest on held-out replies, 2.500",
        f"curve     {OUT}/loss_curve.html",
        f"adapter   {OUT}",
        f"next      ghost merge {OUT}",
    ]


def test_memorising_is_said_with_its_numbers_and_what_to_do(recipe: TrainingConfig) -> None:
    lines = said(facts([4.0, 3.0, 2.0, 2.5, 2.75]), recipe, num_epochs=4)
    assert "kept      step 20 of 40, epoch 2: of 4 measurements the lowest on held-out replies, 2.000" in lines
    assert lines[4] == (
        "note      from epoch 2 on the loss of held-out replies rises (2.000 → 2.750) while that of training falls "
        "(2.845 → 2.645): it memorises; fewer epochs would do (num_epochs: 2)"
    )


@pytest.mark.parametrize(
    "found",
    [
        facts([4.0, 3.0, 2.5, 2.0]),  # falls to the end
        facts([4.0, 3.0, 2.0, 2.5, 2.75], falls=False),  # training went wrong, which is another matter
        facts([4.0, 3.0, 2.0, 2.5, 2.01]),  # rose and fell again
        facts([4.0, 3.0, 2.0, 2.019]),  # less than a per cent
        facts([4.0, 4.5]),  # one measurement
        facts([4.0, 3.0, float("nan"), 2.0]),
        facts([4.0]),
        facts([]) | {"steps": 10},
    ],
)
def test_memorising_is_said_only_when_it_is_true(recipe: TrainingConfig, found: dict[str, Any]) -> None:
    assert not any("memorises" in line for line in said(found, recipe))


@pytest.mark.parametrize(
    ("replies", "per_epoch", "num_epochs", "advice"),
    [
        ([4.0, 2.0, 2.5, 2.5, 2.5], 20, 2, "from epoch 0.5 on .*it memorises; fewer epochs would do (num_epochs: 1)"),
        ([4.0, 3.0, 2.5, 2.0, 2.5], 20, 2, "from epoch 1.5 on .*it memorises"),  # two epochs are what it has
        ([4.0, 2.0, 2.5], 10, 8, "from epoch 1 on .*it memorises; fewer epochs would do (num_epochs: 1)"),
    ],
)
def test_the_advice_is_fewer_epochs_than_there_were(
    recipe: TrainingConfig, replies: list[float], per_epoch: int, num_epochs: int, advice: str
) -> None:
    config = dataclasses.replace(recipe, num_epochs=num_epochs)
    (note,) = report.notes(facts(replies, per_epoch=per_epoch), config)
    beginning, end = advice.split(".*")
    assert note.startswith(beginning)
    assert note.endswith(end)


def test_a_training_that_made_it_worse_is_said(recipe: TrainingConfig) -> None:
    (note,) = report.notes(facts([4.0, 4.5, 4.25]), recipe)
    assert note.startswith("no step was better on held-out replies than the base itself (4.000 before, 4.250 at best)")
    assert not report.notes(facts([4.0, 3.999]), recipe)


def test_what_was_kept_against_better_knowledge_is_said(recipe: TrainingConfig) -> None:
    lines = said(facts([4.0, 2.0, 2.01], kept_step=20), recipe, load_best_model_at_end=False)
    assert "kept      the last step, 20 (load_best_model_at_end: false)" in lines
    assert [line for line in lines if line.startswith("note")] == [
        "note      step 10 was better on held-out replies than what is kept (2.000, and 2.010 at the end): "
        "load_best_model_at_end: true would have kept it"
    ]
    assert not report.notes(facts([4.0, 2.5, 2.0]), dataclasses.replace(recipe, load_best_model_at_end=False))


def test_an_early_stop_is_said(recipe: TrainingConfig) -> None:
    stopped = facts([4.0, 2.0, 2.1, 2.2], planned_steps=80, steps_per_epoch=[10] * 8)
    lines = said(stopped, recipe, early_stopping_patience=2)
    assert "kept      step 10 of 30, epoch 1: of 3 measurements the lowest on held-out replies, 2.000" in lines
    assert (
        "stopped   after step 30, epoch 3 of 8: 2 measurements in a row were no better (early_stopping_patience)"
    ) in lines


def test_the_price_and_what_nesting_saved_are_said_where_they_are_known(recipe: TrainingConfig) -> None:
    found = facts([4.0, 3.0], dollars_per_hour=2.5, tokens={"saved": 0.5})
    found["seconds"]["total"] = 7200.0
    assert said(found, recipe)[0] == (
        "trained   in 2 h 0 min, 1,234 tokens/s (worth 2,469 one window at a time), $5.00 at $2.50 an hour"
    )


def test_without_held_out_windows_the_last_step_is_kept(recipe: TrainingConfig) -> None:
    assert said(facts([]) | {"steps": 10, "kept_step": 10, "planned_steps": 10}, recipe) == [
        "trained   in 60 min, 1,234 tokens/s",
        "kept      the last step, 10",
        f"curve     {OUT}/loss_curve.html",
        f"adapter   {OUT}",
        f"next      ghost merge {OUT}",
    ]
