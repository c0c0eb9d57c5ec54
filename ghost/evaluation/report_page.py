"""report.html: does it sound like you? For the person's own eyes, since it shows replies beside those they wrote."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ghost.evaluation.authorship import is_informative
from ghost.evaluation.contenders import NAMES, name_of
from ghost.evaluation.data import Exchange
from ghost.evaluation.memorisation import times
from ghost.evaluation.replies import Result
from ghost.evaluation.style import FEATURES
from ghost.evaluation.verdict import Figures, alike, main_contender
from ghost.page import (
    Bar,
    Html,
    Series,
    bars,
    bubble,
    card,
    chat,
    columns,
    document,
    element,
    facts,
    figure,
    private,
    section,
    tiles,
)

OURS, BASE, ADAPTER, FEW_SHOT, YOU = range(1, 6)  # tones
TONES = {"merged": OURS, "served": OURS, "adapter": ADAPTER, "base": BASE, "few_shot": FEW_SHOT}
ENDINGS = {"by itself": OURS, "at a stop sequence": BASE, "at the length limit": FEW_SHOT}


def shown(found: Figures) -> list[str]:
    """The contenders, in the order of the page: from the base to what is served, then other ghosts."""
    return sorted(found["contenders"], key=_place)


def having(found: Figures, figure: str) -> dict[str, Figures]:
    """The contenders that have this figure, in the order of the page."""
    return {kind: one for kind in shown(found) if (one := found["contenders"][kind]).get(figure)}


def _place(kind: str) -> int:
    return list(NAMES).index(kind) if kind in NAMES else len(NAMES)


def tone_of(kind: str) -> int:
    return TONES.get(kind, ADAPTER)


def plot_loss(found: Figures) -> Html:
    rows = [
        Bar(
            name_of(kind),
            {tone_of(kind): one["likelihood"]["nats_per_token"]["value"]},
            f"{_estimate(one['likelihood']['nats_per_token'])} [{_nats_a_character(one):.2f}]",
        )
        for kind, one in having(found, "likelihood").items()
    ]
    gains = found["contenders"].get("merged", {}).get("gain")
    gained = "" if gains is None else f" The merged model is better than the base by {_estimate(gains)} nats a token."
    return figure(
        "Loss of your held-out replies",
        bars("Nats a token of your held-out replies, by model", rows),
        "Nats a token, the end token apart, with 95% intervals; lower is better. In brackets, nats a character, by "
        f"which models with other tokenizers can be compared.{gained}",
    )


def _nats_a_character(one: Figures) -> float:
    return float(one["likelihood"]["nats_per_character"]["value"])


def _estimate(found: Figures) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"


def plot_authorship(found: Figures) -> Html:
    person = found["person"]["authorship"]
    rows = [
        Bar(name, {tone: one["value"]}, _estimate(one)) if is_informative(one) else Bar(name, {}, "too few to tell")
        for name, tone, one in (
            ("two halves of your own", YOU, person["themselves"]),
            *((name_of(kind), tone_of(kind), one["authorship"]) for kind, one in having(found, "authorship").items()),
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
    for kind, one in having(found, "stopping").items():
        ended = [one["stopping"][key]["value"] for key in ("itself", "sequence", "length")]
        figure_of = " · ".join(f"{share:.0%}" for share in ended)
        rows.append(Bar(name_of(kind), dict(zip(ENDINGS.values(), ended, strict=True)), figure_of))
        shares = (one["stopping"][key]["value"] for key in ("for_the_other", "on_and_on", "other_labels", "empty"))
        asides.append(f"{name_of(kind)}: {', '.join(f'{share:.0%}' for share in shares)}")
    return figure(
        "How replies end",
        bars("Share of replies by how they end", rows),
        "A ghost that ends by itself needs no stop sequence. Replies that go on as the other side, as another turn of "
        "yours, which the stop sequence hides, with a line such as C: Hi that you never write, and empty ones: "
        f"{'; '.join(asides)}.",
        tones=ENDINGS,
    )


def plot_context(found: Figures) -> Html | None:
    rows = [
        Bar(f"{name_of(kind)}, {what}", {tone: one["context"][key]["value"]}, f"{one['context'][key]['value']:.2f}")
        for kind, one in having(found, "context").items()
        for key, what, tone in (
            ("true", "what was said", tone_of(kind)),
            ("shuffled", "another conversation", YOU),
            ("none", "nothing", YOU),
        )
    ]
    if not rows:
        return None
    gain = found["contenders"].get("merged", {}).get("context", {}).get("gain")
    words = "" if gain is None else f" The true one is worth {_estimate(gain)} nats a token to the merged model."
    if ranked := {kind: one["ranking"] for kind, one in having(found, "ranking").items()}:
        means = [f"{name_of(kind)} {_estimate(one['reciprocal'])}" for kind, one in ranked.items()]
        one = next(iter(ranked.values()))
        words += (
            f" Asked which of {one['candidates']} replies of yours follows a context, by how much likelier the context "
            f"makes it, its mean reciprocal rank is: {', '.join(means)}; by chance {one['chance']:.2f}."
        )
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
        Series(
            f"nats a token, {name_of(kind)}",
            [round(some[one]["nats_per_token"]["value"], 3) for one in names],
            tone_of(kind),
        )
        for kind, some in by.items()
    ]
    counts = ", ".join(f"{one}: {some['nats_per_token']['n']}" for one, some in next(iter(by.values())).items())
    return figure(
        title,
        columns(title, names, series, ticks=dict(enumerate(names))),
        f"Nats a token; replies: {counts}. Groups below ten are left out.",
        tones={name_of(kind): tone_of(kind) for kind in by},
    )


def plot_style(found: Figures) -> Html | None:
    """For each feature, the distance of the model that would be served from the person, beside the other models'."""
    by = {kind: one["style"] for kind, one in having(found, "style").items()}
    kind = next((kind for kind in ("merged", "adapter", "served", "base") if kind in by), None)
    if kind is None:
        return None
    rows = []
    for key, one in sorted(by[kind].items(), key=lambda item: item[1]["floor_high"] - item[1]["distance"]):
        parts = {YOU: min(one["distance"], one["floor_high"])}
        if one["distance"] > one["floor_high"]:
            parts[tone_of(kind)] = one["distance"] - one["floor_high"]
        others = [f"yourself {one['floor']:.2f}"]
        # A model that writes nothing that the feature counts has no figure.
        others += [
            f"{name_of(other)} {some[key]['distance']:.2f}"
            for other, some in by.items()
            if other != kind and key in some
        ]
        rows.append(Bar(one["title"], parts, f"{one['distance']:.2f} ({'; '.join(others)})"))
    return figure(
        "How far it is from your style",
        bars("Distances from your style", rows),
        f"Distances of {name_of(kind)} from 0, alike, to 1; what is off the most comes first. Grey is as far as two "
        "samples of your own replies are apart 19 times in 20: without another colour, it writes as you do, as far as "
        "this figure can tell.",
        tones={name_of(kind): tone_of(kind), "your own variation": YOU},
        wide=True,
    )


def plot_costs(found: Figures) -> Html | None:
    """What each contender keeps of the person, and what it costs."""
    rows = []
    for kind, one in having(found, "cost").items():
        loss = f"{_nats_a_character(one):.2f} nats" if "likelihood" in one else ""
        rows.append(f"{name_of(kind)}: {' · '.join(_in_short(one, loss, 'ends'))}")
    if not rows:
        return None
    return figure(
        "How much of you each keeps, for how much memory and time",
        element("ul", *(element("li", row) for row in rows)),
        "Nats a character of your held-out replies, which models with other tokenizers can be compared by; figures of "
        "style as you vary yourself; the classifier's AUC; replies that end by themselves; the weights in memory here, "
        "without the context's cache; tokens drawn a second, prompts included, on this machine.",
    )


def _in_short(one: Figures, loss: str, ends: str) -> list[str]:
    """The figures of one contender that sum it up; `loss` and `ends` are how two of them are said."""
    parts = [loss] if loss else []
    if one.get("style"):
        parts.append(f"style {alike(one)} of {len(one['style'])}")
    if "authorship" in one and is_informative(one["authorship"]):
        parts.append(f"AUC {one['authorship']['value']:.2f}")
    if "stopping" in one:
        parts.append(f"{ends} {one['stopping']['itself']['value']:.0%}")
    return [*parts, _cost(one["cost"])] if "cost" in one else parts


def _cost(cost: Figures) -> str:
    millions, megabytes = cost["parameters"] / 1e6, cost["bytes"] / 1e6
    return f"{millions:,.1f} million weights in {megabytes:,.0f} MB · {cost['tokens_a_second']:.1f} tokens/s"


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
    for name, what in (("training", "training replies extracted"), ("held_out", "the same of held-out ones")):
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
    lines += [f"{name_of(kind):<24} {_figures(found['contenders'][kind])}" for kind in shown(found)]
    lines += [f"not judged   {name_of(kind)}: {why}" for kind, why in found["missing"].items()]
    lines += [f"{kind}: {why}" for kind, why in found.get("unlike", {}).items()]
    lines += [f"next step    {step}" for step in found["verdict"]["steps"]]
    return "\n".join([*lines, f"report       {page}"])


def _figures(one: Figures) -> str:
    loss = ""
    if "likelihood" in one:
        nats = one["likelihood"]["nats_per_token"]
        loss = f"loss {nats['value']:.3f} ({nats['low']:.3f}-{nats['high']:.3f})"
    return ", ".join([*_in_short(one, loss, "ends by itself"), f"{one['seconds']:.0f} s"])


class Measure(NamedTuple):
    name: str
    formula: str
    range: str
    source: str
    cannot_say: str


# The text of docs/measures.md, but for the rows of style.FEATURES.
TEXT = Path(__file__).with_name("measures.md").read_text(encoding="utf-8")
_rows = [line for line in TEXT.split("\n\n## ")[0].splitlines() if line.startswith("| ")]
MEASURES = [Measure(*(cell.strip().replace("\\|", "|") for cell in row[1:-1].split(" | "))) for row in _rows[1:]]


def measures_document() -> str:
    features = "\n".join(f"| {one.title} | {one.measure} | {one.cannot_say} |" for one in FEATURES)
    return TEXT.replace("{features}", features)


HEADING = "Does it sound like you?"
SAMPLES = 8  # replies shown
LONGEST = 300  # characters of a message shown


def page(found: Figures, exchanges: Sequence[Exchange], results: Sequence[Result]) -> str:
    """The whole file. `found` is evaluation.json; `results` hold each contender's replies to `exchanges`."""
    cards = [
        plot_authorship(found),
        plot_endings(found),
        plot_loss(found),
        plot_costs(found),
        plot_context(found),
        plot_groups(found, "platform", "Loss by platform"),
        plot_groups(found, "language", "Loss by language"),
        plot_groups(found, "context", "Loss by turns of context"),
        plot_leaks(found),
    ]
    return document(
        HEADING,
        private("evaluation.json"),
        element("p", " ".join(found["verdict"]["summary"])),
        *_notes(found),
        section(
            "Some replies",
            *_samples(found, exchanges, results),
            words="Chosen at random. You are on the right; each model's reply is below what you wrote.",
        ),
        *_steps(found),
        element("h2", "In figures"),
        _tiles(found),
        section("Style", plot_style(found) or element("p", "Too few replies to compare style.")),
        section("Beside the base, and beside yourself", *cards),
        section("What each figure is", *map(_measure, MEASURES)),
    )


def _tiles(found: Figures) -> Html:
    _, ours = main_contender(found)
    numbers = [(f"{found['held_out']['replies']:,}", "held-out replies of yours")]
    if "authorship" in ours and is_informative(ours["authorship"]):
        numbers.append(
            (f"{ours['authorship']['value']:.2f}", "AUC of a classifier between your replies and its; 0.5: guessing")
        )
    if ours.get("style"):
        numbers.append((f"{alike(ours)} of {len(ours['style'])}", "figures of style as you vary yourself"))
    if "stopping" in ours:
        numbers.append((f"{ours['stopping']['itself']['value']:.0%}", "of its replies end by themselves"))
    if "likelihood" in ours:
        numbers.append((f"{ours['likelihood']['perplexity']['value']:.1f}", "perplexity on yours; lower is better"))
    return tiles(numbers)


def _steps(found: Figures) -> list[Html]:
    steps = found["verdict"]["steps"]
    if not steps:
        return [element("p", "No figure gives reason for another step.", class_="note")]
    return [element("h2", "What to do next"), element("ol", *(element("li", step) for step in steps))]


def _notes(found: Figures) -> list[Html]:
    notes = [f"Not judged: {name_of(kind)}. {why}" for kind, why in found["missing"].items()]
    notes += [f"{kind}: {why}." for kind, why in found.get("unlike", {}).items()]
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


def _measure(measure: Measure) -> Html:
    return card(
        measure.name,
        element("p", measure.formula),
        element("p", f"Range: {measure.range}. Source: {measure.source}.", class_="soft"),
        element("p", f"It cannot say {measure.cannot_say}.", class_="soft"),
    )


def _samples(found: Figures, exchanges: Sequence[Exchange], results: Sequence[Result]) -> list[Html]:
    """Exchanges that every contender answered, each with all that was said."""
    whole = [one for one in results if len(one.answers.said) == len(exchanges)]
    places = random.Random(found["held_out"]["seed"]).sample(range(len(exchanges)), min(SAMPLES, len(exchanges)))
    parts = []
    for place in sorted(places):
        exchange = exchanges[place]
        said = [bubble(exchange.context[-1].text, LONGEST), element("small", "you")]
        said.append(bubble(exchange.reply, LONGEST, mine=True, target=True))
        for one in sorted(whole, key=lambda one: _place(one.kind)):
            said += [
                element("small", name_of(one.kind)),
                bubble(one.answers.said[place].exchange.reply, LONGEST, mine=True),
            ]
        parts.append(card("", chat(*said)))
    return parts


if __name__ == "__main__":
    print(measures_document(), end="")
