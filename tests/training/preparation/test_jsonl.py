"""The lines, cut from one escaped text, are those that json.dumps writes of each window by itself."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_deployment.chat_format import END_TOKEN, SPECIAL_STRINGS, Labels, Turn, render
from training.preparation.dataset import Window, holds_special_string, window_lines

LABELS = [Labels(), Labels("Moi:", "Toi:"), Labels('"\\:', "é😂:")]
texts = st.text(st.sampled_from('ab"",\\\\\n\n :A<\u2028\u2029\x00\x1f\x7f😂'), max_size=12) | st.text(max_size=12)
texts = texts.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
places = st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda pair: Window(min(pair), max(pair)))


@given(st.lists(st.tuples(st.booleans(), texts), min_size=8, max_size=8), st.lists(places), st.sampled_from(LABELS))
@example([(n % 2 == 0, 'x",') for n in range(8)], [Window(0, 7), Window(3, 3)], LABELS[0])
@example([(n % 2 == 0, '","\\n"\n"') for n in range(8)], [Window(1, 4)], LABELS[2])
def test_a_line_is_what_json_dumps_writes(said: list[tuple[bool, str]], windows: list[Window], labels: Labels) -> None:
    turns = [Turn(labels.me if is_mine else labels.other, text) for is_mine, text in said]
    expected = "".join(
        json.dumps({"text": render(turns[start : target + 1], labels) + END_TOKEN}, ensure_ascii=False) + "\n"
        for start, target in windows
    )
    assert window_lines(turns, iter(windows), labels) == expected.encode()


def test_every_character_is_escaped_as_json_dumps_does() -> None:
    for first in range(0, 0x110000, 0x800):
        if first != 0xD800:
            text = "".join(map(chr, range(first, first + 0x800))).replace("\n", "")
            expected = json.dumps({"text": f"A: {text}</s>"}, ensure_ascii=False) + "\n"
            assert window_lines([Turn("A:", text)], [Window(0, 0)], LABELS[0]) == expected.encode()


@pytest.mark.parametrize("special", SPECIAL_STRINGS)
def test_typed_special_strings_are_found(special: str) -> None:
    assert holds_special_string(Turn("B:", f"so: {special}"))
    assert not holds_special_string(Turn("B:", f"so: {special[1:]} < [ >"))
