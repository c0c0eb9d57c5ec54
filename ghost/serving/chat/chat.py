"""`ghost chat`: talk to a ghost in the terminal, in a pipe, or on a page of this machine's."""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import fields

from replicate_deployment.chat_format import Labels
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings
from serving.chat import terminal
from serving.chat.conversation import Chat, seed_of
from serving.chat.speakers import find, is_server
from training.errors import UsageError

INPUT = "In a pipe each line is a message or a command; a reply is followed by an empty line, or with --json is a line."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = INPUT
    parser.add_argument(
        "model",
        nargs="?",
        default="models/merged",
        help="a merged folder; or a server: http://HOST:PORT, replicate:OWNER/NAME[:VERSION] (default: %(default)s)",
    )
    sampling = parser.add_argument_group("sampling; what is not given is the model's own")
    for field in fields(Settings):
        low, high = RANGES[field.name]
        sampling.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            metavar=f"{low:g}…{high:g}",
            help="default of a server: " + format(field.default, "g"),
        )
    sampling.add_argument("--seed", metavar="N", help="the same seed and the same messages give the same replies")
    parser.add_argument(
        "--labels", nargs=2, metavar=("ME", "OTHER"), help="the tags of a server's model, if they are not A: and B:"
    )
    parser.add_argument("--json", action="store_true", help="in a pipe: each reply as a line of JSON")
    page = parser.add_argument_group("a page instead of the terminal; its address counts with --web only")
    page.add_argument("--web", action="store_true", help="serve it")
    page.add_argument("--port", type=int, default=7860, help="of the page; 0 takes a free one (default: %(default)s)")
    page.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in, without a password (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    seed = None if args.seed is None else seed_of(args.seed)
    changes = {field.name: value for field in fields(Settings) if (value := getattr(args, field.name)) is not None}
    Settings().replace(**changes)  # a value that is out of range is told before a model is loaded
    labels = read_labels(args.labels)
    if sys.stdin is None and not args.web:
        raise UsageError("standard input is closed, and messages come from there; or take --web")
    at_a_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if args.json and (args.web or at_a_terminal):
        raise UsageError("--json is for a pipe, as in: ghost chat --json < messages.txt")
    if labels and not is_server(args.model):
        raise UsageError(f"--labels are for a server; those of {args.model} are in its ghost.json")
    if args.web:
        from serving.chat import web

        web.require()
        return web.serve(lambda: find(args.model, labels), changes, seed, args.host, args.port)
    speaker = find(args.model, labels)
    chat = Chat(speaker, speaker.settings.replace(**changes), seed)
    if at_a_terminal:
        terminal.talk(chat, terminal.asker())
        return 0
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
    return answer_lines(chat, sys.stdin, as_json=args.json)


def read_labels(pair: list[str] | None) -> Labels | None:
    """Raises UsageError on labels that could not be told apart from text."""
    try:
        return Labels(*pair) if pair else None
    except ValueError as error:
        raise UsageError(f"--labels: {error}") from error


def answer_lines(chat: Chat, lines: Iterable[str], *, as_json: bool) -> int:
    """The replies on stdout, all else on stderr. 1 when a message could not be answered; the others are."""
    code = 0
    for line in lines:
        message, reply = line.strip(), ""
        if not message:
            continue
        try:
            if terminal.is_command(message):
                if (told := terminal.obey(chat, message)) is None:
                    break
                print(told, file=sys.stderr)
                continue
            for piece in chat.answer(terminal.meant(message)):
                reply += piece
                if not as_json:
                    print(piece, end="", flush=True)
            print(json.dumps({"reply": reply}, ensure_ascii=False) if as_json else "\n", flush=True)
        except GhostError as error:
            if reply and not as_json:  # a reply that broke off ends as every other
                print("\n", flush=True)
            print(f"ghost chat: {error}", file=sys.stderr)
            code = 1
    return code
