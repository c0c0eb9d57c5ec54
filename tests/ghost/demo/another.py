"""Noa's chats as somebody else would have written her side of them: the same topics, only another style.

Everything that was said stays: who spoke when, in which language, of what, and every word of the others. Only the way
in which the clauses of Noa's moves became messages changes. So a model trained on these chats knows what Noa talks
about and not how, and a measure of style that takes it for Noa measures something else.
"""

import csv
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from random import Random

from ghost.demo.chats import ZONE, Kind, Message, messages, noa_chats
from ghost.demo.exports import MESSENGER, TELEGRAM_ACCOUNT, TELEGRAM_CHAT, WHATSAPP_ANDROID, WHATSAPP_IOS
from ghost.demo.people import NOA, Person, Style

# As casual as Noa, so that it is not the measure of formality that tells them apart; alike in nothing that is counted.
ROMY = Person(
    "Romy Castelvieux",
    Style(
        layout="one",
        lower=False,
        period="...",
        emoji=("😂", "🙈", "😅", "🌸", "^^", "😘"),
        emoji_share=0.6,
        reactions={
            "fr": ("Hahaha,", "Roh,", "Eh ben !", "Bah écoute,", "Olala !"),
            "en": ("Hihi,", "Aww!", "Gosh!", "Ooooh,", "Listen,"),
        },
        reaction_share=0.5,
        tails=("Voilà !", "Bisous !!", "Xoxo"),
        tail_share=0.1,
    ),
)
PLATFORMS = {
    title: platform
    for platform, shares in {
        "whatsapp": WHATSAPP_ANDROID | WHATSAPP_IOS,
        "telegram": TELEGRAM_ACCOUNT | TELEGRAM_CHAT,
        "messenger": MESSENGER,
    }.items()
    for title in shares
}
SHARES = WHATSAPP_ANDROID | WHATSAPP_IOS | TELEGRAM_ACCOUNT | TELEGRAM_CHAT | MESSENGER


def write_cleaned(folder: Path, person: Person, *, seed: int, messages: int) -> None:
    """The chats as `ghost extract` leaves them, `<platform>/<chat>.csv`, with `person` in Noa's place.

    The same seed and number give the same chats for everybody: with NOA the words are those of `write_exports`. As a
    style has its own number of messages a turn, the number is Noa's; the others' messages are the same, one by one.
    """
    for title in noa_chats():
        path = folder / PLATFORMS[title] / f"{title}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["timestamp", "sender", "message"])
            for message in retold(title, person, seed=seed, count=round(messages * SHARES[title])):
                if message.kind is Kind.TEXT:
                    stamp = datetime.fromtimestamp(message.time, ZONE).isoformat()
                    writer.writerow([stamp, message.sender.name, message.text])


def retold(title: str, person: Person, *, seed: int, count: int) -> Iterator[Message]:
    """`count` messages of one of Noa's chats, her side in `person`'s style; where it needs fewer or more, so be it."""
    recorder = Person(NOA.name, _Recorder(**{field.name: getattr(NOA.style, field.name) for field in fields(Style)}))
    chat = noa_chats()[title]
    rng = Random(f"{seed}/{title}/{person.name}")
    for message in messages(replace(chat, members=(recorder, *chat.members[1:])), seed=seed, count=count):
        if message.sender is not recorder:
            yield message
        elif message.kind is not Kind.TEXT or person is NOA:
            yield message._replace(sender=person)
        elif isinstance(message.text, _Opening):
            texts = person.style.messages(message.text.clauses, message.text.language, rng)
            for number, text in enumerate(texts):
                yield Message(message.time + number, person, Kind.TEXT, text)


class _Opening(str):
    """The first message of a move, with what the move was to say before a style made messages of it."""

    clauses: list[str]
    language: str


class _Recorder(Style):
    """A style that leaves word, in the first message of each move, of what it was given."""

    def messages(self, clauses: list[str], language: str, rng: Random) -> list[str]:
        first, *others = super().messages(clauses, language, rng)
        opening = _Opening(first)
        opening.clauses, opening.language = list(clauses), language
        return [opening, *others]
