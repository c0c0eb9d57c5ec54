"""The longest run of characters that each reply shares, word for word, with what training showed.

Seed and extend, as in BLAST (Altschul et al. 1990), but exact: every run of SEED characters of the training text whose
hash is that of a run of a reply is a hit, and hits that follow one another on a diagonal are one longer run. All of it
is arithmetic on arrays, so 100 MB of text takes half a minute and little more memory than a part of it. A reply is
a few hundred characters; an index of the training text would be gigabytes.

What it cannot say: whether a run was memorised or is what everybody writes. That is why the same is asked of the
person's held-out replies, which no model has seen: the base rate.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SEED = 16  # characters; shorter runs ("tu fais quoi ce") are in every chat, and are counted as none
LENGTHS = (16, 24, 32, 48, 64, 96)  # characters, of which `Overlap.shares` speaks
PART = 4_000_000  # characters of training text at a time: 150 MB of arrays
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴; the golden ratio's bits, far from any pattern


@dataclass(frozen=True)
class Overlap:
    """longest  of each reply, the characters of its longest run that training holds; 0 where that is below SEED
    whole    of each reply, whether all of it is such a run; False where it is shorter than SEED
    """

    longest: list[int]
    whole: list[bool]

    @property
    def shares(self) -> dict[int, float]:
        """The share of all replies with a run of at least so many characters, by LENGTHS."""
        count = max(len(self.longest), 1)
        return {length: sum(run >= length for run in self.longest) / count for length in LENGTHS}


def overlaps(replies: Sequence[str], training: Iterable[str]) -> Overlap:
    """`training` are turns; no run goes over the end of one. Each different turn is read once."""
    import numpy as np

    seeds = _Seeds.of(replies)
    hits: list[tuple[Any, Any]] = []
    for before, text in _parts(training):
        hashes = _hashes(_codes(text))
        likely = np.flatnonzero(seeds.table[hashes >> np.uint64(44)])
        first = np.searchsorted(seeds.hashes, hashes[likely], side="left")
        last = np.searchsorted(seeds.hashes, hashes[likely], side="right")
        times = last - first
        if times.any():
            # One run of the text may be in several replies: each pair of places is a hit.
            of_text = np.repeat(likely + before, times)
            offsets = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
            hits.append((of_text, seeds.places[np.repeat(first, times) + offsets]))
    return seeds.overlap(hits)


@dataclass(frozen=True)
class _Seeds:
    """hashes  (n,) sorted, of every run of SEED characters of the replies; places  (n,) where each begins, in all
    replies one after the other; table  (2²⁰,) whether any hash begins with these 20 bits; starts  of each reply
    """

    hashes: Any
    places: Any
    table: Any
    starts: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, replies: Sequence[str]) -> "_Seeds":
        import numpy as np

        hashes, places, starts, position = [], [], [], 0
        for reply in replies:
            found = _hashes(_codes(reply))
            hashes.append(found)
            places.append(np.arange(position, position + len(found)))
            starts.append(position)
            position += len(reply) + 1  # so that no diagonal goes on from one reply to the next
        values = np.concatenate([*hashes, np.empty(0, np.uint64)])
        order = np.argsort(values, kind="stable")
        table = np.zeros(1 << 20, bool)
        table[values >> np.uint64(44)] = True
        everywhere = np.concatenate([*places, np.empty(0, np.int64)])
        return cls(values[order], everywhere[order], table, starts, [len(reply) for reply in replies])

    def overlap(self, hits: Sequence[tuple[Any, Any]]) -> Overlap:
        import numpy as np

        longest = np.zeros(len(self.starts), np.int64)
        if hits:
            text, place = (np.concatenate(side) for side in zip(*hits, strict=True))
            order = np.lexsort((text, text - place))
            text, place = text[order], place[order]
            follows = (np.diff(text) == 1) & (np.diff(place) == 1)
            first = np.flatnonzero(np.concatenate([[True], ~follows]))
            runs = np.diff(np.append(first, len(text))) + SEED - 1
            reply = np.searchsorted(self.starts, place[first], side="right") - 1
            np.maximum.at(longest, reply, runs)
        found = longest.tolist()
        whole = [length >= SEED and run == length for run, length in zip(found, self.lengths, strict=True)]
        return Overlap(found, whole)


def _parts(training: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(characters before it, text), whole turns, each closed by a character that is in no reply."""
    part: list[str] = []
    before = size = 0
    for turn in dict.fromkeys(training):
        part.append(turn)
        size += len(turn) + 1
        if size >= PART:
            yield before, "\0".join(part) + "\0"
            before, part, size = before + size, [], 0
    if part:
        yield before, "\0".join(part) + "\0"


def _codes(text: str) -> Any:
    import numpy as np

    # A lone surrogate, as broken exports hold them, is a character like others here.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


def _hashes(codes: Any) -> Any:
    """(n - SEED + 1,) a polynomial of each run of SEED characters modulo 2⁶⁴, mixed so that its first bits tell."""
    import numpy as np

    hashes = np.zeros(max(len(codes) - SEED + 1, 0), np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(SEED if len(hashes) else 0):
            hashes *= np.uint64(BASE)
            hashes += codes[offset : offset + len(hashes)] + np.uint64(1)
        hashes ^= hashes >> np.uint64(29)  # Steele, Lea and Flood 2014: SplitMix's way to mix
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(32)
    return hashes
