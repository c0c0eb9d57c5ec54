"""report.html: does it sound like you? For the person's own eyes, since it shows replies beside those they wrote."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation import plots
from training.evaluation.authorship import says_something
from training.evaluation.exchange import Exchange
from training.evaluation.judged import Judged
from training.evaluation.measures import MEASURES
from training.evaluation.plots import NAMES
from training.page import Html, document, element

Figures = Mapping[str, Any]

HEADING = "Does it sound like you?"
SAMPLES = 8  # replies shown
LONGEST = 300  # characters of a message shown


def page(found: Figures, exchanges: Sequence[Exchange], judged: Sequence[Judged]) -> str:
    """The whole file. `found` is evaluation.json, `judged` what was said to `exchanges`."""
    cards = [
        plots.authorship(found),
        plots.endings(found),
        plots.loss(found),
        plots.context(found),
        plots.groups(found, "platform", "Loss by platform"),
        plots.groups(found, "language", "Loss by language"),
        plots.groups(found, "context", "Loss by turns of context"),
        plots.leaks(found),
    ]
    style = plots.style(found)
    return document(
        HEADING,
        element("h1", HEADING),
        element(
            "p",
            "This page shows private messages, yours and other people's. It is on this disk alone, and only you can "
            "read it: do not share it. evaluation.json, beside it, holds the same figures and no message.",
            class_="warning",
        ),
        element("p", " ".join(found["verdict"]["summary"])),
        *_notes(found),
        element("h2", "Some replies"),
        element("p", "Drawn at random. You are on the right; below what you wrote is what each model said instead."),
        element("div", *_samples(found, exchanges, judged), class_="cards"),
        *_steps(found),
        element("h2", "In figures"),
        _tiles(found),
        element("h2", "Style"),
        element("div", style, class_="cards") if style else element("p", "Too few replies to compare style."),
        element("h2", "Beside the base, and beside yourself"),
        element("div", *(card for card in cards if card is not None), class_="cards"),
        element("h2", "What each figure is"),
        element("div", *map(_measure, MEASURES), class_="cards"),
    )


def _tiles(found: Figures) -> Html:
    kind = next(kind for kind in ("merged", "adapter", "served", *found["contenders"]) if kind in found["contenders"])
    ours = found["contenders"][kind]
    tiles = [(f"{found['held_out']['replies']:,}", "held-out replies of yours")]
    if "authorship" in ours and says_something(ours["authorship"]):
        tiles.append((f"{ours['authorship']['value']:.0%}", "of pairs told apart by a classifier; 50% is guessing"))
    if ours.get("style"):
        alike = sum(not one["off"] for one in ours["style"].values())
        tiles.append((f"{alike} of {len(ours['style'])}", "figures of style as you vary yourself"))
    if "stopping" in ours:
        tiles.append((f"{ours['stopping']['itself']['value']:.0%}", "of its replies end by themselves"))
    if "likelihood" in ours:
        tiles.append((f"{ours['likelihood']['perplexity']['value']:.1f}", "perplexity on yours; the lower, the better"))
    boxes = (element("div", element("b", much), element("span", what)) for much, what in tiles)
    return element("div", *boxes, class_="tiles")


def _steps(found: Figures) -> list[Html]:
    steps = found["verdict"]["steps"]
    if not steps:
        return [element("p", "No figure gives reason for another step.", class_="note")]
    return [element("h2", "What to do next"), element("ol", *(element("li", step) for step in steps))]


def _notes(found: Figures) -> list[Html]:
    notes = [f"Not judged: {NAMES[kind]}. {why}" for kind, why in found["missing"].items()]
    if found["model"] and not found["model"]["learnt_by_it"]:
        notes.append(
            "The train.jsonl beside them is not the one that this model learnt from: what it may give away was looked "
            "for in other lines, and none found says nothing."
        )
    if found["held_out"]["conversations"] == 1:
        notes.append(
            "All held-out replies are of one conversation: intervals take them for independent, and are too narrow."
        )
    elif found["held_out"]["resampled"] == "replies":
        notes.append(
            "The data does not tell its conversations, platforms and languages: intervals take replies for "
            "independent, and are too narrow. ghost prepare writes what is missing."
        )
    return [element("p", note, class_="note") for note in notes]


def _measure(measure: Any) -> Html:
    return element(
        "article",
        element("h3", measure.name),
        element("p", measure.formula),
        element("p", f"Range: {measure.range}. Source: {measure.source}.", class_="soft"),
        element("p", f"It cannot say {measure.cannot_say}.", class_="soft"),
        class_="card",
    )


def _samples(found: Figures, exchanges: Sequence[Exchange], judged: Sequence[Judged]) -> list[Html]:
    """Exchanges that every contender answered, each with all that was said."""
    whole = [one for one in judged if len(one.answers.said) == len(exchanges)]
    places = random.Random(found["held_out"]["seed"]).sample(range(len(exchanges)), min(SAMPLES, len(exchanges)))
    order = {kind: place for place, kind in enumerate(NAMES)}
    cards = []
    for place in sorted(places):
        exchange = exchanges[place]
        said = [
            part
            for one in sorted(whole, key=lambda one: order[one.kind])
            for part in (
                element("small", NAMES[one.kind]),
                element("p", _cut(one.answers.said[place].exchange.reply), class_="mine"),
            )
        ]
        asked = element("p", _cut(exchange.context[-1].text))
        truth = element("p", _cut(exchange.reply), class_="mine target")
        talk = element("div", asked, element("small", "you"), truth, *said, class_="chat")
        cards.append(element("article", talk, class_="card"))
    return cards


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
