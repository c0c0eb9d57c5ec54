"""`ghost chat`: talk to a ghost in the terminal, in a pipe, or on a page of this machine's."""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from ghost.console import console
from ghost.errors import UsageError
from ghost.serving.chat.conversation import DISCLOSURE, Chat, find_speaker, is_server, seed_of
from ghost.signals import Stopped
from replicate_deployment.chat_format import Labels, render
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings

# The chat in a terminal: a line of the person's, the reply as it is being made, and a few commands.

PERSON, GHOST = "you    ", "ghost  "
COMMANDS = {
    "/reset": "forget what was said",
    "/seed N": "the same seed and the same messages give the same replies; /seed alone ends that",
    "/set NAME VALUE": f"change one of {', '.join(RANGES)}",
    "/save FILE": "write the conversation to a new file; nothing is written otherwise",
    "/help": "this",
    "/quit": "leave; so do /exit and Ctrl-D",
}
KEYS = "A paste may have several lines, Alt-Enter begins one. Ctrl-C stops a reply. // begins a message with /."
# What a model writes, a terminal would obey: it could clear the screen, or retitle the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def talk(chat: Chat, ask: Callable[[], str]) -> None:
    """Until /quit, or until `ask` raises EOFError. Ctrl-C ends what is going on, never the chat."""
    said = f"{DISCLOSURE}\n{chat.speaker.name}; /help says what else can be typed, Ctrl-D leaves."
    console.print(said, style="dim", soft_wrap=True)
    while True:
        try:
            message = ask()
            if not message.strip():
                continue
            if is_command(message):
                if (told := obey(chat, message)) is None:
                    return
                console.print(told, style="dim", soft_wrap=True)
            else:
                answer(chat, message)
        except EOFError:
            return
        except KeyboardInterrupt as stop:
            if isinstance(stop, Stopped) and stop.number != signal.SIGINT:  # SIGTERM and SIGHUP do end it
                raise
            console.print()
        except GhostError as error:  # a prompt that is too long, a server that is busy: the next may do
            console.print(str(error), style="red", soft_wrap=True)


def answer(chat: Chat, message: str) -> None:
    """Show the reply while it is being made; each message of a burst on a line of its own."""
    shown = False
    try:
        for piece in chat.answer(meant(message)):
            lead = "" if shown else GHOST
            text = visible(piece).replace("\n", "\n" + " " * len(GHOST))
            console.print(lead + text, end="", style="green", soft_wrap=True)
            shown = True
    except GhostError:
        if shown:
            console.print()
        raise
    console.print() if shown else console.print("(it said nothing)", style="dim")


def visible(text: str) -> str:
    return _CONTROL.sub("", text)


def is_command(message: str) -> bool:
    """One line whose first word is a slash and letters. A path, or a pasted comment, is a message."""
    return re.match(r"/[a-z]+(?:\s|$)", message) is not None and "\n" not in message.strip()


def meant(message: str) -> str:
    """The message that was typed: where it would read as a command, a second slash says that it is none."""
    return message[1:] if message.startswith("//") and is_command(message[1:]) else message


def obey(chat: Chat, line: str) -> str | None:
    """What there is to tell, or None to leave. Raises UsageError on a command that is not known."""
    name, *rest = line.split(maxsplit=1)
    argument = rest[0].strip() if rest else ""
    if name in ("/quit", "/exit"):
        return None
    if name == "/reset":
        chat.turns.clear()
        return "forgotten"
    if name == "/seed":
        chat.seed = seed_of(argument) if argument else None
        return f"seed {chat.seed}" if argument else "a new seed for each reply"
    if name == "/set":
        return change(chat, *argument.split())
    if name == "/save":
        return save(chat, argument)
    if name == "/help":
        return "\n".join([*(f"{command:<16} {what}" for command, what in COMMANDS.items()), KEYS])
    raise UsageError(f"no command {name}; there are {', '.join(COMMANDS)}. To say it, type /{name}")


def change(chat: Chat, name: str = "", value: str = "", *more: str) -> str:
    number: float | str = value
    for kind in (float, int):  # an int stays one
        with suppress(ValueError):
            number = kind(value)
    if not value or more:
        raise UsageError(f"/set takes a name and a number; the names are {', '.join(RANGES)}")
    chat.settings = chat.settings.replace(**{name: number})
    return f"{name} {value}"


def save(chat: Chat, name: str) -> str:
    if not name or not chat.turns:
        raise UsageError("/save takes the name of a new file, once something was said")
    path = Path(name).expanduser()
    try:
        # For its owner only, and never over another file.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(render(chat.turns, chat.speaker.labels) + "\n")
        except OSError:  # half of it, on a full disk
            path.unlink()
            raise
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file") from error
    return f"{len(chat.turns)} turns in {path}"


def asker() -> Callable[[], str]:
    """A line editor: history in memory only, pastes of several lines, Alt-Enter for a new line."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import ANSI
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(ANSI(f"\x1b[1m{PERSON}\x1b[0m"), key_bindings=keys)
    session.prompt_continuation = " " * len(PERSON)

    return session.prompt


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
        from ghost.serving.chat import web

        web.require()
        return web.serve(lambda: find_speaker(args.model, labels), changes, seed, args.host, args.port)
    speaker = find_speaker(args.model, labels)
    chat = Chat(speaker, speaker.settings.replace(**changes), seed)
    if at_a_terminal:
        talk(chat, asker())
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
            if is_command(message):
                if (told := obey(chat, message)) is None:
                    break
                print(told, file=sys.stderr)
                continue
            for piece in chat.answer(meant(message)):
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
