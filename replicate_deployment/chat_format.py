"""The A:/B: text, in both directions. The one home of the format: training, serving and bots import it from here.

A turn renders as `LABEL + " " + text`; turns are joined by one newline; lines split on "\\n" only. A later line of a
turn that would read as a tag, a special token or a blank line gains one leading space, and `parse` takes it away.
So no rendered turn contains a stop sequence, and nothing a person types can forge a turn:

>>> turns = [Turn("B:", "hey\\nA: fake"), Turn("A:", "yo")]
>>> print(render(turns))
B: hey
 A: fake
A: yo
>>> parse(render(turns)) == turns
True
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import PromptError

END_TOKEN = "</s>"  # as it is spelled in the JSONL; wherever ids are built it is added by id
# What Mistral's tokenizer reads as special tokens unless told to split them: each of the 751 control pieces of its
# v3 SentencePiece model (in the package mistral-common) starts with one of these.
SPECIAL_STRINGS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[IMG]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[control_",
)


class Turn(NamedTuple):
    """What one side said in one go. `label` includes the colon; `text` may hold several lines."""

    label: str
    text: str


@dataclass(frozen=True)
class Labels:
    """Who is who: `me` is the person the ghost speaks as, `other` is everyone else.

    Raises ValueError on labels that could not be told apart from text or from each other.
    """

    me: str = "A:"
    other: str = "B:"
    _tag: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _needs_escape: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for label in (self.me, self.other):
            if not re.fullmatch(r"[^\s<:]+:", label):
                raise ValueError(f"label {label!r}: one word that ends in its only colon, as in 'A:'")
        if self.me == self.other:
            raise ValueError(f"both labels are {self.me!r}")
        either = f"{re.escape(self.me)}|{re.escape(self.other)}"
        object.__setattr__(self, "_tag", re.compile(rf"(?:{either})(?: |$)?"))
        object.__setattr__(self, "_needs_escape", re.compile(rf" *(?:{either}|<|\Z)"))

    @property
    def stop_sequences(self) -> list[str]:
        """What ends a reply: the other side's tag, a special token, a blank line, the next own turn."""
        return [f"\n{self.other}", "\n<", "\n\n", f"\n{self.me}"]

    def escape_line(self, line: str) -> str:
        return " " + line if self._needs_escape.match(line) else line

    def unescape_line(self, line: str) -> str:
        return line[1:] if line.startswith(" ") and self._needs_escape.match(line) else line

    def split_tag(self, line: str) -> tuple[str, str] | None:
        """(label, first line of its text) when the line opens a turn, else None."""
        match = self._tag.match(line)
        return None if match is None else (match.group().rstrip(" "), line[match.end() :])


DEFAULT_LABELS = Labels()


def render(turns: Iterable[Turn], labels: Labels = DEFAULT_LABELS) -> str:
    """The text of the turns, without an end token. A turn whose first line is blank does not survive `parse`."""
    return "\n".join(f"{turn.label} {escape(turn.text, labels)}" for turn in turns)


def render_prompt(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS) -> str:
    """The turns, then the bare tag of the reply. No space after it: so it is a token prefix of prompt + reply."""
    return render(turns, labels) + f"\n{labels.me}"


def escape(text: str, labels: Labels = DEFAULT_LABELS) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *map(labels.escape_line, rest)])


def unescape(text: str, labels: Labels = DEFAULT_LABELS) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *map(labels.unescape_line, rest)])


def parse(text: str, labels: Labels = DEFAULT_LABELS) -> list[Turn]:
    """The turns of a rendered text; the inverse of `render`.

    Raises PromptError when the first line does not open a turn.
    """
    opened: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        tag = labels.split_tag(line)
        if tag is not None:
            label, first = tag
            opened.append((label, [first]))
        elif opened:
            opened[-1][1].append(labels.unescape_line(line))
        else:
            raise PromptError(f"the text does not start with {labels.me} or {labels.other}, so it is no history")
    return [Turn(label, "\n".join(lines)) for label, lines in opened]


def read_prompt(prompt: str, labels: Labels = DEFAULT_LABELS) -> list[Turn]:
    """What a caller typed, as turns that end with the other side's.

    A prompt whose first line starts with a tag is a history; anything else is one turn of the other side. A
    trailing bare tag of the person (`A:`) is the invitation to reply and is allowed.

    Raises PromptError on an empty prompt and on a history that ends in a finished turn of the person.
    """
    prompt = prompt.replace("\r\n", "\n")
    if not prompt.strip():
        raise PromptError(f'prompt is empty: send a message, or a history such as "{labels.other} hi\\n{labels.me}"')
    if labels.split_tag(prompt.split("\n", 1)[0]) is None:
        return [Turn(labels.other, prompt.strip())]
    turns = parse(prompt.rstrip(), labels)
    if turns[-1] == Turn(labels.me, ""):
        turns.pop()
    if not turns or not turns[-1].text.strip():
        raise PromptError(f"prompt holds nothing to answer before its end: add a line such as {labels.other} hi")
    if turns[-1].label == labels.me:
        raise PromptError(
            f"prompt ends in a finished {labels.me} turn, so there is nothing to answer: "
            f"end it with a line of {labels.other}, or with a bare {labels.me}"
        )
    return turns


def chat_template(labels: Labels = DEFAULT_LABELS) -> str:
    """`chat_template.jinja` with these labels filled in, for a tokenizer that other servers load."""
    source = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    facts = {"@ME@": labels.me, "@OTHER@": labels.other, "@SPECIAL_STRINGS@": SPECIAL_STRINGS}
    # A JSON literal is a Jinja literal, so a label may hold quotes and backslashes.
    return re.sub(r'"(@[A-Z_]+@)"', lambda found: json.dumps(facts[found[1]], ensure_ascii=False), source)
