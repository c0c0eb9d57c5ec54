"""Both recipes: their lines, and how often an epoch shows a turn."""

import json

import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, RECIPES, Labels, Recipe, Turn, parse_line
from training.preparation.dataset import Examples, Window, exposure, make_examples, make_lines

TALK = [
    Turn("A:", 'hey </s>\nyou, "'),
    Turn("B:", "x</s>"),
    Turn("A:", "one"),
    Turn("A:", "two\n</s>"),
    Turn("B:", "bye"),
]


def _texts(recipe: Recipe, turns: list[Turn], stretches: list[Window], labels: Labels = DEFAULT_LABELS) -> list[str]:
    content = make_lines(recipe, turns, stretches, labels).decode()
    assert content.endswith("\n")
    texts = [json.loads(line)["text"] for line in content.split("\n")[:-1]]
    assert content == "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return texts


def test_a_conversation_is_one_line_in_which_each_turn_of_the_person_ends() -> None:
    (text,) = _texts("conversations", TALK, [Window(0, 4)])
    assert text == 'A: hey </s>\nyou, "</s>\nB: x</s>\nA: one</s>\nA: two\n </s></s>\nB: bye'
    assert parse_line(text, recipe="conversations") == TALK


def test_a_window_ends_once() -> None:
    assert _texts("windows", TALK, [Window(0, 2), Window(1, 2)]) == [
        'A: hey </s>\nyou, "\nB: x</s>\nA: one</s>',
        "B: x</s>\nA: one</s>",
    ]


def test_other_labels_end_other_turns() -> None:
    labels = Labels(me="Moi:", other="A:")
    (text,) = _texts("conversations", [Turn("A:", "tu viens ?"), Turn("Moi:", "oui")], [Window(0, 1)], labels)
    assert text == "A: tu viens ?\nMoi: oui</s>"


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_gives_no_line(recipe: Recipe) -> None:
    assert make_lines(recipe, TALK, [], DEFAULT_LABELS) == b""


def test_conversations_are_whole_have_no_seeds_and_need_the_person() -> None:
    found = make_examples("conversations", [[False, False], [False, True] * 20, [True], [False]])
    assert found == Examples([[], [Window(0, 39)], [Window(0, 0)], []], [[], [], [], []], 0)


def test_exposure_of_windows() -> None:
    """Eight turns, sides by turns: one window of six, which shrinks by one turn, and a seed."""
    mine = [False, True] * 4
    found = Examples([[Window(0, 5)]], [[Window(6, 7)]], 1)
    assert exposure("windows", [mine], found).figures == {
        "own_turns": {"total": 4, "never_a_target": 2, "share": 0.5},
        "replies": {"total": 4, "never_a_target": 2, "share": 0.5},
        "times_a_turn_is_shown": {"mean": 1.0, "turns_by_times": {"0": 0, "1": 8}},
    }


def test_exposure_of_conversations() -> None:
    sides = [[True, False, True, True], [False, False]]
    assert exposure("conversations", sides, make_examples("conversations", sides)).figures == {
        "own_turns": {"total": 3, "never_a_target": 0, "share": 0.0},
        "replies": {"total": 1, "never_a_target": 0, "share": 0.0},
        "times_a_turn_is_shown": {"mean": 0.67, "turns_by_times": {"0": 2, "1": 4}},
    }


def test_exposure_of_nothing() -> None:
    assert exposure("windows", [], Examples([], [], 0)).figures == {
        "own_turns": {"total": 0, "never_a_target": 0, "share": 0.0},
        "replies": {"total": 0, "never_a_target": 0, "share": 0.0},
        "times_a_turn_is_shown": {"mean": 0.0, "turns_by_times": {}},
    }


def test_a_long_chat_by_turns_is_shown_twelve_times_by_windows_and_once_by_conversations() -> None:
    talk = [[False, True] * 500]
    shown = exposure("windows", talk, make_examples("windows", talk))
    assert shown.figures["times_a_turn_is_shown"]["mean"] == pytest.approx(12, abs=1)
    assert exposure("conversations", talk, make_examples("conversations", talk)).shown == [0, 1000]
