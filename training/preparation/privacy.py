"""What is left out (people who said no, chats, dates, large groups), and what in the rest may still be personal.

A name in the config that matches nobody is an error, so that a typo cannot include somebody who said no.
"""

import difflib
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ghost.errors import ConfigError, DataError
from ghost.page import Html, card, element, facts, together
from training.extraction import csv_file
from training.extraction.speakers import CONFIG, EXTRACTION_REPORT, Mine, UserConfig, fold
from training.preparation.dataset import Mask, Prepared, written_by

NEAR = 3  # names shown in an error


@dataclass(frozen=True)
class Kept:
    """The messages to learn from.

    table     rows of the table that was read, with a new index
    borders   for each row, whether something was left out just before it, which starts another conversation
    left_out  how many messages, chats and people, by reason; the first that holds, in the order of the keys
    sizes     how many people wrote in each chat, before anything was left out
    """

    table: pd.DataFrame
    borders: Mask
    left_out: dict[str, dict[str, int]]
    sizes: dict[str, int]


def keep(config: UserConfig, table: pd.DataFrame, mine: Mine, cleaned: Path, path: Path = CONFIG) -> Kept:
    """Remove what the config (read from `path`) excludes from `table`, which was read from the folder `cleaned`.

    Raises ConfigError for a name that matches nobody or is the person's own; DataError if nothing is left.
    """
    chat, sender = table["path"].cat.codes.to_numpy(), table["sender"].cat.codes.to_numpy()
    files, senders = table["path"].cat.categories, table["sender"].cat.categories
    is_mine = written_by(table, mine)
    people = _named_people(config, senders, {senders[code] for code in np.unique(sender[is_mine])}, path)
    chats = _named_chats(config, files, _titles(cleaned), path)
    sizes = sizes_of_chats(table, mine)
    limit = np.inf if config.max_group_size is None else config.max_group_size
    reasons: dict[str, Mask] = {
        "conversations": files.isin(chats)[chat],
        "groups": (np.array([sizes[file] for file in files]) > limit)[chat],
        "dates": ~_within(table["instant"], config),
        "people": senders.isin(people)[sender],
        "patterns": _matching(table["text"], config.exclude_messages),
    }
    is_out = np.zeros(len(table), bool)
    left_out: dict[str, dict[str, int]] = {}
    for reason, holds in reasons.items():
        rows = np.flatnonzero(holds & ~is_out)
        left_out[reason] = {"messages": len(rows)}
        if reason in ("conversations", "groups"):
            left_out[reason]["chats"] = len(np.unique(chat[rows]))
        elif reason == "people":
            left_out[reason]["people"] = len(set(map(fold, people)))
        is_out |= holds
    if is_out.all():
        counts = ", ".join(f"{reason} {figures['messages']:,}" for reason, figures in left_out.items())
        raise DataError(f"{path} leaves out all of the {len(table):,} messages ({counts}): nothing is left to prepare")
    # A row after one that was left out; of another chat it starts a conversation anyway.
    borders = np.concatenate(([False], is_out[:-1]))[~is_out]
    return Kept(table[~is_out].reset_index(drop=True) if is_out.any() else table, borders, left_out, sizes)


def sizes_of_chats(table: pd.DataFrame, mine: Mine) -> dict[str, int]:
    """Count the people in each chat. The person counts once whatever their names; so do others whose names differ only
    in case or direction marks."""
    files, senders = table["path"].cat.categories, table["sender"].cat.categories
    numbers: dict[str, int] = {}
    person = np.array([numbers.setdefault(fold(name), len(numbers)) for name in senders], np.int64)
    who = np.where(written_by(table, mine), len(numbers), person[table["sender"].cat.codes.to_numpy()])
    pairs = np.unique(table["path"].cat.codes.to_numpy() * np.int64(len(numbers) + 1) + who)
    counts = np.bincount(pairs // (len(numbers) + 1), minlength=len(files))
    return dict(zip(files, counts.tolist(), strict=True))


def groups(prepared: Prepared, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Count what is from groups, with shares. A chat of more than two people (`sizes` of `Kept`) is a group, and stays
    one if somebody is left out."""
    table, examples = prepared.table, prepared.examples
    is_group = np.array([sizes[file] > 2 for file in table["path"].cat.categories])
    grouped = is_group[table["path"].cat.codes.to_numpy()]
    own = table["mine"].to_numpy()
    own_turns = table["turn"].to_numpy()[own]
    lines = list(map(len, examples.by_conversation))
    from_groups = [count for talk, count in zip(prepared.conversations, lines, strict=True) if sizes[talk.path] > 2]
    return {
        "chats": _share(table.loc[grouped, "path"].nunique(), table["path"].nunique()),
        "messages": _share(int(grouped.sum()), len(table)),
        "own_turns": _share(len(np.unique(own_turns[grouped[own]])), len(np.unique(own_turns))),
        "lines": _share(sum(from_groups), sum(lines)),
    }


def _share(part: int, whole: int) -> dict[str, Any]:
    return {"count": part, "share": round(part / max(whole, 1), 4)}


def _within(instant: "pd.Series[pd.Timestamp]", config: UserConfig) -> Mask:
    """Whether each is on a day from `since` to `until`, days of the config's zone."""
    within = np.ones(len(instant), bool)
    if config.since:
        within &= (instant >= _midnight(config.since, config)).to_numpy()
    if config.until:
        within &= (instant < _midnight(config.until + timedelta(days=1), config)).to_numpy()
    return within


def _matching(texts: "pd.Series[str]", patterns: Sequence[str]) -> Mask:
    """Whether a pattern is found in each. Extraction leaves these out, too, if it is run with them."""
    found = np.zeros(len(texts), bool)
    for pattern in patterns:
        found |= texts.str.contains(re.compile(pattern, re.IGNORECASE)).to_numpy(bool)
    return found


def _midnight(day: date, config: UserConfig) -> pd.Timestamp:
    # By way of seconds: some clocks are put forward at midnight, which then never was.
    moment = datetime(day.year, day.month, day.day, tzinfo=config.zone)
    return pd.Timestamp(int(moment.timestamp()), unit="s", tz="UTC")


def _named_people(config: UserConfig, senders: Iterable[str], own: Iterable[str], path: Path) -> set[str]:
    by_fold: dict[str, set[str]] = {}
    for sender in senders:
        by_fold.setdefault(fold(sender), set()).add(sender)
    yours = set(map(fold, [*own, *config.names]))
    found: set[str] = set()
    for name in config.exclude_people:
        if fold(name) in yours:
            raise ConfigError(f"{path}: exclude_people: {name!r} is you; remove it")
        if fold(name) not in by_fold:
            raise ConfigError(
                f"{path}: exclude_people: {name!r} wrote none of these messages, so nobody would be left out. "
                + _near(name, {key: min(names) for key, names in by_fold.items() if key not in yours})
            )
        found |= by_fold[fold(name)]
    return found


def _named_chats(config: UserConfig, files: Iterable[str], titles: Mapping[str, str], path: Path) -> set[str]:
    by_fold: dict[str, set[str]] = {}
    for file in files:
        without_suffix = PurePosixPath(file).with_suffix("").as_posix()
        for name in {file, without_suffix, PurePosixPath(file).name, PurePosixPath(file).stem, titles.get(file, file)}:
            by_fold.setdefault(fold(name), set()).add(file)
    found: set[str] = set()
    for name in config.exclude_conversations:
        if fold(name) not in by_fold:
            raise ConfigError(
                f"{path}: exclude_conversations: no chat is called {name!r}, so none would be left out. "
                + _near(name, {key: min(some) for key, some in by_fold.items()})
            )
        found |= by_fold[fold(name)]
    return found


def _near(name: str, spelled: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(fold(name), spelled, n=NEAR, cutoff=0.0)
    return f"Near it: {', '.join(dict.fromkeys(repr(spelled[key]) for key in close))}"


def _titles(cleaned: Path) -> dict[str, str]:
    """The chats' titles by file, from extraction's report: a file name cannot hold every title."""
    try:
        report = json.loads((cleaned / EXTRACTION_REPORT).read_text(encoding="utf-8"))
        return {str(chat["file"]): str(chat["title"]) for chat in report["conversations"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# Strings that look personal and that `ghost extract` did not mask: a broken-up address, a handle, the code of a door,
# the name of somebody who never wrote. They are only candidates, so nothing is changed. report.html shows them before a
# model learns them; the terminal and preparation_report.json, which others may see, give only counts and shapes.

SHOWN, SHAPES = 12, 5  # of a kind, the commonest
CAPITALS = "A-ZÀ-ÖØ-ÞŁŚŞŠŻŽΑ-ΩА-Я"
DATE = r"(?!\d{4}-\d\d-\d\d|\d\d?[./]\d\d?[./]\d{2,4}(?!\d))"
# Each begins with a character that is rare, or at a word's start: the whole is searched in one pass for each.
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "addresses": re.compile(r"(?<=[\w.+-])@[^\s@]{1,64}\.[^\W\d_]{2,24}"),  # the part before the @ is found from there
    "handles": re.compile(r"(?<![\w.+@-])@\w{3,64}"),
    "numbers": re.compile(rf"(?<![\w.,:/-]){DATE}\d(?:[ ./-]?\d){{6,30}}(?!\w)"),
    "codes": re.compile(r"(?<![\w-])(?=(?:[A-Za-z_-]{0,64}\d){2})(?=[\d_-]{0,64}[A-Za-z])[A-Za-z0-9_-]{8,64}(?!\w)"),
    "names": re.compile(rf"(?<![\w@])[{CAPITALS}][^\W\d_]+(?: [{CAPITALS}][^\W\d_]+){{1,3}}"),
}
MAILBOX = re.compile(r"[\w.%+'’-]{1,64}\Z")


class Candidate(NamedTuple):
    """A string, how often it is there, and the row of the table that has it first."""

    text: str
    times: int
    row: int


def pii_candidates(prepared: Prepared) -> dict[str, list[Candidate]]:
    """By kind, the commonest first. Senders' names do not count: they are not part of an example."""
    texts = prepared.table["text"].tolist()
    ends = list(accumulate(len(text) + 1 for text in texts))
    whole, senders = "\n".join(texts), set(map(fold, prepared.table["sender"].unique()))
    found: dict[str, list[Candidate]] = {}
    for kind, pattern in PATTERNS.items():
        counts: Counter[str] = Counter()
        first: dict[str, int] = {}
        for match in pattern.finditer(whole):
            mailbox = MAILBOX.search(whole, max(0, match.start() - 64), match.start()) if kind == "addresses" else None
            text = f"{mailbox[0] if mailbox else ''}{match[0]}"
            if kind != "names" or fold(text) not in senders:
                counts[text] += 1
                first.setdefault(text, match.start())
        found[kind] = [Candidate(text, n, bisect_right(ends, first[text])) for text, n in counts.most_common()]
    return found


def candidate_counts(found: Mapping[str, Sequence[Candidate]]) -> dict[str, Any]:
    """For preparation_report.json: only counts and the commonest shapes, no string."""
    figures = {}
    for kind, some in found.items():
        shapes: Counter[str] = Counter()
        for one in some:
            shapes[shape(one.text)] += one.times
        figures[kind] = {"count": shapes.total(), "different": len(some), "shapes": dict(shapes.most_common(SHAPES))}
    return figures


def shape(text: str) -> str:
    """Letters as a or A, digits as 9; all else as it is."""
    return "".join("9" if c.isdigit() else ("A" if c.isupper() else "a") if c.isalpha() else c for c in text)


def candidate_cards(found: Mapping[str, Sequence[Candidate]], prepared: Prepared, cleaned: Path) -> list[Html]:
    """The commonest of each kind, with the file and line in `cleaned` of the first."""
    table, messages, made = prepared.table, dict[str, Sequence[str]](), list[Html]()
    accompanied = set(table.loc[~table["mine"], "path"])
    for kind, some in found.items():
        rows = []
        for text, count, row in some[:SHOWN]:
            path = table["path"].iloc[row]
            where = "a chat in which nobody else is left"  # whose name may be that of who was left out
            if path in accompanied:
                if path not in messages:
                    messages[path] = [message.strip() for message in csv_file.read(cleaned / path).messages]
                where = f"{path}:{csv_file.line_of(cleaned / path, messages[path].index(table['text'].iloc[row]))}"
            rows.append((together(element("bdi", text), " ", element("small", where)), f"{count:,}"))
        if len(some) > SHOWN:
            rows.append((together(f"{len(some) - SHOWN:,} others"), f"{sum(one.times for one in some[SHOWN:]):,}"))
        if rows:
            made.append(card(kind.capitalize(), facts(rows)))
    return made
