"""The stop scanner against a slow reference, for any stop list and any chunking."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.evaluation.prompts import one_turn
from replicate_deployment.chat_format import DEFAULT_LABELS, Labels, unescape
from replicate_deployment.errors import SettingsError
from replicate_deployment.stopping import ReplyScanner

DEFAULT_STOPS = DEFAULT_LABELS.stop_sequences
# Few letters, so that stops overlap, nest and occur; the format's own characters; commas; an emoji of several parts.
texts = st.text(
    alphabet=st.sampled_from(["a", "b", ",", " ", "\n", "A", "B", ":", "<", "👩", "‍", "🍳", "\t"]), max_size=40
)
stop_lists = st.one_of(st.just(DEFAULT_STOPS), st.lists(texts.filter(bool).map(lambda text: text[:4]), max_size=5))


def reference_cut(text: str, stops: list[str]) -> str:
    """Character by character: the first end at which any stop is complete, the longest of those."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - len(max(ending, key=len))]
    return text


def scan(pieces: list[str], stops: list[str], labels: Labels = DEFAULT_LABELS) -> list[str]:
    scanner = ReplyScanner(stops, labels)
    return [*(scanner.feed(piece) for piece in pieces), scanner.finish()]


@given(texts, stop_lists, st.lists(st.integers(0, 40)))
def test_any_chunking_gives_the_reference_text(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(borders)]
    expected = unescape(reference_cut(text, stops)).strip()
    assert "".join(scan(pieces, stops)) == expected
    assert "".join(scan([text], stops)) == expected
    assert "".join(scan(list(text), stops)) == expected


@given(texts, stop_lists)
def test_every_prefix_of_the_stream_is_a_prefix_of_the_reply(text: str, stops: list[str]) -> None:
    pieces = scan(list(text), stops)
    expected = unescape(reference_cut(text, stops)).strip()
    assert all(expected.startswith("".join(pieces[:n])) for n in range(len(pieces)))


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (" hey\nB: you", "hey"),
        (" plan B: we go", "plan B: we go"),  # the tag ends a turn at the start of a line only
        (" one\n\ntwo", "one"),
        (" one\n B: two", "one\nB: two"),  # an escaped line is text
        (" one\n </s>", "one\n</s>"),
        (" one\n  indented", "one\n  indented"),
        (" \n\nB:", ""),
        (" one\nA: two", "one"),
        (" wait \n", "wait"),
        (" wait\nB", "wait\nB"),  # ended before the stop was complete: it was text
    ],
)
def test_one_turn_with_the_default_stops(text: str, reply: str) -> None:
    assert "".join(scan(list(text), DEFAULT_STOPS)) == reply


def test_a_stop_may_hold_a_comma_and_the_first_completed_wins() -> None:
    assert "".join(scan(["a, b and c"], [", b", "b and"])) == "a"
    assert "".join(scan(["abcd"], ["abcd", "bc"])) == "a"
    assert "".join(scan(["xabc"], ["abc", "bc", "c"])) == "x"


def test_only_what_could_become_a_stop_is_held_back() -> None:
    assert scan(["hello", "\n", "there", "\nB", "e"], DEFAULT_STOPS) == ["hello", "", "\nthere", "", "\nBe", ""]


def test_after_a_stop_nothing_more_is_said() -> None:
    scanner = ReplyScanner(["STOP"])
    assert scanner.feed("yes STOP no") == "yes"
    assert scanner.stopped == "STOP"
    assert scanner.feed("more") == ""
    assert scanner.finish() == ""


@given(texts)
def test_the_beginning_of_a_stop_is_no_end_of_a_reply_that_was_cut(text: str) -> None:
    scanner = ReplyScanner(DEFAULT_STOPS)
    reply = "".join([*map(scanner.feed, text), scanner.finish(cut=scanner.stopped is None)])
    assert reply == one_turn(text, DEFAULT_STOPS, DEFAULT_LABELS, cut=True)


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(SettingsError, match="stop_sequences"):
        ReplyScanner(["ok", ""])
