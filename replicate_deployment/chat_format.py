"""Render and parse the A:/B: text. Training, serving and bots all import the format from here.

A turn renders as `LABEL + " " + text`; turns are joined by one newline; lines split on "\\n" only. A continuation line
that would read as a tag, a special token or a blank line gains one leading space, which `parse` removes. So no rendered
turn contains a stop sequence, and no typed text can forge a turn:

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

# Training windows hold at most 13 turns, so the model has not seen longer histories.
CONTEXT_TURNS = 20
# Servers that keep the keys and values of the last prompt get so many turns fewer at once, and the next three replies
# continue what was read: two cores take half a minute to read 20 turns with a 7B.
DROPPED_TURNS = 8

# A message within BURST_SECONDS of the previous one by the same side continues its turn. A gap of SILENCE_SECONDS ends
# a conversation.
BURST_SECONDS = 3 * 60
SILENCE_SECONDS = 30 * 60
LONGEST_LABEL = 200  # characters: expressions are made of the labels

Recipe = Literal["windows", "conversations"]
"""Where end tokens go. `windows`: after the last turn, if it is the person's. `conversations`: after each of the
person's turns, in prompts too."""
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
END_TOKEN = "</s>"  # the spelling in the JSONL; in token ids the tokenizer's own end token id is used
# Tokenizers read texts that start with these as special tokens unless told to split them. They are how each of the 751
# control pieces of Mistral's v3 SentencePiece model (in the package mistral-common) starts, and those of other bases.
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
    "<|",  # Llama 3, Qwen, SmolLM: <|im_end|>
)


class Turn(NamedTuple):
    """One turn. `label` includes the colon; `text` may hold several lines."""

    label: str
    text: str


class Span(NamedTuple):
    """Character range of a text, `end` excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Labels:
    """Labels of the two sides: `me` is the person the ghost imitates, `other` is everyone else.

    Raises ValueError when a label is not one word ending in its only colon, is longer than LONGEST_LABEL, or both are
    the same.
    """

    me: str = "A:"
    other: str = "B:"
    _tag: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _escaped: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _breaks_before: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for label in (self.me, self.other):
            if len(label) > LONGEST_LABEL:
                raise ValueError(f"label {label!r:.40}… is too long: at most {LONGEST_LABEL} characters")
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
        """The texts that end a reply: the other side's tag, a special token, a blank line, the person's next tag."""
        return [f"\n{self.other}", "\n<", "\n\n", f"\n{self.me}"]

    def escape_lines(self, text: str) -> str:
        """Escape all lines but the first. One substitution takes a third of the time of a loop over lines."""
        return self._breaks_before.sub("\n ", text)

    def unescape_line(self, line: str) -> str:
        return line[1:] if self._escaped.match(line) else line

    def split_tag(self, line: str) -> tuple[str, str] | None:
        """Return (label, first line of the text) when the line opens a turn, else None."""
        match = self._tag.match(line)
        return None if match is None else (match.group().rstrip(" "), line[match.end() :])


DEFAULT_LABELS = Labels()


def render(turns: Iterable[Turn], labels: Labels = DEFAULT_LABELS) -> str:
    """Return the text of the turns, without end tokens. `parse` cannot restore a turn whose first line is blank."""
    return "\n".join(f"{turn.label} {escape(turn.text, labels)}" for turn in turns)


def render_prompt(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS) -> str:
    """Return the text of the turns and the bare tag of the reply.

    No space follows the tag, so the prompt's tokens are a prefix of those of prompt + reply.
    """
    return render(turns, labels) + f"\n{labels.me}"


def escape(text: str, labels: Labels = DEFAULT_LABELS) -> str:
    return labels.escape_lines(text)


def unescape(text: str, labels: Labels = DEFAULT_LABELS) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *map(labels.unescape_line, rest)])


def parse(text: str, labels: Labels = DEFAULT_LABELS) -> list[Turn]:
    """Return the turns of a rendered text: the inverse of `render`.

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
            raise PromptError(f"the text does not start with {labels.me} or {labels.other}; it is not a history")
    return [Turn(label, "\n".join(lines)) for label, lines in opened]


def spans(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> list[Span]:
    """Return the spans of the replies in `render(turns, labels)`. The loss mask keeps these and their end tokens.

    A span covers a turn's text after its tag, including the leading space (a prompt ends in the bare tag) but not the
    final newline. `windows` has one, for the last turn if it is the person's; `conversations` one for each of the
    person's turns. Spans are computed from the turns, not searched for, so a typed `</s>` counts as text.
    """
    starts = [0, *accumulate(len(render([turn], labels)) + 1 for turn in turns)]
    return [
        Span(starts[place] + len(turns[place].label), starts[place + 1] - 1) for place in _ended(turns, labels, recipe)
    ]


def _ended(turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> list[int]:
    """Return the indices of the turns that an end token follows."""
    places = range(len(turns)) if recipe == "conversations" else range(len(turns))[-1:]
    return [place for place in places if turns[place].label == labels.me]


def render_line(turns: Sequence[Turn], labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> str:
    """Return the text of a JSONL line: the rendered turns, with END_TOKEN spelled out."""
    ended = set(_ended(turns, labels, recipe))
    # Escaping before or after appending the end token gives the same text.
    return "\n".join(render([turn], labels) + END_TOKEN * (place in ended) for place, turn in enumerate(turns))


def parse_line(text: str, labels: Labels = DEFAULT_LABELS, *, recipe: Recipe) -> list[Turn]:
    """Return the turns of a JSONL line's text: the inverse of `render_line`.

    Only a turn's first line starts with a tag, so the text splits into turns unambiguously. A turn has at most one end
    token, so any other `</s>` was typed. Raises PromptError when the first line opens no turn, or a turn lacks its end
    token.
    """
    turns = parse(text, labels)
    for place in _ended(turns, labels, recipe):
        label, ended = turns[place]
        if not ended.endswith(END_TOKEN):
            raise PromptError(f"turn {place + 1} does not end in {END_TOKEN}")
        turns[place] = Turn(label, ended.removesuffix(END_TOKEN))
    return turns


SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates with U+FFFD: JSON can hold them, UTF-8 cannot.

    For every text that comes from outside: exports, servers, keyboards.
    """
    if SURROGATE.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def first_turn(count: int) -> int:
    """Return the place of the first of `count` turns that a server with a prompt cache reads; 13 to 20 remain."""
    return -(-max(0, count - CONTEXT_TURNS) // DROPPED_TURNS) * DROPPED_TURNS


def read_prompt(prompt: str, labels: Labels = DEFAULT_LABELS) -> list[Turn]:
    """Read a caller's prompt as turns that end with a turn of the other side.

    A prompt whose first line starts with a tag is a history; any other is one turn of the other side. A history may
    end in the person's bare tag (`A:`).

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
        raise PromptError(f"prompt ends with nothing to answer: add a line such as {labels.other} hi")
    if turns[-1].label == labels.me:
        raise PromptError(
            f"prompt ends in a finished {labels.me} turn, so there is nothing to answer: "
            f"end it with a line of {labels.other}, or with a bare {labels.me}"
        )
    return turns


def chat_template(
    labels: Labels = DEFAULT_LABELS,
    *,
    recipe: Recipe,
    begin: str = "<s> ",
    special_strings: Sequence[str] = SPECIAL_STRINGS,
) -> str:
    """Return `chat_template.jinja` filled in, for tokenizers that other servers load.

    `begin` goes before the first turn; `special_strings` are broken by a space where somebody typed them. The defaults
    are Mistral's; `tokenization.template_for` knows those of a tokenizer.
    """
    source = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    facts = {
        "@ME@": labels.me,
        "@OTHER@": labels.other,
        "@BEGIN@": begin,
        "@SPECIAL_STRINGS@": special_strings,
        "@EVERY_TURN_ENDS@": recipe == "conversations",
    }
    # A JSON literal is a valid Jinja literal, so labels may contain quotes and backslashes.
    return re.sub(r'"(@[A-Z_]+@)"', lambda found: json.dumps(facts[found[1]], ensure_ascii=False), source)
