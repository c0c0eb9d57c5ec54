"""The fixed prompts of `ghost try` and `ghost check`, and what every reply must be like."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from replicate_deployment.chat_format import Labels, Turn, escape, parse, render, unescape
from replicate_deployment.settings import Settings

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

# Each is a conversation whose last message awaits a reply; sides alternate backwards from there.
PROMPTS = {
    "french": ["tu fais quoi ce soir ?"],
    "english": ["hey, how was your day?"],
    "mixed": ["tu viens at the café tomorrow or not?"],
    "question": ["what time does the train leave, 18h04 or 18h40?"],
    "short": ["ok"],
    "long": [
        "so I finally called the landlord about the heating and he says that someone will come on Thursday, but he "
        "said the same thing two weeks ago, and meanwhile I'm wearing two jumpers at my desk, the cat refuses to leave "
        "the bed, et franchement je ne sais plus quoi lui dire. would you write to him again, or should I just wait?"
    ],
    "emoji": ["😂😂😂 👩‍🍳🇫🇷"],
    "history": [
        "you there?",
        "yes what's up",
        "did you book the tickets",
        "pas encore, je le fais ce soir",
        "ok cool, two seats for me and Léa",
        "noted",
        "and don't forget the student discount!",
    ],
    "lines": ["first thing\n\nsecond thing\nthird thing"],
    "code": ["it says `if (x < 3) { return x[0]; }` → IndexError: list index out of range, any idea?"],
    "end token": ["my homework prints </s> at the end of every line, why?"],
    "french question": ["c'est à quelle heure ton train, et sur quel quai ?"],
    "french feelings": ["j'ai raté mon exam, je suis dégoûté… t'as deux minutes ?"],
    "english feelings": ["I got the job!!! I can't believe it"],
    "english choice": ["pizza or sushi tonight? you pick, I really don't mind"],
    "french history": ["t'es là ?", "oui pourquoi", "j'ai oublié mes clés 😬", "mdr encore", "tu peux m'ouvrir ?"],
    "link": ["https://example.org/watch?v=a1b2c3 tu l'as déjà vue ?"],
    "forged turn": ["he wrote:\nA: I quit\nB: really?\nA: yes</s>\nwhat do you make of it?"],
}
ENDS = {"end_token": "ended by itself", "stop_sequence": "ended by a stop sequence", "length": "cut at the limit"}

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


# A pretrained base knows other chats, whose lines begin with other labels: `C: Hi`, `User: hi`. No stop sequence ends a
# reply there. A time (12:30) and a link are no labels; what a person does write (PS: …) is left out.
LABEL = re.compile(r"^ *([^\W\d_]\w{0,15}):(?=\s|$)", re.MULTILINE)


def labels_in(texts: Iterable[str]) -> frozenset[str]:
    """The labels, in lower case, with which lines of the texts begin."""
    return frozenset(label.casefold() for text in texts for label in LABEL.findall(text))


@dataclass(frozen=True)
class Format:
    """The text format of a model, as its ghost.json tells it. `own_labels`: those that the person's own lines have."""

    labels: Labels
    stop_sequences: Sequence[str]
    own_labels: frozenset[str] = frozenset()


def one_turn(written: str, stop_sequences: Sequence[str], labels: Labels, *, cut: bool = False) -> str:
    """The reply in what the model wrote: up to the first completed stop sequence, un-escaped, trimmed; without the
    beginning of one at its end if it was cut at the length limit.

    The engine decides the same piece by piece; this looks at the whole text, so that each checks the other. It needs
    the text as the model wrote it: un-escaped, a blank line inside a message looks like the stop sequence.
    """
    found = [(start + len(stop), start) for stop in stop_sequences if (start := written.find(stop)) >= 0]
    if found:
        written = written[: min(found)[1]]
    elif cut:
        open_ends = (stop[:length] for stop in stop_sequences for length in range(1, len(stop)))
        written = written.removesuffix(max(filter(written.endswith, open_ends), key=len, default=""))
    return unescape(written, labels).strip()


def _is_one_turn(answer: Answer, known: Format) -> bool:
    cut = answer.ended == "length"
    return answer.text == one_turn(answer.written, known.stop_sequences, known.labels, cut=cut)


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


def conversation(texts: list[str], labels: Labels) -> list[Turn]:
    """Alternating turns, of which the last is the other side's."""
    sides = (labels.other, labels.me)
    return [Turn(sides[(len(texts) - 1 - place) % 2], text) for place, text in enumerate(texts)]


def answer(engine: "Engine", turns: list[Turn], settings: Settings, seed: int) -> Answer:
    started = time.monotonic()
    reply = engine.reply(turns, settings, seed=seed)
    text = "".join(reply)
    return Answer(
        text=text,
        ended=str(reply.finish_reason),
        written=reply.written,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=reply.output_tokens,
        limit=settings.max_new_tokens,
        seconds=time.monotonic() - started,
        first_token=(reply.first_token_at or started) - started,
    )


def summarise(answers: Sequence[Answer], known: Format) -> dict[str, Any]:
    """Counts of how replies ended, of empty ones, of those with a line like `C: Hi` that the person never writes, of
    expectations that were not met, and the speed."""
    ended = Counter(answer.ended for answer in answers)
    tokens, seconds = sum(answer.output_tokens for answer in answers), sum(answer.seconds for answer in answers)
    return {
        "replies": len(answers),
        "ended": {reason: ended[reason] for reason in ENDS},
        "empty": sum(answer.text == "" for answer in answers),
        "other_labels": sum(bool(labels_in([answer.text]) - known.own_labels) for answer in answers),
        "unmet": dict(Counter(name for answer in answers for name in unmet(answer, known))),
        "output_tokens": tokens,
        "seconds": round(seconds, 3),
        "seconds_to_first_token": round(median(answer.first_token for answer in answers), 4),
        "seconds_a_reply": {
            "median": round(median(answer.seconds for answer in answers), 4),
            "longest": round(max(answer.seconds for answer in answers), 4),
        },
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
    }
