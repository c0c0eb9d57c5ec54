"""Counted by hand: what is on both sides of the split, word for word, nearly, or twice."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import Recipe
from training.extraction.speakers import UserConfig
from training.preparation.checks import leakage, near_duplicates, targets
from training.preparation.dataset import Messages, Prepared

MONDAY = datetime(2024, 3, 4, 12, tzinfo=UTC)
Row = tuple[str, datetime, str, str]  # path, time, sender, text


def prepared(rows: Sequence[Row], recipe: Recipe = "windows", zone: str = "UTC") -> Prepared:
    """A data set of Ada's, as `ghost prepare` makes it of these rows."""
    config = UserConfig(user_identifiers=("Ada",), timezone=zone)
    rows = sorted(rows, key=lambda row: row[:2])
    table = pd.DataFrame(
        {
            "path": pd.Categorical([row[0] for row in rows]),
            "instant": pd.DatetimeIndex([row[1] for row in rows], tz="UTC"),
            "sender": pd.Categorical([row[2] for row in rows]),
            "text": pd.Series([row[3] for row in rows], dtype=object),
        }
    )
    return Prepared.of(config, recipe, Messages(table, len(rows), 0, 0, 0), table, {"Ada"})


def pairs(replies: Sequence[str], *, said: str = "and?", path: str = "whatsapp/Bea.csv", days: int = 1) -> list[Row]:
    """Bea says something and Ada replies, once a day: every pair a conversation, the last tenth of them held out."""
    rows = []
    for number, reply in enumerate(replies):
        start = MONDAY + timedelta(days=number * days)
        rows += [(path, start, "Bea", said), (path, start + timedelta(minutes=1), "Ada", reply)]
    return rows


def sentence(number: int, words: int) -> str:
    """`words` words of 9 letters and a blank each, of which no other number has any."""
    return " ".join(f"{number:04}w{place:04}" for place in range(words))


def found(replies: Sequence[str], **more: Any) -> dict[str, Any]:
    return leakage(prepared(pairs(replies, **more)))


def test_a_long_reply_of_both_sides_is_a_leak_and_a_short_one_is_none() -> None:
    long, short = "x" * 50, "y" * 49
    replies = [f"reply {number}" for number in range(18)]
    report = found([*replies[:16], short, long, long.upper() + "  ", short])
    assert report["targets"] == {"train": 18, "val": 2, "from_characters": 50, "compared": 1, "exact": 1, "near": 0}
    assert report["turns_on_both_sides"] == report["messages_on_both_sides"] == 0


def test_a_chinese_character_counts_as_three_letters() -> None:
    for length, compared in ((16, 0), (17, 1)):
        assert found(["好" * length] * 10)["targets"]["compared"] == compared


def test_a_paragraph_with_a_word_changed_is_nearly_the_same_and_one_with_two_changed_is_not() -> None:
    words = sentence(0, 20).split()  # 19 pairs, of which each changed word takes two
    once, twice = [*words], [*words]
    once[5] = twice[5] = twice[12] = "otherword"
    for changed, near in ((once, 1), (twice, 0)):
        report = found([" ".join(words), *(f"reply {number}" for number in range(8)), " ".join(changed)])
        assert (report["targets"]["exact"], report["targets"]["near"]) == (0, near)


def test_context_is_compared_as_a_pasted_paragraph_only() -> None:
    for length, compared in ((199, 0), (200, 1)):
        report = found([f"reply {number}" for number in range(10)], said="z" * length)
        assert report["pasted"] == {"from_characters": 200, "compared": compared, "exact": compared, "near": 0}
        assert report["targets"]["compared"] == 0


def test_walls_are_long_messages_and_copied_paragraphs() -> None:
    replies = ["a" * 100] * 7 + ["b" * 200, "b" * 200, "c" * 1000]  # 2,100 characters, beside 40 of Bea's
    assert found(replies)["walls"] == {
        "from_characters": 1000,
        "messages": 1,
        "copied_texts": 1,
        "copies": 2,
        "share_of_characters": round(1400 / 2140, 4),
        "share_of_your_characters": round(1400 / 2100, 4),
    }
    assert found(["b" * 199] * 10)["walls"]["copies"] == 0


def test_a_chat_in_two_exports_that_straddles_the_split_is_noticed() -> None:
    rows = pairs([f"reply {number}" for number in range(150)])
    end = MONDAY + timedelta(days=200)
    talk = [(end + timedelta(minutes=4 * number), ["Bea", "Ada"][number % 2], f"line {number}") for number in range(20)]
    # One export has the whole talk. The other lacks its first message, so it starts later and validates.
    rows += [("whatsapp/Bea.csv", *line) for line in talk] + [("telegram/Bea.csv", *line) for line in talk[1:]]
    data = prepared(rows)
    assert [talk.path for talk in data.conversations[data.training :]] == ["telegram/Bea.csv"]
    report = leakage(data)
    assert (report["turns_on_both_sides"], report["messages_on_both_sides"]) == (0, 19)


def test_a_conversation_that_was_cut_has_no_turn_on_both_sides() -> None:
    """Not even when the export's clock shows minutes alone."""
    times = [MONDAY + timedelta(minutes=number // 2) for number in range(60)]
    rows = [("w/Bea.csv", time, ["Ada", "Bea"][number % 2], f"line {number}") for number, time in enumerate(times)]
    data = prepared(rows)
    assert (data.held_out, data.training, len(data.conversations)) == ("end_of_last_conversation", 1, 2)
    report = leakage(data)
    assert (report["turns_on_both_sides"], report["messages_on_both_sides"]) == (0, 0)
    assert report["targets"]["val"] > 0


def test_a_turn_that_was_torn_apart_is_counted() -> None:
    data = prepared(pairs([f"reply {number}" for number in range(10)]))
    data.table["turn"] = [*range(17), 17, 17, 18]  # Ada's last reply that trains, and what Bea says after the split
    assert leakage(data)["turns_on_both_sides"] == 1


def test_targets_are_the_last_turns_of_windows_or_all_turns_of_the_person() -> None:
    times = [MONDAY + timedelta(minutes=4 * number) for number in range(9)]
    rows = [("w/Bea.csv", time, ["Ada", "Bea"][number % 2], "hi") for number, time in enumerate(times)]
    rows += pairs(["later"] * 2, days=30)[2:]  # held out
    windows, conversations = targets(prepared(rows)), targets(prepared(rows, "conversations"))
    assert windows[0] < conversations[0] == {0, 2, 4, 6, 8}
    assert windows[0] >= {6, 8}


def test_nothing_held_out_leaks_nothing() -> None:
    report = found(["only"])
    assert report["targets"]["val"] == report["targets"]["compared"] == report["pasted"]["compared"] == 0


def _nearly(one: str, other: str) -> bool:
    a, b = (set(pairwise(text.split(" "))) for text in (one, other))
    return bool(a and b) and 10 * len(a & b) >= 8 * len(a | b)


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_near_duplicates_are_those_of_comparing_each_with_each(texts: list[str], others: list[str]) -> None:
    assert near_duplicates(texts, others) == sum(any(_nearly(text, other) for other in others) for text in texts)


@given(st.integers(5, 40), st.sets(st.integers(0, 39), max_size=5))
def test_near_duplicates_at_the_border(length: int, changed: set[int]) -> None:
    text = [str(place) for place in range(length)]
    other = [f"{word}!" if place in changed else word for place, word in enumerate(text)]
    one, two = " ".join(text), " ".join(other)
    assert near_duplicates([one], [two]) == _nearly(one, two)


@pytest.mark.parametrize("texts", [["今日はとても良いお天気ですね散歩に行きましょう"]])
def test_scripts_without_blanks_are_compared_by_the_character(texts: list[str]) -> None:
    assert near_duplicates(texts, [texts[0].replace("散", "あ")]) == 1
