"""What WhatsApp says about a group or a chat: who came and went, what changed, that messages are encrypted.

Android writes such a line without a sender, and the line may hold the `: ` that ends a name elsewhere.
"""

from functools import cache

from training.extraction.whatsapp.markers import NOTICES, events, normal
from training.extraction.whatsapp.templates import Templates, tells

NO_NAME = 7  # letters of a literal that no name holds
SOME_WORDS = 80  # characters that the … of a notice stands for, at most


def is_notice(body: str) -> bool:
    """The encryption notice, which on iOS and in old exports has a sender."""
    plain = normal(body)
    return any(_continues(plain, start, end) for start, end in _notices().get(plain[:4], ()))


def is_event(sender: str) -> bool:
    """Whether what precedes the first `: ` of an Android line is the start of an event and no name."""
    plain = normal(sender)
    return plain.count('"') % 2 == 1 or any(head in plain for head in _heads())


def is_event_line(rest: str) -> bool:
    """Whether the rest of a line behind its stamp is an event, from its first character to its last.

    `rest` is one line; names and titles in it may hold anything. A line that starts `Name: ` is that person's, whatever
    follows: `Zoé: Bob left` is no event.
    """
    plain = normal(rest)
    before, colon, _ = plain.partition(": ")
    if not colon:
        return plain in _events()
    return any(each.opens(before) for each, _ in _events().filled(plain))


@cache
def _events() -> Templates:
    return Templates(events())


@cache
def _heads() -> frozenset[str]:
    heads = (head for each in _events().all for head in each.before_colon())
    return frozenset(head for head in heads if tells(head, NO_NAME))


@cache
def _notices() -> dict[str, list[tuple[str, str]]]:
    forms: dict[str, list[tuple[str, str]]] = {}
    for line in NOTICES:
        start, _, end = line.partition(" … ")
        forms.setdefault(normal(start)[:4], []).append((normal(start), normal(end)))
    return forms


def _continues(plain: str, start: str, end: str) -> bool:
    return plain.startswith(start) and end in plain[len(start) : len(start) + SOME_WORDS + len(end)]
