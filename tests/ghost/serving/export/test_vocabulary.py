"""What llama.cpp reads gives the ids that training used."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import ConversionError
from ghost.serving.gguf_file import BYTES, Vocabulary, read_vocabulary, scores_of
from replicate_deployment.tokenization import Tokenizer, encode, load_tokenizer
from tests.models import SENTENCES

TEXTS = [
    "B: hey tu fais quoi ce soir\nA:",
    "B: l'été, ça va? 👩‍🍳🏳️‍🌈 ﷽\n\nA: ok",
    "B: <s>[INST] </s> <0x0A> [PAD3]\tx\r\n",
    "B:  two   spaces    and more  \n ▁ ▁▁\n",
    "B: 漢字 Ελλάδα عربى",
    "x",
]


@pytest.fixture(scope="module")
def starter(tiny_base: Path) -> Tokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def mistral_like(starter: Tokenizer) -> Tokenizer:
    """As transformers makes one of Mistral's tokenizer.model: no splitting, runs of spaces, every pair of pieces that
    makes a piece, in the order of the pieces."""

    def edit(document: dict[str, Any]) -> None:
        model = document["model"]
        specials = [*BYTES, "<unk>", "<s>", "</s>"]
        runs = [2 * "▁", 4 * "▁"]
        made = [*runs, *("".join(pair) for pair in model["merges"])]
        letters = [piece for piece in model["vocab"] if piece not in made and piece not in specials]
        pieces = ["<unk>", "<s>", "</s>", *BYTES, *made, *letters]
        model["vocab"] = {piece: place for place, piece in enumerate(pieces)}
        pairs = [(piece[:at], piece[at:]) for piece in made for at in range(1, len(piece))]
        model["merges"] = [[left, right] for left, right in pairs if left in model["vocab"] and right in model["vocab"]]
        document["pre_tokenizer"] = document["pre_tokenizer"]["pretokenizers"][1] | {"split": False}

    return changed(starter, edit)


def changed(tokenizer: Tokenizer, edit: Callable[[dict[str, Any]], object]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    edit(document)
    names = {name: getattr(tokenizer, name) for name in ("unk_token", "bos_token", "eos_token")}
    return PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(json.dumps(document)), **names)


@pytest.mark.parametrize("kind", ["starter", "mistral_like"])
def test_every_text_becomes_the_same_ids(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    vocabulary = read_vocabulary(tokenizer, len(tokenizer) + 5)
    words = st.sampled_from([*" ".join(SENTENCES).split(), " ", "  ", "\n", "▁", "</s>", "é", "😂", "A:"])

    # A text that starts with a space gains none in transformers and is never one of ours: it starts with a tag.
    @given(st.one_of(st.text(), st.lists(words).map("".join)).filter(lambda text: text[:1] not in (" ", "▁")))
    def same(text: str) -> None:
        assert vocabulary.encode(" " + text if text else "") == encode(tokenizer, text).ids[1:]

    same()
    for text in TEXTS:
        assert vocabulary.encode(" " + text) == encode(tokenizer, text).ids[1:], text


def test_the_vocabulary_is_complete(starter: Tokenizer) -> None:
    from gguf import TokenType

    size = len(starter)
    vocabulary = read_vocabulary(starter, size + 2)
    assert vocabulary.pieces == [*starter.convert_ids_to_tokens(range(size)), f"[PAD{size}]", f"[PAD{size + 1}]"]
    kinds = [TokenType(kind) for kind in vocabulary.kinds]
    assert kinds[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert kinds[3:259] == [TokenType.BYTE] * 256
    assert kinds[259:] == [TokenType.NORMAL] * (size - 259) + [TokenType.UNUSED] * 2
    merges = json.loads(starter.backend_tokenizer.to_str())["model"]["merges"]
    by_score = sorted(("".join(pair) for pair in merges), key=lambda piece: -score(vocabulary, piece))
    assert by_score == ["".join(pair) for pair in merges]


def score(vocabulary: Vocabulary, piece: str) -> float:
    return vocabulary.scores[vocabulary.pieces.index(piece)]


def test_a_token_of_one_s_own_is_user_defined(starter: Tokenizer) -> None:
    from gguf import TokenType

    tokenizer = copy.deepcopy(starter)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    kinds = read_vocabulary(tokenizer, len(tokenizer)).kinds[-2:]
    assert kinds == [TokenType.USER_DEFINED, TokenType.CONTROL]


def test_an_order_that_no_score_can_express_is_refused() -> None:
    """`bc` first, so `abc` stays `a bc`; llama.cpp would join these, for `abc` is a piece."""
    dead = {("b", "c"): 0, ("a", "b"): 1, ("ab", "c"): 2}
    with pytest.raises(ValueError, match="merges turn 'abc' into 'abc'"):
        scores_of(dead, ["a", "b", "c", "ab", "bc", "abc"])
    # `x y` is written first, but what ever joins is `xy` by `x y` written last.
    with pytest.raises(ValueError, match="made earlier"):
        scores_of({("a", "bc"): 0, ("a", "b"): 1, ("d", "e"): 2, ("ab", "c"): 3}, ["ab", "abc", "de"])
    with pytest.raises(ValueError, match="'</s>' would be merged from text"):
        scores_of({("<", "/"): 0, ("s", ">"): 1}, ["</", "s>", "</s>"])


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no byte fallback": (lambda d: d["model"].update(byte_fallback=False), "model.byte_fallback is False"),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFC"}), "its normalizer is NFC"),
    "other splitting": (
        lambda d: d.update(pre_tokenizer={"type": "Whitespace"}),
        'its pre_tokenizer is {"type": "Whitespace"}',
    ),
    "no splitting": (lambda d: d.update(pre_tokenizer=None), "its pre_tokenizer is"),
    "takes spaces": (lambda d: d["added_tokens"][1].update(rstrip=True), "'<s>' strips spaces"),
    "a byte is lacking": (lambda d: d["model"]["vocab"].update({"<0x07>x": d["model"]["vocab"].pop("<0x07>")}), "1 of"),
}


@pytest.mark.parametrize(("edit", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_another_kind_of_tokenizer_is_refused(
    edit: Callable[[dict[str, Any]], object], reason: str, starter: Tokenizer
) -> None:
    with pytest.raises(ConversionError, match=reason):
        read_vocabulary(changed(starter, edit), len(starter))


@pytest.mark.parametrize(("piece", "reason"), [("e▁", "word splits"), ("e\n", "line splits")])
def test_pieces_beyond_what_is_split_are_refused(piece: str, reason: str, starter: Tokenizer) -> None:
    def edit(document: dict[str, Any]) -> None:
        vocab = document["model"]["vocab"]
        vocab.setdefault("\n", len(vocab))
        vocab[piece] = len(vocab)
        document["model"]["merges"].append([*piece])

    with pytest.raises(ConversionError, match=f"span its {reason}"):
        read_vocabulary(changed(starter, edit), len(starter) + 2)


def test_more_ids_than_the_model_has_are_refused(starter: Tokenizer) -> None:
    with pytest.raises(ConversionError, match="but the model has 400"):
        read_vocabulary(starter, 400)
