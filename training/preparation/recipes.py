"""The recipes: which stretches of the conversations become lines, and how often an epoch shows a turn.

Conversations are given as in windows.py: for each turn, whether the person wrote it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from replicate_deployment.chat_format import Labels, Recipe, Turn, render_line
from training.preparation import jsonl, windows
from training.preparation.windows import Examples, Window, replies


def examples(recipe: Recipe, conversations: Sequence[Sequence[bool]]) -> Examples:
    """`windows`: windows and seeds. `conversations`: each whole, unless the person says nothing in it; no seeds."""
    if recipe == "windows":
        return windows.examples(conversations)
    whole = [[Window(0, len(mine) - 1)] if any(mine) else [] for mine in conversations]
    return Examples(whole, [[] for _ in whole], 0)


def gives_line(recipe: Recipe, mine: Sequence[bool]) -> bool:
    """Whether one conversation, or a part of one, becomes a line whatever the draw of the seeds."""
    return bool(windows.windows(mine)) if recipe == "windows" else any(mine)


def lines(recipe: Recipe, turns: Sequence[Turn], stretches: Iterable[Window], labels: Labels) -> bytes:
    """The lines of one conversation, in UTF-8, newlines included: one for each stretch that `examples` chose."""
    if recipe == "windows":
        return jsonl.lines(turns, stretches, labels)
    texts = (render_line(turns[start : last + 1], labels, recipe=recipe) for start, last in stretches)
    return b"".join(b'{"text": ' + msgspec.json.encode(text) + b"}\n" for text in texts)


class Exposure(NamedTuple):
    """What one epoch shows, of the conversations asked about.

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
    """`found` is `examples(recipe, conversations)`, or both are the same slice of it. Whatever training cuts from the
    front of lines that are too long is not known here, and not taken off."""
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
