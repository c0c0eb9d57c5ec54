"""CSV → one table of messages → conversations of turns → the examples of train.jsonl and val.jsonl.

The table has one row per message:

    path     the chat, relative to the folder (a categorical; in order of path)
    instant  UTC
    sender   as the export spells it (a categorical)
    text     stripped, never empty
    mine     the person wrote it                              ┐
    turn, conversation   numbers, from 0, over the whole table ┘ added by `arrange`
"""

import random
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ghost.console import tracked
from ghost.errors import DataError
from replicate_deployment.chat_format import (
    BURST_SECONDS,
    END_TOKEN,
    SILENCE_SECONDS,
    SPECIAL_STRINGS,
    Labels,
    Recipe,
    Turn,
    escape,
    render_line,
)
from training.extraction import csv_file
from training.extraction.speakers import Mine, UserConfig, platform_of
from training.lineage import Known, Span

# ISO 8601 texts → instants in UTC. When clocks are put back, an hour occurs twice.

OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"

EARLIEST, LATEST = np.datetime64(datetime.min), np.datetime64(datetime.max)

Instants = NDArray[np.datetime64]  # datetime64[us]
Mask = NDArray[np.bool_]


def instants(stamps: Sequence[str], chats: NDArray[np.int64], zone: ZoneInfo) -> tuple[Instants, Mask]:
    """The instants, and which of the texts have no offset and are placed in `zone`.

    NaT stands for a text that is no time, and for a time that is outside the years 1 to 9999 in UTC.

    `chats` holds the number of each text's chat; the texts of one chat are in the order of its file.
    """
    texts = pd.Series(stamps, dtype=object)
    utc = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    instant: Instants = utc.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    is_naive: Mask = (~texts.str.contains(OFFSET)).to_numpy(bool)
    placed = np.flatnonzero(is_naive & ~np.isnat(instant))
    instant[placed] = _place(instant[placed], chats[placed], zone)
    instant[(instant < EARLIEST) | (instant > LATEST)] = np.datetime64("NaT")
    return instant, is_naive


def _place(local: Instants, chats: NDArray[np.int64], zone: ZoneInfo) -> Instants:
    """Convert local times to UTC. A time that does not exist becomes the moment when clocks were put forward."""
    index = pd.DatetimeIndex(local)
    placed = index.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    if placed.hasnans:
        is_first = np.ones(len(local), bool)
        is_first[_second_passes(local, chats, np.flatnonzero(placed.isna()))] = False
        placed = index.tz_localize(zone, ambiguous=is_first, nonexistent="shift_forward")
    return placed.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")


def _second_passes(local: Instants, chats: NDArray[np.int64], repeated: NDArray[np.int64]) -> list[int]:
    """The rows of a repeated hour that are in its second pass.

    Only the file's order tells: after 02:50, 02:15 is in the second pass. If an hour has several steps back, or other
    times in between, as when two exports were joined, take all of it for the first pass.
    """
    hours: dict[tuple[int, np.datetime64], list[int]] = {}
    for row in repeated.tolist():
        hours.setdefault((int(chats[row]), local[row].astype("datetime64[D]")), []).append(row)
    found: list[int] = []
    for rows in hours.values():
        steps = [number for number, (one, two) in enumerate(pairwise(rows), start=1) if local[two] < local[one]]
        if len(steps) == 1 and rows[steps[0]] == rows[steps[0] - 1] + 1:
            found += rows[steps[0] :]
    return found


BURST = pd.Timedelta(seconds=BURST_SECONDS)
SILENCE = pd.Timedelta(seconds=SILENCE_SECONDS)


@dataclass(frozen=True)
class Messages:
    """The table, and counts of the rows that were read."""

    table: pd.DataFrame
    read: int
    empty: int
    without_offset: int
    out_of_order: int


@dataclass(frozen=True)
class Conversation:
    """Turns without half an hour of silence between messages. `first` is the number of the first turn in the table."""

    path: str
    start: pd.Timestamp
    turns: list[Turn]
    first: int

    def sides(self, labels: Labels) -> list[bool]:
        """For each turn, whether the person wrote it."""
        return [turn.label == labels.me for turn in self.turns]


def read(folder: Path, zone: ZoneInfo) -> Messages:
    """Read every CSV under `folder`, in order of path, then time, then place in the file.

    Raises DataError if there is no message, and with file and line for a row that `ghost extract` did not write.
    """
    paths = sorted(folder.rglob("*.csv"), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        found = "is empty" if folder.is_dir() else "does not exist"
        raise DataError(f"{folder} {found}: no CSV to prepare. First: ghost extract YOUR_EXPORT --out {folder}")
    stamps: list[str] = []
    senders: list[str] = []
    texts: list[str] = []
    sizes: list[int] = []
    for path in tracked(paths, "reading"):
        one = csv_file.read(path)
        sizes.append(len(one.messages))
        stamps += one.timestamps
        senders += one.senders
        # chat_format round-trips only turns whose first line is not blank, so strip the edges.
        texts += map(str.strip, one.messages)
    if not any(texts):
        raise DataError(f"{folder}: {len(paths)} CSV without a single message. First: ghost extract YOUR_EXPORT")

    chats = np.repeat(np.arange(len(paths)), sizes)
    instant, is_naive = instants(stamps, chats, zone)
    if np.isnat(instant).any():
        row = int(np.isnat(instant).argmax())
        path, first = paths[chats[row]], sum(sizes[: chats[row]])
        line = csv_file.line_of(path, row - first)
        raise DataError(f"{path}:{line}: {stamps[row]!r} is no ISO 8601 time of the years 1 to 9999. {csv_file.AGAIN}")
    is_backwards = (np.diff(instant) < np.timedelta64(0)) & (np.diff(chats) == 0)
    rows = np.lexsort((instant, chats)) if is_backwards.any() else np.arange(len(texts))
    empty = texts.count("")
    if empty:
        rows = rows[np.fromiter((texts[row] != "" for row in rows.tolist()), bool, len(rows))]
    names = sorted(set(senders))
    number = {name: code for code, name in enumerate(names)}
    codes = np.fromiter(map(number.__getitem__, senders), np.int32, len(senders))
    text = [texts[row] for row in rows.tolist()] if is_backwards.any() or empty else texts
    files = pd.Index([path.relative_to(folder).as_posix() for path in paths])
    table = pd.DataFrame(
        {
            "path": pd.Categorical.from_codes(chats[rows], categories=files),
            "instant": pd.DatetimeIndex(instant[rows], tz="UTC"),
            "sender": pd.Categorical.from_codes(codes[rows], categories=pd.Index(names)),
            "text": pd.Series(text, dtype=object),
        }
    )
    return Messages(table, len(texts), empty, int(is_naive.sum()), int(is_backwards.sum()))


def senders(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Messages by sender in each chat."""
    files, names = table["path"].cat.categories, table["sender"].cat.categories
    pairs = table["path"].cat.codes.to_numpy(np.int64) * len(names) + table["sender"].cat.codes.to_numpy()
    found: dict[str, dict[str, int]] = {}
    for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
        found.setdefault(files[pair // len(names)], {})[names[pair % len(names)]] = int(count)
    return found


def written_by(table: pd.DataFrame, mine: Mine | Set[str]) -> NDArray[np.bool_]:
    """For each row, whether its sender is in `mine`: names by platform, or one set for all platforms."""
    chat, sender = table["path"].cat, table["sender"].cat
    platforms = pd.Index([platform_of(file) for file in chat.categories])
    names = dict.fromkeys(platforms, mine) if isinstance(mine, Set) else mine
    found = np.zeros(len(table), bool)
    for platform in platforms.unique():
        of_platform = (platforms == platform)[chat.codes]
        found |= of_platform & sender.categories.isin(list(names.get(platform, ())))[sender.codes]
    return found


def arrange(table: pd.DataFrame, mine: Mine | Set[str], borders: NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """Add the columns `mine`, `turn` and `conversation`.

    `borders` is true for rows at which a conversation starts in any case, since a message before it was left out.
    """
    is_mine = pd.Series(written_by(table, mine), index=table.index)
    codes = table["path"].cat.codes
    gap = table["instant"].diff()
    opens_conversation = (codes != codes.shift()) | (gap >= SILENCE)
    if borders is not None:
        opens_conversation |= borders
    opens_turn = opens_conversation | (is_mine != is_mine.shift()) | (gap > BURST)
    return table.assign(mine=is_mine, turn=opens_turn.cumsum() - 1, conversation=opens_conversation.cumsum() - 1)


def conversations(table: pd.DataFrame, labels: Labels) -> list[Conversation]:
    """The conversations of an arranged table, in order of their first message, ties by path."""
    turn, conversation = table["turn"].to_numpy(), table["conversation"].to_numpy()
    opens_turn = np.flatnonzero(np.diff(turn, prepend=-1))
    texts = table["text"].tolist()
    bounds = [*opens_turn.tolist(), len(texts)]
    joined = [texts[a] if b - a == 1 else "\n".join(texts[a:b]) for a, b in pairwise(bounds)]
    sides = [labels.me if is_mine else labels.other for is_mine in table["mine"].to_numpy()[opens_turn].tolist()]
    turns = list(map(Turn._make, zip(sides, joined, strict=True)))

    first = np.flatnonzero(np.diff(conversation, prepend=-1))
    starts = table["instant"].iloc[first]
    found = [
        Conversation(path, start, turns[a:b], a)
        for path, start, (a, b) in zip(
            table["path"].iloc[first], starts, pairwise([*turn[first].tolist(), len(turns)]), strict=True
        )
    ]
    # Rows lie by path, and sorting is stable: equal starts stay in order of path.
    return sorted(found, key=lambda conversation: conversation.start)


# The `windows` recipe: which turns of a conversation become training examples. Pure functions of `mine`: for each turn
# of a conversation, whether the person wrote it.

SIZES = (6, 8, 10, 12)  # context turns
STRIDE = 3
SEED = 20240229


class Window(NamedTuple):
    """Turns `start … target` of a conversation: the last is the reply to learn, the others its context."""

    start: int
    target: int


def windows(mine: Sequence[bool]) -> list[Window]:
    """The windows of one conversation, by size, then by start; every context ends with the other side's turn.

    A window whose last turn is no reply of the person shrinks from its end until it is, so a window has one
    target: the last reply at or before its end. Two sizes may shrink to one window; it is kept once.
    """
    count = len(mine)
    last_reply = _last_replies(mine)
    if count <= SIZES[0]:
        return [Window(0, last_reply[-1])] if count and last_reply[-1] > 0 else []
    found: list[tuple[int, int]] = []
    smaller = [-1] * count
    for size in SIZES:
        targets = last_reply[size::STRIDE]
        if not targets:
            break
        # A window that equals one of a smaller size equals one of the next smaller: replies only lie further on.
        starts = range(0, count, STRIDE)
        found += [
            (start, target)
            for start, target, known in zip(starts, targets, smaller, strict=False)
            if target > start and target != known
        ]
        smaller = targets
    return list(map(Window._make, found))


def _last_replies(mine: Sequence[bool]) -> list[int]:
    """For each position, the nearest reply at or before it; -1 where there is none."""
    found, last, before = [], -1, True
    for position, here in enumerate(mine):
        if here and not before:
            last = position
        before = here
        found.append(last)
    return found


def replies(mine: Sequence[bool]) -> list[int]:
    """Positions of the person's turns that follow one of the other side."""
    return [position for position, (before, here) in enumerate(pairwise(mine), start=1) if here and not before]


def draw_seeds(conversations: Sequence[Sequence[bool]]) -> list[list[Window]]:
    """Instruct seeds, per conversation: a tenth of all replies, each with the one turn that it answers.

    They teach the model to answer without history. The share is rounded to the nearest; the choice depends only on the
    conversations and their order.
    """
    targets = list(map(replies, conversations))
    # Draw numbers over all conversations: making a pair for each of a million replies takes longer than the rest.
    ends = list(accumulate(map(len, targets)))
    count = ends[-1] if ends else 0
    seeds: list[list[Window]] = [[] for _ in conversations]
    for number in sorted(random.Random(SEED).sample(range(count), (count + 5) // 10)):
        index = bisect_right(ends, number)
        target = targets[index][number - ends[index]]
        seeds[index].append(Window(target - 1, target))
    return seeds


class Examples(NamedTuple):
    """What each conversation gives: its windows, and the seeds that equal none of them."""

    windows: list[list[Window]]
    seeds: list[list[Window]]
    drawn: int

    @property
    def by_conversation(self) -> list[list[Window]]:
        return [[*windows, *seeds] for windows, seeds in zip(self.windows, self.seeds, strict=True)]


def make_examples(recipe: Recipe, conversations: Sequence[Sequence[bool]]) -> Examples:
    """The examples of all conversations, given in order of their first message. `windows`: windows and seeds.
    `conversations`: each whole one in which the person writes; no seeds."""
    if recipe == "conversations":
        whole = [[Window(0, len(mine) - 1)] if any(mine) else [] for mine in conversations]
        return Examples(whole, [[] for _ in whole], 0)
    found = [windows(mine) for mine in conversations]
    drawn = draw_seeds(conversations)
    seeds = [
        [seed for seed in some if seed not in known]
        for some, own in zip(drawn, found, strict=True)
        for known in [set(own) if some else own]
    ]
    return Examples(found, seeds, sum(map(len, drawn)))


# JSONL of `{"text": …}` lines: a window's turns, rendered, with the end token after the last.

# Its bytes are those of json.dumps(ensure_ascii=False), at half of the time.
_encode_lines = msgspec.json.Encoder().encode_lines
_special = re.compile("|".join(map(re.escape, SPECIAL_STRINGS)))
_BORDER, _BREAK = b'"\n"', b"\\n"
_OPENING, _CLOSING = b'{"text": "', END_TOKEN.encode() + b'"}\n'


def window_lines(turns: Sequence[Turn], windows: Iterable[Window], labels: Labels) -> bytes:
    """One line per window, in UTF-8, newline included.

    A turn is in about seven windows, so each is rendered and JSON-escaped once; the escaped turns, joined by an
    escaped newline, hold every window as a slice, which equals escaping the rendered window.
    """
    places = list(windows)
    if not places:
        return b""
    # Render turns of one line, which are most, here: nothing in them is ever escaped.
    rendered = [f"{label} {text}" if "\n" not in text else f"{label} {escape(text, labels)}" for label, text in turns]
    # A JSON string holds no newline but may end in `\",`, so split at newlines only.
    strings = _encode_lines(rendered)[1:-2]
    starts = list(accumulate((len(string) + len(_BREAK) for string in strings.split(_BORDER)), initial=0))
    escaped = memoryview(strings.replace(_BORDER, _BREAK))
    texts = [escaped[starts[start] : starts[target + 1] - len(_BREAK)] for start, target in places]
    return _OPENING + (_CLOSING + _OPENING).join(texts) + _CLOSING


def holds_special_string(turn: Turn) -> bool:
    """Whether somebody typed a special token, which a reader of the plain JSONL might tokenise as one."""
    return ("<" in turn.text or "[" in turn.text) and _special.search(turn.text) is not None


def gives_line(recipe: Recipe, mine: Sequence[bool]) -> bool:
    """Whether a conversation, or a part of one, becomes a line even without seeds."""
    return bool(windows(mine)) if recipe == "windows" else any(mine)


def make_lines(recipe: Recipe, turns: Sequence[Turn], stretches: Iterable[Window], labels: Labels) -> bytes:
    """The lines of one conversation, in UTF-8, newlines included: one for each window in `stretches`."""
    if recipe == "windows":
        return window_lines(turns, stretches, labels)
    return b"".join(line_of(turns[start : last + 1], labels, recipe) for start, last in stretches)


def line_of(turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> bytes:
    return b'{"text": ' + msgspec.json.encode(render_line(turns, labels, recipe=recipe)) + b"}\n"


class Exposure(NamedTuple):
    """What one epoch shows of some conversations.

    A *target* is a turn of the person whose end token is learnt: in a window or seed the last, in a conversation each.
    `shown[k]` is the number of turns that are in k lines. `replies` are the person's turns that follow another's.
    """

    own_turns: int
    own_turns_never_target: int
    replies: int
    replies_never_target: int
    shown: list[int]

    @property
    def figures(self) -> dict[str, Any]:
        """For the report. Shares are of 1; 0 where there is nothing to share."""
        turns, showings = sum(self.shown), sum(times * count for times, count in enumerate(self.shown))
        return {
            "own_turns": _silent(self.own_turns, self.own_turns_never_target),
            "replies": _silent(self.replies, self.replies_never_target),
            "times_a_turn_is_shown": {
                "mean": round(showings / max(turns, 1), 2),
                "turns_by_times": {str(times): count for times, count in enumerate(self.shown)},
            },
        }


def exposure(recipe: Recipe, conversations: Sequence[Sequence[bool]], found: Examples) -> Exposure:
    """`found` is `make_examples(recipe, conversations)`, or both are the same slice. What training cuts from the
    front of lines that are too long is not subtracted."""
    own = answers = taught = 0
    times: Counter[int] = Counter()
    for mine, some in zip(conversations, found.by_conversation, strict=True):
        begun = [0] * (len(mine) + 1)
        for start, last in some:
            begun[start] += 1
            begun[last + 1] -= 1
        begun.pop()
        times.update(accumulate(begun))
        own += sum(mine)
        answers += len(replies(mine))
        taught += len({last for _, last in some})
    shown = [times[count] for count in range(max(times, default=-1) + 1)]
    if recipe == "windows":  # their targets are replies, every one
        return Exposure(own, own - taught, answers, answers - taught, shown)
    return Exposure(own, 0, answers, 0, shown)  # what the person said is in a line


def _silent(total: int, never: int) -> dict[str, Any]:
    return {"total": total, "never_a_target": never, "share": round(never / max(total, 1), 4)}


# Training and validation: split by time, no turn on both sides, and something held out wherever possible.
#
# The rule splits between conversations. With few conversations, or a long last one, it holds nothing out; training then
# has no held-out loss to stop by, and `ghost evaluate` nothing to measure. So hold out the last conversation instead,
# or, if that costs too much, its end.

HeldOut = Literal["by_rule", "last_conversation", "end_of_last_conversation", "nothing", "continued"]
WHY: Mapping[HeldOut, str] = {
    "last_conversation": "no conversation in the last tenth of the turns gives an example, so the last one that gives "
    "any is held out",
    "end_of_last_conversation": "no conversation in the last tenth of the turns gives an example, so the end of the "
    "last one that gives any is held out; its two parts count as two conversations",
    "continued": "what the continued adapter held out stays held out, and the last tenth of what is newer joins it",
}
MOST = 5  # a last conversation of more than a fifth of all turns is cut rather than lost to training


class Split(NamedTuple):
    """The first `training` conversations train; of the last of these only its first `cut` turns, unless `cut` is 0: its
    other turns validate, as do all conversations after it."""

    training: int
    cut: int
    held_out: HeldOut


def training_conversations(turn_counts: Sequence[int]) -> int:
    """How many of these conversations train by the 90% rule; the rest validates.

    `turn_counts` holds the turns of each conversation, in order of first message. A conversation trains if fewer
    than 90% of all turns precede it.
    """
    total, preceding = sum(turn_counts), 0
    for index, count in enumerate(turn_counts):
        if 10 * preceding >= 9 * total:
            return index
        preceding += count
    return len(turn_counts)


def split(conversations: Sequence[Sequence[bool]], gives_line: Callable[[Sequence[bool]], bool]) -> Split:
    """Split by the 90% rule. If what it holds out gives no line, hold out the last conversation that gives one:

    - whole, if at most a fifth of all turns are in it and after it, and a conversation before it gives a line;
    - else from a turn border on that leaves a line on either side: the latest that has at most 90% of all turns before
      it, or else the first behind that.

    Without such a border, hold out nothing. `gives_line` takes the turns of a conversation or of a part of one.
    """
    counts = list(map(len, conversations))
    training, total = training_conversations(counts), sum(counts)
    if any(map(gives_line, conversations[training:])):
        return Split(training, 0, "by_rule")
    last = next((index for index in reversed(range(training)) if gives_line(conversations[index])), None)
    if last is None:
        return Split(training, 0, "nothing")
    before, sides = sum(counts[:last]), conversations[last]
    trains_anyway = any(map(gives_line, conversations[:last]))
    if trains_anyway and MOST * (total - before) <= total:
        return Split(last, 0, "last_conversation")
    own = max(turn for turn, mine in enumerate(sides) if mine)  # what begins behind it gives no line
    mark = min(9 * total // 10 - before, own)
    for cut in (*range(mark, 0, -1), *range(mark + 1, own + 1)):
        if gives_line(sides[cut:]) and (trains_anyway or gives_line(sides[:cut])):
            return Split(last + 1, cut, "end_of_last_conversation")
    return Split(training, 0, "nothing")


def split_again(
    talks: Sequence[Conversation], labels: Labels, gives_line: Callable[[Sequence[bool]], bool], known: Known
) -> Mask:
    """Which conversations validate when the training that knew `known` is continued.

    Those that it held out do. Others that are not newer than its data have trained, or are from chats that are new to
    it; they train. What is newer is split by the rule.
    """
    validates = np.array([any(one.first <= talk.start <= one.last for one in known.held_out) for talk in talks], bool)
    newer = [number for number, talk in enumerate(talks) if talk.start > known.until]
    sides = [talks[number].sides(labels) for number in newer]
    training = training_conversations(list(map(len, sides)))
    if not validates.any() and not any(map(gives_line, sides[training:])):
        training = next((number for number in reversed(range(len(sides))) if gives_line(sides[number])), training)
    validates[newer[training:]] = True
    return validates


@dataclass(frozen=True)
class Prepared:
    """One data set.

    recipe         how conversations become lines: windows or conversations
    table          a row per message, arranged: path, instant, sender, text, mine, turn, conversation
    conversations  the first `training` of them train, the others validate; both in order of their first message
    examples       windows and seeds of each conversation, by position of its turns
    held_out       what `split` held out; where it cut a conversation, its parts are two conversations here
    known          what a training that continues this one must know
    """

    config: UserConfig
    recipe: Recipe
    messages: Messages
    table: pd.DataFrame
    conversations: list[Conversation]
    examples: Examples
    training: int
    held_out: HeldOut = "by_rule"
    known: Known | None = None

    @classmethod
    def of(
        cls,
        config: UserConfig,
        recipe: Recipe,
        messages: Messages,
        table: pd.DataFrame,
        mine: Mine | Set[str],
        borders: Mask | None = None,
        known: Known | None = None,
    ) -> "Prepared":
        """From the rows to use, to the split. `mine` and `borders` as in `arrange`; `known` to the training that this
        one continues."""

        labels = config.labels

        def sides() -> list[list[bool]]:
            return [talk.sides(labels) for talk in talks]

        borders = np.zeros(len(table), bool) if borders is None else borders.copy()
        spans = [] if known is None else [*known.held_out]
        for span in spans:
            if span.cuts:
                before = table["instant"].shift() < span.first
                borders |= (before & (table["instant"] >= span.first)).to_numpy()
        arranged = arrange(table, mine, borders)
        talks = conversations(arranged, labels)
        held_out: HeldOut
        if known is None:
            training, cut, held_out = split(sides(), partial(gives_line, recipe))
            if cut:
                borders[arranged["turn"].searchsorted(talks[training - 1].first + cut)] = True
                arranged = arrange(table, mine, borders)
                talks = conversations(arranged, labels)
        else:
            validates = split_again(talks, labels, partial(gives_line, recipe), known)
            talks = [talks[number] for number in np.argsort(validates, kind="stable").tolist()]
            training, cut, held_out = int((~validates).sum()), 0, "continued"
        starts = [talk.start.to_pydatetime() for talk in talks]
        behind = arranged["turn"].searchsorted([talk.first + len(talk.turns) for talk in talks[training:]])
        ends = [end.to_pydatetime() for end in arranged["instant"].iloc[behind - 1]]
        fresh = [start for start in starts[training:] if known is None or start > known.until]
        if fresh:
            spans.append(Span(fresh[0], fresh[-1], bool(cut), fresh[-1]))
        times = [*zip(starts[training:], ends, strict=True)]
        spans = [  # a conversation that was held out may have gone on
            replace(one, end=max([one.end, *(end for start, end in times if one.first <= start <= one.last)]))
            for one in spans
        ]
        known = Known(spans, max(starts if known is None else [*starts, known.until]))
        examples = make_examples(recipe, sides())
        return cls(config, recipe, messages, arranged, talks, examples, training, held_out, known)

    @cached_property
    def labels(self) -> Labels:
        return self.config.labels

    def has_reply(self, talk: Conversation) -> bool:
        return bool(replies(talk.sides(self.labels)))

    @cached_property
    def exposure(self) -> Exposure:
        return exposure(self.recipe, [talk.sides(self.labels) for talk in self.conversations], self.examples)
