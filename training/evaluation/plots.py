"""The plots of report.html, each with what it shows in words."""

from collections.abc import Mapping
from typing import Any

from training.evaluation import contenders
from training.evaluation.authorship import says_something
from training.evaluation.leaks import times
from training.page import Bar, Html, Series, bars, columns, element, facts, figure, legend, scale, together

Figures = Mapping[str, Any]

NAMES: Mapping[str, str] = dict(contenders.NAMES.items())  # keys of evaluation.json are plain strings

OURS, BASE, ADAPTER, FEW_SHOT, YOU = range(1, 6)  # tones
TONES = {"merged": OURS, "served": OURS, "adapter": ADAPTER, "base": BASE, "few_shot": FEW_SHOT}
LANE, DOT = 14.0, 5.0  # pixels: height of a row of dots, radius of a dot
ENDINGS = {"by itself": OURS, "at a stop sequence": BASE, "at the length limit": FEW_SHOT}


def shown(found: Figures) -> list[str]:
    """The contenders, in the order of the page: from the base to what is served."""
    return [kind for kind in NAMES if kind in found["contenders"]]


def loss(found: Figures) -> Html:
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


def authorship(found: Figures) -> Html:
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
        bars("Area under the ROC curve of a classifier, by who wrote", rows),
        "How often a classifier of character n-grams puts yours first, of two replies of like length that it has not "
        "seen, one of them yours: 0.5 is guessing, 1 is always.",
    )


def endings(found: Figures) -> Html:
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


def context(found: Figures) -> Html | None:
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


def groups(found: Figures, name: str, title: str) -> Html | None:
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


def style(found: Figures) -> Html | None:
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


def leaks(found: Figures) -> Html:
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
