"""The generator: lazy, seeded, coherent, with clocks that keep the contract and styles that can be counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from ghost.demo.chats import (
    BURST,
    GAP,
    Chat,
    Kind,
    Message,
    conversations,
    messages,
    noa_chats,
    other_chats,
    turns,
    verbatim_overlap,
)
from ghost.demo.people import NOA, OTHERS, Person, Script, play, repertoire


def some(chat: Chat, number: int, seed: int = 1) -> list[list[Message]]:
    return list(islice(conversations(chat, seed=seed, mean_gap=24), number))


def texts(sender: Person, number: int = 60) -> list[str]:
    chats = [chat for chat in noa_chats().values() if sender in chat.members]
    return [
        message.text
        for chat in chats
        for conversation in some(chat, number)
        for message in conversation
        if message.sender is sender and message.kind is Kind.TEXT
    ]


def lower_case_share(messages: list[str]) -> float:
    return sum(message == message.lower() for message in messages) / len(messages)


def messages_per_turn(sender: Person) -> float:
    chat = next(chat for chat in noa_chats().values() if sender in chat.members)
    sides = [message.sender for found in some(chat, 100) for message in found if message.kind is Kind.TEXT]
    mine = sum(side is sender for side in sides)
    return mine / sum(after is sender and before is not sender for before, after in pairwise([None, *sides]))


def test_the_same_seed_gives_the_same_messages_and_another_seed_others() -> None:
    chat = noa_chats()["Malo Cendreval"]
    assert some(chat, 5) == some(chat, 5)
    assert some(chat, 5) != some(chat, 5, seed=2)


def test_a_chat_does_not_depend_on_what_was_drawn_from_another() -> None:
    chats = noa_chats()
    streams = [conversations(chats[title], seed=3, mean_gap=24) for title in ("Priya Wexmoor", "Malo Cendreval")]
    interleaved = [next(stream) for _ in range(4) for stream in streams]
    assert interleaved[1::2] == some(chats["Malo Cendreval"], 4, seed=3)


def test_a_hundred_thousand_messages_are_drawn_one_conversation_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(script: Script, slots: dict[str, tuple[str, ...]], rng: object) -> Iterator[object]:
        made.append(1)
        return play(script, slots, rng)  # type: ignore[arg-type]

    monkeypatch.setattr("ghost.demo.chats.play", counted)
    stream = messages(noa_chats()["Priya Wexmoor"], seed=1, count=100_000)
    assert len(list(islice(stream, 10))) == 10
    assert len(made) < 20


def test_count_is_exact_and_kinds_can_be_left_out() -> None:
    chat = noa_chats()["Jun Marrowby"]
    drawn = list(messages(chat, seed=1, count=2_000, without=frozenset([Kind.DELETED])))
    assert len(drawn) == 2_000
    kinds = Counter(message.kind for message in drawn)
    assert set(kinds) == set(Kind) - {Kind.DELETED}


@pytest.mark.parametrize("title", noa_chats())
def test_clocks_keep_bursts_short_and_conversations_apart(title: str) -> None:
    found = some(noa_chats()[title], 80)
    for conversation in found:
        pauses = [after.time - before.time for before, after in pairwise(conversation)]
        assert min(pauses) > 0
        assert max(pauses) < GAP
    for before, after in pairwise(found):
        assert after[0].time - before[-1].time >= GAP


def test_a_history_lasts_many_months() -> None:
    drawn = list(messages(noa_chats()["Ingrid Hallowfen"], seed=1, count=400))
    assert drawn[-1].time - drawn[0].time > 180 * 24 * 3600


def test_turns_join_bursts_and_leave_out_what_has_no_words() -> None:
    malo = OTHERS["Malo Cendreval"]
    said = [
        Message(0, malo, Kind.TEXT, "Salut."),
        Message(10, NOA, Kind.TEXT, "slt"),
        Message(12, NOA, Kind.PHOTO, ""),
        Message(10 + BURST, NOA, Kind.TEXT, "ça va?"),
        Message(11 + 2 * BURST, NOA, Kind.TEXT, "allo"),
    ]
    assert list(turns(said, NOA)) == [(False, "Salut."), (True, "slt\nça va?"), (True, "allo")]


def test_replies_speak_of_what_was_asked() -> None:
    known = repertoire("en")
    cook = next(
        script for script in known.topics if "{dish}" in str(script.opening) and "recipe" in str(script.opening)
    )
    one_way = replace(cook, opening=(("How do you make {dish}?",),), paths=(((("I love {dish}",),),),))
    from random import Random

    for seed in range(20):
        asked, answered = (move.clauses[0] for move in play(one_way, known.slots, Random(seed)))
        dish = asked.removeprefix("How do you make ").removesuffix("?")
        assert dish in known.slots["dish"]
        assert answered == f"I love {dish}"


@pytest.mark.parametrize("language", ["fr", "en"])
def test_every_slot_of_every_script_can_be_filled(language: str) -> None:
    from random import Random

    known, rng = repertoire(language), Random(0)
    for script in (*known.greetings, *known.goodbyes, *known.topics):
        assert all(path for path in script.paths)
        for beats in ((script.opening, *path) for path in script.paths):
            alternatives = max(len(beat) for beat in beats)
            for _ in range(20 * alternatives):
                said = [clause for move in play(script, known.slots, rng) for clause in move.clauses]
                assert all(clause.strip() and "{" not in clause and "|" not in clause for clause in said)


def test_noa_writes_lower_case_and_everyone_else_sentences() -> None:
    assert lower_case_share(texts(NOA, 20)) == 1.0
    for person in OTHERS.values():
        share = lower_case_share(texts(person) or spoken_to_others(person))
        assert share < 0.02, person.name


def spoken_to_others(person: Person) -> list[str]:
    chat = next(chat for chat in other_chats() if chat.members[0] is person)
    return [message.text for found in some(chat, 40) for message in found if message.kind is Kind.TEXT]


def test_noa_writes_in_bursts_and_the_others_one_message_at_a_time() -> None:
    assert messages_per_turn(NOA) > 2
    for name in ("Malo Cendreval", "Priya Wexmoor", "Tomasz Birkenrode"):
        assert messages_per_turn(OTHERS[name]) < 1.3


def test_emoji_tell_noa_from_the_others() -> None:
    others = {emoji for person in OTHERS.values() for emoji in person.style.emoji}
    assert not others & {*NOA.style.emoji, *NOA.style.tails}
    said = "\n".join(texts(NOA))
    assert "🤷🏽‍♀️" in said
    assert "\n<3" in said


def test_noa_mixes_languages_by_partner() -> None:
    french, english = (
        "\n".join(message.text for found in some(noa_chats()[title], 60) for message in found if message.sender is NOA)
        for title in ("Malo Cendreval", "Priya Wexmoor")
    )
    assert {"honestly", "ouais"} <= set(french.split())
    assert {"genre", "tmr"} <= set(english.split())


def test_noa_is_in_no_other_chat_and_all_names_differ() -> None:
    assert all(NOA not in chat.members for chat in other_chats())
    assert len({chat.title for chat in other_chats()}) == len(other_chats())


def test_long_held_out_replies_do_not_occur_in_training() -> None:
    train: list[str] = []
    held_out: list[str] = []
    for chat in noa_chats().values():
        found = some(chat, 60)
        for number, conversation in enumerate(found):
            (train if number < 54 else held_out).extend(text for mine, text in turns(conversation, NOA) if mine)
    overlap = verbatim_overlap(train, held_out)
    assert overlap["25-49"] <= 0.06
    assert overlap["50+"] <= 0.02


def test_overlap_is_a_share_by_length() -> None:
    overlap = verbatim_overlap(["mdr", "x" * 60], ["mdr", "lol", "x" * 60, "y" * 30])
    assert overlap == {"1-9": 0.5, "25-49": 0.0, "50+": 1.0}
