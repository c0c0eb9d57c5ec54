"""`ghost try`: reply to a fixed set of prompts under several seeds, check each reply, and time it.

With --held-out, reply to real contexts and print figures without messages. Exit with code 1 if a reply fails a check.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost.console import console, echo, progress, tracked
from ghost.errors import DataError, UsageError
from ghost.evaluation.prompts import (
    EMPTY,
    ENDS,
    PROMPTS,
    REPEATS,
    Answer,
    Format,
    answer,
    conversation,
    labels_in,
    says_nothing,
    summarise,
    unmet,
)
from ghost.serving.chat.conversation import parse_seed
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, render
from training.finetuning.data import read_line
from training.preparation.prepare import TRAIN

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine


SEEDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument(
        "--seed", type=parse_seed, default=0, help="the same seed gives the same replies (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="replies per prompt, each with its own seed (default: %(default)s)"
    )
    parser.add_argument(
        "--held-out", type=Path, metavar="JSONL", help="reply to its windows; print figures, no messages"
    )
    parser.add_argument(
        "--limit", type=int, default=200, help="number of windows to reply to, evenly spaced (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the replies or figures as JSON")


def run(args: argparse.Namespace) -> int:
    for flag, count in (("--limit", args.limit), ("--seeds", args.seeds)):
        if count < 1:
            raise UsageError(f"{flag} {count}: must be at least 1")
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
            replies.append({"name": name, "prompt": texts, "seed": seed, "unmet": wrong} | _fields(one))
        if says_nothing(said):
            failed.setdefault(EMPTY, []).append(name)
        if not number and answer(engine, turns, engine.settings, seeds[0]).text != said[0].text:
            failed.setdefault(REPEATS, []).append(f"{name}, seed {seeds[0]}")
        answers += said
        if not args.json:
            console.print(_shown(name, turns, said, engine.labels))
    if args.json:
        document = {
            "model": str(args.model),
            "seed": args.seed,
            "settings": asdict(engine.settings),
            "replies": replies,
            "failed": failed,
            "figures": summarise(answers, known),
        }
        echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        console.print(_summed(summarise(answers, known)))
        for expectation, places in failed.items():
            console.print(f"failed: {expectation} ({'; '.join(places)})", style="bold red")
    return 1 if failed else 0


def try_held_out(engine: "Engine", args: argparse.Namespace) -> int:
    contexts = spread(read_contexts(args.held_out, engine.labels), args.limit)
    answers = [
        answer(engine, turns, engine.settings, args.seed + number)
        for number, turns in enumerate(tracked(contexts, "answering held-out windows"))
    ]
    known = Format(engine.labels, engine.ghost.stop_sequences, own_labels(args.held_out, engine.labels))
    figures = summarise(answers, known)
    if args.json:
        document = {"model": str(args.model), "held_out": str(args.held_out), "seed": args.seed}
        echo(json.dumps(document | figures, indent=2))
    else:
        console.print(_summed(figures))
    return 1 if figures["unmet"] else 0


def read_contexts(path: Path, labels: Labels) -> list[list[Turn]]:
    """Return the turns before each window's reply. Raises DataError naming a line that `prepare` did not write."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; `ghost prepare` writes val.jsonl")
    # A line alone does not show the recipe: in a window, an inner end token was typed by somebody.
    if (path.parent / ghost_json.NAME).is_file() and ghost_json.read(path.parent).recipe != "windows":
        raise DataError(
            f"{path}: holds conversations, not windows; write windows: ghost prepare --recipe windows --out DIR"
        )
    contexts = []
    with path.open(encoding="utf-8", newline="\n") as stream:  # line separators in messages do not end a line
        for number, line in enumerate(stream, start=1):
            *context, _ = read_line(line, labels, f"{path}, line {number}", recipe="windows")
            if context[-1].label != labels.other:
                raise DataError(f"{path}, line {number}: the reply must follow a turn of {labels.other}")
            contexts.append(context)
    if not contexts:
        raise DataError(f"{path}: empty; prepare more conversations, so that some are held out")
    return contexts


def own_labels(path: Path, labels: Labels) -> frozenset[str]:
    """Those with which lines of the person's own begin, in the held-out windows and those of training beside them."""
    texts: list[str] = []
    for file in {path, path.with_name(TRAIN)}:
        if file.is_file():
            for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
                turns = read_line(line, labels, f"{file}, line {number}", recipe="windows") if line else []
                texts += [turn.text for turn in turns if turn.label == labels.me]
    return labels_in(texts)


def spread(items: list[Any], limit: int) -> list[Any]:
    """At most `limit` of them, evenly spaced: neighbouring windows share most of their turns."""
    count = min(limit, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _summed(figures: dict[str, Any]) -> str:
    count = figures["replies"]

    def share(number: int) -> str:
        return f"{number:>6,}  {number / count:6.1%}"

    lines = [f"replies                 {count:>6,}"]
    lines += [f"{ENDS[reason]:<24}{share(number)}" for reason, number in figures["ended"].items()]
    lines += [f"empty                   {share(figures['empty'])}"]
    lines += [f"a line like `C: Hi`     {share(figures['other_labels'])}"]
    lines += [f"not {name:<20}{share(number)}" for name, number in figures["unmet"].items()]
    lines += [
        f"speed                   {figures['tokens_per_second']:>6,} tokens/s; first token after "
        f"{figures['seconds_to_first_token']:.2f} s, a reply takes {figures['seconds_a_reply']['median']:.2f} s "
        f"(medians; longest {figures['seconds_a_reply']['longest']:.2f} s)"
    ]
    return "\n".join(lines)


def _fields(answer: Answer) -> dict[str, Any]:
    return {key: value for key, value in asdict(answer).items() if key not in ("written", "limit")}


def _shown(name: str, turns: list[Turn], answers: Sequence[Answer], labels: Labels) -> str:
    """The conversation, the replies, and a line of figures for each."""
    lines = [f"── {name}", render(turns, labels)]
    for one in answers:
        lines.append(render([Turn(labels.me, one.text)], labels))
        lines.append(f"   ({ENDS[one.ended]}, {one.output_tokens} tokens, {one.seconds:.2f} s)")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from ghost.cli import main

    sys.exit(main(["try", *sys.argv[1:]]))
