"""Refuse broken replies, and count what was sent, by conversation and week, to compare it with the person's replies.

Only counts are kept: of a reply's length, marks, emoji, the person's commonest words and the like. They are added in
the transaction that records a message as sent. /forget leaves them without their conversation.
"""

import json
import statistics
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from ghost.errors import ConfigError
from ghost.evaluation import style, verdict
from ghost.evaluation.data import Exchange
from replicate_deployment.chat_format import Turn
from telegram_bot.config import BotConfig, Checks
from telegram_bot.database import Database
from training.extraction.languages import UNDETERMINED, detect

Counts = Mapping[str, Mapping[str, int]]
"""By figure and kind. Figures are the keys of style.LIVE and:

    replies       of the ghost that were sent
    ended         how they ended, where the server tells it: itself, stop sequence, length
    waited        whole seconds from the message to the reply
    withheld      replies that were not sent, by what was wrong
    drafts        outcomes: sent, edited, another, discarded, own (the owner answered by hand)
    edited        per cent of a draft's text that the owner changed
    reactions     to the ghost's messages, by emoji
"""


class _Person(msgspec.Struct):
    style: dict[str, style.Variation]


class _Evaluation(msgspec.Struct):
    person: _Person


class Person(NamedTuple):
    """`style` by feature; `fingerprint` identifies the evaluation."""

    style: Mapping[str, style.Variation]
    fingerprint: str


NOBODY = Person({}, "")


@lru_cache(1)
def person(evaluation: str) -> Person:
    """Read the person's variation from evaluation.json; without a path, there is none to compare with.

    Raises ConfigError if the file cannot be used.
    """
    if not evaluation:
        return NOBODY
    try:
        content = Path(evaluation).read_bytes()
        found = msgspec.json.decode(content, type=_Evaluation).person.style
        most = max(style.SIZES)
        style.held_against(found, {key: Counter(one.counts) for key, one in found.items()}, most)  # can it be used?
    except OSError as error:
        raise ConfigError(
            f"evaluation: {evaluation}: {error.strerror}; write it with: ghost evaluate models/merged"
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(
            f"evaluation: {evaluation}: not figures that this version of ghost evaluate writes ({error}); write them "
            "anew: ghost evaluate models/merged"
        ) from error
    return Person(found, sha256(content).hexdigest())


# Replies that are not sent.

TAIL = 600  # characters in which a loop is looked for: it goes on to the end of a reply, and long texts compress anyway
LEAST_TAIL = 80  # characters; shorter refrains are what people write
KNOWN_TURNS = 3  # whose language is certain, before a reply's can be called foreign


def broken(config: BotConfig, turns: Sequence[Turn], reply: str) -> str:
    """Return what is wrong with a reply to the last of these turns: empty, loop, copy or language; "" if nothing is."""
    checks = config.checks
    if not reply:
        return "empty"
    if _is_loop(checks, reply):
        return "loop"
    said, asked = style.words(reply), style.words(turns[-1].text)
    if len(said) >= checks.copied_words and f" {' '.join(said)} " in f" {' '.join(asked)} ":
        return "copy"
    if sum(map(str.isalpha, reply)) >= checks.foreign_letters:
        *around, own = detect([*(turn.text for turn in turns), reply])
        known = [language for language in around if language != UNDETERMINED]
        usual = person(config.evaluation).style.get("language")
        if len(known) >= KNOWN_TURNS and own not in (UNDETERMINED, *known, *(usual.counts if usual else ())):
            return "language"
    return ""


def _is_loop(checks: Checks, reply: str) -> bool:
    places: dict[str, int] = {}
    # A byte a character: in UTF-8, those of one script share bytes, so that any Hindi would compress well.
    tail = bytes(places.setdefault(letter, len(places)) % 256 for letter in reply[-TAIL:])
    return len(tail) >= LEAST_TAIL and len(zlib.compress(tail)) < checks.loop_share * len(tail)


# Counts of what was sent.


def observed(config: BotConfig, turns: Sequence[Turn], reply: str) -> dict[str, Counter[str]]:
    """Return the counts of one reply to the last of these turns; those of style only if `evaluation` is set."""
    own = person(config.evaluation).style
    reference = style.Reference(frozenset(own["function_words"].counts if "function_words" in own else ()), frozenset())
    exchange = Exchange(tuple(turns), reply)
    return {
        "replies": Counter([""]),
        **{feature.key: feature.observe(exchange, reference) for feature in style.LIVE if feature.key in own},
    }


def ending(metrics: Mapping[str, float]) -> str:
    """Return how a prediction ended, "" if its server does not tell."""
    if metrics.get("ended_by_itself"):
        return "itself"
    if metrics.get("ended_by_stop_sequence"):
        return "stop sequence"
    return "length" if metrics.keys() >= {"ended_by_itself", "ended_by_stop_sequence"} else ""


def add(db: Database, conversation: int | None, counts: Counts) -> None:
    """Within a transaction: add counts to this week's and, if they are a reply's, to those that `watch` tests."""
    week = db.clock.week()
    for figure, kinds in counts.items():
        for kind, count in kinds.items():
            if count:
                db.run(
                    "INSERT INTO figures VALUES(?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET count = count + excluded.count",
                    *(conversation or 0, week, figure, kind, count),
                )
    if "replies" in counts:
        block = _block_of(db)
        for figure, kinds in counts.items():
            block[figure] = block.get(figure, Counter()) + Counter(kinds)
        db.set_meta("block", json.dumps(block))


def by_week(db: Database, conversation: int | None = None) -> dict[str, dict[str, Counter[str]]]:
    """Return the counts of each week, oldest first: of all conversations or of one."""
    where = "" if conversation is None else "WHERE conversation = ?"
    rows = db.rows(
        f"SELECT week, figure, kind, sum(count) FROM figures {where} GROUP BY week, figure, kind ORDER BY week",
        *(() if conversation is None else (conversation,)),
    )
    found: dict[str, dict[str, Counter[str]]] = {}
    for week, figure, kind, count in rows:
        found.setdefault(week, {}).setdefault(figure, Counter())[kind] = count
    return found


def figures(config: BotConfig, counts: Mapping[str, Counter[str]]) -> list[style.StyleFigure]:
    """Return the figures of style of these counts, against the person's; none for too few replies."""
    return style.held_against(person(config.evaluation).style, counts, counts.get("replies", Counter()).total())


# The alarm: a sequential test for each figure of style, on blocks of style.FEWEST replies, and for broken replies.
#
# The evidence of a figure is multiplied by a likelihood ratio for each block, and is never below 1 before it: a CUSUM,
# which is an e-detector (Shin, Ramdas and Rinaldo 2023, arXiv:2203.03532). If the person's own writing is outside in at
# most the share `usual` of blocks, the mean time until a false alarm by any of m figures at evidence m × BETWEEN_ALARMS
# is at least BETWEEN_ALARMS blocks, however they depend on each other. `usual` was chosen on the second to seventh
# busiest people of the dataset of benchmarks/live_quality.py, whose writing drifts over months.


BEYOND = 1.25  # times the 95th percentile: outside
# Shares of blocks outside: of the person at most (`usual`), and of a ghost that is worth an alarm (`alarming`).
OFF, WITHHELD = (0.25, 0.9), (1 / 50, 1 / 2)
BETWEEN_ALARMS = 1000  # false ones, in blocks


def _block_of(db: Database) -> dict[str, Counter[str]]:
    return {figure: Counter(kinds) for figure, kinds in json.loads(db.meta("block") or "{}").items()}


def watch(db: Database, config: BotConfig, *, broken: bool) -> list[str]:
    """Within a transaction: add what the model has just written, and each block that was sent, to the evidence.

    Return the alarms to tell the owner. Each figure has one; a new evaluation.json starts afresh.
    """
    fingerprint = person(config.evaluation).fingerprint
    state = json.loads(db.meta("evidence") or "{}")
    if state.get("of") != fingerprint:
        state = {"of": fingerprint, "evidence": {}, "told": []}
        db.set_meta("block", "")
    tested: dict[str, tuple[bool, tuple[float, float], style.StyleFigure | None]] = {
        "withheld": (broken, WITHHELD, None)
    }
    block = _block_of(db)
    if block.get("replies", Counter()).total() >= style.FEWEST:
        db.set_meta("block", "")
        for one in figures(config, block):
            tested[one.key] = one.distance > max(BEYOND * one.floor_high, style.AUDIBLE), OFF, one
    alarms = []
    for key, (outside, (usual, alarming), figure) in tested.items():
        ratio = alarming / usual if outside else (1 - alarming) / (1 - usual)
        evidence = max(1.0, state["evidence"].get(key, 1.0)) * ratio
        state["evidence"][key] = evidence
        if evidence >= BETWEEN_ALARMS * (len(style.LIVE) + 1) and key not in state["told"]:
            state["told"].append(key)
            told = f"{deviation(figure)}: this has left your own variation for good. {ADVICE}" if figure else ""
            alarms.append(told or _many_broken(db))
    db.set_meta("evidence", json.dumps(state))
    return alarms


ADVICE = (
    "ghost bot --quality report/live.html shows since when. If the model or its sampling changed then, go back to what "
    "was before; else train on newer chats, evaluate, and set the new evaluation.json."
)


def _many_broken(db: Database) -> str:
    counts = by_week(db).get(db.clock.week(), {})
    return (
        f"The model writes broken replies, which are not sent ({_told(counts, 'withheld')} this week). Restart its "
        "server, or go back to the model before."
    )


# In words, for /quality and the page.

BLOCKS = "▁▂▃▄▅▆▇█"
WEEKS = 12  # in the line of blocks
MOVED = 3  # figures that are named


def style_in_words(config: BotConfig, counts: Mapping[str, Counter[str]]) -> str:
    found = figures(config, counts)
    if not found:
        return "too few to compare" if person(config.evaluation).style else "not compared: set evaluation in the config"
    return f"{sum(not one.is_off for one in found)} of {len(found)} figures of style as you vary"


def deviation(figure: style.StyleFigure) -> str:
    [one] = style.as_json([figure]).values()
    return verdict.deviation(one)


def median(numbers: Counter[str]) -> float | None:
    return statistics.median(map(float, numbers.elements())) if numbers else None


def summary(db: Database, config: BotConfig) -> str:
    """The text of /quality: the last week that can be compared, in five lines at most."""
    weeks = by_week(db)
    if not weeks:
        return "Nothing has been sent yet."
    compared = {week: figures(config, counts) for week, counts in weeks.items()}
    week = next((week for week in reversed(weeks) if compared[week]), list(weeks)[-1])
    counts = weeks[week]
    said = [f"Week of {week}: {_told(counts, 'replies') or 0} replies, {style_in_words(config, counts)}"]
    if compared[week]:
        recent = list(compared.items())[-WEEKS:]
        blocks = "".join(_block(found) for _, found in recent)
        said.append(f"Share of figures that are off, by week since {recent[0][0]}: {blocks}")
        off = sorted((one for one in compared[week] if one.is_off), key=lambda one: one.floor_high - one.distance)
        said.append("; ".join(map(deviation, off[:MOVED])) or "No figure has left your own variation")
    parts = [f"withheld: {_told(counts, 'withheld') or 'none'}"]
    if ended := counts.get("ended"):
        parts.insert(0, ", ".join(f"{kind} {count / ended.total():.0%}" for kind, count in ended.most_common()))
        parts[0] = f"ended by {parts[0]}"
    if (waited := median(counts.get("waited", Counter()))) is not None:
        parts.append(f"wait {waited:.0f} s (median)")
    said.append("; ".join(parts).capitalize())
    last = [f"{figure}: {told}" for figure in ("drafts", "reactions") if (told := _told(counts, figure))]
    if (change := median(counts.get("edited", Counter()))) is not None:
        last.insert(1, f"edits change {change:.0f}% (median)")
    return "\n".join([*said, "; ".join(last).capitalize()]).strip()


def _told(counts: Mapping[str, Counter[str]], figure: str) -> str:
    return ", ".join(f"{kind} {count:,}".strip() for kind, count in counts.get(figure, Counter()).most_common(8))


def _block(found: Sequence[style.StyleFigure]) -> str:
    """ "·" for a week that cannot be compared."""
    off = sum(one.is_off for one in found)
    return BLOCKS[round(off / len(found) * (len(BLOCKS) - 1))] if found else "·"
