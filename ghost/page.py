"""Build one self-contained HTML page with plots: no requests, no script but the given one, light and dark, readable
on a phone and on paper.

Plots are SVG with widths in per cent and heights in pixels, so they fill the available width. Labels are HTML, each in
its own box where it wraps: they keep their size on a phone and never overlap, whatever the fonts. Tooltips are
`<title>` elements.

Build markup with `element` only: it escapes any plain str, such as a message or the name of a chat.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from pathlib import Path
from typing import NamedTuple

STYLE = Path(__file__).with_name("page.css")
HEIGHT = 170  # pixels of a plot, without the labels below
HEADROOM = 16  # pixels above the highest grid line
LINE = 14  # pixels per line of a label
CELLS = 72  # of a strip, over the whole time range


class Html(str):
    """Markup. Any other str is text and is escaped when it is put into markup."""


class Series(NamedTuple):
    """One colour: its name, and its value in each column. Tones 1 to 5 are defined in page.css."""

    name: str
    values: Sequence[float]
    tone: int


class Bar(NamedTuple):
    """A row of `bars`: parts are stacked by tone, and `figure` is printed at the end."""

    name: str
    parts: Mapping[int, float]
    figure: str


class Strip(NamedTuple):
    """A row of `strips`: positions between 0 and 1; the first `before` of them get the first of two tones."""

    name: str
    positions: Sequence[float]
    before: int


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """An HTML element. Write `class_` for class, underscores for hyphens; an attribute that is None is omitted."""
    inside = "".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children)
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value) if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{inside}</{name}>")


def together(*parts: str) -> Html:
    return Html("".join(part if isinstance(part, Html) else escape(part, quote=False) for part in parts))


def document(title: str, *body: Html, script: str = "") -> str:
    """The whole file. Its content security policy blocks every request and every script but this one (by its hash),
    even if markup is injected."""
    allowed = "default-src 'none'; style-src 'unsafe-inline'"
    if script:
        allowed += f"; script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
        body = (*body, Html(f"<script>{script}</script>"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"{element('title', title)}\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def figure(title: str, plot: Html, *words: str, wide: bool = False) -> Html:
    """A plot under its title, with a description in words."""
    return element("figure", element("h3", title), plot, element("figcaption", *words), class_="wide" if wide else None)


def legend(tones: Mapping[str, int]) -> Html:
    """The name of each tone."""
    keys = (element("span", element("i", class_=f"t{tone}"), name) for name, tone in tones.items())
    return element("p", *keys, class_="legend")


def facts(rows: Sequence[tuple[str, str]]) -> Html:
    """A table with two columns: name and value."""
    return element("dl", *(element("div", element("dt", what), element("dd", much)) for what, much in rows))


def columns(
    describe: str,
    names: Sequence[str],
    series: Sequence[Series],
    *,
    ticks: Mapping[int, str],
    stacked: bool = False,
    percent: bool = False,
) -> Html:
    """Vertical bars over an axis. `names` are the columns' tooltips; `ticks` label the axis where given.

    With `percent`, values are shares. `describe` is the text for screen readers.
    """
    tops = [sum(some) if stacked else max(some) for some in zip(*(one.values for one in series), strict=True)]
    steps = scale(max(tops, default=0), least=0 if percent else 1)
    as_label, as_figure = (".0%", ".1%") if percent else (",.12g", ",.12g")
    base = HEADROOM + HEIGHT
    height = HEIGHT / steps[-1]
    grid = [element("line", x1="0", x2="100%", y1=base - step * height, y2=base - step * height) for step in steps]
    axis = [
        element("span", format(step, as_label), style=f"margin-top:{_number(base - step * height - LINE / 2)}px")
        for step in steps
    ]
    drawn: list[Html] = []
    step, width = 100 / len(names), (100 / len(names)) * 0.84 / (1 if stacked else len(series))
    for index, name in enumerate(names):
        below = 0.0
        for number, one in enumerate(series):
            value = one.values[index]
            if value:
                left = (index + 0.08) * step + (0 if stacked else number * width)
                drawn.append(
                    element(
                        "rect",
                        element("title", f"{name}: {format(value, as_figure)} {one.name}"),
                        x=f"{_number(left)}%",
                        width=f"{_number(width)}%",
                        y=base - (below + value) * height,
                        height=value * height,
                        class_=f"t{one.tone}",
                    )
                )
                below += value if stacked else 0
    labels = _labels({index * step: label for index, label in ticks.items()}, each=len(ticks) == len(names))
    return element(
        "div",
        element("div", *axis, class_="axis"),
        element("div", element("svg", element("g", *grid), *drawn, width="100%", height=base + 1), labels),
        class_="plot",
        role="img",
        aria_label=describe,
    )


def bars(describe: str, rows: Sequence[Bar]) -> Html:
    """Horizontal bars, scaled to the largest sum, each with its name above."""
    largest = max((sum(row.parts.values()) for row in rows), default=0) or 1
    drawn = []
    for row in rows:
        parts = [
            element("i", class_=f"t{tone}", style=f"width:{_number(100 * part / largest)}%")
            for tone, part in row.parts.items()
        ]
        name = element("span", row.name, dir="auto")
        drawn.append(element("li", name, element("b", row.figure), element("div", *parts, aria_hidden="true")))
    return element("ul", *drawn, class_="bars", aria_label=describe)


def strips(
    describe: str,
    rows: Sequence[Strip],
    *,
    tones: tuple[int, int],
    ticks: Mapping[float, str],
    mark: float | None = None,
) -> Html:
    """Rows on one time line, cut into cells that are darker the more positions they hold.

    `ticks` are labels and `mark` a vertical line, both by share of the width.
    """
    counts = [(_cells(row.positions[: row.before]), _cells(row.positions[row.before :])) for row in rows]
    most = max((max(cells.values(), default=0) for pair in counts for cells in pair), default=0) or 1
    at = None if mark is None else f"{_number(100 * mark)}%"
    border = [element("line", x1=at, x2=at, y1=0, y2=16, class_="mark")] if at else []
    drawn = []
    for row, pair in zip(rows, counts, strict=True):
        cells = [
            element(
                "rect",
                x=f"{_number(100 * cell / CELLS)}%",
                width=f"{_number(100 / CELLS)}%",
                height="100%",
                class_=f"t{tone}",
                fill_opacity=0.25 + 0.75 * (count / most) ** 0.5,
            )
            for tone, counted in zip(tones, pair, strict=True)
            for cell, count in counted.items()
        ]
        lane = element("svg", *cells, *border, width="100%", height=16)
        drawn.append(element("li", element("span", row.name, dir="auto"), lane))
    drawn.append(element("li", _labels({100 * share: label for share, label in ticks.items()})))
    return element("ul", *drawn, class_="strips", role="img", aria_label=describe)


def scale(largest: float, least: float = 0.0) -> list[float]:
    """Two to six evenly spaced round numbers from 0 to at least `largest`, at least `least` apart."""
    power = 10.0 ** floor(log10(largest)) if largest > 0 else 1.0
    steps = (power * part for part in (0.2, 0.25, 0.5, 1, 2) if power * part * 5 >= largest)
    step = max(next(steps), least)
    return [round(step * index, 12) for index in range(1 + max(1, ceil(round(largest / step, 9))))]


def _cells(positions: Sequence[float]) -> dict[int, int]:
    found: dict[int, int] = {}
    for position in positions:
        cell = min(int(position * CELLS), CELLS - 1)
        found[cell] = found.get(cell, 0) + 1
    return found


def _labels(labels: Mapping[float, str], *, each: bool = False) -> Html:
    """Labels keyed by their start in per cent of the width; each box reaches to the next. With `each`, every column has
    a label and the text is centred. A last label with less than half the previous one's room is left out."""
    places = sorted(labels)
    rooms = [end - place for place, end in pairwise([*places, 100.0])]
    if not each and len(rooms) > 1 and rooms[-1] < rooms[-2] / 2:
        del rooms[-1]
    boxes, end = [], 0.0
    for place, room in zip(places, rooms, strict=False):
        style = f"margin-left:{_number(place - end)}%;width:{_number(room)}%"
        boxes.append(element("span", labels[place], style=style, class_="middle" if each else None))
        end = place + room
    return element("div", *boxes, class_="ticks")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
