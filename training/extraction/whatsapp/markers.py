"""The phrases that WhatsApp itself writes into an export, read from the lists in wording/: data, and its only home.

One phrase a line, of some sixty languages together, for none is told apart from another. The wording is that of
WhatsApp's own string tables, iOS 2022/23 and Android 2017-2019, as collected by starkdmi/whats_json; newer Android
media marks and edit marks are from other public parsers. Matched on a whole body only, case-folded, without direction
marks and without a final full stop: "I left my keys" and "the video omitted a detail" are a person's.
"""

import re
from importlib.resources import files

from training.extraction.platform import Kind

# Direction marks and the byte order mark: invisible, never part of a name or a phrase.
MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
STOPS = ".。।۔"  # Latin, Chinese, Devanagari, Urdu
# Quotes and blanks differ between versions of one phrase.
LOOK_ALIKE = str.maketrans("“”„«»「」‘’\u00a0\u202f\u2009", '"""""""\'\'   ')


def normal(text: str) -> str:
    """The form in which phrases are compared."""
    return MARKS.sub("", text).translate(LOOK_ALIKE).strip().rstrip(STOPS).rstrip().casefold()


def _wording(name: str) -> tuple[str, ...]:
    text = files(__package__).joinpath("wording", f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.split("\n") if line and not line.startswith("#"))


MEDIA = _wording("media")
DELETED = _wording("deleted")
CALLS_MISSED = _wording("calls_missed")
CALLS_MADE = _wording("calls_made")  # `{}` stands for who called
PLACES = _wording("places")
UNDELIVERED = _wording("undelivered")
ATTACHED = _wording("attached")  # `{}` stands for the file's name
EDITED = _wording("edited")
NOTICES = _wording("notices")  # `…` stands for some words
EXPORT_TITLES = _wording("titles")  # `{}` stands for the chat's name


def events() -> tuple[str, ...]:
    """What is said about a group or a chat: `{}` stands for a name, a number or a title. The longest list by far."""
    return _wording("events")


PLACE_LABELS = frozenset(normal(place[:-1]) for place in PLACES if place.endswith(":"))
DELETED_BY = tuple(phrase for phrase in DELETED if "{}" in phrase)  # `{}` stands for an admin's name

# Whole bodies.
BODIES: dict[str, Kind] = {
    phrase: kind
    for kind, phrases in (
        (Kind.DELETED, [phrase for phrase in DELETED if "{}" not in phrase]),
        (Kind.CALL, CALLS_MISSED),
        (Kind.LOCATION, [place for place in PLACES if not place.endswith(":")]),
        (Kind.SYSTEM, UNDELIVERED),
        (Kind.MEDIA, MEDIA),
    )
    for phrase in phrases
}
# What iOS marks as its own words, in normal form: calls that were made, too, though people say "video call".
PHRASES = {
    **{normal(phrase): kind for phrase, kind in BODIES.items()},
    **{normal(phrase): Kind.CALL for phrase in CALLS_MADE if "{}" not in phrase},
}
