"""How often the language of a chat message is told right, and what one conversation costs.

    python -m benchmarks.languages > benchmarks/results/languages.md

The messages are our own, labelled by hand: tests/fixtures/languages.tsv. The settings of
`training.extraction.languages` were chosen on its "tuning" lines; every figure here is of its "held-out" lines,
written after the settings were fixed.
"""

import csv
import platform
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from random import Random

from training.extraction import languages

LABELLED = Path(__file__).parents[1] / "tests" / "fixtures" / "languages.tsv"
# Conversations drawn from the labelled messages: shares of the languages, and NOBODY_KNOWS of undetermined on top.
MIXTURES: list[dict[str, float]] = [
    {"fr": 1},
    {"en": 1},
    {"es": 1},
    {"de": 1},
    {"fr": 0.5, "en": 0.5},
    {"fr": 0.7, "en": 0.3},
    {"fr": 0.9, "en": 0.1},
    {"en": 0.9, "fr": 0.1},
    {"en": 0.7, "es": 0.3},
    {"de": 0.6, "en": 0.4},
    {"fr": 0.6, "en": 0.2, "es": 0.2},
]
NOBODY_KNOWS = 0.15
DRAWS = 20  # conversations of each mixture and size
SIZES = (10, 40, 400)
LENGTHS = (100, 10_000, 1_000_000)

Labelled = list[tuple[str, str]]  # (language, message)


def labelled(part: str) -> dict[str, list[str]]:
    """The messages of one part by label: a language, several joined by "+", or "und"."""
    messages: dict[str, list[str]] = defaultdict(list)
    with LABELLED.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["set"] == part:
                messages[row["language"]].append(row["message"])
    return messages


def draw(messages: dict[str, list[str]], mixture: dict[str, float], size: int, rng: Random) -> Labelled:
    shares = mixture | {languages.UNDETERMINED: NOBODY_KNOWS}
    conversation = [
        (language, message)
        for language, share in shares.items()
        for message in rng.choices(messages[language], k=round(size * share))
    ]
    rng.shuffle(conversation)
    return conversation


def share_error(conversation: Labelled, detected: list[str]) -> float:
    """Half the sum of the absolute errors: the part of the messages that would have to change language."""
    right, found = Counter(language for language, _ in conversation), Counter(detected)
    return sum(abs(right[language] - found[language]) for language in right | found) / 2 / len(conversation)


def verdict(answer: str, label: str) -> str:
    if answer in label.split("+"):
        return "right"
    return "open" if answer == languages.UNDETERMINED else "wrong"


def accuracy(messages: dict[str, list[str]], size: int) -> Iterator[str]:
    rng = Random(size)
    for mixture in MIXTURES:
        errors, told = [], Counter[str]()
        for _ in range(DRAWS):
            conversation = draw(messages, mixture, size, rng)
            detected = languages.detect([message for _, message in conversation])
            errors.append(share_error(conversation, detected))
            for (language, _), answer in zip(conversation, detected, strict=True):
                if language != languages.UNDETERMINED:
                    told[
                        "right" if answer == language else "open" if answer == languages.UNDETERMINED else "wrong"
                    ] += 1
        name = ", ".join(f"{share:.0%} {language}" for language, share in mixture.items())
        parts = " | ".join(f"{told[kind] / told.total():.1%}" for kind in ("right", "open", "wrong"))
        yield f"| {size} | {name} | {parts} | {statistics.mean(errors):.3f} | {max(errors):.3f} |"


def alone(messages: dict[str, list[str]]) -> Iterator[str]:
    """Every message as a conversation of its own: what the detector knows without the others."""
    for label, texts in messages.items():
        told = Counter(verdict(languages.detect([text])[0], label) for text in texts)
        parts = " | ".join(f"{told[kind] / len(texts):.0%}" for kind in ("right", "open", "wrong"))
        yield f"| {label} | {len(texts)} | {parts} |"


def seconds(messages: dict[str, list[str]], length: int) -> float:
    """CPU seconds, median of five conversations of which no message was seen before: nothing comes from the cache."""
    pool = [text for label in ("fr", "en", "und") for text in messages[label]]
    taken = []
    for number in range(5):
        rng = Random(number)
        conversation = [f"{rng.choice(pool)} {rng.choice(pool)}" for _ in range(length)]
        languages._guesses.cache_clear()
        languages._spelled.cache_clear()
        started = time.process_time()
        languages.languages(conversation)
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def main() -> None:
    messages = labelled("held-out")
    print("# Languages of a conversation\n\n```\npython -m benchmarks.languages\n```\n")
    print(
        f"{date.today()}; {platform.machine()}, Python {platform.python_version()}, "
        f"{languages.DETECTOR} {version(languages.DETECTOR)} (lite model, inside the wheel).\n"
    )
    print(f"Conversations drawn from {sum(map(len, messages.values()))} labelled messages, written by hand after the")
    print(
        f"settings were fixed, and {NOBODY_KNOWS:.0%} more of undetermined ones; {DRAWS} draws a row. Right, left open"
    )
    print('("und"), wrong: of the messages in a language. Error: the part of all messages that would have to change')
    print("language for the shares to be right.\n")
    print("| messages | conversation | right | open | wrong | error, mean | max |\n|---:|---|---:|---:|---:|---:|---:|")
    for size in SIZES:
        print(*accuracy(messages, size), sep="\n")
    print("\nEvery message as a conversation of its own (fr+en mixes both: either is right):\n")
    print("| label | messages | right | open | wrong |\n|---|---:|---:|---:|---:|")
    print(*alone(messages), sep="\n")
    print(f"\nCPU time of one conversation, nothing cached; {languages.SAMPLE} messages are looked at:\n")
    print("| messages | ms |\n|---:|---:|")
    for length in LENGTHS:
        print(f"| {length:,} | {seconds(messages, length) * 1000:.0f} |")


if __name__ == "__main__":
    main()
