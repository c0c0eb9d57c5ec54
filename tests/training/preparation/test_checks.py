"""Each concern where it fires, and one step before. All texts: numbers, two lines, nobody's name, no message."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.training.preparation.test_leakage import MONDAY, Row, pairs, prepared
from training.preparation import checks as module
from training.preparation.checks import Concern, TokenLengths, find_concerns, own_languages
from training.preparation.dataset import Prepared

FINE = TokenLengths("tokenizer", 1024, 5000, 2000, {"50": 200, "95": 1000, "max": 1500}, 0.95, 0.05, 0.01, 0.0, 10**6)
LEAKAGE: dict[str, Any] = {
    "turns_on_both_sides": 0,
    "messages_on_both_sides": 0,
    "targets": {"train": 1000, "val": 30, "from_characters": 50, "compared": 40, "exact": 0, "near": 0},
    "pasted": {"from_characters": 200, "compared": 0, "exact": 0, "near": 0},
    "walls": {
        "from_characters": 1000,
        "messages": 3,
        "copied_texts": 2,
        "copies": 7,
        "share_of_characters": 0.1,
        "share_of_your_characters": 0.1,
    },
}
LANGUAGES = {"train": {"fr": 0.9, "en": 0.1}, "val": {"fr": 0.6, "en": 0.4}}
REPLY = "a reply of several words"


def mixed(count: int = 20) -> list[Row]:
    """Two chats of a reply a day each, so that no chat and no day dominates."""
    return [*pairs([REPLY] * count), *pairs([REPLY] * count, path="whatsapp/Carl.csv")]


def raised(
    rows: Sequence[Row] | Prepared | None = None,
    leakage: Mapping[str, Any] = LEAKAGE,
    lengths: TokenLengths = FINE,
    languages: Mapping[str, Mapping[str, float]] = LANGUAGES,
) -> dict[str, Concern]:
    data = rows if isinstance(rows, Prepared) else prepared(mixed() if rows is None else rows)
    found = find_concerns(data, leakage, lengths, languages)
    assert len({concern.code for concern in found}) == len(found)
    for concern in found:
        assert len(concern.text) <= 240, concern.code
        assert "\n" not in concern.text
        assert any(map(str.isdigit, concern.text))
        assert not any(word in concern.text for word in ("Bea", "Carl", REPLY, "whatsapp"))
    return {concern.code: concern for concern in found}


def leaking(block: str | None = None, **changes: Any) -> dict[str, Any]:
    return LEAKAGE | changes if block is None else LEAKAGE | {block: LEAKAGE[block] | changes}


def test_good_data_raises_no_concern() -> None:
    assert raised() == {}


@pytest.mark.parametrize(
    ("leakage", "code", "number"),
    [
        (leaking("targets", train=49), "too_few_replies", "49"),
        (leaking("targets", train=50), "few_replies", "50"),
        (leaking("targets", train=999), "few_replies", "999"),
        (leaking("targets", train=1000), None, ""),
        (leaking("targets", val=29), "validation_small", "29"),
        (leaking("targets", val=1), "validation_small", "1"),
        (leaking("targets", val=0), "nothing_held_out", "0"),
        (leaking(turns_on_both_sides=1), "torn_turns", "1"),
        (leaking(messages_on_both_sides=12), "same_messages", "12"),
        (leaking("targets", exact=1, near=1), None, ""),
        (leaking("targets", exact=2, near=1), "leaked_replies", "3 of your 40"),
        (leaking("walls", share_of_characters=0.11), "walls", "11%"),
        (leaking("walls", share_of_your_characters=0.12), "walls", "12%"),
    ],
)
def test_figures_of_leakage(leakage: dict[str, Any], code: str | None, number: str) -> None:
    found = raised(leakage=leakage)
    assert list(found) == ([code] if code else [])
    for concern in found.values():
        assert number in concern.text
        assert concern.severity == ("refuse" if concern.code in ("too_few_replies", "torn_turns") else "warn")


@pytest.mark.parametrize(
    ("lengths", "code", "number"),
    [
        (replace(FINE, within=0.9), None, ""),
        (replace(FINE, within=0.89), "long_lines", "89%"),
        (replace(FINE, within=0.89, counted_by="estimate"), "long_lines", "about 89%"),
        (replace(FINE, skipped=0.01), None, ""),
        (replace(FINE, skipped=0.011), "skipped_lines", "1.1%"),
    ],
)
def test_figures_of_fit(lengths: TokenLengths, code: str | None, number: str) -> None:
    found = raised(lengths=lengths)
    assert list(found) == ([code] if code else [])
    assert all(number in concern.text for concern in found.values())


def test_long_conversations_train_in_pieces_and_are_no_concern() -> None:
    data = prepared(mixed(), "conversations")
    assert raised(data, lengths=replace(FINE, within=0.46, shortened=0.54)) == {}
    assert "skipped_lines" in raised(data, lengths=replace(FINE, skipped=0.02))


@pytest.mark.parametrize(("elsewhere", "fires"), [(8, False), (7, True)])
def test_one_chat_that_dominates(elsewhere: int, fires: bool) -> None:
    rows = pairs([REPLY] * 32) + pairs([REPLY] * elsewhere, path="whatsapp/Carl.csv")  # 32 of 40 are 80%
    assert ("one_chat" in raised(rows)) == fires


@pytest.mark.parametrize(("that_day", "fires"), [(5, False), (6, True)])
def test_one_day_that_dominates(that_day: int, fires: bool) -> None:
    rows = [row for n in range(1, 21) for row in _at(MONDAY + timedelta(days=n))]
    rows += [row for n in range(that_day) for row in _at(MONDAY + timedelta(hours=n))]
    found = raised(rows)
    assert ("one_day" in found) == fires
    if fires:
        assert "2024-03-04, of 21 in all" in found["one_day"].text


def test_the_day_is_that_of_the_time_zone() -> None:
    rows = [*_at(MONDAY.replace(hour=16)), *_at(MONDAY + timedelta(days=1))]
    assert "100% of your turns are of one day, 2024-03-05" in raised(prepared(rows, zone="Asia/Tokyo"))["one_day"].text
    assert "50% of your turns are of one day, 2024-03-04" in raised(rows)["one_day"].text


def _in_group(rows: Sequence[Row]) -> Iterator[Row]:
    for path, time, sender, text in rows:
        yield path, time, sender, text
        if sender == "Bea":
            yield path, time + timedelta(seconds=1), "Dan", text


@pytest.mark.parametrize(("in_group", "fires"), [(10, False), (11, True)])
def test_turns_from_groups(in_group: int, fires: bool) -> None:
    rows = mixed(20) + list(_in_group(pairs([REPLY] * in_group, path="whatsapp/Group.csv")))
    found = raised(rows)
    assert ("groups" in found) == fires


@pytest.mark.parametrize(
    ("train", "val", "code"),
    [
        (0.0, 0.2, "language_shift"),
        (0.0, 0.1, None),  # two of the 20 turns that are held out here: it may be a mistake
        (0.05, 0.25, "language_shift"),
        (0.06, 0.25, None),
    ],
)
def test_a_language_of_validation_only(train: float, val: float, code: str | None) -> None:
    data = prepared(mixed(130))
    held_out = sum(len(talk.turns) // 2 for talk in data.conversations[data.training :])
    assert held_out == 26
    shares = {"train": {"fr": 1 - train, "es": train}, "val": {"fr": 1 - val, "es": val}}
    assert ("language_shift" in raised(data, languages=shares)) == (code is not None)
    unknown = {"train": {"fr": 1.0}, "val": {"fr": 0.5, "und": 0.5}}
    assert "language_shift" not in raised(data, languages=unknown)


def test_languages_of_the_persons_turns_on_both_sides() -> None:
    french, german = "on se retrouve demain soir devant la gare", "wir treffen uns morgen abend vor dem bahnhof"
    data = prepared(pairs([french] * 18 + [german] * 2, said="see you tomorrow evening at the station"))
    shares = own_languages(data)
    assert shares == {"train": {"fr": 1.0}, "val": {"de": 1.0}}


@pytest.mark.parametrize(("days", "fires"), [(7, False), (6.9, True)])
def test_a_validation_of_one_week(days: float, fires: bool) -> None:
    """The held-out tenth of 20 conversations is two, so many days apart."""
    start = MONDAY - timedelta(days=72)
    rows = [row for n in range(18) for row in _at(start + timedelta(days=4 * n))]
    rows += [row for n in range(2) for row in _at(MONDAY + timedelta(days=days * n))]
    assert ("one_week_held_out" in raised(rows)) == fires


def test_a_week_held_out_of_a_short_time_is_as_it_should_be() -> None:
    assert "one_week_held_out" not in raised(mixed(35))  # 34 days


def _at(time: Any) -> list[Row]:
    return [("whatsapp/Bea.csv", time, "Bea", "and?"), ("whatsapp/Bea.csv", time + timedelta(minutes=1), "Ada", REPLY)]


@pytest.mark.parametrize(("short", "fires"), [(20, False), (21, True)])
def test_replies_of_one_word(short: int, fires: bool) -> None:
    replies = ["ok!"] * short + [REPLY] * (40 - short)
    rows = pairs(replies[::2]) + pairs(replies[1::2], path="whatsapp/Carl.csv")
    assert ("one_word" in raised(rows)) == fires


def test_a_sentence_without_blanks_is_not_one_word() -> None:
    assert "one_word" not in raised(pairs(["我明天去看医生"] * 20))


def test_a_large_silent_gap() -> None:
    times = [MONDAY + timedelta(minutes=4 * n) for n in range(7)]
    talk = [("whatsapp/Bea.csv", time, ["Ada", "Bea"][n % 2], REPLY) for n, time in enumerate(times)]
    talk += pairs(["later"] * 2, days=30)[2:]  # held out: a reply, which a window ends in
    data = prepared(talk)  # replies at 2, 4 and 6, and one window, which ends in 6
    silent = replace(data, examples=data.examples._replace(seeds=[[], []]))
    assert "2 of your 4 replies (50%)" in raised(silent)["silent_replies"].text
    assert "silent_replies" not in raised(replace(silent, recipe="conversations"))
    seeds = [[data.examples.windows[0][0]._replace(target=4)], []]
    answered = replace(data, examples=data.examples._replace(seeds=seeds))
    assert "silent_replies" not in raised(answered)  # one of four, and one of three is the limit


def test_refusals_come_first() -> None:
    found = list(raised(pairs([REPLY] * 20), leakage=leaking("targets", train=3, val=1)).values())
    assert [concern.severity for concern in found] == ["refuse"] + ["warn"] * (len(found) - 1)
    assert module.FEWEST_REPLIES == 50


def test_a_person_who_never_writes_raises_only_what_can_be_said() -> None:
    rows = [row for row in mixed() if row[2] != "Ada"]
    assert "too_few_replies" in raised(rows, leakage=leaking("targets", train=0, val=0))
