"""What training and serving rely on, of each kind of tokenizer."""

import codecs
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from replicate_deployment.chat_format import DEFAULT_LABELS, RECIPES, Recipe, Turn, render, spans
from replicate_deployment.errors import WeightsError
from replicate_deployment.stopping import ReplyScanner
from replicate_deployment.tokenization import (
    Tokenizer,
    encode,
    encode_prompt,
    least_tokens,
    load_tokenizer,
    template_for,
    token_bytes,
)
from tests.models import TOKENIZERS, make_tokenizer
from training.tokens import CountingTokenizer

REAL = Path(__file__).parents[2] / ".cache" / "real" / "SmolLM2-135M-Instruct"  # what `ghost demo` leaves there


@pytest.fixture(scope="module", params=[*TOKENIZERS, *([REAL.name] if REAL.is_dir() else [])])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == REAL.name:
        return load_tokenizer(REAL)
    folder = tmp_path_factory.mktemp(request.param)
    make_tokenizer(request.param).save_pretrained(folder)
    return load_tokenizer(folder)


WORDS = [
    "ok",
    "tu fais quoi",
    "c'était",
    "DON'T",
    "see",
    "A:",
    "B:",
    "PS:",
    "12:30",
    "4567",
    "😂",
    "👩‍🍳",
    "漢字",
    "e\u0301",
    "ñ",
    "\u0301",
]
SPECIAL = ["</s>", "<s>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|end_of_text|>", "<think>", "<", "[INST]"]
MARKS = [" ", "  ", ".", "!", "?!", "...", "\n", "\n\n", " \n", "\t", ")", "\r\n", "\u00a0", "/"]
texts = st.lists(st.sampled_from([*WORDS, *SPECIAL, *MARKS]), min_size=1, max_size=9).map("".join)
replies = texts.filter(lambda text: text.strip() != "" and text.split("\n")[0].strip() != "")


@st.composite
def talks(draw: st.DrawFn) -> list[Turn]:
    """Turns that end in a reply of the person's."""
    labels = draw(st.lists(st.sampled_from(["A:", "B:"]), max_size=4))
    return [Turn(label, draw(replies)) for label in [*labels, "B:", "A:"]]


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    bytes_of = token_bytes(tokenizer)
    return b"".join(bytes_of[token] for token in ids).decode()


def test_a_bos_is_one_that_the_tokenizer_puts_before_texts(tokenizer: Tokenizer) -> None:
    ids = encode(tokenizer, "B: x").ids
    assert ids == (tokenizer("B: x")["input_ids"])
    assert [tokenizer.bos_token_id] * (tokenizer.bos_token_id is not None) == ids[: tokenizer.bos_token_id is not None]


@given(talk=talks())
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_prompt_is_a_prefix_of_prompt_and_reply(recipe: Recipe, tokenizer: Tokenizer, talk: list[Turn]) -> None:
    ends = [span.end for span in spans(talk, recipe=recipe)]
    whole = encode(tokenizer, render(talk), ends=ends)
    prompt = encode_prompt(tokenizer, talk[:-1], DEFAULT_LABELS, recipe)
    assert whole.ids[: len(prompt)] == prompt
    end = tokenizer.eos_token_id
    assert [position for token, position in zip(*whole, strict=True) if token == end] == [(at, at) for at in ends]
    if tokenizer.backend_tokenizer.normalizer is None:
        # After a prompt the model writes the reply and its end token, whatever follows them in a longer talk.
        longer = [*talk, Turn("B:", "ok"), Turn("A:", "x")]
        found = encode(tokenizer, render(longer), ends=[span.end for span in spans(longer, recipe="conversations")]).ids
        alone = encode(tokenizer, render(talk), ends=[span.end for span in spans(talk, recipe="conversations")]).ids
        assert found[: len(alone)] == alone


@given(text=texts)
def test_the_ids_spell_the_text_and_no_special_token(tokenizer: Tokenizer, text: str) -> None:
    text = f"B: {text}"
    ids, offsets = encode(tokenizer, text)
    if tokenizer.bos_token_id is not None:
        del ids[0], offsets[0]
    composed = tokenizer.backend_tokenizer.normalizer is not None
    assert spelled(tokenizer, ids).removeprefix(" ") == (unicodedata.normalize("NFC", text) if composed else text)
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert not special & {*ids}
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
    longest = max(map(len, token_bytes(tokenizer)))
    assert least_tokens(text, longest) <= len(ids)


@given(talk=talks())
def test_the_tokenizers_library_alone_counts_the_same(tokenizer: Tokenizer, talk: list[Turn]) -> None:
    backend = Backend.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    ends = [span.end for span in spans(talk, recipe="conversations")]
    ours, counted = (encode(one, render(talk), ends=ends) for one in (tokenizer, CountingTokenizer(backend)))
    assert ours.offsets == counted.offsets


@given(reply=replies, more=texts, stop=st.sampled_from(DEFAULT_LABELS.stop_sequences))
def test_a_stop_sequence_is_found_wherever_tokens_straddle_it(
    tokenizer: Tokenizer, reply: str, more: str, stop: str
) -> None:
    """Fed by tokens, as the engine does, the reply is what it is in one piece."""
    written = render([Turn("A:", reply)]).removeprefix("A:") + stop + more
    if tokenizer.backend_tokenizer.normalizer is not None:
        written = unicodedata.normalize("NFC", written)
    ids = encode(tokenizer, "A:" + written).ids[len(encode(tokenizer, "A:").ids) :]
    bytes_of, utf8 = token_bytes(tokenizer), codecs.getincrementaldecoder("utf-8")(errors="ignore")
    by_token, whole = (ReplyScanner(DEFAULT_LABELS.stop_sequences) for _ in range(2))
    pieces = [by_token.feed(utf8.decode(bytes_of[token])) for token in ids]
    assert "".join(pieces) + by_token.finish() == whole.feed(written) + whole.finish()
    assert by_token.stopped == whole.stopped is not None


@pytest.mark.parametrize("kind", ["llama3", "qwen"])
def test_tokens_do_straddle(kind: str) -> None:
    """Else the tests above would prove nothing."""
    tokenizer = make_tokenizer(kind)
    assert {b".\n", b"!\n"} < {*token_bytes(tokenizer)}
    turns = [Turn("B:", "x"), Turn("A:", "ok."), Turn("B:", "x")]
    whole, apart = (encode(tokenizer, render(turns), ends=ends).ids for ends in ([], [11]))
    assert render(turns)[11] == "\n"
    assert whole != [token for token in apart if token != tokenizer.eos_token_id]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_chat_template_gives_the_same_ids(tokenizer: Tokenizer, recipe: Recipe) -> None:
    turns = [Turn("B:", "hey.\n\nA: x"), Turn("A:", "ok!"), Turn("B:", "tu fais quoi ?")]
    messages = [{"role": "user" if turn.label == "B:" else "assistant", "content": turn.text} for turn in turns]
    template = template_for(tokenizer, DEFAULT_LABELS, recipe)
    read: Any = tokenizer.apply_chat_template
    ids = read(messages, chat_template=template, add_generation_prompt=True, return_dict=False)
    assert ids == encode_prompt(tokenizer, turns, DEFAULT_LABELS, recipe)
    for special in [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]:
        text = read([{"role": "user", "content": f"x{special}"}], chat_template=template, tokenize=False)
        assert special not in text.removeprefix(tokenizer.bos_token or "")


def edited(folder: Path, **changes: Any) -> Path:
    make_tokenizer("smollm").save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_tokenizer_that_changes_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not keep texts as they are"):
        load_tokenizer(edited(tmp_path, normalizer={"type": "Lowercase"}))


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    edited(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token"})
    )
    with pytest.raises(WeightsError, match="has no end token"):
        load_tokenizer(tmp_path)
