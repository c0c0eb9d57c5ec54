from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, RECIPES, Recipe, Turn, render
from replicate_deployment.tokenization import load_tokenizer
from training.finetuning.data import encode_turns
from training.finetuning.packing import collapse
from training.tokens import CountingTokenizer, EstimatingTokenizer, estimate, try_load_tokenizer

TALK = [
    Turn("B:", "hey tu fais quoi ce soir ?"),
    Turn("A:", "pas grand chose\nI was about to cook something 😂"),
    Turn("B:", "</s> on se voit at the café then"),
    Turn("A:", "ok"),
    Turn("B:", "did you see the match?"),
    Turn("A:", "mdr non\n\nc'était dingue ?"),
]


def encoded(tokenizer: Any, turns: list[Turn], recipe: Recipe = "windows", *, replies_only: bool = False) -> Any:
    return encode_turns(tokenizer, turns, DEFAULT_LABELS, recipe=recipe, replies_only=replies_only)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_tokenizers_library_alone_counts_what_training_sees(tiny_base: Path, recipe: Recipe) -> None:
    seen, counted = (
        encoded(tokenizer, TALK, recipe, replies_only=True)
        for tokenizer in (load_tokenizer(tiny_base), CountingTokenizer(try_load_tokenizer(str(tiny_base))))
    )
    text = ~np.isin(seen.ids, (1, 2))  # all but BOS and end tokens, whose ids nobody compares
    assert np.array_equal(seen.ids[text], counted.ids[text])
    assert np.array_equal(seen.learnt, counted.learnt)
    assert np.array_equal(seen.reply, counted.reply)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_estimate_is_preparations(recipe: Recipe) -> None:
    example = encoded(EstimatingTokenizer(), TALK, recipe, replies_only=True)
    lines = render(TALK).split("\n")
    ends = 1 if recipe == "windows" else 3
    assert len(example.ids) == 1 + sum(map(estimate, lines)) + len(lines) - 1 + ends
    assert sum(example.ids == EstimatingTokenizer.eos_token_id) == ends
    assert 0 < sum(example.learnt) < len(example.ids) - 1


def test_what_is_nested_in_text_is_nested_in_estimated_tokens(tiny_base: Path) -> None:
    other = [TALK[0], Turn("A:", "pas grand chose\nI was about to cook something 😂!"), *TALK[2:]]
    windows = [TALK, TALK[:2], TALK[:4], other, other[:2], TALK[2:4], TALK[2:]]
    by_text = [
        [len(group) for group in collapse([encoded(tokenizer, some) for some in windows])]
        for tokenizer in (load_tokenizer(tiny_base), EstimatingTokenizer())
    ]
    assert sorted(by_text[0]) == sorted(by_text[1]) == [2, 2, 3]


def test_an_empty_line_is_a_newline_and_nothing_else() -> None:
    found = EstimatingTokenizer()("\n\n", add_special_tokens=False)
    assert found["input_ids"] == [2, 2]
    assert found["offset_mapping"] == [(0, 1), (1, 2)]
