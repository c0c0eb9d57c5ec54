"""The two flags of `ghost evaluate` that concern friends: --blind makes a quiz, --score reads their answers."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from replicate_deployment.chat_format import Labels
from training.console import console
from training.errors import UsageError
from training.evaluation import blind
from training.evaluation.contenders import Contender
from training.evaluation.data import read_held_out, sample
from training.evaluation.exchange import Exchange
from training.evaluation.replies import Answers, answer
from training.evaluation.served import judge_served

FOLDER = Path("quiz")  # git ignores it: it shows messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    friends = parser.add_argument_group("a blind quiz for friends, in place of the report")
    friends.add_argument(
        "--blind",
        type=Path,
        nargs="?",
        const=FOLDER,
        metavar="FOLDER",
        help=f"write {blind.QUIZ}, in which they choose your reply or the model's, and {blind.KEY}, which stays with "
        f"you (default: {FOLDER})",
    )
    friends.add_argument(
        "--pairs", type=int, default=blind.PAIRS, help="how many replies it asks about (default: %(default)s)"
    )
    friends.add_argument("--name", default="", help="what the page calls you")
    friends.add_argument("--score", nargs="+", metavar="CODE", help="the codes that friends sent back")
    friends.add_argument(
        "--key",
        type=Path,
        default=FOLDER / blind.KEY,
        metavar="FILE",
        help="of the quiz that they answered, or its folder (default: %(default)s)",
    )


def make(args: argparse.Namespace) -> int:
    """Answer held-out exchanges and write the quiz."""
    from replicate_deployment.engine import CONTEXT_TURNS

    if args.pairs < blind.FEWEST:
        raise UsageError(f"--pairs {args.pairs}: {blind.FEWEST} or more; with fewer, guessing is right too often")
    blind.refuse_occupied(args.blind)
    held_out = read_held_out(args.val, CONTEXT_TURNS)
    # Some will not do: both say the same, one is empty or too long to be shown.
    exchanges = sample(held_out.exchanges, 2 * args.pairs, args.seed)
    answers = _answers(args, exchanges, held_out.ghost.labels)
    asked = blind.pairs(exchanges, [said.exchange for said in answers.said], args.seed, args.pairs)
    number = blind.write(args.blind, asked, held_out.ghost.labels, args.name)
    if args.json:
        told = {"quiz": number, "pairs": len(asked), "pairs_wanted": args.pairs, "folder": str(args.blind)}
        print(json.dumps(told))
    else:
        if len(asked) < args.pairs:
            console.print(
                f"note: {len(asked)} pairs, fewer than the {args.pairs} of --pairs: of {len(held_out.exchanges)} "
                f"held-out replies {len(exchanges)} were answered, and the others are too long to be shown, empty, or "
                "what the model says, too",
                soft_wrap=True,
            )
        console.print(
            f"{args.blind / blind.QUIZ}: {len(asked)} pairs of real messages and imitated ones. It shows what you and "
            "others really wrote: read it first, and give it to nobody whom you would not show these chats.\n"
            f"Keep {args.blind / blind.KEY}: it says which is which. With the codes that come back: "
            f"ghost evaluate --score CODE… --key {args.blind / blind.KEY}",
            soft_wrap=True,
        )
    return 0


def tell(args: argparse.Namespace) -> int:
    scores = blind.score(args.score, args.key)
    if args.json:
        print(json.dumps([score.as_json() for score in scores], indent=2))
        return 0
    names = [f"friend {number}" for number in range(1, len(args.score) + 1)] + ["together"]
    for name, score in zip(names, scores, strict=False):
        console.print(f"{name:<10} {score}", soft_wrap=True)
    return 0


def _answers(args: argparse.Namespace, exchanges: Sequence[Exchange], labels: Labels) -> Answers:
    if args.url is not None:
        return judge_served(args.url, exchanges, labels, args.seed).answers
    from replicate_deployment.engine import Engine

    engine = Engine.load(args.model)
    return answer(Contender("merged", engine), exchanges, engine.settings, args.seed)
