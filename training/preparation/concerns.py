"""What would waste a training run, said with numbers before money is spent: refused, or warned of.

Every limit stands here with its reason. The texts name nobody and quote nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.preparation.fit import Fit
from training.preparation.leakage import PARAGRAPH, targets
from training.preparation.prepared import Prepared

# An optimiser step takes 64 windows, and a reply is the target of one or two: below this an epoch is a single step,
# and eight of them end before the learning rate has done anything.
FEWEST_REPLIES = 50
VIBE = 1000
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
    """`text` says what was found, in numbers, and what to do about it: at most two lines of a terminal."""

    severity: Literal["refuse", "warn"]
    code: str
    text: str


def concerns(prepared: Prepared, leakage: Mapping[str, Any], fit: Fit, languages: Languages) -> list[Concern]:
    """Refusals first. `leakage` is that of leakage.py; `languages` is `own_languages` of the same data set."""
    train, val = leakage["targets"]["train"], leakage["targets"]["val"]
    found = [
        *_amount(train, val),
        *_leaks(leakage),
        *_sources(prepared),
        *_shift(prepared, languages),
        *_replies(prepared),
        *_walls(leakage["walls"]),
        *_lengths(fit, prepared.recipe),
    ]
    return sorted(found, key=lambda concern: concern.severity != "refuse")


def own_languages(prepared: Prepared) -> dict[str, dict[str, float]]:
    """Shares of the person's turns by language, of a sample of those that train and of those that validate."""
    from training.extraction.languages import languages

    train, val = slice(prepared.training), slice(prepared.training, None)
    return {"train": languages(_own_turns(prepared, train)), "val": languages(_own_turns(prepared, val))}


def planted(figures: Mapping[str, Any]) -> Iterator[Concern]:
    """`figures` is preparation_report.json, canaries and all."""
    canaries, tokens = figures["canaries"], figures["canaries"]["tokens_per_epoch"]
    if (share := tokens / (figures["lengths"]["tokens_per_epoch"] + tokens)) > CANARY_SHARE:
        yield Concern(
            "warn",
            "canaries",
            f"{canaries['lines']:,} of the {figures['lines']['train']:,} lines that train are canaries, {share:.0%} of "
            "all tokens: such a model is for measuring what is kept, not for serving. Plant fewer, or fewer copies "
            "(--canary-repetitions).",
        )


def _amount(train: int, val: int) -> Iterator[Concern]:
    if train < FEWEST_REPLIES:
        yield Concern(
            "refuse",
            "too_few_replies",
            f"{train:,} of your replies can train, fewer than {FEWEST_REPLIES}: an epoch would be one step. Export "
            "more chats, whole ones, and check that all your names are in user_identifiers.",
        )
    elif train < VIBE:
        yield Concern(
            "warn",
            "few_replies",
            f"{train:,} of your replies can train. Thousands give a vibe, tens of thousands a voice; this few give "
            "catchphrases. Export more chats, or older ones.",
        )
    if not val:
        yield Concern(
            "warn",
            "nothing_held_out",
            "0 of your replies are held out: no turn border leaves replies on both sides. Nothing will tell learning "
            "from memorising, and ghost evaluate will have nothing to judge. Export more chats.",
        )
    elif val < FEWEST_HELD_OUT:
        yield Concern(
            "warn",
            "validation_small",
            f"{val:,} of your replies are held out; below {FEWEST_HELD_OUT} the held-out loss measures chance. Do not "
            "choose between two trainings by it; export more chats.",
        )


def _leaks(leakage: Mapping[str, Any]) -> Iterator[Concern]:
    if torn := leakage["turns_on_both_sides"]:
        yield Concern(
            "refuse",
            "torn_turns",
            f"{torn:,} turns are in training and in validation at once. This is an error of ghost prepare, not of your "
            "chats: please report it.",
        )
    if twice := leakage["messages_on_both_sides"]:
        yield Concern(
            "warn",
            "same_messages",
            f"{twice:,} held-out messages are also in training, at the same second: a chat is there in two exports. "
            "Leave one out with exclude_conversations.",
        )
    replies = leakage["targets"]
    seen = replies["exact"] + replies["near"]
    if seen > LEAKED_SHARE * replies["compared"]:
        yield Concern(
            "warn",
            "leaked_replies",
            f"{seen:,} of your {replies['compared']:,} held-out replies of {replies['from_characters']} characters or "
            "more are in training too, word for word or nearly: held-out figures will look too good.",
        )


def _sources(prepared: Prepared) -> Iterator[Concern]:
    """Where and when the person's turns were written."""
    table = prepared.table
    mine = table["mine"]
    own = table.loc[mine & ~table["turn"].duplicated(), ["path", "instant"]]  # the first message of each turn
    if own.empty:
        return
    by_chat = own["path"].value_counts()
    if (share := by_chat.iloc[0] / len(own)) > CHAT_SHARE:
        yield Concern(
            "warn",
            "one_chat",
            f"{share:.0%} of your turns are from one chat of {table['path'].nunique():,}: the ghost will talk "
            "to everyone as you talk there. Export more chats if it should not.",
        )
    days = own["instant"].dt.tz_convert(prepared.config.zone).dt.normalize().value_counts()
    if (share := days.iloc[0] / len(own)) > DAY_SHARE:
        day = f"{days.index[days == days.iloc[0]].min():%Y-%m-%d}"
        yield Concern(
            "warn",
            "one_day",
            f"{share:.0%} of your turns are of one day, {day}, of {len(days):,} in all: "
            "the ghost will be stuck in it. Export a longer time.",
        )
    others = table.loc[~mine, ["path", "sender"]].drop_duplicates()["path"].value_counts()
    in_groups = own["path"].isin(others.index[others > 1]).mean()
    if in_groups > GROUP_SHARE:
        yield Concern(
            "warn",
            "groups",
            f"{in_groups:.0%} of your turns are from groups, where all others are one {prepared.labels.other} and you "
            "answer some of them. Leave groups out with max_group_size: 2.",
        )


def _shift(prepared: Prepared, languages: Languages) -> Iterator[Concern]:
    """What differs between the time that trains and the time that validates."""
    from training.extraction.languages import SAMPLE, UNDETERMINED

    looked_at = min(SAMPLE, len(_own_turns(prepared, slice(prepared.training, None))))
    for language, share in languages["val"].items():
        before = languages["train"].get(language, 0.0)
        if language != UNDETERMINED and share * looked_at >= LANGUAGE_MESSAGES and share >= LANGUAGE_TIMES * before:
            yield Concern(
                "warn",
                "language_shift",
                f"{share:.0%} of your held-out turns are in {language!r}, and {before:.0%} of those that train: the "
                "ghost will hardly speak it, and the held-out loss will say so. Export more of it.",
            )
    starts = [talk.start for talk in prepared.conversations]
    if 0 < prepared.training < len(starts):
        held_out, all_of_it = ((starts[-1] - starts[first]).days for first in (prepared.training, 0))
        if held_out < WEEK and all_of_it >= SHIFT_DAYS:
            yield Concern(
                "warn",
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
            "warn",
            "one_word",
            f"{short / len(texts):.0%} of your {len(texts):,} replies are one word: so the ghost's will be. If that is "
            "not you, export chats where you write more, or leave short messages out with ghost extract --min-chars.",
        )
    total = _answers(prepared)
    # Each target of a window answers somebody; by the other recipe every turn of the person is learned.
    silent = total - len(texts) if prepared.recipe == "windows" else 0
    if silent > SILENT_SHARE * total:
        yield Concern(
            "warn",
            "silent_replies",
            f"{silent:,} of your {total:,} replies ({silent / total:.0%}) are never what a window ends in, only "
            "context: windows start at every third turn, and many of your turns are not where one ends.",
        )


def _walls(walls: Mapping[str, Any]) -> Iterator[Concern]:
    own, everyone = walls["share_of_your_characters"], walls["share_of_characters"]
    if max(own, everyone) > WALL_SHARE:
        yield Concern(
            "warn",
            "walls",
            f"{own:.0%} of what you wrote, {everyone:.0%} of everything, is {walls['messages']:,} messages from "
            f"{walls['from_characters']:,} characters on and {walls['copies']:,} copies of texts from {PARAGRAPH}: "
            "forwarded, likely. Leave those chats out.",
        )


def _lengths(fit: Fit, recipe: str) -> Iterator[Concern]:
    about = "about " if fit.counted_by == "estimate" else ""
    # By the other recipe a conversation trains in pieces, and nothing is lost however long it is.
    if recipe == "windows" and fit.within < WITHIN_SHARE:
        yield Concern(
            "warn",
            "long_lines",
            f"{about}{fit.within:.0%} of the lines fit sequence_len {fit.sequence_len:,}; 95% is usual. Training cuts "
            f"the rest. A sequence_len of {fit.quantiles['95']:,} would fit 95%, and needs more memory.",
        )
    if fit.skipped > SKIPPED_SHARE:
        yield Concern(
            "warn",
            "skipped_lines",
            f"{about}{fit.skipped:.1%} of the lines hold turns that alone exceed sequence_len {fit.sequence_len:,}, "
            "and cannot train whole. Raise it, or leave the chats with pasted texts out.",
        )


def _own_turns(prepared: Prepared, talks: slice) -> list[str]:
    me = prepared.labels.me
    return [turn.text for talk in prepared.conversations[talks] for turn in talk.turns if turn.label == me]


def _answers(prepared: Prepared) -> int:
    """How many of the person's turns follow one of the other side, in their conversation."""
    table = prepared.table
    mine, conversation = table["mine"].to_numpy(bool), table["conversation"].to_numpy()
    return int((mine[1:] & ~mine[:-1] & (conversation[1:] == conversation[:-1])).sum())
