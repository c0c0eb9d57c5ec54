"""One example: the ids of some turns, and which of them are learnt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replicate_deployment.chat_format import Labels, Recipe, Turn, render, spans
from replicate_deployment.tokenization import Tokenizer, encode


@dataclass(frozen=True, eq=False)
class Example:
    """Arrays of one length, an element a token: BOS, the turns, an end token wherever the recipe puts one.

    ids     int32
    learnt  bool; whether it counts in the loss, as what the tokens before it should predict: never BOS
    reply   bool; whether it belongs to a reply that the recipe teaches: its text behind the tag, its end token
    """

    ids: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    reply: NDArray[np.bool_]


def encode_turns(
    tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels, *, recipe: Recipe, replies_only: bool
) -> Example:
    """The example of these turns. Everything in it is learnt, or, with `replies_only`, only the replies are.

    The space after a tag belongs to the reply: a prompt ends in the bare tag.
    """
    found = spans(turns, labels, recipe=recipe)
    ids, offsets = encode(tokenizer, render(turns, labels), ends=[span.end for span in found])
    first, last = np.array(offsets).T  # the characters of token i are first[i] … last[i] - 1; of an end token, none
    reply = np.zeros(len(ids), dtype=np.bool_)
    for start, end in found:
        reply |= (last > start) & (first < end)
        reply |= (first == end) & (last == end)
    learnt = reply.copy() if replies_only else np.ones(len(ids), dtype=np.bool_)
    learnt[0] = False
    return Example(np.array(ids, dtype=np.int32), learnt, reply)
