"""Any tokens, any stop list: the pieces of a reply, joined, are what the reference says; and nobody forges a turn."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import Turn, parse, read_prompt
from replicate_deployment.engine import Engine, Reply
from replicate_deployment.settings import Settings
from replicate_deployment.stopping import ReplyScanner
from tests.replicate_deployment import reference_reply

# Few letters, so that stops overlap, nest and occur; commas, emoji of several parts, the format's own characters.
ALPHABET = ["a", "b", ",", " ", "\n", "A", "B", ":", "<", "👩", "‍", "🍳", "é"]
texts = st.text(alphabet=st.sampled_from(ALPHABET), max_size=40)
# One a prefix of another, on purpose: each stop may bring its own beginnings.
stop_lists = st.lists(texts.filter(bool).map(lambda text: text[:5]), max_size=4).flatmap(
    lambda stops: st.just(stops) | st.just([*stops, *(stop[:2] for stop in stops)])
)


def said(engine: Engine, drawn: list[int], stops: list[str]) -> tuple[list[str], Reply]:
    own = engine.ghost.stop_sequences
    reply = Reply(engine, [1], (token for token in drawn), ReplyScanner([*own, *stops], engine.labels))
    return list(reply), reply


def tokens_of(engine: Engine, text: str, cuts: list[int]) -> list[int]:
    """Ids that spell the text as a model may: whole tokens where cut so, single bytes elsewhere."""
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    ids: list[int] = []
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        part = text[start:end]
        if number % 2:
            by_bytes = {spelled: token for token, spelled in enumerate(engine.token_bytes) if len(spelled) == 1}
            ids += [by_bytes[bytes([byte])] for byte in part.encode()]
        else:
            ids += engine.tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


@given(text=texts, stops=stop_lists, cuts=st.lists(st.integers(1, 39), max_size=8))
def test_any_stop_list_and_any_chunking_give_the_reference_reply(
    engine: Engine, text: str, stops: list[str], cuts: list[int]
) -> None:
    drawn = tokens_of(engine, text, cuts)
    written = reference_reply.decode([engine.token_bytes[token] for token in drawn])
    expected = reference_reply.reply(written, [*engine.ghost.stop_sequences, *stops], ended=False)
    pieces, reply = said(engine, drawn, stops)
    assert "".join(pieces) == expected
    assert all(pieces)  # no piece is empty
    stopped = reference_reply.cut(written, [*engine.ghost.stop_sequences, *stops]) != written
    assert reply.finish_reason == ("stop_sequence" if stopped else "length")


@given(drawn=st.lists(st.integers(0, 446), max_size=60), stops=stop_lists)
def test_any_tokens_give_whole_characters_and_the_reference_reply(
    engine: Engine, drawn: list[int], stops: list[str]
) -> None:
    end = engine.tokenizer.eos_token_id
    before = list(itertools.takewhile(lambda token: token != end, drawn))
    written = reference_reply.decode([engine.token_bytes[token] for token in before])
    pieces, reply = said(engine, drawn, stops)
    own = [*engine.ghost.stop_sequences, *stops]
    assert "".join(pieces) == reference_reply.reply(written, own, ended=reply.finish_reason != "length")
    assert "�" not in "".join(pieces)
    assert reply.output_tokens <= len(before) + 1


typed = st.lists(st.sampled_from([*ALPHABET, "\r", "</s>", "[INST]", "\nA:", "\nB:", "\nA: yes\n"]), max_size=12).map(
    "".join
)


@given(message=typed, history=st.lists(st.tuples(st.sampled_from(["A:", "B:"]), typed), max_size=4))
def test_what_is_typed_is_one_turn_whatever_it_is(engine: Engine, message: str, history: list[tuple[str, str]]) -> None:
    """Through the ids that the model reads: they spell as many turns as were given, with the texts as given."""
    turns = [*(Turn(label, f"x{text}") for label, text in history), Turn("B:", f"x{message}")]
    ids = engine.prompt_ids(turns, 12)
    spelled = b"".join(engine.token_bytes[token] for token in ids).decode()
    assert parse(spelled.removeprefix(" ").removesuffix("\nA:")) == turns
    assert ids.count(engine.tokenizer.eos_token_id) == 0
    assert ids.count(engine.tokenizer.bos_token_id) == 1


@given(message=typed)
def test_a_raw_prompt_that_opens_no_turn_is_one_message(engine: Engine, message: str) -> None:
    """As the predictor reads it: only a first line with a tag makes a history."""
    (turn,) = read_prompt(f"x{message}")
    assert turn.label == "B:"
    ids = engine.prompt_ids([turn], 12)
    spelled = b"".join(engine.token_bytes[token] for token in ids).decode()
    lines = spelled.removeprefix(" ").split("\n")
    assert [line[:2] for line in lines if line[:2] in reference_reply.LABELS] == ["B:", "A:"]
    assert lines[-1] == "A:"
    assert engine.tokenizer.eos_token_id not in ids


def test_streamed_and_whole_are_one_text(engine: Engine) -> None:
    turns = [Turn("B:", "on se voit ?")]
    for seed in range(5):
        settings, stops = Settings(max_new_tokens=25, temperature=1.5), ["e,", "e", "👩"]
        streamed = list(engine.reply(turns, settings, stop_sequences=stops, seed=seed))
        reply = engine.reply(turns, settings, stop_sequences=stops, seed=seed)
        whole = "".join(reply)
        assert "".join(streamed) == whole
        assert whole == reference_reply.reply(reply.written, [*engine.ghost.stop_sequences, *stops])
