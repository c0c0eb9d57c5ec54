"""What in the messages may still be personal: strings with the look of it that `ghost extract` did not mask.

Suspicion, not proof: an address that is broken up, a handle, the code of a door, a name of somebody who never wrote. So
nothing is changed. report.html shows them, for the person to look at before a model learns them; the terminal and
preparation_report.json, which others may see, only count them and give their shapes.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ghost.page import Html, card, element, facts, together
from training.extraction import csv_file
from training.extraction.speakers import fold
from training.preparation.recipes import Prepared

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


class Leftover(NamedTuple):
    """A string, how often it is there, and the row of the table that has it first."""

    text: str
    times: int
    row: int


def leftovers(prepared: Prepared) -> dict[str, list[Leftover]]:
    """By kind, the commonest first. Names of those who write are none: they are not part of an example."""
    texts = prepared.table["text"].tolist()
    ends = list(accumulate(len(text) + 1 for text in texts))
    whole, senders = "\n".join(texts), set(map(fold, prepared.table["sender"].unique()))
    found: dict[str, list[Leftover]] = {}
    for kind, pattern in PATTERNS.items():
        counts: Counter[str] = Counter()
        first: dict[str, int] = {}
        for match in pattern.finditer(whole):
            mailbox = MAILBOX.search(whole, max(0, match.start() - 64), match.start()) if kind == "addresses" else None
            text = f"{mailbox[0] if mailbox else ''}{match[0]}"
            if kind != "names" or fold(text) not in senders:
                counts[text] += 1
                first.setdefault(text, match.start())
        found[kind] = [Leftover(text, n, bisect_right(ends, first[text])) for text, n in counts.most_common()]
    return found


def account(found: Mapping[str, Sequence[Leftover]]) -> dict[str, Any]:
    """For preparation_report.json: no string, only how many there are, and the commonest shapes."""
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


def cards(found: Mapping[str, Sequence[Leftover]], prepared: Prepared, cleaned: Path) -> list[Html]:
    """The commonest of each kind, with the file and line of `cleaned` where each is first."""
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
