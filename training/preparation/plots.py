"""The plots of report.html, each with what it shows in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from training.page import Bar, Html, Series, Strip, bars, columns, facts, figure, legend, strips, together
from training.preparation.fit import Fit
from training.preparation.prepared import Prepared
from training.preparation.report import counted
from training.preparation.samples import title
from training.preparation.split import WHY
from training.preparation.timeline import Timeline

CHATS = 12  # shown one by one, the largest first
LANGUAGES = 6  # as many as have room on a phone
LENGTHS = (5, 10, 20, 40, 80, 160, 320)  # characters: upper ends of the columns
ALONE = "you alone"
YOU, OTHERS, TRAINING, VALIDATION, LIMIT = range(1, 6)  # tones
SIDES = {"you": YOU, "others": OTHERS}
HALVES = {"training": TRAINING, "validation": VALIDATION}


class Chat(NamedTuple):
    """How much of the data is from one file: messages of yours and of others, people but you."""

    path: str
    yours: int
    theirs: int
    others: int

    @property
    def messages(self) -> int:
        return self.yours + self.theirs

    @property
    def is_group(self) -> bool:
        return self.others > 1

    @property
    def name(self) -> str:
        """Of a chat in which nobody else is left, not the name of whoever was left out."""
        return PurePosixPath(self.path).stem if self.theirs else ALONE


def volume(prepared: Prepared, timeline: Timeline) -> Html:
    instants, mine = prepared.table["instant"], prepared.table["mine"]
    series = [
        Series("of yours", timeline.count(instants[mine]), YOU),
        Series("of others", timeline.count(instants[~mine]), OTHERS),
    ]
    totals = [sum(both) for both in zip(*(one.values for one in series), strict=True)]
    most = max(totals)
    unit = "month" if len(timeline.names[0]) == len("2024-03") else "day"
    plot = columns(
        f"Messages by {unit}, yours and those of others", timeline.names, series, ticks=timeline.ticks, stacked=True
    )
    return figure(
        f"Messages a {unit}",
        together(legend(SIDES), plot),
        f"Most are of {timeline.names[totals.index(most)]}: {most:,}. A gap may be a lost phone, "
        "or an export that was cut at its limit.",
        wide=True,
    )


def lengths(prepared: Prepared) -> Html:
    me = prepared.labels.me
    turns = [turn for talk in prepared.conversations for turn in talk.turns]
    yours = [len(turn.text) for turn in turns if turn.label == me]
    theirs = [len(turn.text) for turn in turns if turn.label != me]
    names = [f"up to {end} characters" for end in LENGTHS] + [f"more than {LENGTHS[-1]} characters"]
    series = [Series("of yours", _by_length(yours), YOU), Series("of others", _by_length(theirs), OTHERS)]
    ticks = {index: f"≤{end}" for index, end in enumerate(LENGTHS) if index % 2 == 0}  # on a phone, no more fit
    return figure(
        "Characters in a turn",
        together(
            legend(SIDES),
            columns("Share of turns by length, yours and those of others", names, series, ticks=ticks, percent=True),
        ),
        f"Half of your turns have at most {_median(yours):,} characters, half of those of others at most "
        f"{_median(theirs):,}. A turn is what one side wrote in one go, often several messages.",
    )


def _by_length(lengths: Sequence[int]) -> list[float]:
    """Shares of the columns, up to each of LENGTHS and above."""
    counts = np.histogram(lengths, [0, *(end + 1 for end in LENGTHS), np.inf])[0]
    return [count / max(len(lengths), 1) for count in counts.tolist()]


def _median(lengths: Sequence[int]) -> int:
    return int(np.median(lengths)) if lengths else 0


def chats(prepared: Prepared) -> list[Chat]:
    """The largest first."""
    table = prepared.table
    by_side = {mine: table[table["mine"] == mine].groupby("path", observed=False)["sender"] for mine in (True, False)}
    counts = zip(
        table["path"].cat.categories,
        by_side[True].size().tolist(),
        by_side[False].size().tolist(),
        by_side[False].nunique().tolist(),
        strict=True,
    )
    chats = (Chat(*count) for count in counts)
    return sorted((chat for chat in chats if chat.messages), key=lambda chat: (-chat.messages, chat.path))


def who(chats: Sequence[Chat], groups: Mapping[str, Any]) -> Html:
    """`groups` are the report's figures."""
    total = sum(chat.messages for chat in chats)
    rows = [
        Bar(
            (title(chat.path) if chat.theirs else ALONE) + (f" · group of {chat.others + 1}" if chat.is_group else ""),
            {YOU: chat.yours, OTHERS: chat.theirs},
            f"{chat.messages:,} · {chat.messages / total:.0%}",
        )
        for chat in chats[:CHATS]
    ]
    rest = chats[CHATS:]
    if rest:
        yours, theirs = sum(chat.yours for chat in rest), sum(chat.theirs for chat in rest)
        figure_of_rest = f"{yours + theirs:,} · {(yours + theirs) / total:.0%}"
        rows.append(Bar(counted(len(rest), "more chat"), {YOU: yours, OTHERS: theirs}, figure_of_rest))
    words = (
        f"{groups['messages']['share']:.0%} of the messages are from {counted(groups['chats']['count'], 'group')}, "
        "where everyone but you is one other side."
        if groups["chats"]["count"]
        else "None of these chats is a group."
    )
    return figure("Who it is from", together(legend(SIDES), bars("Messages by chat", rows)), words)


def languages(languages: Mapping[str, Mapping[str, float]]) -> Html:
    total = Counter(languages["train"]) + Counter(languages["val"])
    codes = [code for code, _ in total.most_common(LANGUAGES)]
    series = [
        Series(f"of {half}", [languages[key].get(code, 0.0) for code in codes], HALVES[half])
        for key, half in (("train", "training"), ("val", "validation"))
    ]
    shown = ["?" if code == "und" else code for code in codes]
    plot = columns(
        "Share of your turns by language, in training and in validation",
        shown,
        series,
        ticks=dict(enumerate(shown)),
        percent=True,
    )
    return figure(
        "Languages of your turns",
        together(legend(HALVES), plot),
        "By code of the language, estimated from a sample. “?” is what nobody can tell: links, emoji, “ok”.",
    )


def split(prepared: Prepared, timeline: Timeline, chats: Sequence[Chat], figures: Mapping[str, Any]) -> Html:
    shares = timeline.shares([talk.start for talk in prepared.conversations])
    # Chats are many where conversations are; a pass over them for each chat shown would be one too many.
    positions: dict[str, list[float]] = {chat.path: [] for chat in chats}
    before: dict[str, int] = dict.fromkeys(positions, 0)
    for index, (talk, share) in enumerate(zip(prepared.conversations, shares, strict=True)):
        positions[talk.path].append(share)
        before[talk.path] += index < prepared.training
    rows = [Strip(chat.name, positions[chat.path], before[chat.path]) for chat in chats[:CHATS]]
    cells = len(timeline.cells)
    ticks = {index / cells: label for index, label in timeline.ticks.items()}
    held_back = prepared.training < len(prepared.conversations)
    border = shares[prepared.training] if held_back else None
    counts, why = figures["conversations"], WHY.get(prepared.held_out)
    return figure(
        "What trains, what validates",
        together(
            legend(HALVES),
            strips(
                "Conversations of each chat on the time line",
                rows,
                tones=(TRAINING, VALIDATION),
                ticks=ticks,
                mark=border,
            ),
        ),
        f"Of the conversations {counts['train']:,} train, and the {counts['val']:,} that start after them validate: by "
        "time, so that nothing said later helps with what was said before. No turn is ever on both sides."
        + (f" Here {why}." if why else ""),
        wide=True,
    )


def fit(recipe: str, fit: Fit) -> Html:
    names = {"50": "half of them have at most", "90": "90% at most", "95": "95% at most", "99": "99% at most"}
    rows = [
        Bar(names.get(share, "the longest"), {TRAINING: tokens}, f"{tokens:,}")
        for share, tokens in fit.quantiles.items()
    ] + [Bar("the limit: sequence_len", {LIMIT: fit.sequence_len}, f"{fit.sequence_len:,}")]
    by = "estimated from their characters" if fit.counted_by == "estimate" else "counted by the base's tokenizer"
    sampled = "" if fit.sampled == fit.lines else f", on {fit.sampled:,} of the {fit.lines:,}, drawn at random"
    cut = "lose turns from the front" if recipe == "windows" else "train in pieces, of which none is lost"
    left_out = "are left out" if recipe == "windows" else "hold a turn that is too long"
    return figure(
        "Tokens in an example" + (", estimated" if fit.counted_by == "estimate" else ""),
        bars("Lengths of the examples in tokens, beside the limit", rows),
        f"{fit.within:.1%} of the examples fit as they are, {fit.shortened:.1%} {cut}, {fit.skipped:.1%} "
        f"{left_out}. "
        f"An epoch is {fit.tokens_per_epoch:,} tokens. Lengths are {by}{sampled}.",
    )


def exposure(exposure: Mapping[str, Any]) -> Html:
    """`exposure` are the figures of recipes.Exposure."""
    shown, replies = exposure["times_a_turn_is_shown"], exposure["replies"]
    times = shown["turns_by_times"]
    counts = Series("turns", list(times.values()), TRAINING)
    ticks = {index: time for index, time in enumerate(times) if index % -(-len(times) // 8) == 0}
    plot = columns("Turns by how often an epoch shows them", [f"{time} times" for time in times], [counts], ticks=ticks)
    return figure(
        "How often an epoch shows a turn",
        plot,
        f"{shown['mean']:.1f} times on average, and training goes over the examples for several epochs. "
        f"{replies['never_a_target']:,} of your {replies['total']:,} replies ({replies['share']:.0%}) are never the "
        "turn after which the model learns to stop.",
    )


def leakage(leakage: Mapping[str, Any]) -> Html:
    targets, pasted, walls = leakage["targets"], leakage["pasted"], leakage["walls"]
    rows = [
        ("turns on both sides of the split", f"{leakage['turns_on_both_sides']:,}"),
        ("messages on both sides, as of a chat that was exported twice", f"{leakage['messages_on_both_sides']:,}"),
        _repeated("replies", targets),
        _repeated("messages", pasted),
        (f"messages of {walls['from_characters']:,} characters or more", f"{walls['messages']:,}"),
        ("long texts that were sent more than once", f"{walls['copied_texts']:,}"),
        ("share of these in what you wrote", f"{walls['share_of_your_characters']:.1%}"),
    ]
    return figure(
        "What the halves share, and what is no chat",
        facts(rows),
        "What validation shares with training makes every held-out figure too good. A short reply that comes again, as "
        "“haha” does, is no leak; a pasted paragraph is one.",
    )


def _repeated(what: str, counts: Mapping[str, int]) -> tuple[str, str]:
    return (
        f"held-out {what} of {counts['from_characters']:,} characters or more that training holds too, or nearly so",
        f"{counts['exact'] + counts['near']:,} of {counts['compared']:,}",
    )
