"""The contract's sentences about turns, windows, seeds, the split and the lines, one after another.

Slow, without a thought for speed, and on its own: nothing of it comes from the code that it judges.
"""

import json
import random
import re
from datetime import datetime, timedelta
from typing import NamedTuple

BEGINS_LIKE_A_TAG = re.compile(r"^ *(A:|B:|<|$)")


class Message(NamedTuple):
    time: datetime
    is_mine: bool
    text: str


class Talk(NamedTuple):
    """A conversation: where it is from, when it starts, its turns as (label, text)."""

    start: datetime
    path: str
    turns: list[tuple[str, str]]


class DataSet(NamedTuple):
    """All that preparation promises. A stretch is the positions of its turns; per conversation, in its order."""

    talks: list[Talk]
    windows: list[list[list[int]]]
    seeds: list[list[list[int]]]
    trains: list[bool]
    train: list[str]
    val: list[str]


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


def replies(mine: list[bool]) -> list[int]:
    """The A: turns that follow a B: turn."""
    return [n for n in range(len(mine)) if n > 0 and mine[n] and not mine[n - 1]]


def drawn_seeds(talks: list[list[bool]]) -> list[list[list[int]]]:
    """A tenth of all replies, half of one rounded up, with what they answer. The number is the seed of record."""
    eligible = [(number, place) for number, mine in enumerate(talks) for place in replies(mine)]
    drawn = set(random.Random(20240229).sample(eligible, (len(eligible) + 5) // 10))
    return [
        [[place - 1, place] for place in range(len(mine)) if (number, place) in drawn]
        for number, mine in enumerate(talks)
    ]


def trains(turn_counts: list[int], index: int) -> bool:
    return sum(turn_counts[:index]) * 100 < 90 * sum(turn_counts)


def stretches(mine: list[bool], recipe: str) -> list[list[int]]:
    """The lines of a conversation, seeds apart."""
    if recipe == "windows":
        return windows(mine)
    return [list(range(len(mine)))] if True in mine else []


def first_held_out(talks: list[list[bool]], recipe: str) -> tuple[int, int]:
    """The conversation and the turn in it from which on everything validates. Past the end: nothing is held out."""

    def line_in(some: list[list[bool]]) -> bool:
        return any(stretches(mine, recipe) for mine in some)

    turn_counts = [len(mine) for mine in talks]
    number = sum(trains(turn_counts, index) for index in range(len(talks)))
    if line_in(talks[number:]) or not line_in(talks):
        return number, 0
    # What the rule holds out gives no line: the last conversation that gives one, whole if that is a fifth or less …
    last = [index for index in range(len(talks)) if line_in([talks[index]])][-1]
    earlier, total = sum(turn_counts[:last]), sum(turn_counts)
    if earlier / total >= 0.8 and line_in(talks[:last]):
        return last, 0
    # … else from a turn with a line on either side: the latest with 90% of all turns or less before it, or the next.
    borders = [
        turn
        for turn in range(1, len(talks[last]))
        if line_in([talks[last][turn:]]) and line_in([*talks[:last], talks[last][:turn]])
    ]
    below = [turn for turn in borders if (earlier + turn) * 100 <= 90 * total]
    if borders:
        return last, below[-1] if below else borders[0]
    return number, 0


def rendered(turn: tuple[str, str]) -> str:
    label, text = turn
    first, *rest = text.split("\n")
    return "\n".join([f"{label} {first}", *(f" {line}" if BEGINS_LIKE_A_TAG.match(line) else line for line in rest)])


def json_line(text: str) -> str:
    return json.dumps({"text": text}, ensure_ascii=False) + "\n"


def prepare(chats: dict[str, list[Message]], recipe: str) -> DataSet:
    """The data set of chats (path → messages, in the order of the file)."""
    talks = []
    turn_starts = {}
    for path, messages in chats.items():
        said = [Message(time, mine, text.replace("\r\n", "\n").strip()) for time, mine, text in messages]
        in_time_order = sorted([message for message in said if message.text != ""], key=lambda message: message.time)
        for talk in conversations(in_time_order):
            turns = [("A:" if turn[0].is_mine else "B:", "\n".join(m.text for m in turn)) for turn in talk]
            talks.append(Talk(talk[0][0].time, path, turns))
            turn_starts[talk[0][0].time, path] = [turn[0].time for turn in talk]
    talks.sort(key=lambda talk: (talk.start, talk.path))
    where, turn = first_held_out([[label == "A:" for label, _ in talk.turns] for talk in talks], recipe)
    if turn:  # a conversation is cut in two
        start, path, turns = talks[where]
        talks[where] = Talk(start, path, turns[:turn])
        talks.append(Talk(turn_starts[start, path][turn], path, turns[turn:]))
        talks.sort(key=lambda talk: (talk.start, talk.path))
        where += 1

    mine = [[label == "A:" for label, _ in talk.turns] for talk in talks]
    found = [stretches(some, recipe) for some in mine]
    seeds: list[list[list[int]]] = [[] for _ in mine]
    if recipe == "windows":
        seeds = [
            [seed for seed in drawn if seed not in own] for drawn, own in zip(drawn_seeds(mine), found, strict=True)
        ]
    side = [index < where for index in range(len(mine))]

    written: dict[bool, list[str]] = {True: [], False: []}
    for number, talk in enumerate(talks):
        for positions in found[number] + seeds[number]:
            text = ""
            for position in positions:
                label, _ = turn = talk.turns[position]
                text += ("\n" if text else "") + rendered(turn)
                if label == "A:" and (recipe == "conversations" or position == positions[-1]):
                    text += "</s>"
            written[side[number]].append(json_line(text))
    return DataSet(talks, found, seeds, side, written[True], written[False])


def times_shown(data: DataSet) -> list[list[int]]:
    """For each turn of each conversation, the lines that it is in."""
    return [
        [
            sum(place in positions for positions in data.windows[number] + data.seeds[number])
            for place in range(len(talk.turns))
        ]
        for number, talk in enumerate(data.talks)
    ]


def never_a_target(data: DataSet, recipe: str) -> tuple[int, int]:
    """How many of the A: turns, and of the replies among them, no line teaches to end."""
    own = answers = 0
    for number, talk in enumerate(data.talks):
        lines = data.windows[number] + data.seeds[number]
        mine = [label == "A:" for label, _ in talk.turns]
        for place in range(len(mine)):
            taught = [place == line[-1] if recipe == "windows" else place in line for line in lines]
            own += mine[place] and True not in taught
            answers += place in replies(mine) and True not in taught
    return own, answers
