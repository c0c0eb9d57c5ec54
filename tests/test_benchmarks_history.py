"""The benchmark of histories: its page says what was measured."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import history
from benchmarks.history import Place, Said
from replicate_deployment.chat_format import Recipe, Turn

PLACES = [Place([], Turn("B:", "yo ?"), "mdr" * size) for size in (1, 2, 3)]


def page(recipe: Recipe, ends: Callable[[bool, int], bool]) -> str:
    said = [
        Said(spared, pairs, 10, 30, "end_token" if ends(spared, number) else "stop_sequence")
        for spared in (True, False)
        for pairs in history.PAIRS
        for number in range(10)
    ]
    return "\n".join(history.page(said, PLACES, 3, Path("models/merged"), recipe))


@pytest.mark.parametrize(
    ("recipe", "spared", "punished", "words"),
    [
        ("windows", 1, 5, "has no end token in its history"),
        ("conversations", 9, 5, "an end token behind each of its turns"),
        ("windows", 9, 5, "do not tell why"),
        ("conversations", 1, 5, "do not tell why"),
        ("windows", 5, 5, "That is alike"),
    ],
)
def test_what_follows_is_what_was_measured(recipe: Recipe, spared: int, punished: int, words: str) -> None:
    text = page(recipe, lambda way, number: number < (spared if way else punished))
    assert f"{spared * 10:.1f}% spared, {punished * 10:.1f}% not." in text
    assert words in " ".join(text.split())
    assert f"`models/merged` ({recipe})" in text
    assert max(map(len, text.split("## What follows")[1].splitlines())) <= 120
