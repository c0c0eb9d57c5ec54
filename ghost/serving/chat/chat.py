"""`ghost chat`: talk to a ghost in the terminal, in a pipe, or in the browser."""

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

from ghost.console import console, echo
from ghost.errors import UsageError
from ghost.serving.chat.conversation import COMPLETIONS, DISCLOSURE, Chat, find_speaker, is_gguf, is_server, parse_seed
from ghost.serving.client import SERVERS
from ghost.signals import Stopped
from replicate_deployment.chat_format import Labels, render
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES, Settings

# The chat in a terminal: messages, streamed replies, and a few commands.

PERSON, GHOST = "you    ", "ghost  "
COMMANDS = {
    "/reset": "forget the conversation",
    "/seed N": "the same seed and messages give the same replies; /seed alone turns this off",
    "/set NAME VALUE": f"set one of {', '.join(RANGES)}",
    "/save FILE": "write the conversation to a new file; otherwise nothing is stored",
    "/help": "show this list",
    "/quit": "leave; so do /exit and Ctrl-D",
}
KEYS = "Alt-Enter starts a new line. Ctrl-C stops a reply. Type // to start a message with /."


def talk(chat: Chat, ask: Callable[[], str]) -> None:
    """Chat until /quit, or until `ask` raises EOFError. Ctrl-C stops a reply, not the chat."""
    said = f"{DISCLOSURE}\n{chat.speaker.name}; type /help for commands, Ctrl-D to leave."
    console.print(said, style="dim")
    while True:
        try:
            message = ask()
            if not message.strip():
                continue
            if is_command(message):
                if (output := run_command(chat, message)) is None:
                    return
                console.print(output, style="dim")
            else:
                answer(chat, message)
        except EOFError:
            return
        except KeyboardInterrupt as stop:
            if isinstance(stop, Stopped) and stop.number != signal.SIGINT:  # SIGTERM and SIGHUP end the chat
                raise
            console.print()
        except GhostError as error:  # a prompt too long, a busy server: the next message may succeed
            console.print(str(error), style="red")


def answer(chat: Chat, message: str) -> None:
    """Print the reply as it arrives, each message of a burst on its own line."""
    shown = False
    try:
        for piece in chat.answer(unescaped(message)):
            lead = "" if shown else GHOST
            console.print(lead + piece.replace("\n", "\n" + " " * len(GHOST)), end="", style="green")
            shown = True
    except GhostError:
        if shown:
            console.print()
        raise
    console.print() if shown else console.print("(empty reply)", style="dim")


def is_command(message: str) -> bool:
    """Whether it is one line that starts with a slash and letters. A path or a pasted comment is a message."""
    return re.match(r"/[a-z]+(?:\s|$)", message) is not None and "\n" not in message.strip()


def unescaped(message: str) -> str:
    """Remove the second slash of a message that would otherwise be a command."""
    return message[1:] if message.startswith("//") and is_command(message[1:]) else message


def run_command(chat: Chat, line: str) -> str | None:
    """Return the output, or None to leave. Raises UsageError on an unknown command."""
    name, *rest = line.split(maxsplit=1)
    argument = rest[0].strip() if rest else ""
    if name in ("/quit", "/exit"):
        return None
    if name == "/reset":
        chat.turns.clear()
        return "conversation forgotten"
    if name == "/seed":
        chat.seed = parse_seed(argument) if argument else None
        return f"seed {chat.seed}" if argument else "a random seed for each reply"
    if name == "/set":
        return change(chat, *argument.split())
    if name == "/save":
        return save(chat, argument)
    if name == "/help":
        return "\n".join([*(f"{command:<16} {what}" for command, what in COMMANDS.items()), KEYS])
    raise UsageError(f"no command {name}; choose from {', '.join(COMMANDS)}. To send it as a message, type /{name}")


def change(chat: Chat, name: str = "", value: str = "", *more: str) -> str:
    number: float | str = value
    for kind in (float, int):  # an int stays one
        with suppress(ValueError):
            number = kind(value)
    if not value or more:
        raise UsageError(f"/set: give a name and a number; the names are {', '.join(RANGES)}")
    Settings().replace(**{name: number})  # refuses an unknown name or a value out of range
    chat.changes[name] = number  # type: ignore[assignment]  # no str: that was refused
    return f"{name} {value}"


def save(chat: Chat, name: str) -> str:
    if not name or not chat.turns:
        raise UsageError("/save: give the name of a new file, after at least one reply")
    path = Path(name).expanduser()
    try:
        # Readable by its owner only; never overwrites a file.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(render(chat.turns, chat.speaker.labels) + "\n")
        except OSError:  # a full disk
            path.unlink()
            raise
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file") from error
    return f"{len(chat.turns)} turns written to {path}"


def asker() -> Callable[[], str]:
    """Return a line editor: history in memory only, multi-line pastes, Alt-Enter for a new line."""
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


INPUT = "In a pipe, each line is a message or a command; an empty line ends each reply; with --json, each is one line."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = INPUT
    parser.add_argument(
        "model",
        nargs="?",
        default="models/merged",
        help=f"a merged model, or a GGUF file; or a server: {SERVERS} (default: %(default)s)",
    )
    add_lora(parser)
    sampling = parser.add_argument_group("sampling (default: as the model's ghost.json says)")
    for field in fields(Settings):
        low, high = RANGES[field.name]
        sampling.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            metavar=f"{low:g}…{high:g}",
        )
    sampling.add_argument(
        "--seed", type=parse_seed, metavar="N", help="the same seed and messages give the same replies"
    )
    add_server_facts(parser)
    parser.add_argument("--json", action="store_true", help="in a pipe, print each reply as one line of JSON")
    page = parser.add_argument_group("browser (--host and --port need --web)")
    page.add_argument("--web", action="store_true", help="chat in the browser instead of the terminal")
    page.add_argument("--port", type=int, default=7860, help="of the page; 0 picks a free one (default: %(default)s)")
    page.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 allows other machines, without a password (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    changes = {field.name: value for field in fields(Settings) if (value := getattr(args, field.name)) is not None}
    Settings().replace(**changes)  # refuse a value out of range before loading a model
    labels, lora = read_labels(args.labels), read_lora(args.lora, args.model)
    if sys.stdin is None and not args.web:
        raise UsageError("standard input is closed, so no message can be read; open it, or type: ghost chat --web")
    at_a_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if args.json and (args.web or at_a_terminal):
        raise UsageError("--json works in a pipe only, as in: ghost chat --json < messages.txt")
    if labels and (not is_server(args.model) or args.model.startswith(COMPLETIONS)):
        told = (
            args.model if is_gguf(args.model) else f"{args.ghost if is_server(args.model) else args.model}/ghost.json"
        )
        raise UsageError(f"--labels works with Cog servers and Replicate only; {told} has the labels")
    if args.web:
        from ghost.serving.chat import web

        web.require()
        return web.serve(
            lambda: find_speaker(args.model, labels, args.ghost, lora), changes, args.seed, args.host, args.port
        )
    speaker = find_speaker(args.model, labels, args.ghost, lora)
    chat = Chat(speaker, changes, args.seed)
    if at_a_terminal:
        talk(chat, asker())
        return 0
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
    return answer_lines(chat, sys.stdin, as_json=args.json)


def add_lora(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lora",
        type=Path,
        metavar="FILE",
        help="with the GGUF file of a base, the adapter over it: what ghost export ADAPTER --gguf-adapter writes",
    )


def read_lora(lora: Path | None, model: str) -> Path | None:
    """Raises UsageError if there is no GGUF file for it to run over."""
    if lora and not is_gguf(model):
        raise UsageError(
            f"--lora runs over the GGUF file of a base, not over {model}; type: ghost export --base BASE --gguf q4_0"
        )
    return lora


def add_server_facts(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what a server does not tell of its model."""
    parser.add_argument(
        "--ghost",
        type=Path,
        default=Path("models/merged"),
        metavar="FOLDER",
        help="with completions:, the merged or adapter folder with the model's ghost.json and tokenizer "
        "(default: %(default)s)",
    )
    parser.add_argument("--labels", nargs=2, metavar=("ME", "OTHER"), help="tags of a server's model, if not A: and B:")


def read_labels(pair: list[str] | None) -> Labels | None:
    """Raises UsageError on labels that are ambiguous."""
    try:
        return Labels(*pair) if pair else None
    except ValueError as error:
        raise UsageError(f"--labels: {error}") from error


def answer_lines(chat: Chat, lines: Iterable[str], *, as_json: bool) -> int:
    """Print replies to stdout, everything else to stderr. Return 1 if a message could not be answered."""
    code = 0
    for line in lines:
        message, reply = line.strip(), ""
        if not message:
            continue
        try:
            if is_command(message):
                if (output := run_command(chat, message)) is None:
                    break
                echo(output, error=True)
                continue
            for piece in chat.answer(unescaped(message)):
                reply += piece
                if not as_json:
                    echo(piece, end="")
            echo(json.dumps({"reply": reply}, ensure_ascii=False) if as_json else "\n")
        except GhostError as error:
            if reply and not as_json:  # end a partial reply like any other
                echo("\n")
            echo(f"ghost chat: {error}", error=True)
            code = 1
    return code
