"""Which replies are held against which: those that were answered, and partners as the person is."""

from dataclasses import replace

from ghost.evaluation import authorship, evaluate
from ghost.evaluation.data import Exchange
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn

EXCHANGES = [
    Exchange((Turn("B:", f"tu viens ? {number}"),), f"j'arrive {number}", conversation=number // 4)
    for number in range(40)
]


def test_replies_that_were_never_given_shift_no_other() -> None:
    said = [replace(one, reply=f"i come {one.conversation}", ended="length") for one in EXCHANGES]
    given, answered = [*said[:3], *said[5:]], [*EXCHANGES[:3], *EXCHANGES[5:]]
    groups = [one.conversation for one in answered]
    assert evaluate.answered(EXCHANGES, given) == answered
    assert evaluate.authorship_auc(EXCHANGES, given, seed=0) == authorship.classifier_auc(
        [one.reply for one in answered], [one.reply for one in given], 0, (groups, groups)
    )


def test_the_person_and_those_they_write_with_are_told_apart_by_conversation() -> None:
    """One person that is both sides, and often says the same: neither side's repetitions may give it away."""
    words = ["ok ça marche", "on verra bien", "demain peut-être", "je sais pas trop", "carrément oui", "pas ce soir"]
    same = [
        Exchange(
            (Turn("B:", f"{words[number % 6]} {number % 7}"),), f"{words[number % 6]} {number % 7}", conversation=0
        )
        for number in range(210)
    ]
    spread = [replace(one, conversation=number // 7) for number, one in enumerate(same)]
    found = evaluate.person_figures(spread, DEFAULT_LABELS, seed=0)["authorship"]
    own, talks = [one.reply for one in spread], [one.conversation for one in spread]
    halves = authorship.classifier_auc(own[::2], own[1::2], 0, (talks[::2], talks[1::2]))
    assert found["themselves"] == vars(halves)
    assert found["others"]["value"] < 0.6
    assert found["others"]["n"] == 42
