"""Train and validation: by time, at conversation borders, so that no turn is on both sides."""

from collections.abc import Sequence


def training_conversations(turn_counts: Sequence[int]) -> int:
    """How many of these conversations train; the rest validates.

    `turn_counts` holds the turns of each conversation, in order of first message. A conversation trains if fewer
    than 90% of all turns precede it.
    """
    total, preceding = sum(turn_counts), 0
    for index, count in enumerate(turn_counts):
        if 10 * preceding >= 9 * total:
            return index
        preceding += count
    return len(turn_counts)
