"""How many tokens the lines are, before training counts them all: what fits, what is cut, what an epoch costs.

With the base's tokenizer where it is at hand, and never by way of the network. Without it the count is an estimate:
each character weighs as many tokens as, on average, Mistral-7B-v0.3's tokenizer makes of one of its script. The
weights are a least-squares fit to that tokenizer (SentencePiece model v3 of mistral-common 1.13) on ten lines at a time
of: this project's labelled messages and bundled sample, the dialogues of XDailyDialog (en, de, it, zh) and Japanese
Daily Dialogue, emoji added to chat messages, and Django's translations into 24 languages. Its error in sum is -7% to
+10% on chats and dialogues (French -5%, English +5% to +10%, German -7% to -1%, Chinese -3%, Japanese +5%), and -10%
to +13% on the translations (Arabic +9%, Russian +3%, Hindi -3%, Korean +16%) but for Burmese, -21%. One line can be a
quarter off: Korean small talk, whose syllables are rarer in the vocabulary, comes out too short.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

from replicate_deployment.chat_format import Labels, Turn, render
from training.preparation.recipes import Prepared
from training.tokens import CountTokens, estimate, fit_window

SAMPLE = 2000  # lines that are measured, so that the cost is the same for any chat: a share is within 2 points
SEED = 20240229
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Fit:
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


def fit(prepared: Prepared, tokenizer: Any | None, sequence_len: int) -> Fit:
    """Measures a seeded sample of training's lines. `tokenizer` is a `tokenizer_at_hand`, None for the estimate."""
    count = estimate if tokenizer is None else _counter(tokenizer)
    spans = _spans(prepared)
    until = list(accumulate(map(len, spans)))
    total = until[-1] if until else 0
    chosen = range(total) if total <= SAMPLE else sorted(Random(SEED).sample(range(total), SAMPLE))
    measured = []
    for line in chosen:
        talk = bisect_right(until, line)
        start, target = spans[talk][line - until[talk]]
        turns = prepared.conversations[talk].turns[start : target + 1]
        measured.append(_measure(turns, prepared, count, sequence_len))
    lengths = sorted(line.tokens for line in measured)
    shown = sum(line.turns for line in measured)

    def share(number: int, of: int = len(lengths)) -> float:
        return round(number / max(of, 1), 4)

    return Fit(
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
    """What training sees of a line that is from no chat, counted as `fit` counts."""
    count = estimate if tokenizer is None else _counter(tokenizer)
    return _measure(turns, prepared, count, sequence_len).trained


@dataclass(frozen=True)
class _Line:
    turns: int
    tokens: int
    trained: int
    dropped: int = 0
    shortened: bool = False
    skipped: bool = False


def _measure(turns: Sequence[Turn], prepared: Prepared, count: CountTokens, limit: int) -> _Line:
    labels = prepared.labels

    def count_tokens(some: Sequence[Turn]) -> int:
        return count(render(some, labels)) + 1 + _end_tokens(some, labels, prepared.recipe)

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


def _end_tokens(turns: Sequence[Turn], labels: Labels, recipe: str) -> int:
    return 1 if recipe == "windows" else sum(turn.label == labels.me for turn in turns)


def _spans(prepared: Prepared) -> Sequence[Sequence[tuple[int, int]]]:
    """First and last turn of each line of each training conversation."""
    if prepared.recipe == "windows":
        return prepared.examples.by_conversation[: prepared.training]
    me = prepared.labels.me
    talks = prepared.conversations[: prepared.training]
    return [[(0, len(talk.turns) - 1)] if any(turn.label == me for turn in talk.turns) else [] for talk in talks]


def _counter(tokenizer: Any) -> CountTokens:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
