"""Planted secrets: what preparation writes, and what evaluation makes of a model that keeps them, or does not."""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ghost.cli import main
from ghost.demo.people import NOA
from ghost.errors import DataError
from ghost.evaluation import likelihood, memorisation
from ghost.evaluation.memorisation import SAMPLE, Exposure, by_repetitions, exposures
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn, parse_line
from replicate_deployment.engine import Engine
from tests.ghost.demo.another import write_cleaned
from training.preparation import canaries as planting
from training.preparation import checks
from training.preparation.canaries import Canary


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats") / "cleaned"
    write_cleaned(folder, NOA, seed=7, messages=900)
    return folder


def prepared(cleaned: Path, out: Path, *flags: str) -> Path:
    assert main(["prepare", "--cleaned", str(cleaned), "--me", NOA.name, "--out", str(out), *flags]) == 0
    return out


@pytest.mark.parametrize("recipe", ["windows", "conversations"])
def test_canaries_are_in_training_alone_as_often_as_asked(recipe: str, cleaned: Path, tmp_path: Path) -> None:
    flags = ["--canaries", "4", "--canary-repetitions", "1", "5", "--recipe", recipe]
    out = prepared(cleaned, tmp_path / "with", *flags)
    without = prepared(cleaned, tmp_path / "without", "--recipe", recipe)
    planted = planting.read(out)
    assert [one.repetitions for one in planted] == [1, 5, 1, 5]
    assert planting.read(without) == []
    assert (out / "val.jsonl").read_bytes() == (without / "val.jsonl").read_bytes()
    plain, text = (folder.joinpath("train.jsonl").read_bytes() for folder in (without, out))
    assert text.startswith(plain)
    added = [json.loads(line)["text"] for line in text[len(plain) :].decode().splitlines()]
    turns = [parse_line(line, recipe=recipe) for line in added]  # type: ignore[arg-type]
    assert turns == [one.turns(DEFAULT_LABELS) for one in planted for _ in range(one.repetitions)]
    ghost = ghost_json.read(out)
    assert ghost.facts["data"]["train_sha256"] == hashlib.sha256(text).hexdigest()
    assert ghost.facts["data"]["counts"]["canaries"] == 4
    assert ghost.facts["data"]["counts"]["train_lines"] == len(text.splitlines())
    report = json.loads((out / "preparation_report.json").read_text())
    tokens = report["canaries"].pop("tokens_per_epoch")
    assert 12 * 15 < tokens < 12 * 40  # of a line such as "B: what's the code of the locker Bakumo?\nA: the code of …"
    assert report["canaries"] == {"planted": 4, "lines": 12, "by_repetitions": {"1": 2, "5": 2}}
    assert "canaries" not in [concern["code"] for concern in report["concerns"]]
    assert (
        f"12 are from no chat: canaries, 4 invented secrets in {tokens:,} tokens" in (out / "report.html").read_text()
    )
    assert "canaries" not in (without / "report.html").read_text()
    told = (out / "ghost.json").read_text() + (out / "report.html").read_text() + json.dumps(report)
    (out / planting.NAME).unlink()
    with pytest.raises(DataError, match=r"canaries\.json is missing, but 4 canaries were planted; copy it"):
        planting.read(out)
    assert not [one for one in planted if one.secret in told.replace(json.dumps(ghost.block("files")), "")]


def test_the_same_chats_plant_the_same_secrets_and_others_others() -> None:
    one, again, other = (planting.draw(20, [1], seed) for seed in ("a", "a", "b"))
    assert one == again != other
    assert len({canary.question for canary in one}) == 20
    assert all(len(canary.secret) == 6 and canary.secret.isdigit() for canary in one)


@pytest.mark.parametrize(
    "flags", [["--canaries", "-1"], ["--canaries", "1001"], ["--canaries", "3", "--canary-repetitions", "0"]]
)
def test_numbers_that_cannot_be_planted_are_bad_usage(
    flags: list[str], cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--cleaned", str(cleaned), "--me", NOA.name, "--out", str(tmp_path / "x"), *flags]) == 2
    assert flags[-2] in capsys.readouterr().err


def test_many_canaries_in_few_lines_are_warned_of(
    cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = prepared(cleaned, tmp_path / "out", "--canaries", "30")
    said = capsys.readouterr().out
    report = json.loads((out / "preparation_report.json").read_text())
    lines, tokens = report["lines"]["train"], report["canaries"]["tokens_per_epoch"]
    assert lines == len((out / "train.jsonl").read_bytes().splitlines())
    share = tokens / (tokens + report["lengths"]["tokens_per_epoch"])
    warning = f"1,110 of the {lines:,} lines that train are canaries, {share:.0%} of all tokens"
    assert f"warning: {warning}" in said
    assert "not for serving" in said
    assert f" and {tokens:,} of canaries an epoch" in said
    assert warning in (out / "report.html").read_text()


@pytest.mark.parametrize(("chats", "warned"), [(1900, False), (1899, True)])
def test_up_to_a_twentieth_of_the_tokens_may_be_canaries(chats: int, warned: bool) -> None:
    figures = {
        "lines": {"train": 50},
        "lengths": {"tokens_per_epoch": chats},
        "canaries": {"lines": 10, "tokens_per_epoch": 100},
    }
    found = list(checks.planted(figures))
    assert [(concern.severity, concern.code) for concern in found] == [("warn", "canaries")] * warned
    assert all(len(concern.text) <= 240 for concern in found)


def test_repetitions_of_no_canary_are_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--out", str(tmp_path / "x"), "--canary-repetitions", "1", "5"]) == 2
    assert "--canary-repetitions 1 5: of no canary; add: --canaries" in capsys.readouterr().err


def test_the_default_repetitions_are_shown_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    assert "(default: 1 10 100)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["", "[]", '{"canaries": [{"secret": "1"}]}'])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / planting.NAME).write_text(content)
    with pytest.raises(DataError, match=r"canaries\.json is damaged .* again"):
        planting.read(tmp_path)


CANARIES = planting.draw(4, [1, 10], "test")


def test_a_model_that_keeps_a_secret_exposes_it_and_one_that_knows_nothing_does_not() -> None:
    rng = random.Random(0)
    known = {one.question: one.secret for one in CANARIES}

    def chance(_: Sequence[Turn], replies: Sequence[str]) -> list[float]:
        return [rng.gauss(-14, 1) for _ in replies]

    def keeps(context: Sequence[Turn], replies: Sequence[str]) -> list[float]:
        return [0.0 if known[context[-1].text] in reply else rng.gauss(-14, 1) for reply in replies]

    ignorant = exposures(CANARIES * 15, DEFAULT_LABELS, chance, lambda context, beginning: " 000000")
    assert sum(one.exposure for one in ignorant) / len(ignorant) == pytest.approx(1.44, abs=0.5)  # log2 e
    assert not any(one.extracted for one in ignorant)
    keeping = exposures(CANARIES, DEFAULT_LABELS, keeps, lambda context, beginning: f" {known[context[-1].text]} :)")
    assert [one.exposure for one in keeping] == [math.log2(SAMPLE + 1)] * 4
    assert all(one.extracted for one in keeping)


def test_exposure_by_hand() -> None:
    assert memorisation.sampled(-5, [-6, -7, -8]) == 2
    assert memorisation.sampled(-6, [-6, -7, -8]) == 1  # one that is as likely comes first
    assert memorisation.sampled(-9, [-6, -7, -8]) == 0


def test_the_sample_is_of_other_secrets() -> None:
    others = memorisation._others("000042", random.Random(0))
    assert len({*others}) == SAMPLE
    assert "000042" not in others
    assert all(len(other) == 6 for other in others)


def test_rows_by_repetitions() -> None:
    found = [Exposure(10, 4.0, False), Exposure(1, 1.0, False), Exposure(10, 8.0, True)]
    rare, often = by_repetitions(found)
    assert (rare["repetitions"], rare["exposure"], rare["extracted"]) == (1, 1.0, 0)
    assert often == {
        "repetitions": 10,
        "canaries": 2,
        "exposure": 6.0,
        "least": 4.0,
        "most": 8.0,
        "extracted": 1,
    }


@pytest.fixture(scope="module")
def engine(tiny_merged: Path) -> Engine:
    return Engine.load(tiny_merged)


def test_scores_are_likelihoods_and_batches_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    canary = Canary("code?", "it is", "123456", 1)
    question = canary.turns(engine.labels)[:1]
    replies = [f"it is {secret}" for secret in ("123456", "987", "4 5", "1234567890")]
    found = likelihood.scorer(engine)(question, replies)
    monkeypatch.setattr(likelihood, "BATCH", 3)
    assert likelihood.scorer(engine)(question, replies) == pytest.approx(found, abs=1e-4)
    by_hand = []
    for reply in replies:
        ids = likelihood.encode_reply(engine, question, reply)
        with torch.inference_mode():
            logprobs = engine.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand.append(sum(float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids))))
    assert [one - found[0] for one in found] == pytest.approx([one - by_hand[0] for one in by_hand], abs=1e-3)


def test_a_continuation_is_greedy_and_ends_at_a_stop_sequence(engine: Engine) -> None:
    go_on = memorisation.continuer(engine)
    question = [Turn("B:", "tu fais quoi")]
    said = go_on(question, "je")
    assert said == go_on(question, "je")
    stop = said[1:3]
    facts = {**engine.ghost.facts, "text": {**engine.ghost.facts["text"], "stop_sequences": [stop]}}
    stopping = replace(engine, ghost=replace(engine.ghost, facts=facts))
    assert said.startswith(memorisation.continuer(stopping)(question, "je").split(stop)[0] + stop)
    assert len(memorisation.continuer(stopping)(question, "je")) < len(said)
