"""Train and validation: by time, so that no turn is on both sides, and with something held out wherever possible.

The rule of record splits at the borders of conversations. Of few conversations, or where the last one is long, it holds
nothing out: a training then has no held-out loss to stop by, and `ghost evaluate` nothing to judge. So the last
conversation is held out instead, or, if that is too much to lose, its end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

HeldOut = Literal["by_rule", "last_conversation", "end_of_last_conversation", "nothing"]
WHY: Mapping[HeldOut, str] = {
    "last_conversation": "no conversation in the last tenth of the turns gives an example, so the last one that gives "
    "any is held out",
    "end_of_last_conversation": "no conversation in the last tenth of the turns gives an example, so the end of the "
    "last one that gives any is held out; its two parts count as two conversations",
}
MOST = 5  # a last conversation of more than a fifth of all turns is cut rather than lost to training


class Split(NamedTuple):
    """The first `training` conversations train; of the last of these only its first `cut` turns, unless `cut` is 0: its
    other turns validate, as do all conversations after it."""

    training: int
    cut: int
    held_out: HeldOut


def training_conversations(turn_counts: Sequence[int]) -> int:
    """How many of these conversations train by the rule of record; the rest validates.

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
    """The rule of record; where what it holds out gives no line, the last conversation that gives one is held out:

    - whole, if at most a fifth of all turns are in it and after it, and a conversation before it gives a line;
    - else from a turn border on that leaves a line on either side: the latest that has at most 90% of all turns before
      it, or else the first behind that.

    Where there is no such border either, nothing is held out. `gives_line` is asked about the turns of a conversation
    or of a part of one, given as in windows.py.
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
