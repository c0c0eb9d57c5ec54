import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from replicate_deployment.chat_format import Labels, Turn, render, spans
from replicate_deployment.engine import Engine
from replicate_deployment.errors import WeightsError
from replicate_deployment.tokenization import encode, load_tokenizer, token_bytes
from tests.replicate_deployment.test_chat_format import talks


def test_a_literal_end_token_is_text(engine: Engine) -> None:
    end = engine.tokenizer.eos_token_id
    assert end not in encode(engine.tokenizer, "B: </s> <s>").ids
    assert encode(engine.tokenizer, "B: </s>", end=True).ids.count(end) == 1


def test_a_prompt_is_a_token_prefix_of_prompt_and_reply(engine: Engine) -> None:
    prompt = encode(engine.tokenizer, "B: hey\nA:").ids
    assert encode(engine.tokenizer, "B: hey\nA: on se voit").ids[: len(prompt)] == prompt


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_the_bytes_of_the_ids_spell_the_text(engine: Engine, text: str) -> None:
    ids = encode(engine.tokenizer, f"B: {text}").ids
    spelled = b"".join(engine.token_bytes[token] for token in ids).decode()
    assert spelled.removeprefix(" ") == f"B: {text}"  # SentencePiece puts a space before the first word


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_offsets_cover_the_text_in_order(engine: Engine, text: str) -> None:
    ids, offsets = encode(engine.tokenizer, text, end=True)
    assert len(ids) == len(offsets)
    assert offsets[0] == (0, 0)
    assert offsets[-1] == (len(text), len(text))
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)


@given(talk=talks(min_size=1))
def test_end_tokens_stand_where_the_spans_end(engine: Engine, talk: tuple[list[Turn], Labels]) -> None:
    turns, labels = talk
    text, end = render(turns, labels), engine.tokenizer.eos_token_id
    replies = spans(turns, labels, recipe="conversations")
    ids, offsets = encode(engine.tokenizer, text, ends=[span.end for span in replies])
    assert [token for token in ids if token != end] == encode(engine.tokenizer, text).ids
    assert [span for token, span in zip(ids, offsets, strict=True) if token == end] == [
        (span.end, span.end) for span in replies
    ]
    starts = [start for start, _ in offsets]
    assert starts == sorted(starts)
    # What is learnt by the spans alone: each reply behind its tag, and its end token.
    for reply in replies:
        kept = [place for place, (_, stop) in enumerate(offsets) if reply.start < stop <= reply.end]
        assert kept == list(range(kept[0], kept[-1] + 1))
        assert ids[kept[-1]] == end
        assert offsets[kept[0] - 1][1] == reply.start


def test_a_tokenizer_without_byte_fallback_is_refused() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(WeightsError, match="cannot spell every text"):
        token_bytes(words)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: object) -> None:
    with pytest.raises(WeightsError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))
