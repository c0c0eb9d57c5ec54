"""Reasons not to train on these chats: leakage between the halves, lengths in tokens, amount and sources.

Every limit stands here with its reason. The texts name nobody and quote nothing.
"""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise
from operator import attrgetter
from random import Random
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from replicate_deployment.chat_format import Turn, render, spans
from replicate_deployment.tokenization import encode
from training.preparation.dataset import HeldOut, Prepared
from training.tokens import CountingTokenizer, EstimatingTokenizer, fit_window

# What training and held-out conversations share, and how much of the data is not conversation.
#
# A "haha" on both sides of the split means nothing; a pasted paragraph there makes every held-out figure too good.
# Length tells them apart. In the bundled sample, whose chats share no pasted text, held-out replies of 25 to 49
# characters occur in training at 2% and longer ones never. So
# compare replies from REPEAT characters on. Messages of the other side are only context: compare them from PARAGRAPH
# characters on, about three lines on a phone.

REPEAT = 50  # characters
NEAR = 100  # one word changed in fewer than 19, about 100 characters, already takes more than OVERLAP leaves
PARAGRAPH = 200
WALL = 1000  # about a quarter of what 1,024 tokens hold, in one message
OVERLAP = 0.8  # of two texts' pairs of neighbouring words, from which they are near-duplicates
TRIES = 50  # held-out texts that one text is compared with in full: bounds the cost of ten thousand texts of one mould
# A Chinese character says as much as three letters (2.9 in XDailyDialog's parallel dialogues), and is a word here.
DENSE = "\u3040-\u30ff\u3400-\u9fff"
DENSENESS = 3

Pair = tuple[str, str]

_target = attrgetter("target")
_dense = re.compile(f"[{DENSE}]")
_word = re.compile(rf"[{DENSE}]|[^\s{DENSE}]+")


def leakage(prepared: Prepared) -> dict[str, Any]:
    """Counts for preparation_report.json.

    turns_on_both_sides     turns of which one message trains and another validates
    messages_on_both_sides  validation's messages that training holds with the same side, time and text, as when two
                            exports of one chat overlap
    targets                 the person's turns that are learned; of validation's `compared` ones, those from REPEAT
                            characters on, how many training learns too: word for word (`exact`, after folding case
                            and blanks), or, from NEAR characters on, with OVERLAP of their pairs of neighbouring words
                            in common (`near`)
    pasted                  the same of messages from PARAGRAPH characters on, by anyone, learned or context
    walls                   messages from WALL characters on, texts from PARAGRAPH characters on that were sent several
                            times, by whomever (`copies`: all their messages), and their share of all characters
    """

    table = prepared.table
    texts, mine = table["text"].tolist(), table["mine"].to_numpy(bool)
    trains = _training_rows(prepared)
    turn = table["turn"].to_numpy()
    torn = turn[1:][(turn[1:] == turn[:-1]) & (trains[1:] != trains[:-1])]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    long = [
        row for row in np.flatnonzero(lengths >= PARAGRAPH // DENSENESS).tolist() if _is_long(texts[row], PARAGRAPH)
    ]
    folded = {row: _fold(texts[row]) for row in long}
    return {
        "turns_on_both_sides": len(np.unique(torn)),
        "messages_on_both_sides": _same_messages(prepared, trains),
        "targets": _targets(prepared),
        "pasted": {
            "from_characters": PARAGRAPH,
            **_repeats(
                [text for row, text in folded.items() if trains[row]],
                [text for row, text in folded.items() if not trains[row]],
            ),
        },
        "walls": _repeated_walls(folded, lengths, mine),
    }


def targets(prepared: Prepared) -> list[set[int]]:
    """Positions of the turns that are learned, for each conversation.

    By the windows recipe these are its windows' and seeds' last turns, by the other every turn of the person.
    """
    if prepared.recipe == "windows":
        return [
            set(map(_target, chain(windows, seeds)))
            for windows, seeds in zip(prepared.examples.windows, prepared.examples.seeds, strict=True)
        ]
    me = prepared.labels.me
    return [{place for place, turn in enumerate(talk.turns) if turn.label == me} for talk in prepared.conversations]


def near_duplicates(texts: Iterable[str], others: Iterable[str]) -> int:
    """Count the `texts` with a near-duplicate among `others`; all are folded.

    Exact but for TRIES. A text of `others` that nearly equals one of `texts` has at most a fifth of its pairs in none
    of them, which leaves little to compare: about 10 µs a text.
    """
    sought = [pairs for text in texts if (pairs := set(pairwise(_words(text))))]
    holders: dict[Pair, list[int]] = defaultdict(list)
    for index, pairs in enumerate(sought):
        for pair in pairs:
            holders[pair].append(index)
    known = set(holders)
    found: set[int] = set()
    for text in others:
        pairs = set(pairwise(_words(text)))
        shared = pairs & known
        # Two sets with a Jaccard index of OVERLAP leave this many of either's elements out at most (1e-9: rounding).
        spare = int((1 - OVERLAP) * len(pairs) + 1e-9) - (len(pairs) - len(shared))
        if not shared or spare < 0:
            continue
        # So one of any `spare + 1` shared pairs leads to the other text; the rarest lead to few others.
        rarest = sorted(shared, key=lambda pair: (len(holders[pair]), pair))[: spare + 1]
        fresh = (index for pair in rarest for index in holders[pair] if index not in found)
        near = [index for index in islice(fresh, TRIES) if _overlap(pairs, sought[index]) >= OVERLAP]
        found.update(near)
    return len(found)


def _training_rows(prepared: Prepared) -> NDArray[np.bool_]:
    """Which messages train, computed from the table's times to check the split independently, except where the
    training is continued, so that times alone do not tell."""

    conversation = prepared.table["conversation"].to_numpy()
    opening = np.flatnonzero(np.diff(conversation, prepend=-1))
    if prepared.held_out == "continued":
        firsts = [talk.first for talk in prepared.conversations[: prepared.training]]
        by_split = np.searchsorted(prepared.table["turn"].to_numpy()[opening], firsts)
    else:
        by_split = np.argsort(_instants(prepared)[opening], kind="stable")[: prepared.training]
    trains = np.zeros(len(opening), bool)
    trains[by_split] = True
    return np.repeat(trains, np.diff(opening, append=len(conversation)))


def _instants(prepared: Prepared) -> NDArray[np.datetime64]:
    # pandas gives numpy a Python object for each time with a zone.
    instants: NDArray[np.datetime64] = prepared.table["instant"].dt.tz_localize(None).to_numpy()
    return instants


def _same_messages(prepared: Prepared, trains: NDArray[np.bool_]) -> int:
    """Validation starts where training ends, so only later messages of training can be the same."""

    if trains.all() or not trains.any():
        return 0
    instant = _instants(prepared)
    late = np.flatnonzero(trains & (instant >= instant[~trains].min()))
    if not len(late):
        return 0
    held_out = np.flatnonzero(~trains & (instant <= instant[late].max()))

    def keys(rows: NDArray[np.int64]) -> list[tuple[Any, ...]]:
        some = prepared.table.iloc[rows]
        return list(zip(instant[rows].tolist(), some["mine"], some["text"], strict=True))

    seen = set(keys(late))
    return sum(key in seen for key in keys(held_out))


def _targets(prepared: Prepared) -> dict[str, Any]:
    places = targets(prepared)
    texts = [
        [talk.turns[place].text for place in some] for talk, some in zip(prepared.conversations, places, strict=True)
    ]
    long = [[_fold(text) for text in some if _is_long(text, REPEAT)] for some in texts]
    return {
        "train": sum(map(len, places[: prepared.training])),
        "val": sum(map(len, places[prepared.training :])),
        "from_characters": REPEAT,
        **_repeats(
            list(chain.from_iterable(long[: prepared.training])), list(chain.from_iterable(long[prepared.training :]))
        ),
    }


def _repeats(train: Sequence[str], val: Sequence[str]) -> dict[str, int]:
    seen = dict.fromkeys(train)
    fresh = [text for text in val if text not in seen]
    near = near_duplicates(*([text for text in some if _is_long(text, NEAR)] for some in (fresh, seen)))
    return {"compared": len(val), "exact": len(val) - len(fresh), "near": near}


def _repeated_walls(folded: dict[int, str], lengths: NDArray[np.int64], mine: NDArray[np.bool_]) -> dict[str, Any]:
    """`folded` holds the text of each row from PARAGRAPH characters on."""

    times = Counter(folded.values())
    copies = [row for row, text in folded.items() if times[text] > 1]
    long = [row for row, text in folded.items() if _is_long(text, WALL)]
    wall = np.zeros(len(lengths), bool)
    wall[copies] = wall[long] = True

    def share(rows: NDArray[np.bool_]) -> float:
        return round(float(lengths[rows & wall].sum() / max(lengths[rows].sum(), 1)), 4)

    return {
        "from_characters": WALL,
        "messages": len(long),
        "copied_texts": sum(count > 1 for count in times.values()),
        "copies": len(copies),
        "share_of_characters": share(np.ones(len(lengths), bool)),
        "share_of_your_characters": share(mine),
    }


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_long(text: str, limit: int) -> bool:
    """Called for every message, so the expensive test comes last."""
    return len(text) >= limit or (not text.isascii() and _says_much(text, limit))


def _says_much(text: str, limit: int) -> bool:
    count = len(text)
    return count * DENSENESS >= limit and count + (DENSENESS - 1) * len(_dense.findall(text)) >= limit


def _words(folded: str) -> list[str]:
    return _word.findall(folded) if not folded.isascii() and _dense.search(folded) else folded.split(" ")


def _overlap(one: Set[Pair], other: Set[Pair]) -> float:
    """Jaccard index."""
    return len(one & other) / len(one | other)


# Lengths in tokens, from a sample, before training counts them all.
#
# Counts with the base's tokenizer if it is on this disk, else estimates: each character counts as many tokens as
# Mistral-7B-v0.3's tokenizer makes of one of its script on average. The weights are a least-squares fit to that
# tokenizer (SentencePiece model v3 of mistral-common 1.13) on ten lines at a time of: this project's labelled messages
# and bundled sample, the dialogues of XDailyDialog (en, de, it, zh) and Japanese Daily Dialogue, emoji added to chat
# messages, and Django's translations into 24 languages. The error of the sum is -7% to +10% on chats and dialogues
# (French -5%, English +5% to +10%, German -7% to -1%, Chinese -3%, Japanese +5%), and -10% to +13% on the translations
# (Arabic +9%, Russian +3%, Hindi -3%, Korean +16%) except Burmese, -21%. A single line can be a quarter off.

SAMPLE = 2000  # lines that are measured, so that the cost is the same for any chat: a share is within 2 points
SEED = 20240229
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class TokenLengths:
    """The lengths of training's lines, in tokens with BOS and end tokens; shares are of those `sampled`.

    counted_by       "tokenizer" or "estimate"
    lines, sampled   of training; all of them are measured when there are at most SAMPLE
    quantiles        of the lengths as written, before training cuts; keys "50", "90", …, "max"
    within           share of lines that fit `sequence_len` as they are
    shortened        share of lines that lose whole turns from the front, or, by the conversations recipe, are cut at
                     turn borders into several pieces, of which none is lost
    turns_dropped    share of the turns in all lines that training will not see in them
    skipped          share of lines that training leaves out, since not even the last turn and the one before it fit;
                     by the conversations recipe, that hold a turn longer than `sequence_len`
    tokens_per_epoch of all lines, after cutting: from the mean of those sampled
    """

    counted_by: str
    sequence_len: int
    lines: int
    sampled: int
    quantiles: dict[str, int]
    within: float
    shortened: float
    turns_dropped: float
    skipped: float
    tokens_per_epoch: int


def token_lengths(prepared: Prepared, tokenizer: Any | None, sequence_len: int) -> TokenLengths:
    """Measures a seeded sample of training's lines. `tokenizer` is a `try_load_tokenizer`, None for the estimate."""
    counter = _counter(tokenizer)
    spans = _spans(prepared)
    until = list(accumulate(map(len, spans)))
    total = until[-1] if until else 0
    chosen = range(total) if total <= SAMPLE else sorted(Random(SEED).sample(range(total), SAMPLE))
    measured = []
    for line in chosen:
        talk = bisect_right(until, line)
        start, target = spans[talk][line - until[talk]]
        turns = prepared.conversations[talk].turns[start : target + 1]
        measured.append(_measure(turns, prepared, counter, sequence_len))
    lengths = sorted(line.tokens for line in measured)
    shown = sum(line.turns for line in measured)

    def share(number: int, of: int = len(lengths)) -> float:
        return round(number / max(of, 1), 4)

    return TokenLengths(
        counted_by="estimate" if tokenizer is None else "tokenizer",
        sequence_len=sequence_len,
        lines=total,
        sampled=len(lengths),
        quantiles={
            **{f"{share:.0%}"[:-1]: lengths[int(share * (len(lengths) - 1))] for share in QUANTILES if lengths},
            **({"max": lengths[-1]} if lengths else {}),
        },
        within=share(sum(length <= sequence_len for length in lengths)),
        shortened=share(sum(line.shortened for line in measured)),
        turns_dropped=share(sum(line.dropped for line in measured), shown),
        skipped=share(sum(line.skipped for line in measured)),
        tokens_per_epoch=round(sum(line.trained for line in measured) * total / max(len(measured), 1)),
    )


def trained_tokens(turns: Sequence[Turn], prepared: Prepared, tokenizer: Any | None, sequence_len: int) -> int:
    """Tokens that training sees of a line from no chat, counted as `token_lengths` does."""
    counter = _counter(tokenizer)
    return _measure(turns, prepared, counter, sequence_len).trained


@dataclass(frozen=True)
class _Line:
    turns: int
    tokens: int
    trained: int
    dropped: int = 0
    shortened: bool = False
    skipped: bool = False


def _measure(
    turns: Sequence[Turn], prepared: Prepared, counter: EstimatingTokenizer | CountingTokenizer, limit: int
) -> _Line:
    labels = prepared.labels

    def count_tokens(some: Sequence[Turn]) -> int:
        ends = [span.end for span in spans(some, labels, recipe=prepared.recipe)]
        return len(encode(counter, render(some, labels), ends=ends).ids)

    tokens = count_tokens(turns)
    if tokens <= limit:
        return _Line(len(turns), tokens, tokens)
    if prepared.recipe == "conversations":
        too_long = sum(count_tokens([turn]) > limit for turn in turns)
        return _Line(len(turns), tokens, tokens, 0, shortened=not too_long, skipped=too_long > 0)
    kept = fit_window(turns, count_tokens, limit)
    left = count_tokens(kept)
    if len(kept) == 1 or left > limit:
        return _Line(len(turns), tokens, 0, len(turns), skipped=True)
    return _Line(len(turns), tokens, left, len(turns) - len(kept), shortened=True)


def _spans(prepared: Prepared) -> Sequence[Sequence[tuple[int, int]]]:
    """First and last turn of each line of each training conversation."""
    if prepared.recipe == "windows":
        return prepared.examples.by_conversation[: prepared.training]
    me = prepared.labels.me
    talks = prepared.conversations[: prepared.training]
    return [[(0, len(talk.turns) - 1)] if any(turn.label == me for turn in talk.turns) else [] for talk in talks]


def _counter(tokenizer: Any | None) -> EstimatingTokenizer | CountingTokenizer:
    return EstimatingTokenizer() if tokenizer is None else CountingTokenizer(tokenizer)


# An optimiser step takes 64 windows, and a reply is the target of one or two: below this an epoch is a single step,
# and eight of them end before the learning rate has done anything.
FEWEST_REPLIES = 50
FEW_REPLIES = 1000
FEWEST_HELD_OUT = 30  # the error of a mean is then still a fifth of the spread between replies
CHAT_SHARE = 0.8
DAY_SHARE = 0.2
GROUP_SHARE = 0.2
LANGUAGE_TIMES = 5  # more often in validation than in training
LANGUAGE_MESSAGES = 5  # of those looked at: fewer may be the detector's mistakes
WALL_SHARE = 0.1  # of characters: what the loss is made of is characters, not messages
ONE_WORD_SHARE = 0.5
ONE_WORD = 12  # characters without a blank; longer, it is a link or a script without blanks
SILENT_SHARE = 1 / 3  # up to 32% in simulated chats
WITHIN_SHARE = 0.9  # the reference: 95% at 1,024 tokens
SKIPPED_SHARE = 0.01
# Of an epoch's tokens, not of its lines: by the conversations recipe a line is a whole chat, a canary's only two turns.
# The loss is a mean over tokens, so above this more than a twentieth of each step teaches codes of lockers.
CANARY_SHARE = 0.05
LEAKED_SHARE = 0.05  # of the held-out replies that are long enough to compare
WEEK = 7  # days
SHIFT_DAYS = 10 * WEEK  # of evenly spread chats, the last tenth of turns spans a tenth of the days

Languages = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Concern:
    """`text` gives the finding in numbers and what to do: at most two lines of a terminal."""

    code: str
    text: str
    severity: Literal["refuse", "warn"] = "warn"


def find_concerns(
    prepared: Prepared, leakage: Mapping[str, Any], lengths: TokenLengths, languages: Languages
) -> list[Concern]:
    """Refusals first. `leakage` and `languages` are `leakage` and `own_languages` of the same data set."""
    train, val = leakage["targets"]["train"], leakage["targets"]["val"]
    found = [
        *_amount(train, val, prepared.held_out),
        *_leaks(leakage),
        *_sources(prepared),
        *_shift(prepared, languages),
        *_replies(prepared),
        *_walls(leakage["walls"]),
        *_lengths(lengths, prepared.recipe),
    ]
    return sorted(found, key=lambda concern: concern.severity != "refuse")


def own_languages(prepared: Prepared) -> dict[str, dict[str, float]]:
    """Shares of the person's turns by language, from a sample of training and of validation."""
    from training.extraction.languages import languages

    train, val = slice(prepared.training), slice(prepared.training, None)
    return {"train": languages(_own_turns(prepared, train)), "val": languages(_own_turns(prepared, val))}


def planted(figures: Mapping[str, Any]) -> Iterator[Concern]:
    """`figures` is preparation_report.json, canaries and all."""
    canaries, tokens = figures["canaries"], figures["canaries"]["tokens_per_epoch"]
    if (share := tokens / (figures["lengths"]["tokens_per_epoch"] + tokens)) > CANARY_SHARE:
        yield Concern(
            "canaries",
            f"{canaries['lines']:,} of the {figures['lines']['train']:,} lines that train are canaries, {share:.0%} of "
            "all tokens: such a model is for measuring what is kept, not for serving. Plant fewer, or fewer copies "
            "(--canary-repetitions).",
        )


def _amount(train: int, val: int, held_out: HeldOut) -> Iterator[Concern]:
    if train < FEWEST_REPLIES:
        yield Concern(
            "too_few_replies",
            f"{train:,} of your replies can train, fewer than {FEWEST_REPLIES}: an epoch would be one step. Export "
            "more chats, whole ones, and check that all your names are in user_identifiers.",
            severity="refuse",
        )
    elif train < FEW_REPLIES:
        yield Concern(
            "few_replies",
            f"{train:,} of your replies can train. With thousands the model learns some of your habits, with tens of "
            "thousands your style, with this few your pet phrases. Export more chats, or older ones.",
        )
    if not val:
        why = "no turn border leaves replies on both sides"
        if held_out == "continued":
            why = "no conversation is of the time that the continued adapter held out, or newer"
        yield Concern(
            "nothing_held_out",
            f"0 of your replies are held out: {why}. Nothing will tell learning from memorising, and ghost evaluate "
            "will have nothing to judge. Export more chats.",
        )
    elif val < FEWEST_HELD_OUT:
        yield Concern(
            "validation_small",
            f"{val:,} of your replies are held out; below {FEWEST_HELD_OUT} the held-out loss measures chance. Do not "
            "choose between two trainings by it; export more chats.",
        )


def _leaks(leakage: Mapping[str, Any]) -> Iterator[Concern]:
    if torn := leakage["turns_on_both_sides"]:
        yield Concern(
            "torn_turns",
            f"{torn:,} turns are in training and in validation at once. This is an error of ghost prepare, not of your "
            "chats: please report it.",
            severity="refuse",
        )
    if twice := leakage["messages_on_both_sides"]:
        yield Concern(
            "same_messages",
            f"{twice:,} held-out messages are also in training, at the same second: a chat is there in two exports. "
            "Leave one out with exclude_conversations.",
        )
    replies = leakage["targets"]
    seen = replies["exact"] + replies["near"]
    if seen > LEAKED_SHARE * replies["compared"]:
        yield Concern(
            "leaked_replies",
            f"{seen:,} of your {replies['compared']:,} held-out replies of {replies['from_characters']} characters or "
            "more are in training too, word for word or nearly: held-out figures will look too good.",
        )


def _sources(prepared: Prepared) -> Iterator[Concern]:
    """Check where and when the person's turns were written."""
    table = prepared.table
    mine = table["mine"]
    own = table.loc[mine & ~table["turn"].duplicated(), ["path", "instant"]]  # the first message of each turn
    if own.empty:
        return
    by_chat = own["path"].value_counts()
    if (share := by_chat.iloc[0] / len(own)) > CHAT_SHARE:
        yield Concern(
            "one_chat",
            f"{share:.0%} of your turns are from one chat of {table['path'].nunique():,}: the ghost will talk "
            "to everyone as you talk there. Export more chats if it should not.",
        )
    days = own["instant"].dt.tz_convert(prepared.config.zone).dt.normalize().value_counts()
    if (share := days.iloc[0] / len(own)) > DAY_SHARE:
        day = f"{days.index[days == days.iloc[0]].min():%Y-%m-%d}"
        yield Concern(
            "one_day",
            f"{share:.0%} of your turns are of one day, {day}, of {len(days):,} in all: "
            "the ghost will be stuck in it. Export a longer time.",
        )
    others = table.loc[~mine, ["path", "sender"]].drop_duplicates()["path"].value_counts()
    in_groups = own["path"].isin(others.index[others > 1]).mean()
    if in_groups > GROUP_SHARE:
        yield Concern(
            "groups",
            f"{in_groups:.0%} of your turns are from groups, where all others are one {prepared.labels.other} and you "
            "answer some of them. Leave groups out with max_group_size: 2.",
        )


def _shift(prepared: Prepared, languages: Languages) -> Iterator[Concern]:
    """Check for differences between training and validation."""
    from training.extraction.languages import SAMPLE, UNDETERMINED

    looked_at = min(SAMPLE, len(_own_turns(prepared, slice(prepared.training, None))))
    for language, share in languages["val"].items():
        before = languages["train"].get(language, 0.0)
        if language != UNDETERMINED and share * looked_at >= LANGUAGE_MESSAGES and share >= LANGUAGE_TIMES * before:
            yield Concern(
                "language_shift",
                f"{share:.0%} of your held-out turns are in {language!r}, and {before:.0%} of those that train: the "
                "ghost will hardly speak it, and the held-out loss will say so. Export more of it.",
            )
    starts = [talk.start for talk in prepared.conversations]
    if 0 < prepared.training < len(starts):
        held_out, all_of_it = ((starts[-1] - starts[first]).days for first in (prepared.training, 0))
        if held_out < WEEK and all_of_it >= SHIFT_DAYS:
            yield Concern(
                "one_week_held_out",
                f"The held-out tenth is all of the last {held_out + 1} of {all_of_it + 1:,} days: held-out figures say "
                "how the ghost does at that week's topics. Before judging by them, let more time pass.",
            )


def _replies(prepared: Prepared) -> Iterator[Concern]:
    learned = targets(prepared)
    texts = [
        talk.turns[place].text for talk, some in zip(prepared.conversations, learned, strict=True) for place in some
    ]
    short = sum(len(text) <= ONE_WORD and text.isascii() and len(text.split()) == 1 for text in texts)
    if short > ONE_WORD_SHARE * len(texts):
        yield Concern(
            "one_word",
            f"{short / len(texts):.0%} of your {len(texts):,} replies are one word: so the ghost's will be. If that is "
            "not you, export chats where you write more, or leave short messages out with ghost extract --min-chars.",
        )
    total, silent = prepared.exposure.replies, prepared.exposure.replies_never_target
    if silent > SILENT_SHARE * total:
        yield Concern(
            "silent_replies",
            f"{silent:,} of your {total:,} replies ({silent / total:.0%}) are never what a window ends in, only "
            "context: windows start at every third turn, and many of your turns are not where one ends.",
        )


def _walls(walls: Mapping[str, Any]) -> Iterator[Concern]:
    own, everyone = walls["share_of_your_characters"], walls["share_of_characters"]
    if max(own, everyone) > WALL_SHARE:
        yield Concern(
            "walls",
            f"{own:.0%} of what you wrote, {everyone:.0%} of everything, is {walls['messages']:,} messages from "
            f"{walls['from_characters']:,} characters on and {walls['copies']:,} copies of texts from {PARAGRAPH}: "
            "forwarded, likely. Leave those chats out.",
        )


def _lengths(lengths: TokenLengths, recipe: str) -> Iterator[Concern]:
    about, limit = "about " if lengths.counted_by == "estimate" else "", lengths.sequence_len
    # By the other recipe a conversation trains in pieces, and nothing is lost however long it is.
    if recipe == "windows" and lengths.within < WITHIN_SHARE:
        yield Concern(
            "long_lines",
            f"{about}{lengths.within:.0%} of the lines fit sequence_len {limit:,}; 95% is usual. Training cuts "
            f"the rest. A sequence_len of {lengths.quantiles['95']:,} would fit 95%, and needs more memory.",
        )
    if lengths.skipped > SKIPPED_SHARE:
        yield Concern(
            "skipped_lines",
            f"{about}{lengths.skipped:.1%} of the lines hold turns that alone exceed sequence_len {limit:,}, "
            "and cannot train whole. Raise it, or leave the chats with pasted texts out.",
        )


def _own_turns(prepared: Prepared, talks: slice) -> list[str]:
    me = prepared.labels.me
    return [turn.text for talk in prepared.conversations[talks] for turn in talk.turns if turn.label == me]
