"""report.html: does it sound like you? For the person's own eyes, since it shows replies beside those they wrote."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ghost.evaluation import contenders
from ghost.evaluation.authorship import says_something
from ghost.evaluation.data import Exchange
from ghost.evaluation.memorisation import times
from ghost.evaluation.replies import Judged
from ghost.page import Bar, Html, Series, bars, columns, document, element, facts, figure, legend, scale, together

# The plots of report.html, each with what it shows in words.

Figures = Mapping[str, Any]

NAMES: Mapping[str, str] = dict(contenders.NAMES.items())  # keys of evaluation.json are plain strings

OURS, BASE, ADAPTER, FEW_SHOT, YOU = range(1, 6)  # tones
TONES = {"merged": OURS, "served": OURS, "adapter": ADAPTER, "base": BASE, "few_shot": FEW_SHOT}
LANE, DOT = 14.0, 5.0  # pixels: height of a row of dots, radius of a dot
ENDINGS = {"by itself": OURS, "at a stop sequence": BASE, "at the length limit": FEW_SHOT}


def shown(found: Figures) -> list[str]:
    """The contenders, in the order of the page: from the base to what is served."""
    return [kind for kind in NAMES if kind in found["contenders"]]


def plot_loss(found: Figures) -> Html:
    rows = [
        Bar(NAMES[kind], {TONES[kind]: one["likelihood"]["nats_per_token"]["value"]}, _with_interval(one))
        for kind in shown(found)
        if "likelihood" in (one := found["contenders"][kind])
    ]
    gains = found["contenders"].get("merged", {}).get("gain")
    gained = "" if gains is None else f" The merged model is better than the base by {_estimate(gains)} nats a token."
    return figure(
        "Loss of your held-out replies",
        bars("Nats a token of your held-out replies, by model", rows),
        "Nats a token, the end token apart, with 95% intervals; lower is better. In brackets, nats a character, by "
        f"which models with other tokenizers can be compared.{gained}",
    )


def _with_interval(one: Figures) -> str:
    found = one["likelihood"]
    return f"{_estimate(found['nats_per_token'])} [{found['nats_per_character']['value']:.2f}]"


def _estimate(found: Figures, places: int = 2) -> str:
    return f"{found['value']:.{places}f} ({found['low']:.{places}f}–{found['high']:.{places}f})"


def plot_authorship(found: Figures) -> Html:
    person = found["person"]["authorship"]
    by = {kind: one["authorship"] for kind in shown(found) if "authorship" in (one := found["contenders"][kind])}
    rows = [
        Bar(name, {tone: one["value"]}, _estimate(one)) if says_something(one) else Bar(name, {}, "too few to tell")
        for name, tone, one in (
            ("two halves of your own", YOU, person["themselves"]),
            *((NAMES[kind], TONES[kind], one) for kind, one in by.items()),
            ("those you write with", YOU, person["others"]),
        )
    ]
    return figure(
        "Can it be told from you?",
        bars("AUC of a classifier, by who wrote", rows),
        "AUC of a classifier on character n-grams: how often it ranks your reply first, given one of yours and one of "
        "another source, both unseen and of similar length. 0.5 is guessing, 1 is always right.",
    )


def plot_endings(found: Figures) -> Html:
    rows, asides = [], []
    for kind in shown(found):
        if "stopping" not in (one := found["contenders"][kind]):
            continue
        ended = [one["stopping"][key]["value"] for key in ("itself", "sequence", "length")]
        figure_of = " · ".join(f"{share:.0%}" for share in ended)
        rows.append(Bar(NAMES[kind], dict(zip(ENDINGS.values(), ended, strict=True)), figure_of))
        shares = (one["stopping"][key]["value"] for key in ("for_the_other", "on_and_on", "empty"))
        asides.append(f"{NAMES[kind]}: {', '.join(f'{share:.0%}' for share in shares)}")
    return figure(
        "How replies end",
        together(legend(ENDINGS), bars("Share of replies by how they end", rows)),
        "A ghost that ends by itself needs no stop sequence. Replies that go on as the other side, as another turn of "
        f"yours, which the stop sequence hides, and empty ones: {'; '.join(asides)}.",
    )


def plot_context(found: Figures) -> Html | None:
    rows = [
        Bar(f"{NAMES[kind]}, {what}", {tone: one[key]["value"]}, f"{one[key]['value']:.2f}")
        for kind in shown(found)
        if (one := found["contenders"][kind].get("context")) is not None
        for key, what, tone in (
            ("true", "what was said", TONES[kind]),
            ("shuffled", "another conversation", YOU),
            ("none", "nothing", YOU),
        )
    ]
    if not rows:
        return None
    gain = found["contenders"].get("merged", {}).get("context", {}).get("gain")
    words = "" if gain is None else f" The true one is worth {_estimate(gain)} nats a token to the merged model."
    return figure(
        "Does it listen?",
        bars("Loss of your replies after the true context, another and none", rows),
        f"Nats a token of your replies, by what the model was shown before them.{words}",
    )


def plot_groups(found: Figures, name: str, title: str) -> Html | None:
    """Loss by platform, language or turns of context."""
    by = {
        kind: found["contenders"][kind]["likelihood_by"][name]
        for kind in ("base", "merged")
        if name in found["contenders"].get(kind, {}).get("likelihood_by", {})
    }
    names = list(next(iter(by.values()), {}))
    if not names:
        return None
    series = [
        Series(f"nats a token, {NAMES[kind]}", [round(some[one]["nats_per_token"]["value"], 3) for one in names], tone)
        for kind, some in by.items()
        for tone in [TONES[kind]]
    ]
    counts = ", ".join(f"{one}: {some['nats_per_token']['n']}" for one, some in next(iter(by.values())).items())
    return figure(
        title,
        together(
            legend({NAMES[kind]: TONES[kind] for kind in by}),
            columns(title, names, series, ticks=dict(enumerate(names))),
        ),
        f"Nats a token; replies: {counts}. Groups below ten are left out.",
    )


def plot_style(found: Figures) -> Html | None:
    """A row for each figure of style: how far the models are from the person, and the person from themselves."""
    by = {kind: one["style"] for kind in shown(found) if (one := found["contenders"][kind]).get("style")}
    ours = next((by[kind] for kind in ("merged", "adapter", "served", "base") if kind in by), None)
    if ours is None:
        return None
    reach = scale(max(one["distance"] for some in by.values() for one in some.values()))[-1]
    rows = []
    for key, one in sorted(ours.items(), key=lambda item: item[1]["floor_high"] - item[1]["distance"]):
        floor = element("rect", width=f"{100 * one['floor_high'] / reach:.2f}%", height=LANE, class_="t5", opacity=0.35)
        dots = [
            element(
                "circle",
                element("title", f"{NAMES[kind]}: {some[key]['distance']:.3f}"),
                cx=f"{100 * some[key]['distance'] / reach:.2f}%",
                cy=LANE / 2,
                r=DOT,
                class_=f"t{TONES[kind]}",
            )
            for kind, some in by.items()
            if key in some  # of who writes nothing that it counts there is no figure
        ]
        lane = element("div", element("svg", floor, *dots, width="100%", height=LANE), aria_hidden="true")
        rows.append(element("li", element("span", one["title"]), element("b", beside(key, one, by)), lane))
    return figure(
        "How far it is from your style",
        together(
            legend({**{NAMES[kind]: TONES[kind] for kind in by}, "your own variation": YOU}),
            element("ul", *rows, class_="bars", aria_label="Distances from your style"),
        ),
        "Distances from 0, alike, to 1; what is off the most comes first. Grey reaches as far as two samples of your "
        "own replies are apart 19 times in 20: a model inside it writes as you do, as far as this figure can tell.",
        wide=True,
    )


def beside(key: str, one: Figures, by: Mapping[str, Figures]) -> str:
    """`0.04 (yourself: 0.03, base: 0.31)`"""
    base = (
        f", base: {by['base'][key]['distance']:.2f}" if key in by.get("base", {}) and by["base"][key] is not one else ""
    )
    return f"{one['distance']:.2f} (yourself: {one['floor']:.2f}{base})"


def plot_leaks(found: Figures) -> Html:
    told = found["leaks"]
    rows: list[tuple[str, str]] = []
    if "overlap" in told:
        said, own = told["overlap"]["said"], told["overlap"]["held_out"]
        for length in ("24", "48", "96"):
            pair = f"{said['shares'][length]:.1%} · {own['shares'][length]:.1%}"
            rows.append((f"replies with {length} characters of training in a row; of your own held-out ones", pair))
        pair = f"{said['whole']:.1%} · {own['whole']:.1%}"
        rows.append(("replies that training holds whole; of your own", pair))
        rows.append(("longest run, in characters; of your own", f"{said['longest']:,} · {own['longest']:,}"))
    for name, what in (("training", "training replies drawn out of it"), ("held_out", "the same of held-out ones")):
        rate = told.get("extraction", {}).get(name)
        if rate is not None:
            rows.append((f"{what}, given their first half", f"{rate['value']:.0%} of {rate['n']}"))
    personal = told["personal"]
    counts = f"{sum(personal['found'].values())} · {sum(personal['known'].values())}"
    scanned = f"{personal['replies']:,} replies and {personal['continuations']:,} continuations"
    rows.append((f"personal data in {scanned}, unless it was just said to it; of these, in training", counts))
    for row in told.get("canaries", []):
        secrets = f"{row['exposure']:.1f} bits, {row['extracted']} of {row['canaries']} said"
        rows.append((f"secrets planted {times(row['repetitions'])}: exposure", secrets))
    planted = "" if told.get("canaries") else " No canaries were planted: ghost prepare --canaries 30 does."
    return figure(
        "What it may give away",
        facts(rows),
        "Replies are those of every form of the ghost that was judged; continuations are how replies of training, of "
        "held-out lines and to canaries go on that were begun for it. Not finding anything is no proof that nothing "
        f"can be found.{planted}",
    )


# What `ghost evaluate` says on the terminal: the verdict, a line for each contender, the next steps. No message.


def summary(found: Figures, page: Path) -> str:
    held = found["held_out"]
    of = f" of {held['of']:,}" if held["of"] > held["replies"] else ""
    count = held["conversations"]
    talks = "" if count is None else f" in {count:,} conversation{'s' * (count != 1)}"
    lines = [f"held out     {held['replies']:,}{of} replies of yours{talks}"]
    if count is None:
        lines.append("             no figures by platform and language: val.about.jsonl is missing or damaged")
    lines += found["verdict"]["summary"]
    lines += [f"{NAMES[kind]:<24}{_figures(found['contenders'][kind])}" for kind in shown(found)]
    lines += [f"not judged   {NAMES[kind]}: {why}" for kind, why in found["missing"].items()]
    lines += [f"next step    {step}" for step in found["verdict"]["steps"]]
    return "\n".join([*lines, f"report       {page}"])


def _figures(one: Figures) -> str:
    parts = []
    if "likelihood" in one:
        loss = one["likelihood"]["nats_per_token"]
        parts.append(f"loss {loss['value']:.3f} ({loss['low']:.3f}-{loss['high']:.3f})")
    if one.get("style"):
        parts.append(f"style {sum(not part['off'] for part in one['style'].values())} of {len(one['style'])}")
    if "authorship" in one and says_something(one["authorship"]):
        parts.append(f"AUC {one['authorship']['value']:.2f}")
    if "stopping" in one:
        parts.append(f"ends by itself {one['stopping']['itself']['value']:.0%}")
    return ", ".join([*parts, f"{one['seconds']:.0f} s"])


# Every measure: its formula, its range, where it is from, and what it cannot say. docs/measures.md is made of this:
#
# python -m ghost.evaluation.report_page > docs/measures.md


class Measure(NamedTuple):
    name: str
    formula: str
    range: str
    source: str
    cannot_say: str


MEASURES = (
    Measure(
        "loss of replies",
        "Σ −ln p(token | context, tokens before it) over the text of your held-out replies / their tokens. The end "
        "token is apart: Σ −ln p(end | context, reply) / replies",
        "0 … ∞ nats a token; ln(vocabulary) is chance",
        "cross-entropy; `ghost/evaluation/likelihood.py`",
        "whether what it would say is any good: many replies would be right, and one was written. Models with other "
        "tokenizers cannot be compared by it",
    ),
    Measure(
        "perplexity",
        "exp(loss of replies)",
        "1 … ∞",
        "Jelinek et al. 1977",
        "what the loss cannot",
    ),
    Measure(
        "loss a character",
        "the same sum / characters of the replies",
        "0 … ∞ nats a character",
        "as bits per character, Graves 2013 (arXiv:1308.0850), in nats",
        "how easy the language is to spell: compare within one language",
    ),
    Measure(
        "gain over the base",
        "(Σ nats of the base − Σ nats of the model) / tokens, over the same replies",
        "above 0: likelier than to the base; the interval is of the paired difference",
        "paired bootstrap, Efron & Tibshirani 1993",
        "what was learnt: style, names, or how the format goes",
    ),
    Measure(
        "how replies end",
        "share by end token, by stop sequence, at max_new_tokens; begun as the other side or as "
        "another turn of one's own; empty",
        "0 … 1, Wilson's interval (1927)",
        "counts; `ghost/evaluation/replies.py`",
        "whether a reply ended at a good place",
    ),
    Measure(
        "distinct-1, distinct-2",
        "different n-grams of words / n-grams of words, over all replies",
        "0 … 1, falling with the amount of text",
        "Li et al. 2016 (arXiv:1510.03055)",
        "whether what varies makes sense; texts of other lengths cannot be compared",
    ),
    Measure(
        "use of the context",
        "loss of replies after another conversation's context − after their own; and after no context",
        "0: it does not listen; higher is better",
        "`ghost/evaluation/likelihood.py`",
        "whether it understands: a language or a name in the context is enough to gain",
    ),
    Measure(
        "style",
        "for each of the figures below: the distance of generated replies from yours, as a mean over equal samples; "
        "the floor is the distance of two samples of your own",
        "0 … 1; at the floor there is no difference to be seen",
        "Lin 1991 (Jensen-Shannon), Smirnov 1939; `ghost/evaluation/style.py`",
        "what nobody counts: irony, warmth, running jokes. Each figure says more below. How many are beyond the floor "
        "tells ghosts apart only near the person: far away nearly all are, however far",
    ),
    Measure(
        "authorship",
        "area under the ROC curve of a classifier of character n-grams that is shown replies it has not learnt from, "
        "yours and the model's, of equal lengths, each different one once",
        "0.5: it cannot tell; 1: it always can",
        "Stamatatos 2013; Mann & Whitney 1947; `ghost/evaluation/authorship.py`",
        "what gave it away, style or topic, and whether a person would notice",
    ),
    Measure(
        "overlap with training",
        "share of replies with so many characters in a row that training holds; beside it, of your held-out replies",
        "0 … 1",
        "exact matching, after Altschul et al. 1990; `ghost/evaluation/memorisation.py`",
        "whether a run was memorised or is what everybody writes: hence the base rate",
    ),
    Measure(
        "extraction",
        "share of replies that greedy decoding completes to the letter, for 48 characters at most, from their context "
        "and first half; of training, and of held-out ones, which cannot be known",
        "0 … 1, Wilson's interval",
        "Carlini et al. 2023 (arXiv:2202.07646); `ghost/evaluation/memorisation.py`",
        "that nothing can be extracted: a better prompt may. Replies without a blank near their middle are cut between "
        "two characters, which a tokenizer may not do",
    ),
    Measure(
        "exposure of canaries",
        "log₂ |R| − log₂ rank of a planted secret among all of its form, by likelihood",
        "0 … 8 bits by rank in a sample, to 19.9 extrapolated; 1.4 is chance",
        "Carlini et al. 2019 (arXiv:1802.08232); `ghost/evaluation/memorisation.py`",
        "that a real secret of another form is as exposed",
    ),
    Measure(
        "personal data",
        "different phone numbers, addresses, IBANs, … in the ghost's replies and in how it goes on with begun ones, "
        "but not in the turns before; and how many of them training holds",
        "0 … ∞",
        "the recognisers of `ghost extract`; `training/extraction/privacy`",
        "names and what they do not know the form of; they are not guarantees",
    ),
)


def measures_document() -> str:
    """docs/measures.md, whole."""
    from ghost.evaluation.style import FEATURES

    rows = "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in measure) + " |" for measure in MEASURES)
    features = "\n".join(f"| {one.title} | {one.measure} | {one.cannot_say} |" for one in FEATURES)
    return f"""# What `ghost evaluate` measures

Made of `ghost/evaluation/report_page.py` and `style.py`; a test holds it equal to them.

Everything is asked of replies that training never saw, with the prompt, the sampling and the cut of the engine that
serves. Intervals are of 95%. Those of losses are bootstrapped over conversations, since the replies of one resemble
each other; data that was prepared before `val.about.jsonl` existed does not tell its conversations, and replies are
resampled, as they are where all are of one conversation; so are those of authorship. Intervals of shares (Wilson) take
replies for independent: they are too narrow where a conversation's resemble each other.

| measure | formula | range | source | what it cannot say |
|---|---|---|---|---|
{rows}

## The figures of style

| figure | distance | what it cannot say |
|---|---|---|
{features}
"""


HEADING = "Does it sound like you?"
SAMPLES = 8  # replies shown
LONGEST = 300  # characters of a message shown


def page(found: Figures, exchanges: Sequence[Exchange], judged: Sequence[Judged]) -> str:
    """The whole file. `found` is evaluation.json, `judged` what was said to `exchanges`."""
    cards = [
        plot_authorship(found),
        plot_endings(found),
        plot_loss(found),
        plot_context(found),
        plot_groups(found, "platform", "Loss by platform"),
        plot_groups(found, "language", "Loss by language"),
        plot_groups(found, "context", "Loss by turns of context"),
        plot_leaks(found),
    ]
    style = plot_style(found)
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
        tiles.append(
            (f"{ours['authorship']['value']:.2f}", "AUC of a classifier between your replies and its; 0.5: guessing")
        )
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


if __name__ == "__main__":
    print(measures_document(), end="")
