"""What WhatsApp says about a group or a chat: who came and went, what changed, that messages are encrypted.

Android writes such a line without a sender, and the line may hold the `: ` that ends a name elsewhere.
"""

from functools import cache, lru_cache

from training.extraction.whatsapp.markers import NOTICES, events, normal
from training.extraction.whatsapp.templates import FIRST_LETTERS, LETTERS, Templates, tells

SOME_WORDS = 80  # characters that the … of a notice stands for, at most


def is_notice(body: str) -> bool:
    """The encryption notice, which on iOS and in old exports has a sender."""
    plain = normal(body)
    return any(_continues(plain, start, end) for start, end in _notices().get(plain[:4], ()))


@lru_cache(maxsize=4096)
def is_event(sender: str) -> bool:
    """Whether what precedes the first `: ` of an Android line may be the start of an event and no name.

    Quick, and wrong about a few names; `is_event_line` knows from the whole line.
    """
    plain = normal(sender)
    starts, others = _heads()
    return plain.count('"') % 2 == 1 or plain.startswith(starts) or any(head in plain for head in others)


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
def _heads() -> tuple[tuple[str, ...], frozenset[str]]:
    """The literals that tell an event from a name: those at a line's start, and the others."""
    heads = [each.before_colon() for each in _events().all]
    starts = {first for first, *_ in filter(None, heads) if tells(first, FIRST_LETTERS)}
    return tuple(starts), frozenset(head for _, *rest in filter(None, heads) for head in rest if tells(head, LETTERS))


@cache
def _notices() -> dict[str, list[tuple[str, str]]]:
    forms: dict[str, list[tuple[str, str]]] = {}
    for line in NOTICES:
        start, _, end = line.partition(" … ")
        forms.setdefault(normal(start)[:4], []).append((normal(start), normal(end)))
    return forms


def _continues(plain: str, start: str, end: str) -> bool:
    return plain.startswith(start) and end in plain[len(start) : len(start) + SOME_WORDS + len(end)]
