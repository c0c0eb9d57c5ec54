"""report.html: what the ghost will learn from, for the person's own eyes. It shows private messages.

Everything on it follows from the data set, so it is the same from run to run.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from ghost.console import counted
from ghost.page import (
    Bar,
    Html,
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
    private,
    section,
    strips,
    tiles,
)
from training.preparation.dataset import WHY, Prepared

# A few examples, drawn at random: what one line of train.jsonl looks like as a chat.

SAMPLES, SEED = 5, 20240229
TURNS = 13  # show the last ones of an example: a window has no more
LONGEST = 400  # characters shown of a turn


def samples(prepared: Prepared) -> list[Html]:
    """Cards of at most five examples of the training half, in order of time."""
    ends = list(accumulate(map(len, prepared.examples.windows[: prepared.training])))
    cards = []
    for number in sorted(Random(SEED).sample(range(ends[-1]), min(SAMPLES, ends[-1]))):
        index = bisect_right(ends, number)
        talk = prepared.conversations[index]
        window = prepared.examples.windows[index][number - ends[index]]
        turns = talk.turns[window.start : window.target + 1]
        first_target = len(turns) - 1 if prepared.recipe == "windows" else 0
        left_out = max(len(turns) - TURNS, 0)
        bubbles = [element("small", f"after {left_out:,} more turns")] if left_out else []
        for place, turn in enumerate(turns[left_out:], start=left_out):
            mine = turn.label == prepared.labels.me
            bubbles.append(bubble(turn.text, LONGEST, mine=mine, target=place >= first_target))
        cards.append(card(title(talk.path), chat(*bubbles)))
    return cards


def title(path: str) -> str:
    """The chat's name and platform, from the names of its file and folder."""
    file = PurePosixPath(path)
    return " · ".join([file.stem, *file.parent.parts])


# The months that the chats cover: the axis of the plots.

Times = npt.NDArray[np.datetime64]

SHORT = np.timedelta64(62, "D")  # up to this, show days
LABELS = 4  # that fit on a phone


@dataclass(frozen=True)
class Timeline:
    """All months, or days, from the first instant to the last, in `zone`."""

    cells: Times
    zone: ZoneInfo

    @classmethod
    def of(cls, instants: "pd.Series[pd.Timestamp]", zone: ZoneInfo) -> "Timeline":
        ends = _local(pd.DatetimeIndex([instants.min(), instants.max()]), zone)
        unit = "D" if ends[1] - ends[0] <= SHORT else "M"
        first, last = ends.astype(f"datetime64[{unit}]")
        return cls(np.arange(first, last + 1), zone)

    @property
    def names(self) -> list[str]:
        """ISO 8601: 2024-03, or 2024-03-31."""
        return [str(cell) for cell in self.cells]

    @property
    def ticks(self) -> dict[int, str]:
        """Labels by cell: years if there are more than two, otherwise months or days."""
        names = self.names
        years = [index for index, name in enumerate(names) if name.endswith("-01") and self.cells.dtype == "M8[M]"]
        if len(years) > 2:
            return {index: names[index][:4] for index in years[:: -(-len(years) // LABELS)]}
        step = -(-len(names) // LABELS)
        return {index: names[index] for index in range(0, len(names), step)}

    def count(self, instants: "pd.Series[pd.Timestamp]") -> list[int]:
        """Count the instants in each cell."""
        touched = _local(pd.DatetimeIndex(instants), self.zone).astype(self.cells.dtype)
        counts: list[int] = np.bincount((touched - self.cells[0]).astype(int), minlength=len(self.cells)).tolist()
        return counts

    def shares(self, instants: Sequence[pd.Timestamp]) -> list[float]:
        """Each instant's place on the axis, between 0 and 1."""
        begin, end = (edge.astype("datetime64[s]") for edge in (self.cells[0], self.cells[-1] + 1))
        shares: list[float] = ((_local(pd.DatetimeIndex(list(instants)), self.zone) - begin) / (end - begin)).tolist()
        return shares


def _local(instants: pd.DatetimeIndex, zone: ZoneInfo) -> Times:
    return instants.tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[s]")


CHATS = 12  # shown one by one, the largest first
LANGUAGES = 6  # that fit on a phone
LENGTHS = (5, 10, 20, 40, 80, 160, 320)  # characters: upper ends of the columns
ALONE = "you alone"
YOU, OTHERS, TRAINING, VALIDATION, LIMIT = range(1, 6)  # tones
SIDES = {"you": YOU, "others": OTHERS}
HALVES = {"training": TRAINING, "validation": VALIDATION}


class Chat(NamedTuple):
    """Messages of yours and of others in one file, and the number of other people."""

    path: str
    yours: int
    theirs: int
    others: int

    @property
    def messages(self) -> int:
        return self.yours + self.theirs

    @property
    def name(self) -> str:
        """If nobody else is left in the chat, not the name of whoever was excluded."""
        return PurePosixPath(self.path).stem if self.theirs else ALONE


def plot_volume(prepared: Prepared, timeline: Timeline) -> Html:
    instants, mine = prepared.table["instant"], prepared.table["mine"]
    series = [
        Series("of yours", timeline.count(instants[mine]), YOU),
        Series("of others", timeline.count(instants[~mine]), OTHERS),
    ]
    totals = [sum(both) for both in zip(*(one.values for one in series), strict=True)]
    most, names = max(totals), timeline.names
    unit = "month" if len(names[0]) == len("2024-03") else "day"
    return figure(
        f"Messages a {unit}",
        columns(f"Messages by {unit}, yours and those of others", names, series, ticks=timeline.ticks, stacked=True),
        f"Most are of {names[totals.index(most)]}: {most:,}. A gap may be a lost phone, or an export that was cut at "
        "its limit.",
        tones=SIDES,
        wide=True,
    )


def plot_lengths(prepared: Prepared) -> Html:
    me = prepared.labels.me
    turns = [turn for talk in prepared.conversations for turn in talk.turns]
    yours = [len(turn.text) for turn in turns if turn.label == me]
    theirs = [len(turn.text) for turn in turns if turn.label != me]
    names = [f"up to {end} characters" for end in LENGTHS] + [f"more than {LENGTHS[-1]} characters"]
    series = [Series("of yours", _by_length(yours), YOU), Series("of others", _by_length(theirs), OTHERS)]
    ticks = {index: f"≤{end}" for index, end in enumerate(LENGTHS) if index % 2 == 0}  # on a phone, no more fit
    return figure(
        "Characters in a turn",
        columns("Share of turns by length, yours and those of others", names, series, ticks=ticks, percent=True),
        f"Half of your turns have at most {_median(yours):,} characters, half of those of others at most "
        f"{_median(theirs):,}. A turn is what one side wrote in one go, often several messages.",
        tones=SIDES,
    )


def _by_length(lengths: Sequence[int]) -> list[float]:
    """Shares of the columns, up to each of LENGTHS and above."""
    counts = np.histogram(lengths, [0, *(end + 1 for end in LENGTHS), np.inf])[0]
    return [count / max(len(lengths), 1) for count in counts.tolist()]


def _median(lengths: Sequence[int]) -> int:
    return int(np.median(lengths)) if lengths else 0


def largest_chats(prepared: Prepared) -> list[Chat]:
    """The largest first."""
    yours = prepared.table.groupby("path", observed=True)["mine"].agg(["sum", "size"])
    others = prepared.table[~prepared.table["mine"]].groupby("path", observed=True)["sender"].nunique()
    chats = [Chat(path, own, count - own, int(others.get(path, 0))) for path, own, count in yours.itertuples()]
    return sorted(chats, key=lambda chat: (-chat.messages, chat.path))


def plot_who(chats: Sequence[Chat], groups: Mapping[str, Any]) -> Html:
    """`groups` are the report's figures."""
    total = sum(chat.messages for chat in chats)

    def row(name: str, some: Sequence[Chat]) -> Bar:
        yours, theirs = sum(chat.yours for chat in some), sum(chat.theirs for chat in some)
        return Bar(name, {YOU: yours, OTHERS: theirs}, f"{yours + theirs:,} · {(yours + theirs) / total:.0%}")

    rows = [
        row(
            (title(chat.path) if chat.theirs else ALONE)
            + (f" · group of {chat.others + 1}" if chat.others > 1 else ""),
            [chat],
        )
        for chat in chats[:CHATS]
    ]
    if rest := chats[CHATS:]:
        rows.append(row(counted(len(rest), "more chat"), rest))
    words = (
        f"{groups['messages']['share']:.0%} of the messages are from {counted(groups['chats']['count'], 'group')}, "
        "where everyone but you is one other side."
        if groups["chats"]["count"]
        else "None of these chats is a group."
    )
    return figure("Who it is from", bars("Messages by chat", rows), words, tones=SIDES)


def plot_languages(languages: Mapping[str, Mapping[str, float]]) -> Html:
    total = Counter(languages["train"]) + Counter(languages["val"])
    codes = [code for code, _ in total.most_common(LANGUAGES)]
    series = [
        Series(f"of {half}", [languages[key].get(code, 0.0) for code in codes], HALVES[half])
        for key, half in (("train", "training"), ("val", "validation"))
    ]
    shown = ["?" if code == "und" else code for code in codes]
    describe = "Share of your turns by language, in training and in validation"
    return figure(
        "Languages of your turns",
        columns(describe, shown, series, ticks=dict(enumerate(shown)), percent=True),
        "By language code, estimated from a sample. “?”: undetermined, such as links, emoji, “ok”.",
        tones=HALVES,
    )


def plot_split(prepared: Prepared, timeline: Timeline, chats: Sequence[Chat], figures: Mapping[str, Any]) -> Html:
    shares = timeline.shares([talk.start for talk in prepared.conversations])
    positions: dict[str, list[float]] = {chat.path: [] for chat in chats}
    before: dict[str, int] = dict.fromkeys(positions, 0)
    for index, (talk, share) in enumerate(zip(prepared.conversations, shares, strict=True)):
        positions[talk.path].append(share)
        before[talk.path] += index < prepared.training
    rows = [Strip(chat.name, positions[chat.path], before[chat.path]) for chat in chats[:CHATS]]
    ticks = {index / len(timeline.cells): label for index, label in timeline.ticks.items()}
    border = shares[prepared.training] if prepared.training < len(shares) else None
    counts, why = figures["conversations"], WHY.get(prepared.held_out)
    return figure(
        "Training and validation over time",
        strips(
            "Conversations of each chat on the time line", rows, tones=(TRAINING, VALIDATION), ticks=ticks, mark=border
        ),
        (
            f"{counts['train']:,} conversations train, {counts['val']:,} validate. No turn is on both sides."
            if prepared.held_out == "continued"
            else f"The first {counts['train']:,} conversations train, the {counts['val']:,} after them validate: split "
            "by time, so the model is never tested on what it could know from later. No turn is on both sides."
        )
        + (f" Here {why}." if why else ""),
        tones=HALVES,
        wide=True,
    )


def plot_lengths_in_tokens(recipe: str, lengths: Mapping[str, Any]) -> Html:
    """`lengths` are the figures of checks.TokenLengths."""
    is_estimate, limit = lengths["counted_by"] == "estimate", lengths["sequence_len"]
    names = {"50": "half of them have at most", "90": "90% at most", "95": "95% at most", "99": "99% at most"}
    rows = [
        Bar(names.get(share, "the longest"), {TRAINING: tokens}, f"{tokens:,}")
        for share, tokens in lengths["quantiles"].items()
    ] + [Bar("the limit: sequence_len", {LIMIT: limit}, f"{limit:,}")]
    by = "estimated from their characters" if is_estimate else "counted by the base's tokenizer"
    sampled, lines = lengths["sampled"], lengths["lines"]
    some = "" if sampled == lines else f", on {sampled:,} of the {lines:,}, chosen at random"
    cut = "lose turns from the front" if recipe == "windows" else "train in pieces, of which none is lost"
    left_out = "are left out" if recipe == "windows" else "hold a turn that is too long"
    return figure(
        "Tokens in an example" + (", estimated" if is_estimate else ""),
        bars("Lengths of the examples in tokens, beside the limit", rows),
        f"{lengths['within']:.1%} of the examples fit as they are, {lengths['shortened']:.1%} {cut}, "
        f"{lengths['skipped']:.1%} {left_out}. An epoch is {lengths['tokens_per_epoch']:,} tokens. Lengths are "
        f"{by}{some}.",
    )


def plot_exposure(exposure: Mapping[str, Any]) -> Html:
    """`exposure` are the figures of dataset.Exposure."""
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


def plot_leakage(leakage: Mapping[str, Any]) -> Html:
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
        "Leakage, and long texts",
        facts(rows),
        "Text that is in both training and validation makes every held-out figure too good. A short reply such as "
        "“haha” does no harm, a pasted paragraph does.",
    )


def _repeated(what: str, counts: Mapping[str, int]) -> tuple[str, str]:
    return (
        f"held-out {what} of {counts['from_characters']:,} characters or more that are in training too, or nearly",
        f"{counts['exact'] + counts['near']:,} of {counts['compared']:,}",
    )


def page(prepared: Prepared, figures: Mapping[str, Any], candidates: Sequence[Html] = ()) -> str:
    """The whole file. `figures` are those of preparation_report.json, `candidates` privacy.candidate_cards."""
    timeline = Timeline.of(prepared.table["instant"], prepared.config.zone)
    chats, shown, lines = largest_chats(prepared), figures["in_examples"], figures["lines"]
    return document(
        "What your ghost will learn from",
        private("preparation_report.json"),
        _in_words(prepared, figures, timeline),
        tiles(
            [
                (f"{shown['yours']:,}", "messages of yours"),
                (f"{shown['your_turns']:,}", "turns of yours"),
                (f"{lines['train']:,}", "examples for training"),
                (f"{lines['val']:,}", "for validation"),
            ]
        ),
        *(element("p", concern["text"], class_="warning") for concern in figures["concerns"]),
        *([] if figures["concerns"] else [element("p", "These figures give no reason not to train.", class_="note")]),
        section(
            "The chats",
            plot_volume(prepared, timeline),
            plot_lengths(prepared),
            plot_languages(figures["languages"]),
            plot_who(chats, figures["groups"]),
        ),
        section(
            "The examples",
            plot_split(prepared, timeline, chats, figures),
            plot_lengths_in_tokens(prepared.recipe, figures["lengths"]),
            plot_exposure(figures["exposure"]),
            plot_leakage(figures["leakage"]),
        ),
        section(
            "What may still be personal",
            *candidates,
            words="Strings that look like addresses, handles, numbers, codes and names, and how often each occurs. The "
            "model can learn them, and say them to anybody. Most will be harmless. To keep one out, exclude its chat "
            "or its person (user_config.json), or change the line in the export and extract again.",
        ),
        section(
            "Some of them, as the model sees them",
            *samples(prepared),
            words="Chosen at random from the training half. You are on the right, whoever you write with is on the "
            "left; their names are not part of an example. Outlined: the replies after which the model learns to stop.",
        ),
    )


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
