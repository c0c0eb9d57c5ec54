"""Seeded, endless conversations between invented people, with believable clocks.

Every chat has its own generator of random numbers, named after the seed and the chat, so one chat's messages do not
depend on how many were drawn from another. All iterators are lazy: their memory does not grow with what was drawn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import chain, islice
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ghost.demo.people import NOA, OTHERS, STRANGERS, Person, Repertoire, Script, pick, play, repertoire
from replicate_deployment.chat_format import BURST_SECONDS, SILENCE_SECONDS

ZONE = ZoneInfo("Europe/Paris")
START = int(datetime(2022, 9, 5, 9, 0, tzinfo=ZONE).timestamp())
GAP = SILENCE_SECONDS
BURST = BURST_SECONDS
MESSAGES_PER_CONVERSATION = 18  # measured over 100,000 messages; only spreads a history over its months


class Kind(Enum):
    TEXT = "text"
    PHOTO = "photo"
    VOICE = "voice message"
    STICKER = "sticker"
    DELETED = "deleted message"
    CALL = "missed call"


class Message(NamedTuple):
    time: int  # Unix seconds
    sender: Person
    kind: Kind
    text: str  # "" unless kind is TEXT; may hold several lines


@dataclass(frozen=True)
class Chat:
    title: str
    members: tuple[Person, ...]  # the first is on one side, everyone else on the other
    languages: tuple[str, ...]  # one is drawn per conversation


def noa_chats() -> dict[str, Chat]:
    """Noa's chats by title: seven partners, and a group of two more."""

    def chat(title: str, languages: str, *partners: str) -> Chat:
        return Chat(title, (NOA, *(OTHERS[name] for name in partners or [title])), tuple(languages.split()))

    chats = [
        chat("Malo Cendreval", "fr"),
        chat("Priya Wexmoor", "en"),
        chat("Bastien Tournevire", "fr"),
        chat("Ingrid Hallowfen", "en"),
        chat("Rando du dimanche 🥾", "fr", "Malo Cendreval", "Élise Fontgrise"),
        chat("Tomasz Birkenrode", "en"),
        chat("Élise Fontgrise", "fr"),
        chat("Jun Marrowby", "fr en"),
    ]
    return {chat.title: chat for chat in chats}


def other_chats() -> list[Chat]:
    """Chats in which Noa has no part: every pair of others and strangers, in each language and in both roles."""
    people = [*OTHERS.values(), *STRANGERS.values()]
    pairs = [(one, two) for one in people for two in people if one is not two]
    return [Chat(f"{one.name}, {two.name}", (one, two), ("fr", "en")) for one, two in pairs]


def conversations(chat: Chat, *, seed: int, mean_gap: float) -> Iterator[list[Message]]:
    """Endless conversations of one chat, in time order, at least GAP apart and `mean_gap` hours on average."""
    rng = Random(f"{seed}/{chat.title}")
    clock = START + int(rng.expovariate(1 / (mean_gap * 3600)))
    while True:
        clock = _awake(clock)
        conversation = _conversation(chat, clock, rng)
        yield conversation
        clock = conversation[-1].time + GAP + int(rng.expovariate(1 / (mean_gap * 3600)))


def messages(chat: Chat, *, seed: int, count: int, without: frozenset[Kind] = frozenset()) -> Iterator[Message]:
    """The first `count` messages of a chat, spread over about 20 months, or longer when that would be too dense."""
    spread = 20 * 30 * 24 * MESSAGES_PER_CONVERSATION / max(count, 1)
    stream = chain.from_iterable(conversations(chat, seed=seed, mean_gap=max(2.0, spread)))
    return islice((message for message in stream if message.kind not in without), count)


def turns(conversation: Iterable[Message], me: Person) -> Iterator[tuple[bool, str]]:
    """(is it `me`?, text): texts of one side at most BURST apart are one turn, joined by newlines."""
    side, lines, last = False, list[str](), 0
    for message in conversation:
        if message.kind is not Kind.TEXT:
            continue
        mine = message.sender is me
        if lines and (mine != side or message.time - last > BURST):
            yield side, "\n".join(lines)
            lines = []
        side, last = mine, message.time
        lines.append(message.text)
    if lines:
        yield side, "\n".join(lines)


def verbatim_overlap(train: Iterable[str], held_out: Iterable[str]) -> dict[str, float]:
    """The share of held-out replies that occur word for word in training, by length in characters.

    Short ones ("mdr") recur in every chat; long ones that recur would let a model pass by reciting.
    """
    seen = set(train)
    borders = {"1-9": 10, "10-24": 25, "25-49": 50, "50+": 1 << 30}
    total, known = dict.fromkeys(borders, 0), dict.fromkeys(borders, 0)
    for reply in held_out:
        name = next(name for name, border in borders.items() if len(reply) < border)
        total[name] += 1
        known[name] += reply in seen
    return {name: known[name] / total[name] for name in borders if total[name]}


def _awake(clock: int) -> int:
    """The same moment, or the next morning if it falls between one and eight at night."""
    local = datetime.fromtimestamp(clock, ZONE)
    return clock + (8 - local.hour) * 3600 if 1 <= local.hour < 8 else clock


def _conversation(chat: Chat, clock: int, rng: Random) -> list[Message]:
    language = pick(chat.languages, rng)
    known = repertoire(language)
    me, others = chat.members[0], chat.members[1:]
    written: list[Message] = []
    mine = rng.random() < 0.5
    for script in _agenda(known, rng):
        partner = pick(others, rng)
        if written and rng.random() < 0.75:  # mostly, whoever did not speak last raises the next subject
            mine = written[-1].sender is not me
        for move in play(script, known.slots, rng):
            sender = me if move.initiator == mine else partner
            texts = sender.style.messages(move.clauses, language, rng)
            for number, (kind, text) in enumerate(_with_extras(texts, rng)):
                clock += _reply_delay(rng) if number == 0 else 2 + int(rng.expovariate(1 / 12))
                written.append(Message(clock, sender, kind, text))
    return written


def _agenda(known: Repertoire, rng: Random) -> Iterator[Script]:
    if rng.random() < 0.5:
        yield pick(known.greetings, rng)
    for _ in range(1 + int(rng.random() * 3)):
        yield pick(known.topics, rng)
    if rng.random() < 0.4:
        yield pick(known.goodbyes, rng)


def _with_extras(texts: list[str], rng: Random) -> Iterator[tuple[Kind, str]]:
    """The texts, and now and then what an export shows without words: a photo, a call, something taken back."""
    if rng.random() < 0.05:
        yield pick(_EXTRAS, rng), ""
    for text in texts:
        yield Kind.TEXT, text


_EXTRAS = (*[Kind.PHOTO] * 5, *[Kind.VOICE] * 2, *[Kind.STICKER] * 3, Kind.DELETED, Kind.DELETED, Kind.CALL)


def _reply_delay(rng: Random) -> int:
    """Seconds: mostly within four minutes, now and then up to 22, never the half hour that ends a conversation."""
    longest = 240 if rng.random() < 0.94 else 1300
    return 8 + int(rng.random() ** 2 * longest)
