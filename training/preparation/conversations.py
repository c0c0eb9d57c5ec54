"""From a folder of CSV to conversations: messages → bursts → turns.

The table has one row per message and is the thing to look at in a notebook:

    path     the chat, relative to the folder (a categorical; in order of path)
    instant  UTC
    sender   as the export spells it (a categorical)
    text     stripped, never empty
    mine     the person wrote it                              ┐
    turn, conversation   numbers, from 0, over the whole table ┘ added by `arrange`
"""

import csv
import sys
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from replicate_deployment.chat_format import Labels, Turn
from training.console import progress
from training.errors import DataError

HEADER = ["timestamp", "sender", "message"]
BURST = pd.Timedelta(minutes=3)  # a message this soon after the previous one, by the same side, continues its turn
SILENCE = pd.Timedelta(minutes=30)  # a gap of this length ends a conversation
OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"


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
    """Turns without a silence of half an hour between their messages."""

    path: str
    start: pd.Timestamp
    turns: list[Turn]


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
            rows = _rows(path)
            sizes.append(len(rows))
            for column, values in zip((stamps, senders, texts), zip(*rows, strict=True), strict=False):
                column.extend(values)
            bar.advance()
    # chat_format gives its promises to turns whose first line is not blank. Blank edges of a message say nothing, so
    # stripping them makes every turn such a turn.
    text = pd.Series([text.replace("\r\n", "\n").strip() for text in texts], dtype=object)
    empty = text == ""
    if empty.all():
        raise DataError(f"{folder}: {len(paths)} CSV without a single message. First: ghost extract YOUR_EXPORT")

    names = [path.relative_to(folder).as_posix() for path in paths]
    codes = np.repeat(np.arange(len(paths)), sizes)
    chats = pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(names)))
    local = pd.Series(stamps, dtype=object)
    aware = local.str.contains(OFFSET)
    instant = _instants(local, aware, chats, zone)
    if instant.isna().any():
        row = int(instant.isna().argmax())
        path, first = paths[codes[row]], sum(sizes[: codes[row]])
        raise DataError(f"{path}:{_line(path, row - first)}: {stamps[row]!r} is no ISO 8601 time. {_AGAIN}")
    table = pd.DataFrame({"path": chats, "instant": instant, "sender": pd.Categorical(senders), "text": text})
    backwards = (instant.diff() < pd.Timedelta(0)) & (chats.cat.codes.diff() == 0)
    table = table[~empty].sort_values(["path", "instant"], kind="stable", ignore_index=True)
    return Messages(table, len(stamps), int(empty.sum()), int((~aware).sum()), int(backwards.sum()))


def arrange(table: pd.DataFrame, mine: Set[str]) -> pd.DataFrame:
    """The table with its columns `mine`, `turn` and `conversation`."""
    is_mine = table["sender"].isin(mine)
    codes = table["path"].cat.codes
    gap = table["instant"].diff()
    opens_conversation = (codes != codes.shift()) | (gap >= SILENCE)
    opens_turn = opens_conversation | (is_mine != is_mine.shift()) | (gap > BURST)
    return table.assign(mine=is_mine, turn=opens_turn.cumsum() - 1, conversation=opens_conversation.cumsum() - 1)


def conversations(table: pd.DataFrame, labels: Labels) -> list[Conversation]:
    """The conversations of an arranged table, in order of their first message, ties by path."""
    opens_turn = ~table["turn"].duplicated()
    opening = table[opens_turn]
    texts = table["text"].tolist()
    bounds = [*opening.index, len(texts)]
    sides = [labels.me if mine else labels.other for mine in opening["mine"]]
    turns = [Turn(side, "\n".join(texts[a:b])) for side, (a, b) in zip(sides, pairwise(bounds), strict=True)]

    first = opening[~opening["conversation"].duplicated()]
    found = [
        Conversation(path, start, turns[a:b])
        for path, start, (a, b) in zip(
            first["path"], first["instant"], pairwise([*first["turn"], len(turns)]), strict=True
        )
    ]
    # Rows lie by path, and sorting is stable: equal starts stay in order of path.
    return sorted(found, key=lambda conversation: conversation.start)


_AGAIN = "Write it again: ghost extract YOUR_EXPORT"


def _rows(path: Path) -> list[list[str]]:
    """The rows below the header. csv, not pandas: it refuses short rows, knows line numbers, and is no slower."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            if header != HEADER:
                raise DataError(f"{path}:1: the header is {','.join(header)!r}, not {','.join(HEADER)!r}. {_AGAIN}")
            rows = list(reader)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{_undecodable_line(path)}: not UTF-8 ({error.reason}). {_AGAIN}") from error
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not readable as CSV ({error}). {_AGAIN}") from error
    for row, cells in enumerate(rows):
        if len(cells) != len(HEADER):
            raise DataError(f"{path}:{_line(path, row)}: {len(cells)} fields, not {len(HEADER)}. {_AGAIN}")
    return rows


def _line(path: Path, row: int) -> int:
    """The line on which a row starts, counted only once something is wrong: messages may hold newlines."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        for _ in range(row + 1):
            next(reader)
        return reader.line_num + 1


def _undecodable_line(path: Path) -> int:
    """Found by decoding the whole: a stream decodes in blocks, ahead of the line that the reader is at."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        content = content[: error.start]
    return content.count(b"\n") + 1


def _instants(local: pd.Series, aware: pd.Series, chats: pd.Series, zone: ZoneInfo) -> pd.Series:
    """Times in UTC, NaT where unreadable; those without an offset are placed in `zone`."""
    instant = pd.to_datetime(local, format="ISO8601", utc=True, errors="coerce")
    naive = instant[~aware].dt.tz_localize(None)
    # In the hour that a clock repeats in autumn, a time below one already seen is of the second pass.
    first_pass = naive >= naive.groupby(chats[~aware], observed=True).cummax()
    placed = naive.dt.tz_localize(zone, ambiguous=first_pass.to_numpy(), nonexistent="shift_forward")
    instant[~aware] = placed.dt.tz_convert("UTC")
    return instant
