"""How long replies are, and how many end by themselves, by the number of pairs of turns before them.

    python -m benchmarks.history [MODEL]        # a trained ghost of the sample; default: demo/merged

The same messages are answered each time, after 0 to 9 pairs of turns of the same chat, from conversations that no
training has seen. Twice: with a repetition penalty that spares the end token, the newline and the tags, as serving has
it, and with one that spares nothing, as plain `generate` has it. Everything else is the model's own sampling.
"""

import argparse
import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap

from benchmarks.extraction import machine
from ghost.demo.chats import Chat, conversations, noa_chats, turns
from ghost.demo.people import NOA
from replicate_deployment.chat_format import DEFAULT_LABELS, Recipe, Turn
from replicate_deployment.engine import Engine

RESULT = Path(__file__).parent / "results" / "history.md"
PAIRS = range(10)
LONG = range(5, 10)  # pairs that count as a long history
UNSEEN = 4_711  # seeds the conversations; the sample's own seed is another

# What must be reached. Set before anything was measured.
SAME = 0.05  # two shares that are no further apart are called alike
MOST_GROWTH = 1.25  # times the tokens of a reply after one pair, after five to nine, where the format is spared


@dataclass(frozen=True)
class Place:
    """A message to answer, what came before it, and what the person answered."""

    before: list[Turn]  # B: A: B: A: ..., whole pairs
    message: Turn
    answered: str

    def turns(self, pairs: int) -> list[Turn]:
        return [*self.before[len(self.before) - 2 * pairs :], self.message]


@dataclass(frozen=True)
class GeneratedReply:
    spared: bool
    pairs: int
    tokens: int
    characters: int
    ended: str


def places(chat: Chat) -> Iterator[Place]:
    """Of the chat's conversations, one after the other; only turns that answer one another."""
    pairs: list[Turn] = []
    for conversation in conversations(chat, seed=UNSEEN, mean_gap=24):
        asked: str | None = None
        for mine, text in turns(conversation, NOA):
            if mine and asked is not None:
                message = Turn(DEFAULT_LABELS.other, asked)
                if len(pairs) >= 2 * max(PAIRS):
                    yield Place(pairs[-2 * max(PAIRS) :], message, text)
                    pairs = pairs[-4:]  # the next place has another history
                pairs += [message, Turn(DEFAULT_LABELS.me, text)]
            asked = None if mine else text


def chosen(count: int) -> list[Place]:
    """`count` places, the chats taking turns."""
    streams = [places(chat) for chat in noa_chats().values()]
    return [next(streams[number % len(streams)]) for number in range(count)]


def answers(engine: Engine, found: Sequence[Place], seeds: int) -> Iterator[GeneratedReply]:
    ways = {True: engine, False: dataclasses.replace(engine, penalty_exempt=frozenset())}
    for seed in range(seeds):
        for number, place in enumerate(found):
            for pairs in PAIRS:
                for spared, way in ways.items():
                    reply = way.reply(place.turns(pairs), way.settings, seed=1000 * seed + number)
                    text = "".join(reply)
                    yield GeneratedReply(spared, pairs, reply.output_tokens, len(text), str(reply.finish_reason))


def spread(numbers: Sequence[int]) -> str:
    low, middle, high = (statistics.quantiles(numbers, n=10)[place] for place in (0, 4, 8))
    return f"{statistics.mean(numbers):.1f} ({low:.0f}, {middle:.0f}, {high:.0f})"


def table(said: Sequence[GeneratedReply], spared: bool) -> Iterator[str]:
    yield "| pairs before | tokens: mean (10%, 50%, 90%) | characters | end token | stop sequence | cut by length |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for pairs in PAIRS:
        of = [one for one in said if (one.spared, one.pairs) == (spared, pairs)]
        ended = Counter(one.ended for one in of)
        shares = " | ".join(f"{ended[why] / len(of):.1%}" for why in ("end_token", "stop_sequence", "length"))
        tokens, characters = spread([one.tokens for one in of]), spread([one.characters for one in of])
        yield f"| {pairs} | {tokens} | {characters} | {shares} |"


def growth(said: Sequence[GeneratedReply], spared: bool) -> float:
    """Tokens after a long history over those after one pair."""
    short, long = (
        statistics.mean(one.tokens for one in said if one.spared == spared and one.pairs in pairs)
        for pairs in ([1], LONG)
    )
    return long / short


def by_themselves(said: Sequence[GeneratedReply], spared: bool) -> float:
    """The share of replies after a long history that the end token ends."""
    of = [one for one in said if one.spared == spared and one.pairs in LONG]
    return sum(one.ended == "end_token" for one in of) / len(of)


def page(
    said: Sequence[GeneratedReply], found: Sequence[Place], seeds: int, model: Path, recipe: Recipe
) -> Iterator[str]:
    yield from ("# Replies by the length of the history", "", "```", "python -m benchmarks.history", "```", "")
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}, transformers {version('transformers')}. "
        f"Model: `{model}` ({recipe}). {len(found)} messages, each answered after every number of pairs, with {seeds} "
        "seeds."
    )
    yield ""
    yield f"What the person answered to them, in characters: {spread([len(place.answered) for place in found])}."
    for spared, title in ((True, "The penalty spares the format"), (False, "The penalty spares nothing")):
        yield from ("", f"## {title}", "", *table(said, spared))
    kept, punished = growth(said, True), growth(said, False)
    verdict = "met" if kept <= MOST_GROWTH else "NOT met"
    yield from ("", "## What follows", "")
    yield f"- Tokens after {LONG[0]}–{LONG[-1]} pairs over those after one: {kept:.2f} spared, {punished:.2f} not."
    yield f"- Floor, {MOST_GROWTH} at most where the format is spared: {verdict}."
    ended = by_themselves(said, True), by_themselves(said, False)
    told = f"- Ended by the end token after such: {ended[0]:.1%} spared, {ended[1]:.1%} not. {meaning(*ended, recipe)}"
    yield from wrap(told, 120, subsequent_indent="  ")


def meaning(spared: float, punished: float, recipe: Recipe) -> str:
    """What two shares of replies that end by themselves say of a model of this recipe."""
    if abs(spared - punished) <= SAME:
        return "That is alike: what the penalty spares hardly changes how replies end."
    if punished > spared and recipe == "windows":
        return (
            "A `windows` model has no end token in its history, so nothing punishes that; punishing the newline and "
            "the tags keeps it from ending its turn by opening the next one, as training on whole windows taught it."
        )
    if punished < spared and recipe == "conversations":
        return (
            "A `conversations` model has an end token behind each of its turns, and a penalty that spares nothing "
            "punishes it the more."
        )
    return "The penalty changes it, and these figures do not tell why."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", nargs="?", type=Path, default=Path("demo/merged"))
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    engine, found = Engine.load(args.model), chosen(args.messages)
    said = list(answers(engine, found, args.seeds))
    text = "\n".join(page(said, found, args.seeds, args.model, engine.recipe)) + "\n"
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
