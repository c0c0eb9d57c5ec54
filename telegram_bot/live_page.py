"""`ghost bot --quality FILE`: what was sent, by week and by chat, beside the person's own variation. No message."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, nan

from ghost.evaluation.style import StyleFigure
from ghost.page import Html, Line, Series, card, columns, document, element, facts, figure, lines, section
from telegram_bot import quality
from telegram_bot.config import BotConfig
from telegram_bot.database import Database

HEADING = "Does it still sound like you?"
GHOST, PERSON = 1, 5  # tones
TICKS = 6  # labels on an axis of weeks
WEEKS = 8  # of a chat

Weeks = Mapping[str, Mapping[str, Counter[str]]]


def page(db: Database, config: BotConfig, summary: str) -> str:
    weeks = quality.by_week(db)
    compared = {week: {one.key: one for one in quality.figures(config, counts)} for week, counts in weeks.items()}
    shown: dict[str, StyleFigure] = {}
    for some in compared.values():
        shown |= some  # the latest of each
    off_first = sorted(shown.values(), key=lambda one: one.floor_high - one.distance)
    style = [_style(compared, one) for one in off_first]
    counted = [
        _kinds(weeks, "ended", "How replies ended", "Where the model server tells it."),
        _kinds(weeks, "withheld", "Broken replies that were not sent", "The model was asked again for each."),
        _waits(weeks),
        _kinds(weeks, "drafts", "What became of drafts", _edits(weeks)),
        _kinds(weeks, "reactions", "Reactions to its messages", "Where Telegram tells them."),
    ]
    names = {row["id"]: row["name"] or str(row["chat"]) for row in db.rows("SELECT id, name, chat FROM conversations")}
    chats = [
        _chat(names.get(number, "forgotten chats"), quality.by_week(db, number), config)
        for (number,) in db.rows("SELECT DISTINCT conversation FROM figures ORDER BY conversation DESC")
    ]
    return document(
        HEADING,
        *(element("p", line) for line in summary.splitlines()),
        section(
            "Style by week",
            *style,
            words="Distances from your own replies: 0 is alike, 1 is the most. Grey is as far as so many of your own "
            "replies in a row are from the others, 19 times in 20. What is off the most comes first.",
        ),
        section("What was sent", *(one for one in counted if one is not None)),
        section("By chat", *chats, words=f"The last {WEEKS} weeks with replies of each."),
    )


def _ticks(weeks: Sequence[str]) -> dict[int, str]:
    return {place: weeks[place] for place in range(0, len(weeks), ceil(len(weeks) / TICKS))}


def _style(compared: Mapping[str, Mapping[str, StyleFigure]], last: StyleFigure) -> Html:
    """A figure by week. Weeks that are between the first and the last take the same room."""
    weeks, width = list(compared), 1 / len(compared)
    band, points = [], []
    for place, some in enumerate(compared.values()):
        one = some.get(last.key)
        high = one.floor_high if one else nan
        band += [(place * width, high), ((place + 1) * width, high)]
        points.append(((place + 0.5) * width, one.distance if one else nan))
    plot = lines(
        f"{last.title}, distance by week",
        [Line(band, PERSON, "area"), Line(points, GHOST)],
        ticks={place * width: week for place, week in _ticks(weeks).items()},
    )
    words = quality.deviation(last) if last.is_off else "As you vary."
    return figure(last.title, plot, words, tones={"what was sent": GHOST, "your own variation": PERSON})


def _kinds(weeks: Weeks, key: str, title: str, words: str) -> Html | None:
    """Counts by week and kind, the five commonest kinds; None if nothing was counted."""
    total = sum((counts.get(key, Counter()) for counts in weeks.values()), Counter[str]())
    kinds = [kind for kind, _ in total.most_common(5)]
    if not kinds:
        return None
    series = [
        Series(kind, [counts.get(key, Counter())[kind] for counts in weeks.values()], tone)
        for tone, kind in enumerate(kinds, 1)
    ]
    plot = columns(title, list(weeks), series, ticks=_ticks(list(weeks)), stacked=True)
    return figure(title, plot, words, tones={one.name: one.tone for one in series})


def _waits(weeks: Weeks) -> Html | None:
    medians = [quality.median(counts.get("waited", Counter())) or 0.0 for counts in weeks.values()]
    if not any(medians):
        return None
    plot = columns("Wait by week", list(weeks), [Series("s", medians, GHOST)], ticks=_ticks(list(weeks)))
    return figure("Seconds from a message to its reply", plot, "The median of each week.")


def _edits(weeks: Weeks) -> str:
    edits = sum((counts.get("edited", Counter()) for counts in weeks.values()), Counter[str]())
    change = quality.median(edits)
    return "" if change is None else f"Of the drafts that you edited, you changed {change:.0f}% (median)."


def _chat(name: str, weeks: Weeks, config: BotConfig) -> Html:
    rows = [
        (week, f"{counts['replies'].total():,} replies, {quality.style_in_words(config, counts)}")
        for week, counts in weeks.items()
        if "replies" in counts
    ]
    return card(name, facts(rows[-WEEKS:]))
