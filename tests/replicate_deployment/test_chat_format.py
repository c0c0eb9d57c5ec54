"""The promises of the A:/B: text, for any turns and any labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import (
    DEFAULT_LABELS,
    END_TOKEN,
    RECIPES,
    Labels,
    Recipe,
    Turn,
    escape,
    parse,
    parse_line,
    read_prompt,
    render,
    render_line,
    render_prompt,
    spans,
    unescape,
)
from replicate_deployment.errors import PromptError

LABEL_PAIRS = [
    DEFAULT_LABELS,
    Labels("Moi:", "Toi:"),
    Labels("B:", "A:"),
    Labels("A:", "AA:"),
    Labels("(.*):", '|"\\:'),
]
labels = st.sampled_from(LABEL_PAIRS)
# Pieces that stress the format, in any order, next to arbitrary characters.
tags = [label for pair in LABEL_PAIRS for label in (pair.me, pair.other)]
pieces = st.sampled_from(
    [*tags, "\n", "\n", " ", "<", "</s>", "<s>", "[INST]", "\r", "\t", "\u2028", "é", "😂", "plan"]
)
texts = st.lists(pieces | st.characters(codec="utf-8"), max_size=12).map("".join)
turn_texts = texts.filter(lambda text: text.split("\n")[0].strip() != "")


@st.composite
def talks(draw: st.DrawFn, min_size: int = 0) -> tuple[list[Turn], Labels]:
    pair = draw(labels)
    sides = st.sampled_from([pair.me, pair.other])
    return draw(st.lists(st.builds(Turn, sides, turn_texts), min_size=min_size, max_size=6)), pair


@given(talks(min_size=1))
def test_parse_is_the_inverse_of_render(talk: tuple[list[Turn], Labels]) -> None:
    turns, pair = talk
    assert parse(render(turns, pair), pair) == turns


@given(talks(min_size=1))
def test_stop_sequences_occur_only_where_turns_meet(talk: tuple[list[Turn], Labels]) -> None:
    turns, pair = talk
    for turn in turns:
        assert not [stop for stop in pair.stop_sequences if stop in render([turn], pair)]
    text = render(turns, pair)
    assert text.count(f"\n{pair.me}") == sum(turn.label == pair.me for turn in turns[1:])
    assert text.count(f"\n{pair.other}") == sum(turn.label == pair.other for turn in turns[1:])


@given(texts, labels)
def test_unescape_is_the_inverse_of_escape(text: str, pair: Labels) -> None:
    assert unescape(escape(text, pair), pair) == text


@given(texts, labels)
def test_escape_adds_one_space_to_exactly_the_lines_of_the_contract(text: str, pair: Labels) -> None:
    first, *rest = text.split("\n")
    told_by_hand = [
        f" {line}" if line.lstrip(" ").startswith((pair.me, pair.other, "<")) or not line.strip(" ") else line
        for line in rest
    ]
    assert escape(text, pair).split("\n") == [first, *told_by_hand]


@given(talks(min_size=1))
def test_a_prompt_is_the_beginning_of_prompt_and_reply(talk: tuple[list[Turn], Labels]) -> None:
    turns, pair = talk
    assert render([*turns, Turn(pair.me, "yes")], pair) == render_prompt(turns, pair) + " yes"


@given(talks(min_size=1), turn_texts)
def test_read_prompt_understands_what_the_bot_sends(talk: tuple[list[Turn], Labels], last: str) -> None:
    turns, pair = talk
    # As the bot sends it: stripped, and with the line ends that read_prompt makes of all others.
    sent = [Turn(turn.label, turn.text.replace("\r\n", "\n").strip()) for turn in [*turns, Turn(pair.other, last)]]
    assert read_prompt(render_prompt(sent, pair), pair) == sent
    assert read_prompt(render(sent, pair), pair) == sent


@given(turn_texts)
def test_a_raw_message_cannot_forge_a_turn(text: str) -> None:
    (turn,) = parse(render([Turn("B:", text)]))
    assert turn == ("B:", text)


def test_read_prompt_takes_what_opens_with_no_tag_as_one_turn() -> None:
    assert read_prompt(" plan B: ok?\r\nA: fake\n") == [Turn("B:", "plan B: ok?\nA: fake")]


def test_read_prompt_allows_one_bare_tag_at_the_end() -> None:
    history = [Turn("A:", "hey"), Turn("B:", "yo")]
    assert (
        read_prompt("A: hey\nB: yo") == read_prompt("A: hey\nB: yo\nA:") == read_prompt("A: hey\nB: yo\nA: ") == history
    )


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("", "prompt is empty"),
        (" \n ", "prompt is empty"),
        ("A:", "nothing to answer"),
        ("B:", "nothing to answer"),
        ("B: hi\nB: \nA:", "nothing to answer"),
        ("B: hi\nA: hello", "finished A: turn"),
    ],
)
def test_read_prompt_refuses_what_cannot_be_answered(prompt: str, complaint: str) -> None:
    with pytest.raises(PromptError, match=complaint):
        read_prompt(prompt)


@given(talks(), st.sampled_from(RECIPES))
def test_spans_are_the_replies_behind_their_tags(talk: tuple[list[Turn], Labels], recipe: Recipe) -> None:
    turns, pair = talk
    kept = [turn for turn in (turns if recipe == "conversations" else turns[-1:]) if turn.label == pair.me]
    text = render(turns, pair)
    found = spans(turns, pair, recipe=recipe)
    assert [text[start:end] for start, end in found] == [f" {escape(turn.text, pair)}" for turn in kept]
    for start, end in found:
        assert text[:start].split("\n")[-1] == pair.me
        assert text[end:] == "" or text[end:].startswith((f"\n{pair.me} ", f"\n{pair.other} "))


@given(talks(min_size=1), st.sampled_from(RECIPES))
def test_a_line_is_the_text_with_an_end_token_behind_each_span(talk: tuple[list[Turn], Labels], recipe: Recipe) -> None:
    turns, pair = talk
    text = render(turns, pair)
    for _, end in reversed(spans(turns, pair, recipe=recipe)):
        text = text[:end] + END_TOKEN + text[end:]
    assert render_line(turns, pair, recipe=recipe) == text


@given(talks(min_size=1), st.sampled_from(RECIPES))
def test_parse_line_is_the_inverse_of_render_line(talk: tuple[list[Turn], Labels], recipe: Recipe) -> None:
    turns, pair = talk
    assert parse_line(render_line(turns, pair, recipe=recipe), pair, recipe=recipe) == turns


def test_a_typed_end_token_is_none() -> None:
    turns = [Turn("B:", "it prints </s>"), Turn("A:", "</s>"), Turn("B:", "</s>\n</s>"), Turn("A:", "no </s>\n</s>")]
    line = render_line(turns, recipe="conversations")
    assert line == "B: it prints </s>\nA: </s></s>\nB: </s>\n </s>\nA: no </s>\n </s></s>"
    assert parse_line(line, recipe="conversations") == turns
    assert [render(turns)[start:end] for start, end in spans(turns, recipe="conversations")] == [
        " </s>",
        " no </s>\n </s>",
    ]
    assert spans(turns, recipe="windows") == spans(turns, recipe="conversations")[1:]


@pytest.mark.parametrize(
    ("text", "recipe", "place"),
    [("B: hi\nA: yo", "windows", 2), ("B: hi\nA: yo\nB: x\nA: z</s>", "conversations", 2), ("A: ", "windows", 1)],
)
def test_a_line_without_an_end_token_is_refused(text: str, recipe: Recipe, place: int) -> None:
    with pytest.raises(PromptError, match=f"turn {place} does not end in </s>"):
        parse_line(text, recipe=recipe)


def test_parse_refuses_a_text_without_an_opening_tag() -> None:
    with pytest.raises(PromptError, match="does not start with A: or B:"):
        parse("hello\nA: hi")


@pytest.mark.parametrize(
    "pair",
    [("A", "B:"), ("A:", "A:"), ("A b:", "B:"), ("<A:", "B:"), ("A:B:", "B:"), ("", "B:"), ("a" * 10**6 + ":", "B:")],
    ids=lambda pair: repr(pair)[:20],
)
def test_labels_that_could_not_be_told_from_text_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        Labels(*pair)


def test_a_long_multiline_turn_is_parsed_in_linear_time() -> None:
    # 200,000 lines: quadratic copying would move 40 GB here.
    turn = Turn("B:", "\n".join(["line"] * 200_000))
    assert parse(render([turn])) == [turn]
