"""What a training says at its end, and the replies that it shows while it runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import Ghost, weights
from training.config import TrainingConfig
from training.finetuning import loop, report
from training.finetuning.data import encode_turns
from training.finetuning.report import Samples, collapsed, distinct_2, prompt_of

TALK = [Turn("B:", "hey tu fais quoi"), Turn("A:", "mdr ok"), Turn("B:", "on se voit"), Turn("A:", "c'était dingue")]


def test_a_prompt_ends_in_the_tag_of_the_last_reply(tiny_base: Path) -> None:
    from replicate_deployment.tokenization import encode_prompt

    tokenizer = load_tokenizer(tiny_base)
    for recipe in ("windows", "conversations"):
        example = encode_turns(tokenizer, TALK, DEFAULT_LABELS, recipe=recipe, replies_only=True)  # type: ignore[arg-type]
        found = prompt_of(example)
        assert found is not None
        assert found.ids == encode_prompt(tokenizer, TALK[:3], DEFAULT_LABELS, recipe)  # type: ignore[arg-type]
        assert [*found.ids, *found.reply] == example.ids.tolist()
    alone = encode_turns(tokenizer, TALK[:1], DEFAULT_LABELS, recipe="windows", replies_only=True)
    assert prompt_of(alone) is None


def test_all_at_once_say_what_each_says_alone(tiny_base: Path, recipe: TrainingConfig, tmp_path: Path) -> None:
    """Padding changes no reply; and no random number is drawn, and the model trains on as before."""
    import torch

    from training.finetuning.base import resolve_base
    from training.finetuning.loss import SegmentLoss
    from training.finetuning.model import trainable

    tokenizer = load_tokenizer(tiny_base)
    model = trainable(resolve_base(str(tiny_base), None), recipe, tokenizer)
    segment_loss = SegmentLoss(model).train()
    examples = [
        encode_turns(tokenizer, TALK[start:stop], DEFAULT_LABELS, recipe="windows", replies_only=False)
        for start, stop in ((0, 2), (0, 4), (2, 4))
    ]

    def answer(some: list[Any]) -> list[str]:
        samples = Samples(some, tokenizer, DEFAULT_LABELS, count=8, out=tmp_path / "adapter", start=0)
        return samples.answer(segment_loss, bf16=False).texts

    before = torch.get_rng_state()
    together = answer(examples)
    assert torch.equal(torch.get_rng_state(), before)
    assert segment_loss.training
    assert model.get_base_model().config._attn_implementation == "segments"
    assert together == [answer([example])[0] for example in examples]
    assert all(together)


def test_few_prompts_are_spread_over_all_and_long_ones_left_out(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    texts = ["x" * 3000, *(f"turn {number}" for number in range(9))]
    examples = [
        encode_turns(tokenizer, [Turn("B:", text), TALK[1]], DEFAULT_LABELS, recipe="windows", replies_only=True)
        for text in texts
    ]
    samples = Samples(examples, tokenizer, DEFAULT_LABELS, count=3, out=tmp_path / "adapter", start=0)
    asked = [np.array(prompt.ids).tolist() for prompt in samples.prompts]
    assert asked == [examples[place].ids[: len(ids)].tolist() for place, ids in zip((1, 5, 9), asked, strict=True)]
    assert not Samples(examples[:1], tokenizer, DEFAULT_LABELS, count=3, out=tmp_path / "adapter", start=0)
    assert not Samples(examples, tokenizer, DEFAULT_LABELS, count=0, out=tmp_path / "adapter", start=0)


def test_a_training_shows_them_and_learns_the_same(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train(lora_dropout=0.1, out="with", sample_replies=8) == 0
    told = capsys.readouterr()
    assert ghost_train(lora_dropout=0.1, out="without") == 0
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all((one[name] == other[name]).all() for name in one)

    report = json.loads((tmp_path / "with" / "training_report.json").read_text(encoding="utf-8"))
    assert all(0 <= entry["ended"] <= 1 for entry in report["evaluations"])
    assert "of replies end by themselves" in told.out
    written = tmp_path / "with.replies.txt"
    assert oct(written.stat().st_mode)[-3:] == "600"
    text = written.read_text(encoding="utf-8")
    assert text.count("── after step") == len(report["evaluations"])
    assert "B: hey tu fais quoi ce soir\n  you: pas grand chose, I was about to cook something\n  it:  " in text
    assert "pas grand chose" not in told.out + told.err + json.dumps(report)
    assert not (tmp_path / "without.replies.txt").exists()
    assert "Sampled replies" in (tmp_path / "with" / "loss_curve.html").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_costs_no_training(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter.replies.txt").mkdir()
    assert ghost_train(sample_replies=2) == 0
    assert "step 0: replies not sampled:" in capsys.readouterr().err
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


BASE = {"step": 0, "reply_loss": 3.0, "ended": 0.0, "distinct_2": 0.05}
BAD = {"reply_loss": 3.5, "ended": 0.0, "distinct_2": 0.05}


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ([{}, {}], True),
        ([{}, {"reply_loss": float("nan")}], True),
        ([{}], False),
        ([{}, {"ended": 0.1}], False),
        ([{}, {"distinct_2": 0.2}], False),
        ([{}, {"reply_loss": 2.9}], False),
        ([{}, {}, {"ended": 1.0}], False),
        ([{"reply_loss": 2.0}, {}, {}], True),
    ],
)
def test_a_run_is_stopped_only_when_it_is_bad_in_every_way_twice(changes: list[dict[str, float]], stops: bool) -> None:
    assert collapsed([BASE, *({"step": 10.0 * n, **BAD, **one} for n, one in enumerate(changes, 1))]) is stops
    assert not collapsed([])


def test_a_run_that_collapses_keeps_its_best_and_says_why(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "collapsed", lambda evaluations: len(evaluations) > 2)
    assert ghost_train(num_epochs=4) == 0
    report = json.loads((tmp_path / "adapter" / "training_report.json").read_text(encoding="utf-8"))
    assert report["steps"] < report["planned_steps"]
    assert "stopped   after step" in capsys.readouterr().out


def test_distinct_is_low_where_everything_is_said_again() -> None:
    assert distinct_2(["a b c", "d e"]) == 1.0
    assert distinct_2(["ok ok ok ok", "a b"]) == 0.5
    assert distinct_2(["a", ""]) is None


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
        "trained   in 2 h 0 min, 1,234 tokens/s (2,469 counted window by window), $5.00 at $2.50 an hour"
    )


def test_without_held_out_windows_the_last_step_is_kept(recipe: TrainingConfig) -> None:
    assert said(facts([]) | {"steps": 10, "kept_step": 10, "planned_steps": 10}, recipe) == [
        "trained   in 60 min, 1,234 tokens/s",
        "kept      the last step, 10",
        f"curve     {OUT}/loss_curve.html",
        f"adapter   {OUT}",
        f"next      ghost merge {OUT}",
    ]
