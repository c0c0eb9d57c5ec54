"""A few examples as a chat, drawn by a seed: what one line of train.jsonl looks like before it is a line."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import PurePosixPath
from random import Random

from replicate_deployment.chat_format import Turn
from training.page import Html, element
from training.preparation.prepared import Prepared

SAMPLES, SEED = 5, 20240229
TURNS = 13  # shown of an example, the last ones: the windows recipe has no more
LONGEST = 400  # characters of a turn that are shown


def samples(prepared: Prepared) -> list[Html]:
    """Cards of at most five examples of the training half, in order of time."""
    ends = list(accumulate(map(len, prepared.examples.windows[: prepared.training])))
    cards = []
    for number in sorted(Random(SEED).sample(range(ends[-1]), min(SAMPLES, ends[-1]))):
        index = bisect_right(ends, number)
        talk = prepared.conversations[index]
        window = prepared.examples.windows[index][number - ends[index]]
        turns = talk.turns[window.start : window.target + 1]
        replies = turns[-1:] if prepared.recipe == "windows" else turns
        cards.append(_card(title(talk.path), turns, prepared.labels.me, len(replies)))
    return cards


def _card(name: str, turns: Sequence[Turn], me: str, replies: int) -> Html:
    """`replies` counts the turns, from the end, of which the person's have their end token learnt."""
    left_out = max(len(turns) - TURNS, 0)
    bubbles = [element("small", f"after {left_out:,} more turns")] if left_out else []
    for index, turn in enumerate(turns[left_out:], start=left_out):
        sides = "mine target" if index >= len(turns) - replies else "mine"
        bubbles.append(element("p", _shown(turn.text), dir="auto", class_=sides if turn.label == me else None))
    return element("article", element("h3", name, dir="auto"), element("div", *bubbles, class_="chat"), class_="card")


def _shown(text: str) -> str:
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… ({left:,} more characters)"


def title(path: str) -> str:
    """The name of a chat, as its file is called, and the platform, as the folder is."""
    file = PurePosixPath(path)
    return " · ".join([file.stem, *file.parent.parts])
