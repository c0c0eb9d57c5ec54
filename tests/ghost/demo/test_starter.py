"""The starter base: a tokenizer with Mistral's habits, and a cache that is named after its recipe."""

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ghost.demo import starter
from ghost.demo.people import NOA, OTHERS
from ghost.demo.starter import Recipe, make_tokenizer, packed_rows, pretrain, starter_base, windows
from replicate_deployment.chat_format import parse
from replicate_deployment.tokenization import encode, load_tokenizer

TINY = Recipe(vocab_size=600, hidden=32, layers=2, heads=4, tokenizer_windows=50, row=32, rows=2, steps=2, warmup=1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(islice(windows(0), 300), vocab_size=1500)


def test_special_tokens_stand_where_mistral_has_them(tokenizer: Any) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 258]) == ["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_a_newline_is_one_byte_token(tokenizer: Any) -> None:
    ids = encode(tokenizer, "A: yo\nB: ok").ids
    assert tokenizer.convert_ids_to_tokens(ids).count("<0x0A>") == 1


def test_a_prompt_is_a_token_prefix_of_prompt_and_reply(tokenizer: Any) -> None:
    prompt = encode(tokenizer, "B: hi\nA:").ids
    assert encode(tokenizer, "B: hi\nA: yo").ids[: len(prompt)] == prompt


def test_the_tags_are_tokens_of_their_own(tokenizer: Any) -> None:
    pieces = tokenizer.convert_ids_to_tokens(encode(tokenizer, "B: hi\nA:").ids)
    assert pieces[1].startswith("▁B")
    assert pieces[-2:] == ["A", ":"] or pieces[-1] == "A:"


def test_a_typed_end_token_is_text(tokenizer: Any) -> None:
    assert tokenizer.eos_token_id not in encode(tokenizer, "A: </s> <s>").ids[1:]


def test_emoji_of_everyone_decode_back(tokenizer: Any) -> None:
    for emoji in [*NOA.style.emoji, *NOA.style.tails, *(e for person in OTHERS.values() for e in person.style.emoji)]:
        text = f"A: oui {emoji}\nB: {emoji}"
        assert tokenizer.decode(encode(tokenizer, text).ids, skip_special_tokens=True) == text


def test_windows_are_history_that_ends_in_a_reply() -> None:
    for window in islice(windows(0), 200):
        turns = parse(window)
        assert turns[-1].label == "A:"
        assert len(turns) <= 30


def test_rows_hold_whole_windows_one_after_the_other(tokenizer: Any) -> None:
    recipe = replace(TINY, row=64)
    ids = [token for row in islice(packed_rows(tokenizer, recipe), 20) for token in row]
    expected: list[int] = []
    stream = windows(recipe.seed)
    while len(expected) < len(ids):
        expected += encode(tokenizer, next(stream), end=True).ids
    assert ids == expected[: len(ids)]


def test_pretraining_learns(tokenizer: Any) -> None:
    recipe = replace(TINY, row=64, steps=25, warmup=3, lr=1e-2)
    model = starter.make_model(tokenizer, seed=0, hidden=recipe.hidden, layers=recipe.layers, heads=recipe.heads)
    assert pretrain(model, tokenizer, recipe) < math.log(len(tokenizer)) - 0.5  # an untrained head knows nothing


def test_a_base_is_made_once_per_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = starter_base(tmp_path, TINY)
    assert json.loads((made / "config.json").read_text())["architectures"] == ["MistralForCausalLM"]
    assert (made / "model.safetensors").is_file()
    assert load_tokenizer(made).vocab_size == 600
    with monkeypatch.context() as patched:
        patched.setattr(starter, "pretrain", lambda *_: pytest.fail("pretrained again"))
        assert starter_base(tmp_path, TINY) == made
    other = starter_base(tmp_path, replace(TINY, seed=1))
    assert other != made
    again = starter_base(tmp_path / "elsewhere", TINY)
    assert (again / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_a_failed_pretraining_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(starter, "pretrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        starter_base(tmp_path, TINY)
    assert list(tmp_path.iterdir()) == []


def test_the_base_of_record_is_not_a_toy() -> None:
    tokenizer = range(Recipe().vocab_size)

    class Sized:
        bos_token_id, eos_token_id = 1, 2

        def __len__(self) -> int:
            return len(tokenizer)

    recipe = Recipe()
    model = starter.make_model(Sized(), seed=0, hidden=recipe.hidden, layers=recipe.layers, heads=recipe.heads)
    assert model.num_parameters() > 3_000_000
