"""Replies while it trains: seen by their owner, of no influence on what is learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import Ghost, weights
from training.config import TrainingConfig
from training.finetuning import loop
from training.finetuning.data import encode_turns
from training.finetuning.report import Samples, collapsed, distinct, prompt_of

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
    assert distinct(["a b c", "d e"], 1) == 1.0
    assert distinct(["ok ok ok ok"], 1) == 0.25
    assert distinct(["ok ok ok ok", "a b"], 2) == 0.5
    assert distinct(["a", ""], 2) is None
