"""report.html: what the ghost will learn from, for the person's own eyes. It shows private messages.

Everything on it follows from the data set, so it is the same from run to run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training.page import Html, document, element
from training.preparation import plots
from training.preparation.concerns import Concern
from training.preparation.fit import Fit
from training.preparation.prepared import Prepared
from training.preparation.report import counted
from training.preparation.samples import samples
from training.preparation.timeline import Timeline

HEADING = "What your ghost will learn from"


def page(
    prepared: Prepared,
    figures: Mapping[str, Any],
    concerns: Sequence[Concern],
    languages: Mapping[str, Mapping[str, float]],
    fit: Fit,
    leakage: Mapping[str, Any],
    leftovers: Sequence[Html] = (),
) -> str:
    """The whole file.

    figures    those of preparation_report.json, with `left_out`, `groups` and `exposure`
    languages  concerns.own_languages
    leakage    leakage.leakage
    leftovers  leftovers.cards
    """
    timeline = Timeline.of(prepared.table["instant"], prepared.config.zone)
    chats = plots.chats(prepared)
    return document(
        HEADING,
        element("h1", HEADING),
        element(
            "p",
            "This page shows private messages, yours and other people's. It is on this disk alone, and only you can "
            "read it: do not share it. preparation_report.json, beside it, holds the same figures and no message.",
            class_="warning",
        ),
        _in_words(prepared, figures, timeline),
        _tiles(figures),
        *_concerns(concerns),
        element("h2", "The chats"),
        element(
            "div",
            plots.volume(prepared, timeline),
            plots.lengths(prepared),
            plots.languages(languages),
            plots.who(chats, figures["groups"]),
            class_="cards",
        ),
        element("h2", "The examples"),
        element(
            "div",
            plots.split(prepared, timeline, chats, figures),
            plots.fit(prepared.recipe, fit),
            plots.exposure(figures["exposure"]),
            plots.leakage(leakage),
            class_="cards",
        ),
        *_leftovers(leftovers),
        element("h2", "Some of them, as the model sees them"),
        element(
            "p",
            "Drawn at random from the training half. You are on the right, whoever you write with is on the left; "
            "their names are not part of an example. Outlined: the replies after which the model learns to stop.",
        ),
        element("div", *samples(prepared), class_="cards"),
    )


def _leftovers(cards: Sequence[Html]) -> list[Html]:
    if not cards:
        return []
    advice = (
        "Strings that look like addresses, handles, numbers, codes and names, and how often each is there. The model "
        "can learn them, and say them to anybody. Most will be harmless. To keep one out, leave its chat or its person "
        "out (user_config.json), or change the line in the export and extract again."
    )
    return [element("h2", "What may still be personal"), element("p", advice), element("div", *cards, class_="cards")]


def _in_words(prepared: Prepared, figures: Mapping[str, Any], timeline: Timeline) -> Html:
    messages, shown, lines = figures["messages"], figures["in_examples"], figures["lines"]
    left_out = sum(reason["messages"] for reason in figures["left_out"].values())
    of = "" if shown["messages"] == messages["used"] else f" of {messages['used']:,}"
    return element(
        "p",
        f"{shown['messages']:,}{of} messages in {counted(shown['chats'], 'chat')} from {timeline.names[0]} to "
        f"{timeline.names[-1]}, of which you wrote {shown['yours']:,} as ",
        element("bdi", ", ".join(figures["your_names"])),
        f". They are {counted(shown['turns'], 'turn')} in {counted(shown['conversations'], 'conversation')}, and make "
        f"{lines['total']:,} examples: {lines['train']:,} to learn from, and {lines['val']:,} held back, the last, to "
        "check what was learnt."
        + _canaries(figures.get("canaries"))
        + (f" The other {messages['used'] - shown['messages']:,} are in no example." if of else "")
        + (f" Your settings leave out {left_out:,} more messages." if left_out else ""),
    )


def _canaries(planted: Mapping[str, Any] | None) -> str:
    if not planted:
        return ""
    return (
        f" Of those to learn from, {planted['lines']:,} are from no chat: canaries, {planted['planted']:,} invented "
        f"secrets in {planted['tokens_per_epoch']:,} tokens an epoch, on top of the tokens below."
    )


def _tiles(figures: Mapping[str, Any]) -> Html:
    tiles = [
        (figures["in_examples"]["yours"], "messages of yours"),
        (figures["in_examples"]["your_turns"], "turns of yours"),
        (figures["lines"]["train"], "examples for training"),
        (figures["lines"]["val"], "for validation"),
    ]
    return element(
        "div", *(element("div", element("b", f"{n:,}"), element("span", what)) for n, what in tiles), class_="tiles"
    )


def _concerns(concerns: Sequence[Concern]) -> list[Html]:
    if not concerns:
        return [element("p", "Nothing in these figures speaks against training on them.", class_="note")]
    return [element("p", concern.text, class_="warning") for concern in concerns]
