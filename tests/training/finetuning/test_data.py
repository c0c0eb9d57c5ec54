import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn, parse
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import LINES, write_prepared
from training.errors import DataError
from training.finetuning.config import TrainingConfig
from training.finetuning.data import IGNORED, Example, collate, encode_window, read_facts, read_split


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return load_tokenizer(tiny_base)


def read(tokenizer: Any, folder: Path, recipe: TrainingConfig, **changes: Any) -> Any:
    config = dataclasses.replace(recipe, **changes)
    return read_split(folder / "train.jsonl", tokenizer, DEFAULT_LABELS, config)


@pytest.mark.parametrize("train_on_inputs", [True, False])
def test_every_example_learns_its_end_token(
    tokenizer: Any, prepared: Path, recipe: TrainingConfig, train_on_inputs: bool
) -> None:
    examples = read(tokenizer, prepared, recipe, train_on_inputs=train_on_inputs).examples
    assert len(examples) == 4 * len(LINES)
    for example in examples:
        assert example["input_ids"][0] == tokenizer.bos_token_id
        assert example["labels"][-1] == example["input_ids"][-1] == tokenizer.eos_token_id
        assert example["input_ids"].count(tokenizer.eos_token_id) == 1
    # Also in a batch where every other id of the row is padding, and where padding could be taken for the end token.
    batch = collate(examples)
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(dim=1) == 1).all()


def test_without_inputs_only_the_reply_is_learnt(tokenizer: Any, prepared: Path, recipe: TrainingConfig) -> None:
    for line, example in zip(LINES, read(tokenizer, prepared, recipe, train_on_inputs=False).examples, strict=False):
        reply = "A:" + tokenizer.decode([label for label in example["labels"] if label != IGNORED][:-1])
        assert parse(reply)[-1] == parse(line.removesuffix("</s>"))[-1]
        context = tokenizer.decode(example["input_ids"][1 : example["reply"]])
        assert context.endswith("A:")


def test_with_inputs_everything_is_learnt(tokenizer: Any, prepared: Path, recipe: TrainingConfig) -> None:
    split = read(tokenizer, prepared, recipe)
    assert all(example["labels"] == example["input_ids"] for example in split.examples)
    assert split.predicted == split.tokens - len(split.examples)


@given(st.text(min_size=1).filter(lambda text: text.strip() and "\n" not in text))
def test_a_prompt_is_a_token_prefix_of_its_window(tokenizer: Any, reply: str) -> None:
    turns = [Turn("B:", "on se voit at the café"), Turn("A:", reply)]
    example = encode_window(tokenizer, turns, DEFAULT_LABELS, train_on_inputs=False)
    other = encode_window(tokenizer, [turns[0], Turn("A:", "ok")], DEFAULT_LABELS, train_on_inputs=False)
    assert example["reply"] == other["reply"]
    assert example["input_ids"][: example["reply"]] == other["input_ids"][: other["reply"]]


def test_a_typed_end_token_is_text(tokenizer: Any) -> None:
    turns = [Turn("B:", "what is </s> and <s>"), Turn("A:", "an end token: </s> ok")]
    example = encode_window(tokenizer, turns, DEFAULT_LABELS, train_on_inputs=True)
    assert example["input_ids"].count(tokenizer.eos_token_id) == 1
    assert example["input_ids"].count(tokenizer.bos_token_id) == 1


def test_long_windows_lose_whole_turns_from_the_front(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig) -> None:
    turns = "\n".join(f"B: hey tu fais quoi ce soir {number}\nA: pas grand chose" for number in range(20))
    folder = write_prepared(tmp_path / "p", [turns + "</s>", *LINES[:1]], LINES)
    split = read(tokenizer, folder, recipe, sequence_len=64)
    assert (split.read, split.shortened, split.skipped, len(split.examples)) == (2, 1, 0, 2)
    ids = split.examples[0]["input_ids"]
    assert len(ids) <= 64
    text = tokenizer.decode(ids[1:-1])
    assert turns.endswith(text)
    assert text.startswith(("A: pas", "B: hey"))


def test_a_reply_that_cannot_fit_is_skipped_and_counted(tokenizer: Any, tmp_path: Path, recipe: TrainingConfig) -> None:
    folder = write_prepared(tmp_path / "p", ["B: hey\nA: " + "mdr " * 200 + "ok</s>", *LINES], LINES)
    split = read(tokenizer, folder, recipe, sequence_len=64)
    assert (split.read, split.shortened, split.skipped, len(split.examples)) == (5, 0, 1, 4)


def test_collate_pads_by_length() -> None:
    short = Example(input_ids=[1, 7, 2], labels=[IGNORED, 7, 2], reply=1)
    long = Example(input_ids=[1, 7, 0, 9, 2], labels=[1, 7, 0, 9, 2], reply=3)
    batch = collate([short, long])
    assert batch["input_ids"].tolist() == [[1, 7, 2, 0, 0], [1, 7, 0, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 7, 2, IGNORED, IGNORED], [1, 7, 0, 9, 2]]


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
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": LINES[0]}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"line 2: not a line of ghost prepare"):
        read(tokenizer, tmp_path, recipe)


def test_a_recipe_that_is_not_trained_is_refused(prepared: Path) -> None:
    ghost = prepared / "ghost.json"
    ghost.write_text(ghost.read_text(encoding="utf-8").replace('"windows"', '"conversations"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"prepared as 'conversations'.*ghost prepare --recipe windows --out"):
        read_facts(prepared / "train.jsonl", prepared / "val.jsonl")
    ghost.write_text(ghost.read_text(encoding="utf-8").replace('"conversations"', '"novels"'), encoding="utf-8")
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
