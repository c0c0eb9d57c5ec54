"""CSV → one table of all messages → conversations of turns.

The table has one row per message and is the thing to look at in a notebook:

    path     the chat, relative to the folder (a categorical; in order of path)
    instant  UTC
    sender   as the export spells it (a categorical)
    text     stripped, never empty
    mine     the person wrote it                              ┐
    turn, conversation   numbers, from 0, over the whole table ┘ added by `arrange`
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ghost.console import progress
from ghost.errors import DataError
from replicate_deployment.chat_format import BURST_SECONDS, SILENCE_SECONDS, Labels, Turn
from training.extraction import csv_file
from training.extraction.speakers import Mine, platform_of

# ISO 8601 texts → instants in UTC, with the times of clocks that were put back told apart.

OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"

Instants = NDArray[np.datetime64]  # datetime64[us]
Mask = NDArray[np.bool_]


def instants(stamps: Sequence[str], chats: NDArray[np.int64], zone: ZoneInfo) -> tuple[Instants, Mask]:
    """The instants, NaT where a text is unreadable, and which of the texts have no offset and are placed in `zone`.

    `chats` holds the number of each text's chat; the texts of one chat are in the order of its file.
    """
    texts = pd.Series(stamps, dtype=object)
    utc = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    instant: Instants = utc.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    is_naive: Mask = (~texts.str.contains(OFFSET)).to_numpy(bool)
    placed = np.flatnonzero(is_naive & ~np.isnat(instant))
    instant[placed] = _place(instant[placed], chats[placed], zone)
    return instant, is_naive


def _place(local: Instants, chats: NDArray[np.int64], zone: ZoneInfo) -> Instants:
    """Local times in UTC; one that a clock put forward skips is the moment at which it was."""
    index = pd.DatetimeIndex(local)
    placed = index.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    if placed.hasnans:
        is_first = np.ones(len(local), bool)
        is_first[_second_passes(local, chats, np.flatnonzero(placed.isna()))] = False
        placed = index.tz_localize(zone, ambiguous=is_first, nonexistent="shift_forward")
    return placed.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")


def _second_passes(local: Instants, chats: NDArray[np.int64], repeated: NDArray[np.int64]) -> list[int]:
    """Which of the rows in a repeated hour are of its second pass.

    Only the file's order tells: 02:50 is followed by 02:15, and from there on the hour is in its second pass. Of an
    hour with several steps back, or with other times in between, as where two exports were put together, the file's
    order tells nothing, and it is left in its first pass.
    """
    hours: dict[tuple[int, np.datetime64], list[int]] = {}
    for row in repeated.tolist():
        hours.setdefault((int(chats[row]), local[row].astype("datetime64[D]")), []).append(row)
    found: list[int] = []
    for rows in hours.values():
        steps = [number for number, (one, two) in enumerate(pairwise(rows), start=1) if local[two] < local[one]]
        if len(steps) == 1 and rows[steps[0]] == rows[steps[0] - 1] + 1:
            found += rows[steps[0] :]
    return found


BURST = pd.Timedelta(seconds=BURST_SECONDS)
SILENCE = pd.Timedelta(seconds=SILENCE_SECONDS)


@dataclass(frozen=True)
class Messages:
    """The table, and what happened to the rows on their way into it."""

    table: pd.DataFrame
    read: int
    empty: int
    without_offset: int
    out_of_order: int


@dataclass(frozen=True)
class Conversation:
    """Turns without a silence of half an hour between their messages; the table's turn `first` is the first of them."""

    path: str
    start: pd.Timestamp
    turns: list[Turn]
    first: int


def read(folder: Path, zone: ZoneInfo) -> Messages:
    """Every message of every CSV under `folder`, by path, then by time, file order breaking ties.

    Raises DataError when the folder holds no message, and, with file and line, on a row that is not as
    `ghost extract` writes it.
    """
    paths = sorted(folder.rglob("*.csv"), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        found = "is empty" if folder.is_dir() else "does not exist"
        raise DataError(f"{folder} {found}: no CSV to prepare. First: ghost extract YOUR_EXPORT --out {folder}")
    stamps: list[str] = []
    senders: list[str] = []
    texts: list[str] = []
    sizes: list[int] = []
    with progress("reading", len(paths)) as bar:
        for path in paths:
            one = csv_file.read(path)
            sizes.append(len(one.messages))
            stamps += one.timestamps
            senders += one.senders
            # chat_format gives its promises to turns whose first line is not blank. Blank edges of a message say
            # nothing, so stripping them makes every turn such a turn.
            texts += map(str.strip, one.messages)
            bar.advance()
    if not any(texts):
        raise DataError(f"{folder}: {len(paths)} CSV without a single message. First: ghost extract YOUR_EXPORT")

    chats = np.repeat(np.arange(len(paths)), sizes)
    instant, is_naive = instants(stamps, chats, zone)
    if np.isnat(instant).any():
        row = int(np.isnat(instant).argmax())
        path, first = paths[chats[row]], sum(sizes[: chats[row]])
        line = csv_file.line_of(path, row - first)
        raise DataError(f"{path}:{line}: {stamps[row]!r} is no ISO 8601 time. {csv_file.AGAIN}")
    is_backwards = (np.diff(instant) < np.timedelta64(0)) & (np.diff(chats) == 0)
    rows = np.lexsort((instant, chats)) if is_backwards.any() else np.arange(len(texts))
    empty = texts.count("")
    if empty:
        rows = rows[np.fromiter((texts[row] != "" for row in rows.tolist()), bool, len(rows))]
    names = sorted(set(senders))
    number = {name: code for code, name in enumerate(names)}
    codes = np.fromiter(map(number.__getitem__, senders), np.int32, len(senders))
    text = [texts[row] for row in rows.tolist()] if is_backwards.any() or empty else texts
    files = pd.Index([path.relative_to(folder).as_posix() for path in paths])
    table = pd.DataFrame(
        {
            "path": pd.Categorical.from_codes(chats[rows], categories=files),
            "instant": pd.DatetimeIndex(instant[rows], tz="UTC"),
            "sender": pd.Categorical.from_codes(codes[rows], categories=pd.Index(names)),
            "text": pd.Series(text, dtype=object),
        }
    )
    return Messages(table, len(texts), empty, int(is_naive.sum()), int(is_backwards.sum()))


def senders(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Who wrote how many messages in each chat."""
    files, names = table["path"].cat.categories, table["sender"].cat.categories
    pairs = table["path"].cat.codes.to_numpy(np.int64) * len(names) + table["sender"].cat.codes.to_numpy()
    found: dict[str, dict[str, int]] = {}
    for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
        found.setdefault(files[pair // len(names)], {})[names[pair % len(names)]] = int(count)
    return found


def written_by(table: pd.DataFrame, mine: Mine | Set[str]) -> NDArray[np.bool_]:
    """For each row, whether the sender is one of these: of its platform's, or of one set for all platforms."""
    chat, sender = table["path"].cat, table["sender"].cat
    platforms = pd.Index([platform_of(file) for file in chat.categories])
    names = dict.fromkeys(platforms, mine) if isinstance(mine, Set) else mine
    found = np.zeros(len(table), bool)
    for platform in platforms.unique():
        of_platform = (platforms == platform)[chat.codes]
        found |= of_platform & sender.categories.isin(list(names.get(platform, ())))[sender.codes]
    return found


def arrange(table: pd.DataFrame, mine: Mine | Set[str], borders: NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """The table with its columns `mine`, `turn` and `conversation`.

    `borders` tells of each row whether a conversation starts there whatever came before: where a message was left out.
    """
    is_mine = pd.Series(written_by(table, mine), index=table.index)
    codes = table["path"].cat.codes
    gap = table["instant"].diff()
    opens_conversation = (codes != codes.shift()) | (gap >= SILENCE)
    if borders is not None:
        opens_conversation |= borders
    opens_turn = opens_conversation | (is_mine != is_mine.shift()) | (gap > BURST)
    return table.assign(mine=is_mine, turn=opens_turn.cumsum() - 1, conversation=opens_conversation.cumsum() - 1)


def conversations(table: pd.DataFrame, labels: Labels) -> list[Conversation]:
    """The conversations of an arranged table, in order of their first message, ties by path."""
    turn, conversation = table["turn"].to_numpy(), table["conversation"].to_numpy()
    opens_turn = np.flatnonzero(np.diff(turn, prepend=-1))
    texts = table["text"].tolist()
    bounds = [*opens_turn.tolist(), len(texts)]
    joined = [texts[a] if b - a == 1 else "\n".join(texts[a:b]) for a, b in pairwise(bounds)]
    sides = [labels.me if is_mine else labels.other for is_mine in table["mine"].to_numpy()[opens_turn].tolist()]
    turns = list(map(Turn._make, zip(sides, joined, strict=True)))

    first = np.flatnonzero(np.diff(conversation, prepend=-1))
    starts = table["instant"].iloc[first]
    found = [
        Conversation(path, start, turns[a:b], a)
        for path, start, (a, b) in zip(
            table["path"].iloc[first], starts, pairwise([*turn[first].tolist(), len(turns)]), strict=True
        )
    ]
    # Rows lie by path, and sorting is stable: equal starts stay in order of path.
    return sorted(found, key=lambda conversation: conversation.start)
