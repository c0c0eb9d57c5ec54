"""Which replies are held against which: those that were answered, and partners as the person is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from training.evaluation import authorship, figures
from training.evaluation.exchange import Exchange
from training.evaluation.summary import summary

EXCHANGES = [
    Exchange((Turn("B:", f"tu viens ? {number}"),), f"j'arrive {number}", conversation=number // 4)
    for number in range(40)
]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the classifier was asked to tell apart."""
    asked: list[tuple[Any, ...]] = []
    tell_apart = authorship.tell_apart

    def listening(own: Sequence[str], said: Sequence[str], seed: int, groups: Any = None) -> Any:
        asked.append((own, said, groups))
        return tell_apart(own, said, seed, groups)

    monkeypatch.setattr(authorship, "tell_apart", listening)
    return asked


def test_replies_that_were_never_given_shift_no_other(compared: list[tuple[Any, ...]]) -> None:
    said = [replace(one, reply=f"i come {one.conversation}", ended="length") for one in EXCHANGES]
    figures.told_apart(EXCHANGES, [*said[:3], *said[5:]], seed=0)
    ((own, theirs, (groups, same)),) = compared
    assert list(own) == [one.reply for one in (*EXCHANGES[:3], *EXCHANGES[5:])]
    assert [int(text.rsplit(" ", 1)[1]) for text in theirs] == groups == same


def test_the_person_and_those_they_write_with_are_told_apart_by_conversation(compared: list[tuple[Any, ...]]) -> None:
    """One person that is both sides, and often says the same: neither side's repetitions may give it away."""
    words = ["ok ça marche", "on verra bien", "demain peut-être", "je sais pas trop", "carrément oui", "pas ce soir"]
    same = [
        Exchange(
            (Turn("B:", f"{words[number % 6]} {number % 7}"),), f"{words[number % 6]} {number % 7}", conversation=0
        )
        for number in range(210)
    ]
    spread = [replace(one, conversation=number // 7) for number, one in enumerate(same)]
    found = figures.of_person(spread, DEFAULT_LABELS, seed=0)["authorship"]
    others, halves = compared
    assert [len(part) for part in halves[2]] == [105, 105]
    assert others[2][0] == others[2][1] == [one.conversation for one in spread]
    assert found["others"]["value"] < 0.6
    assert found["others"]["n"] == 42


@pytest.mark.parametrize(
    ("talks", "words"), [(None, "12 replies of yours\n"), (1, " in 1 conversation\n"), (2, " in 2 conversations\n")]
)
def test_conversations_are_counted_in_words(talks: int | None, words: str) -> None:
    held = {"replies": 12, "of": 12, "conversations": talks}
    verdict = {"summary": [], "steps": []}
    assert words in summary({"held_out": held, "contenders": {}, "missing": {}, "verdict": verdict}, Path("r"))
