"""Nested windows, collapsed: what begins alike goes through the model once, and the gradient is the same.

Windows of 6, 8, 10 and 12 turns that start at one turn are, without their end tokens, token prefixes of the longest of
them. A causal model computes the same hidden states for a shared beginning, so one run of the longest serves them all:
a token that k windows learn counts k times, and where a shorter window ends, its last token predicts two things, the
next token and the end token. Nothing is approximated. With dropout the windows of a group share one mask, where
one window at a time would draw a mask for each: the expectation is the same, the noise is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.finetuning.examples import Example

Group = list[Example]
"""Examples, shortest first, each of which is, without its last token, the beginning of the last."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One run of tokens through the model, and what is learnt from it.

    ids      (length,) int32; without what follows the last place, which nothing is predicted from
    places   (targets,) int32; the hidden state at `places[i]` is to predict `labels[i]`
    labels   (targets,) int32
    weights  (targets,) float32; how many examples learn it
    windows  how many examples it stands for
    """

    ids: NDArray[np.int32]
    places: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    windows: int


def collapse(examples: Sequence[Example]) -> list[Group]:
    """Each example in one group. The groups' order depends on the examples, not on theirs."""
    # Big-endian, so that bytes sort as the ids do: what begins with a text follows it, and nothing stands between.
    keys = sorted(((example.ids[:-1].astype(">i4").tobytes(), place) for place, example in enumerate(examples)))
    groups: list[Group] = []
    longest: bytes | None = None
    for key, place in reversed(keys):
        if longest is not None and longest.startswith(key):
            groups[-1].append(examples[place])
        else:
            groups.append([examples[place]])
            longest = key
    for group in groups:
        group.reverse()
    groups.reverse()
    return groups


def segment(group: Group) -> Segment:
    """The one run that teaches what every example of the group teaches."""
    longest = group[-1]
    body = len(longest.ids) - 1
    counts = np.zeros(len(longest.ids), dtype=np.float32)
    ends: list[tuple[int, int]] = []  # of shorter examples: place in the run, id of the end token
    for example in group:
        last = len(example.ids) - 1
        counts[1:last] += example.learnt[1:last]
        if last == body:
            counts[last] += example.learnt[last]
        elif example.learnt[last]:
            ends.append((last, int(example.ids[last])))
    learnt = np.flatnonzero(counts)
    end_places, end_ids = zip(*ends, strict=True) if ends else ((), ())
    places = np.concatenate([learnt, end_places]).astype(np.int32) - 1
    labels = np.concatenate([longest.ids[learnt], end_ids]).astype(np.int32)
    weights = np.concatenate([counts[learnt], np.ones(len(ends))]).astype(np.float32)
    return Segment(longest.ids[: places.max(initial=-1) + 1], places, labels, weights, len(group))
