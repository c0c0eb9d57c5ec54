"""The `windows` recipe: which stretches of a conversation become training examples.

Pure functions over turn positions. A conversation is given as `mine`: for each of its turns, whether the person
wrote it.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from replicate_deployment.chat_format import Turn

SIZES = (6, 8, 10, 12)  # context turns
STRIDE = 3
SEED = 20240229


class Window(NamedTuple):
    """Turns `start … target` of a conversation: the last is the reply to learn, those before it the context."""

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

    They teach the model to answer without history. The share is exact, rounded to the nearest; the choice is
    seeded and depends on nothing but the conversations and their order.
    """
    targets = list(map(replies, conversations))
    # Drawn by number over all conversations: of a million replies, making a pair for each takes longer than the rest.
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


def examples(conversations: Sequence[Sequence[bool]]) -> Examples:
    """Windows and seeds of all conversations, given in order of their first message."""
    found = [windows(mine) for mine in conversations]
    drawn = draw_seeds(conversations)
    seeds = [
        [seed for seed in some if seed not in known]
        for some, own in zip(drawn, found, strict=True)
        for known in [set(own) if some else own]
    ]
    return Examples(found, seeds, sum(map(len, drawn)))


def fit(turns: Sequence[Turn], count_tokens: Callable[[Sequence[Turn]], int], limit: int) -> Sequence[Turn]:
    """The longest end of a window that has at most `limit` tokens: whole turns go from the front, the target stays.

    `count_tokens` counts the text of these turns with BOS and end token. A target that is longer than `limit` by
    itself is returned whole.
    """
    while len(turns) > 1 and count_tokens(turns) > limit:
        turns = turns[1:]
    return turns
