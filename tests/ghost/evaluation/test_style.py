"""The measures of style: by hand where a value is known, and against sources that are the same or are not."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from ghost.demo.people import NOA
from ghost.evaluation import report_page, style, verdict
from ghost.evaluation.data import Exchange
from ghost.evaluation.style import FEATURES, Reference, difference, emoji, jensen_shannon, kolmogorov_smirnov, words
from replicate_deployment.chat_format import Turn
from tests.ghost.demo.another import ROMY
from tests.ghost.evaluation.invented import exchanges


def test_distances_by_hand() -> None:
    assert jensen_shannon(Counter(a=1, b=1), Counter(a=3, b=3)) == pytest.approx(0, abs=1e-9)
    assert jensen_shannon(Counter(a=5), Counter(b=2)) == pytest.approx(1)
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): ½ log2(4/3) + ½ (½ log2(2/3) + ½ log2 2)
    assert jensen_shannon(Counter(a=4), Counter(a=1, b=1)) == pytest.approx(0.311278, abs=1e-6)
    assert kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert kolmogorov_smirnov([1, 1, 2], [2, 1, 1]) == 0
    assert difference(Counter(yes=1, no=3), Counter(yes=3, no=1)) == 0.5


@pytest.mark.parametrize(("one", "other", "distance"), [({}, {}, 0), ({"a": 1}, {}, 1), ({}, {"a": 1}, 1)])
def test_nothing_counted_is_no_division_by_zero(one: dict[str, int], other: dict[str, int], distance: float) -> None:
    assert jensen_shannon(Counter(one), Counter(other)) == distance
    assert kolmogorov_smirnov([1.0] * len(one), [1.0] * len(other)) == distance
    assert difference(Counter(), Counter(yes=1)) is None


def test_an_emoji_is_what_is_drawn_as_one() -> None:
    text = "salut 👩‍🍳🇫🇷 🤷🏽‍♀️ ❤️‍🔥 :) :') <3 xD ^^ ☀️ 1️⃣ at 12:30 http://x.org © max"
    assert emoji(text) == ["👩‍🍳", "🇫🇷", "🤷🏽‍♀️", "❤️‍🔥", ":)", ":')", "<3", "xD", "^^", "☀️", "1️⃣"]


def test_words() -> None:
    assert words("J'arrive, peut-être 2x à 18h ! 😂 wouiii") == ["j'arrive", "peut-être", "x", "à", "h", "wouiii"]
    assert words("我不去了 ok 哈") == ["我", "不", "去", "了", "ok", "哈"]
    assert words("مرحبا، كيف حالك؟ 한국어 नमस्ते") == ["مرحبا", "كيف", "حالك", "한국어", "नमस्ते"]


def observed(key: str, *replies: str, asked: str = "Tu viens ?") -> list[style.Observation]:
    feature = next(feature for feature in FEATURES if feature.key == key)
    said = [Exchange((Turn("B:", asked),), reply) for reply in replies]
    return [feature.observe(one, Reference.of(said)) for one in said]


@pytest.mark.parametrize(
    ("key", "reply", "expected"),
    [
        ("characters", "héé", {"3": 1}),
        ("words", "on se voit", {"3": 1}),
        ("lines", "a\nb\nc", {"3": 1}),
        ("repeats_itself", "a b c d a b c", {"yes": 1, "no": 4}),
        ("repeats_other", "tu viens", {"yes": 1}),
        ("repeats_other", "tu viens ou pas", {"no": 2}),
        ("repeats_last", "tu viens", {"no": 1}),
        ("lower_case", "oui\nNon\n日本\n:)", {"yes": 1, "no": 1}),
        ("capital_first", "« Oui »\nnon", {"yes": 1, "no": 1}),
        ("all_caps", "NON je t'ai dit a", {"yes": 1, "no": 3}),
        ("final_mark", "ok.\nok...\nok…\nok 😂\nok <3\nok", {".": 1, "…": 2, "(emoji)": 2, "(none)": 1}),
        ("marks", "ok, oui ! :) non.", {",": 1, "!": 1, ".": 1}),
        ("repeated_marks", "quoi ??\nbon...\nah !", {"yes": 2, "no": 1}),
        ("shorthand", "tkt jsp pour demain", {"yes": 2, "no": 2}),
        ("own_spellings", "tu viens dem", {"yes": 1, "no": 2}),
        ("stretched", "ouiii salut", {"yes": 1, "no": 1}),
        ("emoji", "😂😂 ok", {"😂": 2}),
    ],
)
def test_each_feature_by_hand(key: str, reply: str, expected: object) -> None:
    [found] = observed(key, reply)
    assert +found == expected


def test_the_partners_language_is_beside_the_replys() -> None:
    french = observed(
        "switching", *["je ne sais pas encore si je peux venir demain"] * 3, asked="Tu fais quoi demain ?"
    )
    assert french == [{"fr→fr": 1}] * 3
    english = "I really don't know whether that is a good idea"
    assert observed("switching", english, asked="Tu fais quoi demain ?") == [{"fr→en": 1}]


def test_the_same_source_is_at_the_floor_and_another_style_above_it() -> None:
    own = exchanges(NOA)
    same = {figure.key: figure for figure in style.compare(own, exchanges(NOA, seed=8))}
    wrong = {figure.key: figure for figure in style.compare(own, exchanges(ROMY, seed=8))}
    assert [*same] == [feature.key for feature in FEATURES]
    assert sum(figure.is_off for figure in same.values()) <= 2  # 1 of 20 by chance
    for key in ("lines", "emoji", "lower_case", "capital_first", "final_mark", "marks", "repeated_marks"):
        assert wrong[key].is_off
        assert wrong[key].distance > 5 * same[key].distance
    assert sum(figure.distance for figure in wrong.values()) > 4 * sum(figure.distance for figure in same.values())
    assert all(0 <= figure.distance <= 1 and 0 <= figure.floor <= figure.floor_high <= 1 for figure in wrong.values())
    assert wrong["lower_case"].own == pytest.approx(1, abs=0.05)
    assert wrong["emoji"].own is None
    assert wrong["emoji"].kinds


def test_samples_are_of_one_size_so_that_the_floor_compares() -> None:
    own, said = exchanges(NOA), exchanges(NOA, seed=8)
    assert {figure.n for figure in style.compare(own, said[:30])} == {30}
    assert {figure.n for figure in style.compare(own[:60], said)} == {30}
    few, many = style.compare(own, said[:20]), style.compare(own, said)
    assert few[-1].floor > many[-1].floor


def test_who_writes_no_letters_has_no_share_of_capitals() -> None:
    """A figure of it would be "off by 100 points": a ghost's lines are in lower case, and no line of theirs."""
    own = [replace(one, reply="😂" * (1 + place % 3)) for place, one in enumerate(exchanges(NOA, 60))]
    said = exchanges(NOA, 60, seed=8)
    figures = style.as_json(style.compare(own, said))
    assert not {"lower_case", "capital"} & {*figures}
    assert {"emoji", "characters"} <= {*figures}
    assert [key for key, one in style.as_json(style.compare(said, own)).items() if one["formula"][:2] == "|p"] == [
        key for key, one in figures.items() if one["formula"][:2] == "|p"
    ]
    contenders = {"base": {"style": style.as_json(style.compare(said, said))}, "merged": {"style": figures}}
    assert all(None not in (one["own"], one["said"]) for one in figures.values() if not one["kinds"])
    assert report_page.plot_style({"contenders": contenders}) is not None
    assert (
        report_page.plot_style({"contenders": {"base": contenders["merged"], "merged": contenders["base"]}}) is not None
    )


def test_kinds_that_neither_side_has_are_no_figure() -> None:
    own = [replace(one, reply="oui") for one in exchanges(NOA, 60)]
    said = {one.key: style.pooled(one.observe(each, Reference.of(own)) for each in own) for one in style.LIVE}
    for figures in (style.compare(own, own), style.held_against(style.variation(own), said, 60)):
        assert {one.key for one in figures} & {"emoji", "marks", "words"} == {"words"}
        assert [verdict.deviation(one) for one in style.as_json(figures).values()]


def test_the_same_seed_gives_the_same_figures() -> None:
    own, said = exchanges(NOA, 60), exchanges(ROMY, 60)
    assert style.compare(own, said, seed=3) == style.compare(own, said, seed=3) != style.compare(own, said, seed=4)


def test_too_few_replies_are_not_compared() -> None:
    own = exchanges(NOA, 60)
    assert style.compare(own[:39], own) == []


def test_json_holds_no_reply() -> None:
    own, said = exchanges(NOA, 60), exchanges(ROMY, 60)
    text = json.dumps(style.as_json(style.compare(own, said)), ensure_ascii=False)
    assert not [one.reply for one in (*own, *said) if len(one.reply) > 20 and one.reply in text]
