from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import DEFAULT_LABELS, Recipe, Turn, parse
from replicate_deployment.tokenization import encode_prompt, load_tokenizer
from training.finetuning.data import Example, encode_turns

TURNS = [
    Turn("A:", "hey"),
    Turn("B:", "on se voit at the café\nthen?"),
    Turn("A:", "mdr ok 😂\nsee you there"),
    Turn("B:", "ok"),
    Turn("A:", "c'était dingue"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Any) -> Any:
    return load_tokenizer(tiny_base)


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
