import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import LINES, write_prepared
from training.config import TrainingConfig
from training.finetuning.data import read_facts, read_split


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return load_tokenizer(tiny_base)


def read(tokenizer: Any, folder: Path, recipe: TrainingConfig, **changes: Any) -> Any:
    config = dataclasses.replace(recipe, **changes)
    return read_split(folder / "train.jsonl", tokenizer, ghost_json.read(folder), config)


@pytest.mark.parametrize("train_on_inputs", [True, False])
def test_every_window_learns_its_end_token(
    tokenizer: Any, prepared: Path, recipe: TrainingConfig, train_on_inputs: bool
) -> None:
    split = read(tokenizer, prepared, recipe, train_on_inputs=train_on_inputs)
    assert len(split.examples) == 4 * len(LINES)
    for example in split.examples:
        assert example.ids[0] == tokenizer.bos_token_id
        assert example.ids[-1] == tokenizer.eos_token_id
        assert example.learnt[-1]
        assert example.learnt[1:].all() == train_on_inputs
    learnt = sum(int(example.reply.sum()) for example in split.examples)
    assert split.learnt == (split.tokens - len(split.examples) if train_on_inputs else learnt)


def test_long_windows_lose_whole_turns_from_the_front(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig) -> None:
    turns = "\n".join(f"B: hey tu fais quoi ce soir {number}\nA: pas grand chose" for number in range(20))
    folder = write_prepared(tmp_path / "p", [turns + "</s>", *LINES[:1]], LINES)
    split = read(tokenizer, folder, recipe, sequence_len=64)
    assert (split.read, split.shortened, split.skipped, len(split.examples)) == (2, 1, 0, 2)
    ids = split.examples[0].ids
    assert len(ids) <= 64
    text = tokenizer.decode(ids[1:-1])
    assert turns.endswith(text)
    assert text.startswith(("A: pas", "B: hey"))


def test_a_reply_that_cannot_fit_is_skipped_and_counted(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig) -> None:
    folder = write_prepared(tmp_path / "p", ["B: hey\nA: " + "mdr " * 200 + "ok</s>", *LINES], LINES)
    split = read(tokenizer, folder, recipe, sequence_len=64)
    assert (split.read, split.shortened, split.skipped, len(split.examples)) == (5, 0, 1, 4)


@pytest.mark.parametrize(
    "text",
    [
        "B: hey\nA: ok",  # no end token
        "no tag\nA: ok</s>",
        "A: ok\nB: hey</s>",  # nothing to answer
        "A: ok</s>",
        "B: hey\n<tag>\nA: ok</s>",  # not escaped
    ],
)
def test_a_line_that_prepare_does_not_write_is_named(
    tokenizer: Any, tmp_path: Path, recipe: TrainingConfig, text: str
) -> None:
    folder = write_prepared(tmp_path / "p", [LINES[0], text], LINES)
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: ") as refusal:
        read(tokenizer, folder, recipe)
    assert "hey" not in str(refusal.value)  # never a message body


@pytest.mark.parametrize("line", ["not json", '{"txt": "B: hey"}', "[1]", '{"text": 1}'])
def test_a_broken_line_is_named(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig, line: str) -> None:
    folder = write_prepared(tmp_path / "p", LINES[:1], LINES[:1])
    (folder / "train.jsonl").write_text(json.dumps({"text": LINES[0]}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"line 2: not written by ghost prepare"):
        read(tokenizer, folder, recipe)


def conversations(folder: Path, texts: list[str]) -> Path:
    write_prepared(folder, texts, texts[:1])
    ghost = folder / "ghost.json"
    ghost.write_text(ghost.read_text(encoding="utf-8").replace('"windows"', '"conversations"'), encoding="utf-8")
    return folder


def test_a_conversation_is_cut_elsewhere_in_each_epoch(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig) -> None:
    talk = "\n".join(["B: hey tu fais quoi ce soir\nA: pas grand chose</s>"] * 20)
    split = read(tokenizer, conversations(tmp_path / "p", [talk, "A: hey</s>\nB: ok"]), recipe, sequence_len=64)
    assert (split.recipe, split.read, split.shortened, split.skipped) == ("conversations", 2, 1, 0)
    assert all(len(example.ids) <= 64 for example in split.examples)
    for epoch in (split.examples, split.epoch(0, seed=1), split.epoch(1, seed=1)):
        assert sum(int((example.ids == tokenizer.eos_token_id).sum()) for example in epoch) == 21
    assert len({tuple(len(example.ids) for example in split.epoch(epoch, seed=1)) for epoch in range(8)}) > 2


def test_a_conversation_in_which_the_person_is_silent_is_refused(
    tokenizer: Any, tmp_path: Path, recipe: TrainingConfig
) -> None:
    with pytest.raises(DataError, match=r"line 2: not turns of which one is A:'s"):
        read(tokenizer, conversations(tmp_path / "p", ["B: hey\nA: ok</s>", "B: hey"]), recipe)


def test_an_unknown_recipe_is_refused(prepared: Path) -> None:
    ghost = prepared / "ghost.json"
    ghost.write_text(ghost.read_text(encoding="utf-8").replace('"windows"', '"novels"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.recipe is 'novels', and only windows and conversations are known"):
        read_facts(prepared / "train.jsonl", prepared / "val.jsonl")


def test_altered_or_missing_files_are_refused(prepared: Path) -> None:
    train, val = prepared / "train.jsonl", prepared / "val.jsonl"
    assert read_facts(train, val).labels == DEFAULT_LABELS
    val.write_text(val.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.jsonl: its SHA-256 is not the val_sha256"):
        read_facts(train, val)
    (prepared / "ghost.json").unlink()
    with pytest.raises(DataError, match=r"ghost\.json.*ghost prepare"):
        read_facts(train, val)
    val.unlink()
    with pytest.raises(DataError, match=r"val\.jsonl: no such file; write it with: ghost prepare"):
        read_facts(train, val)
