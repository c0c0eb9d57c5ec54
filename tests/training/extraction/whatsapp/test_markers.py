"""WhatsApp's own string tables, read in place beside the checkout: every phrase of every locale is known as its own."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from training.extraction.platform import Kind
from training.extraction.whatsapp.body import (
    EDITED,
    EXPORT_TITLES,
    android_body,
    ios_body,
    is_event,
    is_event_line,
    is_notice,
    normal,
    unmarked_body,
)

TABLES = Path(__file__).parents[5] / "shared" / "formats" / "markers.json"
MARKERS: dict[str, Any] = json.loads(TABLES.read_text("utf-8")) if TABLES.is_file() else {"ios": {}, "android": {}}
pytestmark = pytest.mark.skipif(not TABLES.is_file(), reason="the string tables of ../shared/formats are not here")

RIGHT_TO_LEFT = {"AR", "FA", "HE", "UR"}
NAMES = ["José-María", "+44 7700 900123", "👩‍💻 Anna", "Zoé: la vraie"]
PHOTO = "00000035-PHOTO-2022-03-27-21-41-55.jpg"
MAP = "https://maps.google.com/?q=-51.5,0.12"
BODIES = {
    "deleted": Kind.DELETED,
    "deleted_by_you": Kind.DELETED,
    "deleted_by_admin": Kind.DELETED,
    "waiting_for_message": Kind.SYSTEM,
    "view_once_received": Kind.SYSTEM,
    "live_location": Kind.LOCATION,
    "call_started": Kind.CALL,
}
ELSEWHERE = {"attached", "file_attached", "location", "encryption_notice", "export_title", "tap_to_learn_more"}
# "Left" mistaken for what is left over; two letters before a name that holds a colon.
NOT_TOLD = {"还剩 {1}", "Si {1} ay sumali gamit ang invite link ng grupo"}


def expected(key: str) -> Kind | None:
    """What a body of this kind is; None for events, which are lines of their own."""
    if key.endswith("_omitted"):
        return Kind.MEDIA
    return Kind.CALL if key.startswith("missed_") else BODIES.get(key)


def filled(template: str) -> Iterator[str]:
    for shift in range(len(NAMES)):
        yield re.sub(r"\{(\d)\}", lambda blank, by=shift: NAMES[(int(blank[1]) + by) % len(NAMES)], template)  # type: ignore[misc]


def events(table: dict[str, list[str]]) -> Iterator[str]:
    return chain.from_iterable(table[key] for key in table if key not in ELSEWHERE and expected(key) is None)


@pytest.mark.parametrize("locale", MARKERS["ios"])
def test_ios_marks_its_words(locale: str) -> None:
    table = MARKERS["ios"][locale]
    mark = "\u200f" if locale in RIGHT_TO_LEFT else "\u200e"
    classify = ios_body(mark)
    for key, templates in table.items():
        for body in chain.from_iterable(map(filled, templates)):
            kind = expected(key) or Kind.SYSTEM
            if key not in ELSEWHERE:
                assert classify(mark + body, False) == (kind, ""), (key, body)
    for template in table["attached"]:
        body = mark + template.replace("{1}", PHOTO)
        assert classify(body, True) == classify(f"sea.pdf • {body}", True) == (Kind.MEDIA, "")
        assert classify(f"{body}\nthe sea", True) == classify(f"the sea {body}", True) == (Kind.MESSAGE, "the sea")
    assert all(map(is_notice, table["encryption_notice"]))


@pytest.mark.parametrize("locale", MARKERS["ios"])
def test_ios_words_that_lost_their_marks_count_as_whole_bodies(locale: str) -> None:
    for key, templates in MARKERS["ios"][locale].items():
        kind = expected(key)
        for body in templates:
            if kind and key != "call_started" and "{" not in body:
                assert unmarked_body(body, False) == (kind, ""), (key, body)
                assert unmarked_body(f"{body} haha", False) == (Kind.MESSAGE, f"{body} haha")
    assert all(
        is_event_line(line) for each in events(MARKERS["ios"][locale]) for line in filled(each) if ": " not in line
    )


@pytest.mark.parametrize("locale", MARKERS["android"])
def test_android_bodies(locale: str) -> None:
    table = MARKERS["android"][locale]
    for key, phrases in table.items():
        kind = expected(key)
        for body in phrases:
            if kind:
                assert android_body(body, False) == android_body(f"\u200e{body}", False) == (kind, ""), (key, body)
                assert android_body(f"{body} haha", False) == (Kind.MESSAGE, f"{body} haha")
    for template in table["media_omitted"]:
        assert android_body(f"{template}\nthe sea", False) == (Kind.MESSAGE, "the sea")
    for template in table["file_attached"]:
        body = template.replace("{1}", "IMG-20220323-WA0002.jpg")
        assert android_body(body, False) == android_body(f"\u200e{body}", False) == (Kind.MEDIA, "")
        assert android_body(f"{body}\nthe sea", False) == (Kind.MESSAGE, "the sea")
    for template in table["location"]:
        assert android_body(template.replace("{1}", MAP), False) == (Kind.LOCATION, "")
    assert all(map(is_notice, table["encryption_notice"]))
    titles = {normal(title) for title in EXPORT_TITLES}
    assert {normal(title.replace("{1}", "{}")) for title in table["export_title"]} <= titles


@pytest.mark.parametrize("locale", MARKERS["android"])
def test_android_events_have_no_sender(locale: str) -> None:
    for template in events(MARKERS["android"][locale]):
        for line in filled(template):
            before, colon, _ = line.partition(": ")
            if not colon:
                assert is_event_line(line), template
            elif before != "Zoé" and template not in NOT_TOLD:
                # A name with a colon in it, behind words that tell the event.
                assert is_event_line(line) or template.startswith("{"), template
                assert is_event(before) or template.startswith("{"), template
            assert not is_event_line(f"Alice: {line}")


def test_edit_marks() -> None:
    for mark in chain.from_iterable([each] if isinstance(each, str) else each for each in MARKERS["edited"].values()):
        assert normal(mark.strip("<>")) in map(normal, EDITED)
        for body in (f"two words {mark}", f"two words \u200e{mark}"):
            assert android_body(body, False) == ios_body("\u200e")(body, False) == (Kind.MESSAGE, "two words")
