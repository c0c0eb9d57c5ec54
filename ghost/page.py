"""Build one self-contained HTML page with plots: no requests, no script but the given one, light and dark, readable
on a phone and on paper.

Plots are SVG with widths in per cent and heights in pixels, so they fill the available width. Labels are HTML, each in
its own box where it wraps: they keep their size on a phone and never overlap, whatever the fonts. Tooltips are
`<title>` elements.

Build markup with `element` only: it escapes any plain str, such as a message or the name of a chat.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from pathlib import Path
from typing import Literal, NamedTuple

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


class Line(NamedTuple):
    """A line of `lines` through the points (share of the width, value)."""

    points: Sequence[tuple[float, float]]
    tone: int
    style: Literal["dotted", "plain", "faint", "area"] = "dotted"  # area: filled down to the axis


class Strip(NamedTuple):
    """A row of `strips`: positions between 0 and 1; the first `before` of them get the first of two tones."""

    name: str
    positions: Sequence[float]
    before: int


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """An HTML element. Write `class_` for class, underscores for hyphens; an attribute that is None is omitted."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value) if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{together(*children)}</{name}>")


def together(*parts: str) -> Html:
    return Html("".join(part if isinstance(part, Html) else escape(part, quote=False) for part in parts))


def document(title: str, *body: Html, script: str = "") -> str:
    """The whole file, its title as the heading. Its content security policy blocks every request and every script but
    this one (by its hash), even if markup is injected."""
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
        + "\n".join([element("h1", title), *body])
        + "\n</body>\n</html>\n"
    )


def private(beside: str) -> Html:
    """The warning on a page with messages; `beside` is the file with the same figures and no message."""
    return element(
        "p",
        "This page shows private messages, yours and other people's. It is on this disk alone, and only you can read "
        f"it: do not share it. {beside}, beside it, holds the same figures and no message.",
        class_="warning",
    )


def section(heading: str, *cards: Html | None, words: str = "") -> Html:
    """Cards under a heading and words. A card that is None is omitted; without any card there is no section."""
    some = [one for one in cards if one is not None]
    text = [element("p", words)] if words else []
    return element("section", element("h2", heading), *text, element("div", *some, class_="cards")) if some else Html()


def card(heading: str, *body: Html) -> Html:
    title = [element("h3", heading, dir="auto")] if heading else []
    return element("article", *title, *body, class_="card")


def figure(title: str, plot: Html, *words: str, tones: Mapping[str, int] | None = None, wide: bool = False) -> Html:
    """A plot under its title and the names of its tones, with a description in words."""
    keys = (element("span", element("i", class_=f"t{tone}"), name) for name, tone in (tones or {}).items())
    legend = [element("p", *keys, class_="legend")] if tones else []
    caption = element("figcaption", *words)
    return element("figure", element("h3", title), *legend, plot, caption, class_="wide" if wide else None)


def tiles(numbers: Sequence[tuple[str, str]]) -> Html:
    """Large numbers, each with what it counts."""
    boxes = (element("div", element("b", number), element("span", what)) for number, what in numbers)
    return element("div", *boxes, class_="tiles")


def facts(rows: Sequence[tuple[str, str]]) -> Html:
    """A table with two columns: name and value."""
    return element("dl", *(element("div", element("dt", what), element("dd", much)) for what, much in rows))


def chat(*parts: Html) -> Html:
    return element("div", *parts, class_="chat")


def bubble(text: str, longest: int, *, mine: bool = False, target: bool = False) -> Html:
    """A message, cut after `longest` characters: yours on the right, outlined if it is a target."""
    left = len(text) - longest
    shown = text if left <= 0 else f"{text[:longest]}… ({left:,} more characters)"
    return element("p", shown, dir="auto", class_="mine target" if mine and target else "mine" if mine else None)


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
    drawn: list[Html] = []
    step, width = 100 / len(names), (100 / len(names)) * 0.84 / (1 if stacked else len(series))
    height = HEIGHT / steps[-1]
    for index, name in enumerate(names):
        below = 0.0
        for number, one in enumerate(series):
            value = one.values[index]
            if value:
                drawn.append(
                    element(
                        "rect",
                        element("title", f"{name}: {format(value, '.1%' if percent else ',.12g')} {one.name}"),
                        x=_percent((index + 0.08) * step + (0 if stacked else number * width)),
                        width=_percent(width),
                        y=HEADROOM + HEIGHT - (below + value) * height,
                        height=value * height,
                        class_=f"t{one.tone}",
                    )
                )
                below += value if stacked else 0
    labels = _labels({index * step: label for index, label in ticks.items()}, each=len(ticks) == len(names))
    return _plot(describe, steps, drawn, labels, percent=percent)


def lines(
    describe: str, rows: Sequence[Line], *, ticks: Mapping[float, str], mark: float | None = None, percent: bool = False
) -> Html:
    """Lines over an axis that begins at 0 only with `percent` or an area. Values that are not finite are left out.

    `ticks` are labels and `mark` a vertical line, both by share of the width.
    """
    finite = [[point for point in row.points if isfinite(point[1])] for row in rows]
    values = [value for points in finite for _, value in points] or [0.0]
    values += [0.0] * any(row.style == "area" for row in rows)
    step = 0.5 if percent else scale(max(values) - min(values))[1]
    first, last = (0, 2) if percent else (floor(min(values) / step), ceil(max(values) / step))
    steps = [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]
    paths = []
    for row, points in zip(rows, finite, strict=True):
        places = [
            f"{_number(1000 * x)} {_number(HEADROOM + HEIGHT * (steps[-1] - value) / (steps[-1] - steps[0]))}"
            for x, value in points
        ]
        shapes: dict[str, str] = {row.style if row.style in ("faint", "area") else "line": "M" + "L".join(places)}
        if row.style == "area" and points:
            shapes["area"] += f"V{HEADROOM + HEIGHT}H{_number(1000 * points[0][0])}Z"
        if row.style == "dotted" or len(places) == 1:
            shapes["dots"] = "".join(f"M{place}h0" for place in places)
        for kind, shape in shapes.items():
            if places:
                paths.append(element("path", d=shape, class_=f"{kind} t{row.tone}", vector_effect="non-scaling-stroke"))
    # Paths take no per cent, so stretch them to the width; strokes keep their size.
    box = f"0 0 1000 {HEADROOM + HEIGHT + 1}"
    stretched = element("svg", *paths, viewBox=box, preserveAspectRatio="none", width="100%", height="100%")
    labels = _labels({100 * share: label for share, label in ticks.items()})
    return _plot(describe, steps, [*_mark(mark, HEADROOM + HEIGHT), stretched], labels, percent=percent)


def _plot(describe: str, steps: Sequence[float], drawn: Sequence[Html], labels: Html, *, percent: bool) -> Html:
    """Something drawn on the grid of `steps`, from the lowest to the highest, with labels on both axes."""
    places = [HEADROOM + HEIGHT * (steps[-1] - step) / (steps[-1] - steps[0]) for step in steps]
    grid = [element("line", x1="0", x2="100%", y1=place, y2=place) for place in places]
    axis = [
        element("span", format(step, ".0%" if percent else ",.12g"), style=f"margin-top:{_number(place - LINE / 2)}px")
        for step, place in zip(steps, places, strict=True)
    ]
    svg = element("svg", element("g", *grid), *drawn, width="100%", height=HEADROOM + HEIGHT + 1)
    sides = element("div", *axis, class_="axis"), element("div", svg, labels)
    return element("div", *sides, class_="plot", role="img", aria_label=describe)


def bars(describe: str, rows: Sequence[Bar]) -> Html:
    """Horizontal bars, scaled to the largest sum, each with its name above."""
    largest = max((sum(row.parts.values()) for row in rows), default=0) or 1
    drawn = []
    for row in rows:
        parts = [
            element("i", class_=f"t{tone}", style=f"width:{_percent(100 * part / largest)}")
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
    most = max((count for pair in counts for cells in pair for count in cells.values()), default=1)
    drawn = []
    for row, pair in zip(rows, counts, strict=True):
        cells = [
            element(
                "rect",
                x=_percent(100 * cell / CELLS),
                width=_percent(100 / CELLS),
                height="100%",
                class_=f"t{tone}",
                fill_opacity=0.25 + 0.75 * (count / most) ** 0.5,
            )
            for tone, counted in zip(tones, pair, strict=True)
            for cell, count in counted.items()
        ]
        lane = element("svg", *cells, *_mark(mark, 16), width="100%", height=16)
        drawn.append(element("li", element("span", row.name, dir="auto"), lane))
    drawn.append(element("li", _labels({100 * share: label for share, label in ticks.items()})))
    return element("ul", *drawn, class_="strips", role="img", aria_label=describe)


def scale(largest: float, least: float = 0.0) -> list[float]:
    """Two to six evenly spaced round numbers from 0 to at least `largest`, at least `least` apart."""
    power = 10.0 ** floor(log10(largest)) if largest > 0 else 1.0
    steps = (power * part for part in (0.2, 0.25, 0.5, 1, 2) if power * part * 5 >= largest)
    step = max(next(steps), least)
    return [round(step * index, 12) for index in range(1 + max(1, ceil(round(largest / step, 9))))]


def _mark(share: float | None, height: int) -> list[Html]:
    at = None if share is None else _percent(100 * share)
    return [element("line", x1=at, x2=at, y1=0, y2=height, class_="mark")] if at else []


def _cells(positions: Sequence[float]) -> Counter[int]:
    return Counter(min(int(position * CELLS), CELLS - 1) for position in positions)


def _labels(labels: Mapping[float, str], *, each: bool = False) -> Html:
    """Labels keyed by their start in per cent of the width; each box reaches to the next. With `each`, every column has
    a label and the text is centred. A last label with less than half the previous one's room is left out."""
    places = sorted(labels)
    rooms = [end - place for place, end in pairwise([*places, 100.0])]
    if not each and len(rooms) > 1 and rooms[-1] < rooms[-2] / 2:
        del rooms[-1]
    boxes, end = [], 0.0
    for place, room in zip(places, rooms, strict=False):
        style = f"margin-left:{_percent(place - end)};width:{_percent(room)}"
        boxes.append(element("span", labels[place], style=style, class_="middle" if each else None))
        end = place + room
    return element("div", *boxes, class_="ticks")


def _percent(value: float) -> str:
    return f"{_number(value)}%"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
