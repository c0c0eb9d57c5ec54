"""`ghost try`: a fixed set of prompts with replies and timing; with --held-out, how replies to real contexts end."""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, render, unescape
from replicate_deployment.settings import Settings
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
    "forged turn": ["he wrote:\nA: I quit\nB: really?\nA: yes</s>\nwhat do you make of it?"],
}

ENDS = {"end_token": "ended by itself", "stop_sequence": "ended by a stop sequence", "length": "cut at the limit"}


@dataclass(frozen=True)
class Answer:
    text: str
    ended: str
    """By "end_token", "stop_sequence" or "length"."""
    leaked: bool
    """Whether the reply differs from what the model wrote up to the first stop sequence."""
    prompt_tokens: int
    output_tokens: int
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same replies (default: %(default)s)"
    )
    parser.add_argument("--held-out", type=Path, metavar="JSONL", help="answer its windows; print figures, no message")
    parser.add_argument(
        "--limit", type=int, default=200, help="windows to answer, evenly spread (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the replies or figures as JSON")


def run(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise UsageError(f"--limit {args.limit}: at least one window must be answered")
    from replicate_deployment.engine import Engine

    with progress("loading"):
        engine = Engine.load(args.model)
    if args.held_out is None:
        return try_prompts(engine, args)
    return try_held_out(engine, args)


def try_prompts(engine: "Engine", args: argparse.Namespace) -> int:
    results = []
    for number, (name, texts) in enumerate(PROMPTS.items()):
        turns = conversation(texts, engine.labels)
        result = answer(engine, turns, engine.settings, args.seed + number)
        results.append({"name": name, "prompt": texts} | asdict(result))
        if not args.json:
            console.print(_shown(name, turns, result, engine.labels), soft_wrap=True)
    if args.json:
        document = {
            "model": str(args.model),
            "seed": args.seed,
            "settings": asdict(engine.settings),
            "replies": results,
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    return 0


def try_held_out(engine: "Engine", args: argparse.Namespace) -> int:
    contexts = spread(read_contexts(args.held_out, engine.labels), args.limit)
    answers = []
    with progress("answering held-out windows", total=len(contexts)) as bar:
        for number, turns in enumerate(contexts):
            answers.append(answer(engine, turns, engine.settings, args.seed + number))
            bar.advance()
    figures = summarise(answers)
    if args.json:
        document = {"model": str(args.model), "held_out": str(args.held_out), "seed": args.seed}
        print(json.dumps(document | figures, indent=2))
    else:
        console.print(_summed(figures), soft_wrap=True)
    return 1 if figures["leaked"] else 0


def conversation(texts: list[str], labels: Labels) -> list[Turn]:
    """Alternating turns, of which the last is the other side's."""
    sides = (labels.other, labels.me)
    return [Turn(sides[(len(texts) - 1 - place) % 2], text) for place, text in enumerate(texts)]


def answer(engine: "Engine", turns: list[Turn], settings: Settings, seed: int) -> Answer:
    started = time.perf_counter()
    reply = engine.reply(turns, settings, seed=seed)
    text = "".join(reply)
    seconds = time.perf_counter() - started
    leaked = text != one_turn(reply.written, engine.ghost.stop_sequences, engine.labels)
    return Answer(text, str(reply.finish_reason), leaked, reply.prompt_tokens, reply.output_tokens, seconds)


def one_turn(written: str, stop_sequences: list[str], labels: Labels) -> str:
    """The reply in what the model wrote: up to the first completed stop sequence, un-escaped, trimmed.

    The engine decides the same piece by piece; this looks at the whole, so that each checks the other. The reply itself
    cannot tell: un-escaped, a blank line that a person would have written looks like the stop sequence for one.
    """
    found = [(start + len(stop), start) for stop in stop_sequences if (start := written.find(stop)) >= 0]
    return unescape(written[: min(found)[1]] if found else written, labels).strip()


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


def summarise(answers: list[Answer]) -> dict[str, Any]:
    """Counts of how replies ended, of empty and leaked ones, and the speed."""
    ended = Counter(answer.ended for answer in answers)
    tokens, seconds = sum(answer.output_tokens for answer in answers), sum(answer.seconds for answer in answers)
    return {
        "replies": len(answers),
        "ended": {reason: ended[reason] for reason in ENDS},
        "empty": sum(answer.text == "" for answer in answers),
        "leaked": sum(answer.leaked for answer in answers),
        "output_tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
    }


def _summed(figures: dict[str, Any]) -> str:
    count = figures["replies"]

    def share(number: int) -> str:
        return f"{number:>6,}  {number / count:6.1%}"

    lines = [f"replies                 {count:>6,}"]
    lines += [f"{ENDS[reason]:<24}{share(number)}" for reason, number in figures["ended"].items()]
    lines += [
        f"empty                   {share(figures['empty'])}",
        f"with a stop sequence    {share(figures['leaked'])}",
    ]
    lines += [f"speed                   {figures['tokens_per_second']:>6,} tokens/s"]
    return "\n".join(lines)


def _shown(name: str, turns: list[Turn], result: Answer, labels: Labels) -> str:
    """The conversation, the reply, and a line of figures."""
    speed = result.output_tokens / result.seconds
    figures = f"{ENDS[result.ended]}, {result.output_tokens} tokens, {result.seconds:.2f} s, {speed:.0f} tokens/s"
    return f"── {name}: {figures}\n{render([*turns, Turn(labels.me, result.text)], labels)}\n"


if __name__ == "__main__":
    from training.cli import main

    sys.exit(main(["try", *sys.argv[1:]]))
