"""The chat in a terminal: a line of the person's, the reply as it is being made, and a few commands."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from replicate_deployment.chat_format import render
from replicate_deployment.errors import GhostError
from replicate_deployment.settings import RANGES
from serving.chat.conversation import DISCLOSURE, Chat, seed_of
from training.console import console
from training.errors import UsageError
from training.signals import Stopped

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
