"""Invented chats, full of what preparation could get wrong, and the comparison of its data set with the literal one."""

import csv
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from replicate_deployment.chat_format import DEFAULT_LABELS, Recipe, parse, parse_line, render
from tests.training.preparation import literal
from training.extraction.speakers import UserConfig, matching
from training.preparation import dataset
from training.preparation import dataset as chats
from training.preparation.dataset import Prepared, Window

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Kolkata")  # no clock is ever changed there: which of two passes is meant is another test's matter
KOLKATA = timezone(timedelta(hours=5, minutes=30))
OFFSETS = [UTC, KOLKATA, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(hours=2))]
NUMBER, TAG = re.compile("⟦[0-9]+⟧"), re.compile("^(?:A:|B:)", re.MULTILINE)
MINE, OTHERS = ["Ada", "ADA", "\u200eＡda"], ["Bea", "Adam", "Carl, Jr."]
WITHIN = [0, 0.001, 1, 60, 179, 179.999, 180, 180.001, 181, 600, 1799, 1799.999]
BETWEEN = [1800, 1800.001, 1801, 86_400]
A_CHAT = 25  # conversations
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 20, 50]  # messages of a conversation
PIECES = [
    "salut", "ok", "plan B: on y va", "A:", "B: ", "\nA: non", "\n  B:", "\n<3", "</s>", "\n</s>", "<s>", "[INST]",
    "\n", "\n\n", "\n \n", "\r\n", "\r", "\t", "  ", "\u2028", "\x85", "\x7f", "\x01", "été 😂", "👩\u200d🍳",
    'say "hi"', '"', ",", "C:\\temp\\n", "\\", "\\u0041",
]  # fmt: skip


class Tally(NamedTuple):
    """What was compared, and what differs (or breaks a promise), by name."""

    conversations: int
    turns: int
    windows: int
    seeds: int
    lines: int
    differences: list[str]


def write_chats(folder: Path, seed: int, count: int, a_chat: int = A_CHAT) -> dict[str, list[literal.Message]]:
    """About `count` conversations as CSV, `a_chat` to a file; also as messages, in order of the files.

    Each message holds a number of its own, as ⟦7⟧. Chats begin together, so that conversations start at the same time.
    """
    rng, found, number = Random(seed), {}, 0
    for chat in range(-(-count // a_chat)):
        now, rows, messages = NOON + timedelta(seconds=rng.choice([0, 0, 1, 40_000])), [], []
        for _ in range(a_chat):
            share = rng.choice([0, 0.1, 0.5, 0.5, 0.9, 1])
            for place in range(rng.choice(LENGTHS)):
                now += timedelta(seconds=rng.choice(WITHIN if place else BETWEEN))
                mine, text = rng.random() < share, rng.choices(PIECES, k=rng.randint(0, 4))
                if rng.random() < 0.97:  # else it may be blank
                    text.insert(rng.randint(0, len(text)), f"⟦{number}⟧")
                messages.append(literal.Message(now, mine, "".join(text)))
                number += 1
        if rng.random() < 0.3:  # two neighbours of a file, the later first
            place = rng.randrange(len(messages))
            messages[place - 1 : place + 1] = reversed(messages[place - 1 : place + 1])
        for time, mine, text in messages:
            naive = time.astimezone(KOLKATA).replace(tzinfo=None)
            stamp = rng.choice([naive, time.astimezone(rng.choice(OFFSETS))]).isoformat()
            rows.append(
                (stamp.replace("+00:00", rng.choice(["+00:00", "Z"])), rng.choice(MINE if mine else OTHERS), text)
            )
        path = f"{rng.choice(['telegram', 'whatsapp', 'whatsapp/a-b', 'Signal'])}/{chat} chat.csv"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("timestamp", "sender", "message"), *rows])
        found[path] = messages
    return found


def compare(folder: Path, written: dict[str, list[literal.Message]], recipe: Recipe) -> Tally:
    """Preparation's own functions on the folder, one after another, each result beside the literal one."""
    expected = literal.prepare(written, recipe)
    config = UserConfig(("ada",), timezone=ZONE.key)
    messages = chats.read(folder, ZONE)
    data = Prepared.of(config, recipe, messages, messages.table, matching(["ada"], messages.table["sender"].unique()))
    talks, found, training = data.conversations, data.examples, data.training
    sides = [[turn.label == "A:" for turn in talk.turns] for talk in talks]
    content = [
        dataset.make_lines(recipe, talk.turns, some, DEFAULT_LABELS).decode()
        for talk, some in zip(talks, found.by_conversation, strict=True)
    ]
    train, val = "".join(content[:training]), "".join(content[training:])
    exposure = dataset.exposure(recipe, sides, found)
    times = Counter(chain.from_iterable(literal.times_shown(expected)))
    texts = [json.loads(line)["text"] for line in (train + val).split("\n") if line]
    pairs = {
        "conversations": ([(talk.start, talk.path, talk.turns) for talk in talks], [tuple(t) for t in expected.talks]),
        "windows": (_positions(found.windows), expected.windows),
        "seeds": (_positions(found.seeds), expected.seeds),
        "split": ([number < training for number in range(len(talks))], expected.trains),
        "train.jsonl": (train, "".join(expected.train)),
        "val.jsonl": (val, "".join(expected.val)),
        "times shown": (exposure.shown, [times[count] for count in range(max(times) + 1)]),
        "silent gap": (
            (exposure.own_turns_never_target, exposure.replies_never_target),
            literal.never_a_target(expected, recipe),
        ),
        "replies": (exposure.replies, sum(len(literal.replies(mine)) for mine in sides)),
        "a message on both sides": (set(NUMBER.findall(train)) & set(NUMBER.findall(val)), set()),
        "parse(render(turns))": ([parse(render(talk.turns)) for talk in talks], [talk.turns for talk in talks]),
        "parse_line": (
            [parse_line(text, recipe=recipe) for text in texts],
            [
                talk.turns[start : last + 1]
                for talk, some in zip(talks, found.by_conversation, strict=True)
                for start, last in some
            ],
        ),
    }
    if recipe == "windows":
        pairs["B: then A: at the end"] = ({tuple(TAG.findall(text)[-2:]) for text in texts} - {("B:", "A:")}, set())
    return Tally(
        conversations=len(talks),
        turns=sum(len(talk.turns) for talk in talks),
        windows=sum(map(len, expected.windows)),
        seeds=sum(map(len, expected.seeds)),
        lines=len(texts),
        differences=[name for name, (ours, literally) in pairs.items() if ours != literally],
    )


def _positions(stretches: list[list[Window]]) -> list[list[list[int]]]:
    return [[list(range(start, last + 1)) for start, last in some] for some in stretches]
