"""What of the held-out conversations training has seen as well, and how much of the data is no conversation at all.

A "haha" on both sides of the split says nothing; a pasted paragraph there makes every held-out figure too good. What
divides them is length. In the bundled sample, whose chats share no pasted text, held-out replies of 25 to 49
characters occur in training at 2% and longer ones never: people do not type the same fifty characters twice. So a
reply is compared from REPEAT characters on. Anything of the other side is only context, and compared from PARAGRAPH
characters on, about three lines on a phone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from itertools import chain, islice, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from training.preparation.prepared import Prepared

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REPEAT = 50  # characters
NEAR = 100  # one word changed in fewer than 19, about 100 characters, already takes more than OVERLAP leaves
PARAGRAPH = 200
WALL = 1000  # about a quarter of what 1,024 tokens hold, in one message
OVERLAP = 0.8  # of two texts' pairs of neighbouring words, from which they are near-duplicates
TRIES = 50  # held-out texts that one text is compared with in full: bounds the cost of ten thousand texts of one mould
# A Chinese character says as much as three letters (2.9 in XDailyDialog's parallel dialogues), and is a word here.
DENSE = "\u3040-\u30ff\u3400-\u9fff"
DENSENESS = 3

Pair = tuple[str, str]

_target = attrgetter("target")
_dense = re.compile(f"[{DENSE}]")
_word = re.compile(rf"[{DENSE}]|[^\s{DENSE}]+")


def leakage(prepared: Prepared) -> dict[str, Any]:
    """Counts for preparation_report.json.

    turns_on_both_sides     turns of which one message trains and another validates
    messages_on_both_sides  validation's messages that training holds with the same side, time and text, as when two
                            exports of one chat overlap
    targets                 the person's turns that are learned; of validation's `compared` ones, those from REPEAT
                            characters on, how many training learns too: word for word (`exact`, after folding case
                            and blanks), or, from NEAR characters on, with OVERLAP of their pairs of neighbouring words
                            in common (`near`)
    pasted                  the same of messages from PARAGRAPH characters on, by anyone, learned or context
    walls                   messages from WALL characters on, texts from PARAGRAPH characters on that were sent several
                            times, by whomever (`copies`: all their messages), and their share of all characters
    """
    import numpy as np

    table = prepared.table
    texts, mine = table["text"].tolist(), table["mine"].to_numpy(bool)
    trains = _training_rows(prepared)
    turn = table["turn"].to_numpy()
    torn = turn[1:][(turn[1:] == turn[:-1]) & (trains[1:] != trains[:-1])]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    long = [
        row for row in np.flatnonzero(lengths >= PARAGRAPH // DENSENESS).tolist() if _is_long(texts[row], PARAGRAPH)
    ]
    folded = {row: _fold(texts[row]) for row in long}
    return {
        "turns_on_both_sides": len(np.unique(torn)),
        "messages_on_both_sides": _same_messages(prepared, trains),
        "targets": _targets(prepared),
        "pasted": {
            "from_characters": PARAGRAPH,
            **_repeats(
                [text for row, text in folded.items() if trains[row]],
                [text for row, text in folded.items() if not trains[row]],
            ),
        },
        "walls": _walls(folded, lengths, mine),
    }


def targets(prepared: Prepared) -> list[set[int]]:
    """Positions of the turns that are learned, for each conversation.

    By the windows recipe these are its windows' and seeds' last turns, by the other every turn of the person.
    """
    if prepared.recipe == "windows":
        return [
            set(map(_target, chain(windows, seeds)))
            for windows, seeds in zip(prepared.examples.windows, prepared.examples.seeds, strict=True)
        ]
    me = prepared.labels.me
    return [{place for place, turn in enumerate(talk.turns) if turn.label == me} for talk in prepared.conversations]


def near_duplicates(texts: Iterable[str], others: Iterable[str]) -> int:
    """How many of `texts` have a near-duplicate among `others`, all of them folded.

    Exact but for TRIES. A text of `others` that nearly equals one of `texts` has at most a fifth of its pairs in none
    of them, which leaves little to compare: about 10 µs a text.
    """
    sought = [pairs for text in texts if (pairs := set(pairwise(_words(text))))]
    holders: dict[Pair, list[int]] = defaultdict(list)
    for index, pairs in enumerate(sought):
        for pair in pairs:
            holders[pair].append(index)
    known = set(holders)
    found: set[int] = set()
    for text in others:
        pairs = set(pairwise(_words(text)))
        shared = pairs & known
        # Two sets with a Jaccard index of OVERLAP leave this many of either's elements out at most (1e-9: rounding).
        spare = int((1 - OVERLAP) * len(pairs) + 1e-9) - (len(pairs) - len(shared))
        if not shared or spare < 0:
            continue
        # So one of any `spare + 1` shared pairs leads to the other text; the rarest lead to few others.
        rarest = sorted(shared, key=lambda pair: (len(holders[pair]), pair))[: spare + 1]
        fresh = (index for pair in rarest for index in holders[pair] if index not in found)
        near = [index for index in islice(fresh, TRIES) if _overlap(pairs, sought[index]) >= OVERLAP]
        found.update(near)
    return len(found)


def _training_rows(prepared: Prepared) -> "NDArray[np.bool_]":
    """Which messages train. From the table's own times, so that the split that was made is counted, not believed."""
    import numpy as np

    conversation = prepared.table["conversation"].to_numpy()
    opening = np.flatnonzero(np.diff(conversation, prepend=-1))
    by_start = np.argsort(_instants(prepared)[opening], kind="stable")
    trains = np.zeros(len(opening), bool)
    trains[by_start[: prepared.training]] = True
    return np.repeat(trains, np.diff(opening, append=len(conversation)))


def _instants(prepared: Prepared) -> "NDArray[np.datetime64]":
    # pandas gives numpy a Python object for each time with a zone.
    instants: NDArray[np.datetime64] = prepared.table["instant"].dt.tz_localize(None).to_numpy()
    return instants


def _same_messages(prepared: Prepared, trains: "NDArray[np.bool_]") -> int:
    """Validation starts where training ends: only messages of training from there on can be the same ones."""
    import numpy as np

    if trains.all() or not trains.any():
        return 0
    instant = _instants(prepared)
    late = np.flatnonzero(trains & (instant >= instant[~trains].min()))
    if not len(late):
        return 0
    held_out = np.flatnonzero(~trains & (instant <= instant[late].max()))

    def keys(rows: "NDArray[np.int64]") -> list[tuple[Any, ...]]:
        some = prepared.table.iloc[rows]
        return list(zip(instant[rows].tolist(), some["mine"], some["text"], strict=True))

    seen = set(keys(late))
    return sum(key in seen for key in keys(held_out))


def _targets(prepared: Prepared) -> dict[str, Any]:
    places = targets(prepared)
    texts = [
        [talk.turns[place].text for place in some] for talk, some in zip(prepared.conversations, places, strict=True)
    ]
    long = [[_fold(text) for text in some if _is_long(text, REPEAT)] for some in texts]
    return {
        "train": sum(map(len, places[: prepared.training])),
        "val": sum(map(len, places[prepared.training :])),
        "from_characters": REPEAT,
        **_repeats(
            list(chain.from_iterable(long[: prepared.training])), list(chain.from_iterable(long[prepared.training :]))
        ),
    }


def _repeats(train: Sequence[str], val: Sequence[str]) -> dict[str, int]:
    seen = dict.fromkeys(train)
    fresh = [text for text in val if text not in seen]
    near = near_duplicates(*([text for text in some if _is_long(text, NEAR)] for some in (fresh, seen)))
    return {"compared": len(val), "exact": len(val) - len(fresh), "near": near}


def _walls(folded: dict[int, str], lengths: "NDArray[np.int64]", mine: "NDArray[np.bool_]") -> dict[str, Any]:
    """`folded` holds the text of each row from PARAGRAPH characters on."""
    import numpy as np

    times = Counter(folded.values())
    copies = [row for row, text in folded.items() if times[text] > 1]
    long = [row for row, text in folded.items() if _is_long(text, WALL)]
    wall = np.zeros(len(lengths), bool)
    wall[copies] = wall[long] = True

    def share(rows: "NDArray[np.bool_]") -> float:
        return round(float(lengths[rows & wall].sum() / max(lengths[rows].sum(), 1)), 4)

    return {
        "from_characters": WALL,
        "messages": len(long),
        "copied_texts": sum(count > 1 for count in times.values()),
        "copies": len(copies),
        "share_of_characters": share(np.ones(len(lengths), bool)),
        "share_of_your_characters": share(mine),
    }


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_long(text: str, limit: int) -> bool:
    """Asked of every message: what costs comes last."""
    return len(text) >= limit or (not text.isascii() and _says_much(text, limit))


def _says_much(text: str, limit: int) -> bool:
    count = len(text)
    return count * DENSENESS >= limit and count + (DENSENESS - 1) * len(_dense.findall(text)) >= limit


def _words(folded: str) -> list[str]:
    return _word.findall(folded) if not folded.isascii() and _dense.search(folded) else folded.split(" ")


def _overlap(one: Set[Pair], other: Set[Pair]) -> float:
    """Jaccard index."""
    return len(one & other) / len(one | other)
