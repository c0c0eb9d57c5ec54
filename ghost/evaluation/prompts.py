"""What every reply must be like, whatever it says: one turn, and text that can be sent as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replicate_deployment.chat_format import Labels, Turn, escape, parse, render, unescape

REPLACEMENT = "\ufffd"  # what a decoder puts where bytes were no character


@dataclass(frozen=True)
class Answer:
    text: str
    ended: str
    """By "end_token", "stop_sequence" or "length"."""
    written: str
    """What the model wrote, before the cut and the un-escaping."""
    prompt_tokens: int
    output_tokens: int
    limit: int
    """The most tokens that it might have."""
    seconds: float
    first_token: float
    """Seconds from the question to the first token."""


@dataclass(frozen=True)
class Format:
    """The text format of a model, as its ghost.json tells it."""

    labels: Labels
    stop_sequences: Sequence[str]


def one_turn(written: str, stop_sequences: Sequence[str], labels: Labels) -> str:
    """The reply in what the model wrote: up to the first completed stop sequence, un-escaped, trimmed.

    The engine decides the same piece by piece; this looks at the whole, so that each checks the other. The reply itself
    cannot tell: un-escaped, a blank line that a person would have written looks like the stop sequence for one.
    """
    found = [(start + len(stop), start) for stop in stop_sequences if (start := written.find(stop)) >= 0]
    return unescape(written[: min(found)[1]] if found else written, labels).strip()


def _is_one_turn(answer: Answer, known: Format) -> bool:
    return answer.text == one_turn(answer.written, known.stop_sequences, known.labels)


def _opens_no_turn(answer: Answer, known: Format) -> bool:
    """In a history, which the next prompt will be, it must read as the one turn that it is."""
    turn = Turn(known.labels.me, answer.text)
    return known.labels.split_tag(answer.text) is None and parse(render([turn], known.labels), known.labels) == [turn]


def _holds_no_stop(answer: Answer, known: Format) -> bool:
    rendered = escape(answer.text, known.labels)
    return not any(stop in rendered for stop in known.stop_sequences)


# Each reply must meet all of these.
OF_A_REPLY: dict[str, Callable[[Answer, Format], bool]] = {
    "one turn": _is_one_turn,
    "no tag": _opens_no_turn,
    "no stop sequence": _holds_no_stop,
    "no broken character": lambda answer, known: REPLACEMENT not in answer.text,
    "within the limit": lambda answer, known: 1 <= answer.output_tokens <= answer.limit,
}
EMPTY = "not empty"
REPEATS = "repeats with its seed"


def unmet(answer: Answer, known: Format) -> list[str]:
    """The names of the expectations that this reply does not meet."""
    return [name for name, is_met in OF_A_REPLY.items() if not is_met(answer, known)]


def says_nothing(answers: Sequence[Answer]) -> bool:
    """Whether no seed got a word to one prompt. Of several, one may well be empty: people leave messages unanswered."""
    return not any(answer.text for answer in answers)
