from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from training.finetuning.data import EXTRA_TOKENS, Pieces, cut, measure

LIMIT = 24
lengths = st.lists(st.integers(1, LIMIT + 6), min_size=1, max_size=40)
turns = st.lists(
    st.builds(
        Turn, st.sampled_from(["A:", "B:"]), st.sampled_from(["mdr", "ok 😂", "see you\nthere", "c'était dingue"])
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Any) -> Any:
    return load_tokenizer(tiny_base)


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
