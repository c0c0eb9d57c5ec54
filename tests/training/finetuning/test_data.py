import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Recipe, Turn, parse
from replicate_deployment.tokenization import encode_prompt, load_tokenizer
from tests.training.finetuning.conftest import LINES, write_prepared
from tests.training.finetuning.test_packing import targets_of_segment, targets_one_by_one
from training.config import TrainingConfig
from training.finetuning.data import (
    EXTRA_TOKENS,
    Example,
    Pieces,
    cut,
    encode_turns,
    measure,
    read_facts,
    read_split,
)
from training.finetuning.packing import collapse


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Any) -> Any:
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
    train.unlink()
    val.unlink()
    with pytest.raises(DataError, match=r"val\.jsonl: no such file; write it with: ghost prepare"):
        read_facts(train, val)


TURNS = [
    Turn("A:", "hey"),
    Turn("B:", "on se voit at the café\nthen?"),
    Turn("A:", "mdr ok 😂\nsee you there"),
    Turn("B:", "ok"),
    Turn("A:", "c'était dingue"),
]


def encoded(tokenizer: Any, turns: list[Turn], recipe: Recipe = "windows", replies_only: bool = True) -> Example:
    return encode_turns(tokenizer, turns, DEFAULT_LABELS, recipe=recipe, replies_only=replies_only)


def runs(tokenizer: Any, example: Example) -> list[str]:
    """The text of each run of reply tokens, end tokens spelled."""
    text, parts = "", list[str]()
    for token, reply in zip(example.ids.tolist(), example.reply.tolist(), strict=True):
        piece = "</s>" if token == tokenizer.eos_token_id else "▁" if not reply else ""
        text += piece or f"{token} "
    for part in text.split("▁"):
        if part:
            ids = [int(number) for number in part.removesuffix("</s>").split()]
            parts.append(tokenizer.decode(ids) + ("</s>" if part.endswith("</s>") else ""))
    return parts


def test_a_window_has_one_reply_and_one_end_token(tokenizer: Any) -> None:
    example = encoded(tokenizer, TURNS)
    assert runs(tokenizer, example) == ["c'était dingue</s>"]
    assert example.ids.tolist().count(tokenizer.eos_token_id) == 1
    assert (example.learnt == example.reply).all()


def test_a_conversation_learns_each_reply_without_its_tag_and_the_newline_after_it(tokenizer: Any) -> None:
    example = encoded(tokenizer, TURNS, "conversations")
    assert runs(tokenizer, example) == ["hey</s>", "mdr ok 😂\nsee you there</s>", "c'était dingue</s>"]
    assert (example.learnt == example.reply).all()


def test_what_follows_an_end_token_is_not_learnt(tokenizer: Any) -> None:
    example = encoded(tokenizer, TURNS, "conversations")
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    after = [place + 1 for place, token in enumerate(example.ids[:-1]) if token == tokenizer.eos_token_id]
    assert [example.ids[place] for place in after] == [newline, newline]
    assert not example.learnt[after].any()


def test_everything_but_the_first_token_is_learnt_with_inputs(tokenizer: Any) -> None:
    example = encoded(tokenizer, TURNS, replies_only=False)
    assert not example.learnt[0]
    assert example.learnt[1:].all()
    assert (example.reply == encoded(tokenizer, TURNS).reply).all()


texts = st.text(min_size=1).filter(lambda text: bool(text.strip()) and "\n" not in text)


@given(texts)
def test_a_prompt_is_a_token_prefix_of_its_example(tokenizer: Any, reply: str) -> None:
    example = encoded(tokenizer, [*TURNS[:-1], Turn("A:", reply)])
    prompt = encode_prompt(tokenizer, TURNS[:-1], DEFAULT_LABELS, "windows")
    assert example.ids[: len(prompt)].tolist() == prompt
    assert example.reply.argmax() == len(prompt)


@given(texts)
def test_a_prompt_is_a_token_prefix_of_its_conversation(tokenizer: Any, reply: str) -> None:
    example = encoded(tokenizer, [*TURNS[:-1], Turn("A:", reply)], "conversations")
    prompt = encode_prompt(tokenizer, TURNS[:-1], DEFAULT_LABELS, "conversations")
    assert example.ids[: len(prompt)].tolist() == prompt


@given(texts)
def test_a_reply_reads_back(tokenizer: Any, reply: str) -> None:
    (found,) = runs(tokenizer, encoded(tokenizer, [TURNS[1], Turn("A:", reply)]))
    assert parse("A:" + found.removesuffix("</s>"))[-1] in (Turn("A:", reply), Turn("A:", reply.lstrip(" ")))


def test_a_typed_end_token_is_text(tokenizer: Any) -> None:
    turns = [Turn("B:", "what is </s> and <s>"), Turn("A:", "an end token: </s> ok")]
    example = encoded(tokenizer, turns, replies_only=False)
    assert example.ids.tolist().count(tokenizer.eos_token_id) == 1
    assert example.ids.tolist().count(tokenizer.bos_token_id) == 1


LIMIT = 24
lengths = st.lists(st.integers(1, LIMIT + 6), min_size=1, max_size=40)
turns = st.lists(
    st.builds(
        Turn, st.sampled_from(["A:", "B:"]), st.sampled_from(["mdr", "ok 😂", "see you\nthere", "c'était dingue"])
    ),
    min_size=1,
    max_size=30,
)


@given(lengths, st.integers(1, LIMIT))
def test_every_turn_that_fits_is_in_one_piece(lengths: list[int], first: int) -> None:
    pieces = cut(lengths, LIMIT, first)
    found = [turn for piece in pieces for turn in piece]
    assert found == [turn for turn, length in enumerate(lengths) if length <= LIMIT]


@given(lengths, st.integers(1, LIMIT))
def test_pieces_are_as_long_as_they_may_be(lengths: list[int], first: int) -> None:
    pieces = [piece for piece in cut(lengths, LIMIT, first) if len(piece)]
    for number, piece in enumerate(pieces):
        total = sum(lengths[turn] for turn in piece)
        assert total <= LIMIT
        room = first if piece.start == 0 else LIMIT
        assert total <= room or len(piece) == 1
        following = piece.stop < len(lengths) and lengths[piece.stop] <= LIMIT
        assert not following or total + lengths[piece.stop] > room, number


@given(st.lists(turns, min_size=1, max_size=4), st.integers(0, 50))
def test_cut_pieces_fit_and_hold_each_turn_once(tokenizer: Any, talks: list[list[Turn]], epoch: int) -> None:
    measured = [measure(tokenizer, talk, DEFAULT_LABELS) for talk in talks]
    pieces = Pieces(tokenizer, DEFAULT_LABELS, measured, LIMIT + EXTRA_TOKENS)
    examples = pieces.cut(epoch=epoch, seed=1)
    assert pieces.count(epoch=epoch, seed=1) == len(examples)
    assert all(len(example.ids) <= LIMIT + EXTRA_TOKENS for example in examples)
    ended = sum(int((example.ids == tokenizer.eos_token_id).sum()) for example in examples)
    assert ended == sum(turn.label == "A:" for talk in talks for turn in talk)


def test_the_offset_changes_with_the_epoch_and_not_with_the_run(tokenizer: Any) -> None:
    talk = [Turn("B:" if place % 2 else "A:", "on se voit") for place in range(30)]
    pieces = Pieces(tokenizer, DEFAULT_LABELS, [measure(tokenizer, talk, DEFAULT_LABELS)], 40)

    def borders(epoch: int | None, seed: int = 1) -> list[int]:
        return [len(example.ids) for example in pieces.cut(epoch=epoch, seed=seed)]

    assert borders(0) == borders(0)
    assert len({tuple(borders(epoch)) for epoch in range(20)}) > 3
    assert borders(0) != borders(0, seed=2) or borders(1) != borders(1, seed=2)
    assert max(borders(None)[:-1]) - min(borders(None)[:-1]) <= 1  # without an offset every piece but the last is full


def test_a_turn_too_long_for_any_piece_is_counted(tokenizer: Any) -> None:
    long = [Turn("B:", "mdr " * 60), Turn("A:", "ok")]
    cut_up = [Turn("B:", "mdr"), Turn("A:", "ok")] * 12
    measured = [measure(tokenizer, talk, DEFAULT_LABELS) for talk in (long, cut_up, cut_up[:2])]
    assert Pieces(tokenizer, DEFAULT_LABELS, measured, 40).losses() == (1, 1)


spoken = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["A:", "B:"]),
        st.lists(st.sampled_from(["ok", "zutabe", "12", "😂", "</s>", "mirlo."]), min_size=1, max_size=12).map(
            " ".join
        ),
    ),
    min_size=3,
    max_size=9,
)


@given(spoken, st.data(), st.sampled_from(["windows", "conversations"]))
def test_what_goldfish_leaves_out_no_line_learns(tokenizer: Any, turns: list[Turn], data: Any, recipe: Recipe) -> None:
    """A line that begins later, as other windows, pieces and seeds do, learns nothing that the whole leaves out; from
    its second turn on, the same."""
    start = data.draw(st.integers(1, len(turns) - 2))

    def learnt(some: list[Turn]) -> Any:
        one = encode_turns(tokenizer, some, DEFAULT_LABELS, recipe=recipe, replies_only=False, goldfish_k=3)
        return one.ids, one.learnt

    (ids, whole), (later_ids, later) = learnt(turns), learnt(turns[start:])
    second = len(learnt(turns[start : start + 1])[0]) + 4  # its newline and tag, and another end token
    shared = len(later_ids) - 4  # the BOS and the first tag are spelled otherwise inside of a text
    assert later_ids[-shared:].tolist() == ids[-shared:].tolist()
    assert not (later[-shared:] & ~whole[-shared:]).any()
    if second < len(later):
        assert later[second:].tolist() == whole[len(whole) - len(later) + second :].tolist()
    ends = later_ids == tokenizer.eos_token_id
    assert later[ends].all()


def test_goldfish_leaves_out_one_token_in_k(tokenizer: Any) -> None:
    words = [f"{number * 7919} mirlo {number}" for number in range(400)]
    turns = [Turn("AB"[number % 2] + ":", word) for number, word in enumerate(words)]
    for k in (2, 4):
        one = encode_turns(tokenizer, turns, DEFAULT_LABELS, recipe="windows", replies_only=False, goldfish_k=k)
        assert 1 - one.learnt.mean() == pytest.approx(1 / k, rel=0.1)


def test_goldfish_applies_to_training_windows_as_they_are_collapsed(
    tokenizer: Any, prepared: Path, recipe: TrainingConfig
) -> None:
    """Nested windows that go through the model once teach what they teach one at a time."""
    whole, some = read(tokenizer, prepared, recipe), read(tokenizer, prepared, recipe, goldfish_k=2)
    assert 0 < some.learnt < whole.learnt
    collapsed = sum((targets_of_segment(group) for group in collapse(some.examples)), Counter())
    assert collapsed == targets_one_by_one(some.examples)
