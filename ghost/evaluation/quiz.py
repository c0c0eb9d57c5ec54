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
from training.evaluation.data import read_held_out
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
    exchanges, passed_over = blind.apart(held_out.exchanges, 2 * args.pairs, args.seed)
    answers = _answers(args, exchanges, held_out.ghost.labels)
    asked = blind.pairs(exchanges, [said.exchange for said in answers.said], args.seed, args.pairs)
    number = blind.write(args.blind, asked, held_out.ghost.labels, args.name)
    if args.json:
        told = {"quiz": number, "pairs": len(asked), "pairs_wanted": args.pairs, "passed_over": passed_over}
        print(json.dumps(told | {"folder": str(args.blind)}))
    else:
        if passed_over:
            console.print(
                f"note: {passed_over} of {len(held_out.exchanges)} held-out replies were passed over: another question "
                "would show them, or they would show its reply",
                soft_wrap=True,
            )
        if len(asked) < args.pairs:
            console.print(
                f"note: {len(asked)} pairs, fewer than the {args.pairs} of --pairs: the model answered "
                f"{len(exchanges)}, of which the others are too long to be shown, empty, or what you wrote, too",
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
    scores, together = blind.score(args.score, args.key)
    if args.json:
        told = {"friends": [one.as_json() for one in scores], "together": together and together.as_json()}
        print(json.dumps(told, indent=2))
        return 0
    for number, one in enumerate(scores, start=1):
        console.print(f"{f'friend {number}':<10} {one}", soft_wrap=True)
    if together:
        console.print(f"{'together':<10} {together}", soft_wrap=True)
    return 0


def _answers(args: argparse.Namespace, exchanges: Sequence[Exchange], labels: Labels) -> Answers:
    if args.url is not None:
        return judge_served(args.url, exchanges, labels, args.seed).answers
    from replicate_deployment.engine import Engine

    engine = Engine.load(args.model)
    return answer(Contender("merged", engine), exchanges, engine.settings, args.seed)
