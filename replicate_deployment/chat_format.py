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
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from .errors import PromptError

# Training windows hold 13 turns at most; a longer history is further and further from anything the model has seen.
CONTEXT_TURNS = 20

# What a turn is. A message this soon after the one before it, by the same side, continues its turn; a gap of this
# length ends a conversation.
BURST_SECONDS = 3 * 60
SILENCE_SECONDS = 30 * 60

Recipe = Literal["windows", "conversations"]
"""Where end tokens stand. `windows`: after the last turn, when the person said it. `conversations`: after each turn of
the person, in a prompt too."""
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
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


class Span(NamedTuple):
    """Characters `start … end - 1` of a text."""

    start: int
    end: int


@dataclass(frozen=True)
class Labels:
    """Who is who: `me` is the person the ghost speaks as, `other` is everyone else.

    Raises ValueError on labels that could not be told apart from text or from each other.
    """

    me: str = "A:"
    other: str = "B:"
    _tag: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _escaped: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _breaks_before: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for label in (self.me, self.other):
            if not re.fullmatch(r"[^\s<:]+:", label):
                raise ValueError(f"label {label!r}: one word that ends in its only colon, as in 'A:'")
        if self.me == self.other:
            raise ValueError(f"both labels are {self.me!r}")
        either = f"{re.escape(self.me)}|{re.escape(self.other)}"
        object.__setattr__(self, "_tag", re.compile(rf"(?:{either})(?: |$)?"))
        object.__setattr__(self, "_escaped", re.compile(rf" +(?:{either}|<|\Z)"))
        object.__setattr__(self, "_breaks_before", re.compile(rf"\n(?= *(?:{either}|<|\n|\Z))"))

    @property
    def stop_sequences(self) -> list[str]:
        """What ends a reply: the other side's tag, a special token, a blank line, the next own turn."""
        return [f"\n{self.other}", "\n<", "\n\n", f"\n{self.me}"]

    def escape_lines(self, text: str) -> str:
        """Every line but the first, in one substitution: a million turns are escaped in a third of the time."""
        return self._breaks_before.sub("\n ", text)

    def unescape_line(self, line: str) -> str:
        return line[1:] if self._escaped.match(line) else line

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
    return labels.escape_lines(text)


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


def spans(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> list[Span]:
    """Where the replies stand in `render(turns, labels)`: what a loss mask keeps, with the end token that follows each.

    A span is a turn's text behind its tag, the space there included, for a prompt ends in the bare tag; the newline
    after it is no part of it. `windows` has one such turn, the last, if the person said it; `conversations` has each
    of the person's. They are counted from the turns, never searched for: a typed `</s>` is text.
    """
    starts = [0, *accumulate(len(render([turn], labels)) + 1 for turn in turns)]
    return [
        Span(starts[place] + len(turns[place].label), starts[place + 1] - 1) for place in _ended(turns, labels, recipe)
    ]


def _ended(turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> list[int]:
    """The turns after which an end token goes."""
    places = range(len(turns)) if recipe == "conversations" else range(len(turns))[-1:]
    return [place for place in places if turns[place].label == labels.me]


def render_line(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> str:
    """The text of a JSONL line: the rendered turns, with END_TOKEN spelled where an end token goes."""
    ended = set(_ended(turns, labels, recipe))
    # An end token never makes a line look like another: escaping one and ending it can be done in any order.
    return "\n".join(render([turn], labels) + END_TOKEN * (place in ended) for place, turn in enumerate(turns))


def parse_line(text: str, labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> list[Turn]:
    """The turns of a JSONL line's text; the inverse of `render_line`, typed `</s>` included.

    Only a turn's first line starts with a tag, so the turns are certain whatever was typed in them; and one that has an
    end token has exactly one, so what remains before it was typed. Who takes the text for one string, without turns,
    cannot tell the two apart. Raises PromptError when the first line opens no turn, or a turn lacks its end token.
    """
    turns = parse(text, labels)
    for place in _ended(turns, labels, recipe):
        label, ended = turns[place]
        if not ended.endswith(END_TOKEN):
            raise PromptError(f"turn {place + 1} does not end in {END_TOKEN}")
        turns[place] = Turn(label, ended.removesuffix(END_TOKEN))
    return turns


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


def chat_template(labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> str:
    """`chat_template.jinja` with these facts filled in, for a tokenizer that other servers load."""
    source = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    facts = {
        "@ME@": labels.me,
        "@OTHER@": labels.other,
        "@SPECIAL_STRINGS@": SPECIAL_STRINGS,
        "@EVERY_TURN_ENDS@": recipe == "conversations",
    }
    # A JSON literal is a Jinja literal, so a label may hold quotes and backslashes.
    return re.sub(r'"(@[A-Z_]+@)"', lambda found: json.dumps(facts[found[1]], ensure_ascii=False), source)
