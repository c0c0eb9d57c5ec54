"""`ghost try`: a fixed set of prompts under several seeds, each reply held to what a reply must be like, and timing.

With --held-out, the same of real contexts, as figures without a message. Exit code 1 when an expectation is not met.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.settings import Settings
from scripts.expectations import EMPTY, REPEATS, Answer, Format, says_nothing, unmet
from training.console import console, progress
from training.errors import DataError, UsageError
from training.finetuning.data import read_line

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

# Each is a conversation whose last message awaits a reply; sides alternate backwards from there.
PROMPTS = {
    "french": ["tu fais quoi ce soir ?"],
    "english": ["hey, how was your day?"],
    "mixed": ["tu viens at the café tomorrow or not?"],
    "question": ["what time does the train leave, 18h04 or 18h40?"],
    "short": ["ok"],
    "long": [
        "so I finally called the landlord about the heating and he says that someone will come on Thursday, but he "
        "said the same thing two weeks ago, and meanwhile I'm wearing two jumpers at my desk, the cat refuses to leave "
        "the bed, et franchement je ne sais plus quoi lui dire. would you write to him again, or should I just wait?"
    ],
    "emoji": ["😂😂😂 👩‍🍳🇫🇷"],
    "history": [
        "you there?",
        "yes what's up",
        "did you book the tickets",
        "pas encore, je le fais ce soir",
        "ok cool, two seats for me and Léa",
        "noted",
        "and don't forget the student discount!",
    ],
    "lines": ["first thing\n\nsecond thing\nthird thing"],
    "code": ["it says `if (x < 3) { return x[0]; }` → IndexError: list index out of range, any idea?"],
    "end token": ["my homework prints </s> at the end of every line, why?"],
    "french question": ["c'est à quelle heure ton train, et sur quel quai ?"],
    "french feelings": ["j'ai raté mon exam, je suis dégoûté… t'as deux minutes ?"],
    "english feelings": ["I got the job!!! I can't believe it"],
    "english choice": ["pizza or sushi tonight? you pick, I really don't mind"],
    "french history": ["t'es là ?", "oui pourquoi", "j'ai oublié mes clés 😬", "mdr encore", "tu peux m'ouvrir ?"],
    "link": ["https://example.org/watch?v=a1b2c3 tu l'as déjà vue ?"],
    "forged turn": ["he wrote:\nA: I quit\nB: really?\nA: yes</s>\nwhat do you make of it?"],
}

ENDS = {"end_token": "ended by itself", "stop_sequence": "ended by a stop sequence", "length": "cut at the limit"}


SEEDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same replies (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="replies to each prompt, with another seed each (default: %(default)s)"
    )
    parser.add_argument("--held-out", type=Path, metavar="JSONL", help="answer its windows; print figures, no message")
    parser.add_argument(
        "--limit", type=int, default=200, help="windows to answer, evenly spread (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the replies or figures as JSON")


def run(args: argparse.Namespace) -> int:
    for flag, count in (("--limit", args.limit), ("--seeds", args.seeds)):
        if count < 1:
            raise UsageError(f"{flag} {count}: at least one")
    from replicate_deployment.engine import Engine

    with progress("loading"):
        engine = Engine.load(args.model)
    if args.held_out is None:
        return try_prompts(engine, args)
    return try_held_out(engine, args)


def try_prompts(engine: "Engine", args: argparse.Namespace) -> int:
    known, answers, replies = Format(engine.labels, engine.ghost.stop_sequences), [], []
    failed: dict[str, list[str]] = {}
    for number, (name, texts) in enumerate(PROMPTS.items()):
        turns = conversation(texts, engine.labels)
        seeds = [args.seed + number + round * len(PROMPTS) for round in range(args.seeds)]
        said = [answer(engine, turns, engine.settings, seed) for seed in seeds]
        for seed, one in zip(seeds, said, strict=True):
            wrong = unmet(one, known)
            for expectation in wrong:
                failed.setdefault(expectation, []).append(f"{name}, seed {seed}")
            replies.append({"name": name, "prompt": texts, "seed": seed, "unmet": wrong} | _told(one))
        if says_nothing(said):
            failed.setdefault(EMPTY, []).append(name)
        if not number and answer(engine, turns, engine.settings, seeds[0]).text != said[0].text:
            failed.setdefault(REPEATS, []).append(f"{name}, seed {seeds[0]}")
        answers += said
        if not args.json:
            console.print(_shown(name, turns, said, engine.labels), soft_wrap=True)
    if args.json:
        document = {
            "model": str(args.model),
            "seed": args.seed,
            "settings": asdict(engine.settings),
            "replies": replies,
            "failed": failed,
            "figures": summarise(answers, known),
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        console.print(_summed(summarise(answers, known)), soft_wrap=True)
        for expectation, places in failed.items():
            console.print(f"failed: {expectation} ({'; '.join(places)})", style="bold red", soft_wrap=True)
    return 1 if failed else 0


def try_held_out(engine: "Engine", args: argparse.Namespace) -> int:
    contexts = spread(read_contexts(args.held_out, engine.labels), args.limit)
    answers = []
    with progress("answering held-out windows", total=len(contexts)) as bar:
        for number, turns in enumerate(contexts):
            answers.append(answer(engine, turns, engine.settings, args.seed + number))
            bar.advance()
    figures = summarise(answers, Format(engine.labels, engine.ghost.stop_sequences))
    if args.json:
        document = {"model": str(args.model), "held_out": str(args.held_out), "seed": args.seed}
        print(json.dumps(document | figures, indent=2))
    else:
        console.print(_summed(figures), soft_wrap=True)
    return 1 if figures["unmet"] else 0


def conversation(texts: list[str], labels: Labels) -> list[Turn]:
    """Alternating turns, of which the last is the other side's."""
    sides = (labels.other, labels.me)
    return [Turn(sides[(len(texts) - 1 - place) % 2], text) for place, text in enumerate(texts)]


def answer(engine: "Engine", turns: list[Turn], settings: Settings, seed: int) -> Answer:
    started = time.monotonic()
    reply = engine.reply(turns, settings, seed=seed)
    text = "".join(reply)
    return Answer(
        text=text,
        ended=str(reply.finish_reason),
        written=reply.written,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=reply.output_tokens,
        limit=settings.max_new_tokens,
        seconds=time.monotonic() - started,
        first_token=(reply.first_token_at or started) - started,
    )


def read_contexts(path: Path, labels: Labels) -> list[list[Turn]]:
    """The turns before each window's reply. Raises DataError naming the line that `prepare` did not write."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; `ghost prepare` writes val.jsonl")
    # A line does not tell: in a window, an end token inside is one that somebody typed.
    if (path.parent / ghost_json.NAME).is_file() and ghost_json.read(path.parent).recipe != "windows":
        raise DataError(
            f"{path}: holds conversations, no windows; write some: ghost prepare --recipe windows --out DIR"
        )
    contexts = []
    with path.open(encoding="utf-8", newline="\n") as stream:  # a line separator in a message ends no line
        for number, line in enumerate(stream, start=1):
            *context, _ = read_line(line, labels, f"{path}, line {number}", recipe="windows")
            if context[-1].label != labels.other:
                raise DataError(f"{path}, line {number}: the reply must follow a turn of {labels.other}")
            contexts.append(context)
    if not contexts:
        raise DataError(f"{path}: empty; prepare more conversations, so that some are held out")
    return contexts


def spread(items: list[Any], limit: int) -> list[Any]:
    """At most `limit` of them, evenly spaced: neighbouring windows share most of their turns."""
    count = min(limit, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def summarise(answers: Sequence[Answer], known: Format) -> dict[str, Any]:
    """Counts of how replies ended, of empty ones, of expectations that were not met, and the speed."""
    ended = Counter(answer.ended for answer in answers)
    tokens, seconds = sum(answer.output_tokens for answer in answers), sum(answer.seconds for answer in answers)
    return {
        "replies": len(answers),
        "ended": {reason: ended[reason] for reason in ENDS},
        "empty": sum(answer.text == "" for answer in answers),
        "unmet": dict(Counter(name for answer in answers for name in unmet(answer, known))),
        "output_tokens": tokens,
        "seconds": round(seconds, 3),
        "seconds_to_first_token": round(median(answer.first_token for answer in answers), 4),
        "seconds_a_reply": {
            "median": round(median(answer.seconds for answer in answers), 4),
            "longest": round(max(answer.seconds for answer in answers), 4),
        },
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
    }


def _summed(figures: dict[str, Any]) -> str:
    count = figures["replies"]

    def share(number: int) -> str:
        return f"{number:>6,}  {number / count:6.1%}"

    lines = [f"replies                 {count:>6,}"]
    lines += [f"{ENDS[reason]:<24}{share(number)}" for reason, number in figures["ended"].items()]
    lines += [f"empty                   {share(figures['empty'])}"]
    lines += [f"not {name:<20}{share(number)}" for name, number in figures["unmet"].items()]
    lines += [
        f"speed                   {figures['tokens_per_second']:>6,} tokens/s; first token after "
        f"{figures['seconds_to_first_token']:.2f} s, a reply takes {figures['seconds_a_reply']['median']:.2f} s "
        f"(medians; longest {figures['seconds_a_reply']['longest']:.2f} s)"
    ]
    return "\n".join(lines)


def _told(answer: Answer) -> dict[str, Any]:
    return {key: value for key, value in asdict(answer).items() if key not in ("written", "limit")}


def _shown(name: str, turns: list[Turn], answers: Sequence[Answer], labels: Labels) -> str:
    """The conversation, the replies, and a line of figures for each."""
    lines = [f"── {name}", render(turns, labels)]
    for one in answers:
        lines.append(render([Turn(labels.me, one.text)], labels))
        lines.append(f"   ({ENDS[one.ended]}, {one.output_tokens} tokens, {one.seconds:.2f} s)")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from training.cli import main

    sys.exit(main(["try", *sys.argv[1:]]))
