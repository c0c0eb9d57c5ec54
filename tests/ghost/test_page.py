"""The toolkit of the pages: everything that goes in is text, plots are to scale, and nothing is asked of anybody."""

import re
from html.parser import HTMLParser
from math import nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.page import (
    CELLS,
    HEADROOM,
    HEIGHT,
    Bar,
    Html,
    Line,
    Series,
    Strip,
    bars,
    bubble,
    card,
    chat,
    columns,
    document,
    element,
    facts,
    figure,
    lines,
    scale,
    section,
    strips,
    tiles,
    together,
)

NASTY = "<script>alert(1)</script>&amp;\"'"


def _tree(markup: Html) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"))))
def test_text_that_goes_in_is_text_that_comes_out(text: str) -> None:
    made = _tree(element("p", text, title=text))
    assert list(made) == []
    assert (made.text or "") == text
    assert made.attrib == {"title": text}


def test_markup_goes_in_as_it_is_and_attributes_are_named_as_in_html() -> None:
    made = element("p", element("b", "a < b"), " & c", class_="x", aria_label="y", width=12.5, height=3, dir=None)
    assert made == '<p class="x" aria-label="y" width="12.5" height="3"><b>a &lt; b</b> &amp; c</p>'
    assert together("<", element("br")) == "&lt;<br></br>"


def test_no_part_lets_markup_through() -> None:
    series = [Series(NASTY, [1, 2], 1)]
    parts = [
        figure(NASTY, tiles([(NASTY, NASTY)]), NASTY, tones={NASTY: 1}, wide=True),
        section(NASTY, card(NASTY, chat(bubble(NASTY, 400))), words=NASTY),
        facts([(NASTY, NASTY)]),
        columns(NASTY, [NASTY, NASTY], series, ticks={0: NASTY}),
        bars(NASTY, [Bar(NASTY, {1: 1}, NASTY)]),
        strips(NASTY, [Strip(NASTY, [0.1], 1)], tones=(1, 2), ticks={0.5: NASTY}),
    ]
    page = document(NASTY, *parts)
    assert "<script" not in page
    for part in parts:
        assert {found.tag for found in _tree(part).iter()}.isdisjoint({"script"})


def test_a_page_asks_nobody_and_runs_nothing() -> None:
    page = document("t", element("p", "x"))
    names: list[tuple[str, str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names.extend((tag, name) for name, _ in attrs)
            assert tag not in ("script", "link", "img", "iframe", "object")

    Reader().feed(page)
    assert {name for _, name in names}.isdisjoint({"src", "href", "onload"})
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page


@given(st.floats(0, 1e12, allow_subnormal=False), st.sampled_from([0.0, 1.0]))
def test_a_scale_is_round_even_and_reaches_the_largest(largest: float, least: float) -> None:
    largest = round(largest, 9)
    steps = scale(largest, least)
    assert steps[0] == 0
    assert 2 <= len(steps) <= 6
    assert steps[-1] >= largest * (1 - 1e-9)
    assert steps[1] >= least
    first = steps[1]
    assert f"{first:e}".split("e")[0].rstrip("0").rstrip(".") in ("1", "2", "2.5", "5")
    assert steps == pytest.approx([first * index for index in range(len(steps))], abs=1e-12)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0, [0, 1]), (1, [0, 1]), (3, [0, 1, 2, 3]), (341, [0, 100, 200, 300, 400]), (9, [0, 2, 4, 6, 8, 10])],
)
def test_counts_are_marked_by_whole_numbers(largest: float, expected: list[float]) -> None:
    assert scale(largest, least=1) == expected


def _rectangles(markup: Html) -> list[dict[str, str]]:
    return [{**found.attrib, "title": found.findtext("title") or ""} for found in _tree(markup).iter("rect")]


def test_columns_are_to_scale_side_by_side_or_one_on_the_other() -> None:
    series = [Series("yours", [1, 0], 1), Series("others'", [3, 4], 2)]
    for stacked in (False, True):
        drawn = _rectangles(columns("d", ["2024-01", "2024-02"], series, ticks={}, stacked=stacked))
        assert [one["title"] for one in drawn] == ["2024-01: 1 yours", "2024-01: 3 others'", "2024-02: 4 others'"]
        assert [float(one["height"]) for one in drawn] == [HEIGHT / 4, HEIGHT * 3 / 4, HEIGHT]
        first, second = drawn[:2]
        if stacked:
            assert first["x"] == second["x"]
            assert float(second["y"]) + float(second["height"]) == float(first["y"])
        else:
            assert float(first["y"]) + float(first["height"]) == float(second["y"]) + float(second["height"])
            assert _percent(first["x"]) + _percent(first["width"]) == pytest.approx(_percent(second["x"]), abs=0.02)


def test_bars_share_one_scale() -> None:
    made = bars("d", [Bar("a", {1: 1, 2: 1}, "2"), Bar("b", {3: 4}, "4"), Bar("c", {1: 0, 2: 0}, "0")])
    assert re.findall(r"width:([\d.]+)%", made) == ["25", "25", "100", "0", "0"]
    assert "nan" not in bars("nothing at all", [Bar("c", {1: 0}, "0")])


def test_a_strip_shows_where_it_is_dense_and_on_which_side() -> None:
    rows = [Strip("a", [0.0, 0.001, 0.002, 0.003, 1.0], 4), Strip("b", [0.5], 1)]
    made = strips("d", rows, tones=(3, 4), ticks={0.0: "2023"}, mark=0.25)
    drawn = _rectangles(made)
    assert [one["class"] for one in drawn] == ["t3", "t4", "t3"]
    assert [float(one["fill-opacity"]) for one in drawn] == [1.0, 0.62, 0.62]
    assert [_percent(one["x"]) for one in drawn] == pytest.approx([0, 100 - 100 / CELLS, 50], abs=0.01)
    assert made.count('x1="25%"') == len(rows)


@pytest.mark.parametrize(
    ("count", "ticks", "shown"),
    [
        (3, {0: "en", 1: "fr", 2: "?"}, {"en": (0, 33.33), "fr": (33.33, 66.66), "?": (66.66, 100)}),
        (8, {1: "a", 5: "b"}, {"a": (12.5, 62.5), "b": (62.5, 100)}),
        (13, {0: "a", 4: "b", 8: "c", 12: "d"}, {"a": (0, 30.77), "b": (30.77, 61.54), "c": (61.54, 92.31)}),
        (2, {}, {}),
    ],
)
def test_labels_share_the_width_between_them(
    count: int, ticks: dict[int, str], shown: dict[str, tuple[float, float]]
) -> None:
    """So none runs into another, however wide a font draws it; one that would have no room is left out."""
    made = _tree(columns("d", ["x"] * count, [Series("s", [1] * count, 1)], ticks=ticks))
    (labels,) = [one for one in made.iter("div") if one.get("class") == "ticks"]
    found, end = {}, 0.0
    for label in labels:
        margin, width = (_percent(part.split(":")[1]) for part in label.attrib["style"].split(";"))
        found[label.text] = pytest.approx((end + margin, end + margin + width), abs=0.02)
        end += margin + width
    assert shown == found


def test_lines_are_to_scale_and_leave_out_what_is_not_finite() -> None:
    made = _tree(lines("d", [Line([(0, 3.0), (0.5, nan), (1, 2.0)], 1), Line([(0.25, 2.5)], 2, "plain")], ticks={}))
    shapes = [(one.get("class"), one.get("d")) for one in made.iter("path")]
    top, middle, bottom = (HEADROOM + HEIGHT * share for share in (0, 0.5, 1))
    assert shapes == [
        ("line t1", f"M0 {top:g}L1000 {bottom:g}"),
        ("dots t1", f"M0 {top:g}h0M1000 {bottom:g}h0"),
        ("line t2", f"M250 {middle:g}"),
        ("dots t2", f"M250 {middle:g}h0"),
    ]
    labels = [one.text for one in made.iter("span")]
    assert (labels[0], labels[-1]) == ("2", "3")
    assert not list(_tree(lines("nothing", [Line([], 1)], ticks={})).iter("path"))


def _percent(length: str) -> float:
    return float(length.removesuffix("%"))
