"""The contract's sentences about turns, windows and the split, one after another, without a thought for speed."""

from datetime import datetime, timedelta
from typing import NamedTuple


class Message(NamedTuple):
    time: datetime
    is_mine: bool
    text: str


def conversations(messages: list[Message]) -> list[list[list[Message]]]:
    """Conversations of turns of messages, from one chat in time order."""
    found: list[list[list[Message]]] = []
    for number, message in enumerate(messages):
        gap = message.time - messages[number - 1].time
        if number == 0 or gap >= timedelta(minutes=30):
            found.append([[message]])
        elif found[-1][-1][0].is_mine == message.is_mine and gap <= timedelta(minutes=3):
            found[-1][-1].append(message)
        else:
            found[-1].append([message])
    return found


def windows(mine: list[bool]) -> list[list[int]]:
    """Turn positions of each window: its context, then its target."""
    t = list(enumerate(mine))
    n = len(t)
    candidates = []
    for size in 6, 8, 10, 12:
        for start in range(0, n, 3):
            if start + size < n:
                candidates.append((t[start : start + size], t[start + size]))
    if n <= 6:
        candidates.append((t[0 : n - 1], t[n - 1]))
    found: list[list[int]] = []
    for context, target in candidates:
        while context and not (not context[-1][1] and target[1]):
            target = context[-1]
            context = context[:-1]
        if not context:
            continue
        positions = [position for position, _ in [*context, target]]
        if not any(known[0] == positions[0] and known[-1] == positions[-1] for known in found):
            found.append(positions)
    return found


def trains(turn_counts: list[int], index: int) -> bool:
    return sum(turn_counts[:index]) * 100 < 90 * sum(turn_counts)
