"""The invented people and how each of them writes. Nobody here exists; the names were made up for this sample.

A style turns neutral clauses into messages. Noa's is meant to be recognised at a glance: lower case, bursts,
abbreviations, words of the other language, her own emoji. The people she writes to use sentences with capitals, mostly
one message at a time, and none of her emoji, so that a model that has learnt her voice can be told from one that has
not by counting. The strangers write as casually as she does, each in another way: no real base model was spared such
chats, and without them the starter base would find her spelling less likely than chance.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Literal, NamedTuple, TypeVar

from ghost.demo import topics_en, topics_fr

# Scripted exchanges: who says what, and what may be answered.
#
# A script is a block of lines. `?` opens (the initiator speaks); each `+` starts one way to go on, and its lines
# alternate: responder, initiator, responder. Within a line ` | ` parts alternatives, ` / ` the clauses of one
# alternative, and `¶` is a line break inside a message. `{slot}` is filled once per exchange, so a reply speaks of the
# very place, hour or dish that was asked about; `{slot2}` is a second value from the same list.

Choice = TypeVar("Choice")
Clauses = tuple[str, ...]
Beat = tuple[Clauses, ...]  # the alternatives of one speaker's move


class Move(NamedTuple):
    """What one side has to say: neutral, well-spelled clauses, before a style makes messages of them."""

    initiator: bool
    clauses: list[str]


@dataclass(frozen=True)
class Script:
    opening: Beat
    paths: tuple[tuple[Beat, ...], ...]


@dataclass(frozen=True)
class Repertoire:
    """All that can be talked about in one language."""

    slots: dict[str, tuple[str, ...]]
    greetings: tuple[Script, ...]
    goodbyes: tuple[Script, ...]
    topics: tuple[Script, ...]


@cache
def repertoire(language: str) -> Repertoire:
    source = {"fr": topics_fr, "en": topics_en}[language]
    return Repertoire(
        {name: tuple(values.split(", ")) for name, values in source.SLOTS.items()},
        _read(source.GREETINGS),
        _read(source.GOODBYES),
        _read(source.TOPICS),
    )


def play(script: Script, slots: dict[str, tuple[str, ...]], rng: Random) -> Iterator[Move]:
    """One run through a script: the opening, then one of its paths, with the same slot values throughout."""
    filled = _Filled(slots, rng)
    beats = (script.opening, *pick(script.paths, rng))
    for number, beat in enumerate(beats):
        yield Move(number % 2 == 0, [clause.format_map(filled) for clause in pick(beat, rng)])


def pick(choices: tuple[Choice, ...], rng: Random) -> Choice:
    """`rng.choice`, at a third of its cost; a million messages take some ten million picks."""
    return choices[int(rng.random() * len(choices))]


class _Filled(dict[str, str]):
    """Slot values, drawn when first asked for and kept; two numbered values of one list differ."""

    def __init__(self, slots: dict[str, tuple[str, ...]], rng: Random) -> None:
        self._slots, self._rng = slots, rng

    def __missing__(self, name: str) -> str:
        values = self._slots[name.rstrip("23")]
        value = pick(values, self._rng)
        while value in self.values():
            value = pick(values, self._rng)
        if "{" in value:
            value = value.format_map(self)
        self[name] = value
        return value


def _read(source: str) -> tuple[Script, ...]:
    return tuple(_read_script(block) for block in source.strip().split("\n\n"))


def _read_script(block: str) -> Script:
    opening, *lines = block.split("\n")
    paths: list[list[Beat]] = []
    for line in lines:
        if line.startswith("+"):
            paths.append([])
        paths[-1].append(_read_beat(line))
    return Script(_read_beat(opening), tuple(tuple(path) for path in paths))


def _read_beat(line: str) -> Beat:
    alternatives = line[2:].replace("¶", "\n").split(" | ")
    return tuple(tuple(alternative.split(" / ")) for alternative in alternatives)


Words = tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How clauses become messages. Shares are probabilities per turn."""

    layout: Literal["burst", "one", "lines"]  # a message per clause; one message; one message of several lines
    lower: bool
    period: str  # what ends a clause that ends in no punctuation of its own; "" also drops full stops
    emoji: Words
    emoji_share: float
    reactions: dict[str, Words]  # by language: said first, before the answer
    reaction_share: float
    tails: Words = ()  # short last messages of a burst
    tail_share: float = 0
    abbreviations: dict[str, dict[str, str]] = field(default_factory=dict)
    stretch_share: float = 0  # "ouiii": how often the last vowel of a first word is drawn out

    def __post_init__(self) -> None:
        patterns = {
            language: re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + r")(?!\w)")
            for language, words in self.abbreviations.items()
        }
        object.__setattr__(self, "_patterns", patterns)

    def messages(self, clauses: list[str], language: str, rng: Random) -> list[str]:
        """The clauses of one turn as the messages this person would send."""
        if rng.random() < self.reaction_share:
            clauses = [pick(self.reactions[language], rng), *clauses]
        spoken = [self._spell(clause, language, rng) for clause in clauses]
        if self.layout == "burst":
            texts = [part for clause in spoken for part in self._split(clause, rng)]
        else:
            # Within one message every clause but the last needs an end, or the next would run into it.
            closed = [clause if clause[-1] in _CLOSED else clause + "." for clause in spoken[:-1]]
            texts = [("\n" if self.layout == "lines" else " ").join([*closed, spoken[-1]])]
        if rng.random() < self.emoji_share:
            texts[-1] += " " + pick(self.emoji, rng)
        if rng.random() < self.tail_share:
            texts.append(pick(self.tails, rng))
        return texts if len(texts) <= 4 else [*texts[:3], " ".join(texts[3:])]

    def _spell(self, clause: str, language: str, rng: Random) -> str:
        if not self.lower:
            clause = clause[0].upper() + clause[1:]
            return clause if clause[-1] in _CLOSED or "\n" in clause else clause + self.period
        clause = clause.lower().rstrip(".!").replace(" ?", "?").rstrip()
        words = self.abbreviations[language]
        clause = self._patterns[language].sub(lambda match: words[match.group()], clause)  # type: ignore[attr-defined]
        if rng.random() < self.stretch_share:
            clause = re.sub(r"^(\w*[aeiouy])(?=[\s,]|$)", lambda match: match.group() + match.group()[-1] * 3, clause)
        return clause

    def _split(self, clause: str, rng: Random) -> list[str]:
        """A long clause may go out in two messages, cut before a joining word."""
        cut = _JOINING.search(clause, 12)
        if cut is None or rng.random() < 0.5:
            return [clause]
        return [clause[: cut.start()], clause[cut.start() + 1 :]]


_CLOSED = ".?!:,"
_JOINING = re.compile(r" (?:avec|mais|et|à|pour|with|but|and|in|at) ")


@dataclass(frozen=True)
class Person:
    name: str
    style: Style


def _sentences(
    emoji: str, french: str, english: str, *, period: str = ".", layout: Literal["one", "lines"] = "one"
) -> Style:
    reactions = {"fr": tuple(french.split("; ")), "en": tuple(english.split("; "))}
    return Style(layout, False, period, tuple(emoji.split()), 0.3, reactions, 0.35)


Spelling = dict[str, dict[str, str]]  # by language: what is written for what


def _casual(layout: Literal["burst", "one"], emoji: str, french: str, english: str, spelling: Spelling) -> Style:
    reactions = {"fr": tuple(french.split("; ")), "en": tuple(english.split("; "))}
    return Style(layout, True, "", tuple(emoji.split()), 0.3, reactions, 0.4, abbreviations=spelling)


SHORTHAND = {
    "fr": {
        "je suis": "jsuis", "je ne sais pas": "jsp", "tu es": "t'es", "tu as": "t'as", "quelque chose": "qqch",
        "toujours": "tjrs", "pourquoi": "pk", "vraiment": "vrmt", "d'accord": "dac", "il y a": "ya",
        "rendez-vous": "rdv", "c'est": "c", "c'était": "ct", "avec": "avc", "jamais": "jms",
        "je ne peux pas": "jpeux pas", "quand": "qd", "demain": "dem", "week-end": "we", "semaine": "sem",
        "merci": "merciii", "je pensais": "jpensais", "j'arrive": "jarrive", "minutes": "min", "oui": "ouais",
        "peut-être": "ptet", "salut": "slt", "bonjour": "cc", "comment": "cmt", "encore": "encr", "bien": "bn",
    },
    "en": {
        "you": "u", "your": "ur", "you're": "ur", "are": "r", "tomorrow": "tmr", "i don't know": "idk",
        "really": "rly", "please": "pls", "thanks": "thx", "thank you": "tysm", "something": "smth",
        "i'm": "im", "don't": "dont", "can't": "cant", "it's": "its", "that's": "thats", "minutes": "min",
        "okay": "ok", "i'll": "ill", "before": "b4", "tonight": "tn", "yes": "yess", "with": "w",
        "going to": "gonna", "want to": "wanna", "weekend": "wknd", "already": "alrdy", "maybe": "mayb",
        "about": "abt", "next": "nxt", "great": "gr8", "see you": "cya", "what": "wat", "people": "ppl",
    },
}  # fmt: skip


NOA = Person(
    "Noa Brindelune",
    Style(
        layout="burst",
        lower=True,
        period="",
        # With joiners, skin tones and variation selectors: a step that strips them is caught here.
        emoji=("😭", "🫶", "✨", "🙃", "🥲", "💀", "🤷🏽‍♀️", "❤️‍🔥", "👀", ":)", ":')", "<3"),
        emoji_share=0.4,
        reactions={
            "fr": ("mdr", "ahah", "omg", "jpp", "wait", "ohh", "honestly", "bref", "genre", "alors là", "so"),
            "en": ("lol", "haha", "omg", "bref", "genre", "ohh", "oh la la", "wait", "enfin", "ok so", "voilà", "well"),
        },
        reaction_share=0.55,
        tails=("<3", ":)", "😭😭", "tu vois", "love u", "bisous", "lol", "voilà", "✨✨", "mdrr", "jsp", "promis"),
        tail_share=0.3,
        abbreviations=SHORTHAND,
        stretch_share=0.15,
    ),
)  # fmt: skip

OTHERS = {
    person.name: person
    for person in [
        Person(
            "Malo Cendreval",
            _sentences("🙂 👍 ☕", "Ah, très bien.; Je vois.; Entendu.; Eh bien.", "I see.; Very well."),
        ),
        Person(
            "Élise Fontgrise", _sentences("🌿 😊 👩‍🌾", "Oh là là !; C'est noté.; Ah oui ?", "Oh my!", layout="lines")
        ),
        Person("Bastien Tournevire", _sentences("💪 🔥 👌", "Ok.; Bien vu.; Ah.; Bon.", "Right.; Ok.", period="")),
        Person("Odile Marvaloup", _sentences("🌷 🐈 📚", "Ma chère,; Figure-toi :; Ah !", "My dear,; Well now,")),
        Person(
            "Priya Wexmoor", _sentences("🎉 😄 👩🏽‍🍳", "Génial !; Oh !", "Amazing!; Oh!; Lovely!; No way!", period="!")
        ),
        Person("Ingrid Hallowfen", _sentences("🌲 ☀️ 🙏", "Merci.; Bien.", "I see.; Indeed.; Of course.; Fair enough.")),
        Person("Tomasz Birkenrode", _sentences("🚲 🤔 😀", "Hm.; Bon.", "Hm.; Fine.; True.; Well.", layout="lines")),
        Person(
            "Jun Marrowby", _sentences("🎧 🍜 😎", "Ah d'accord.; Nickel.; Cool.", "Nice.; Cool.; Gotcha.", period="")
        ),
    ]
}

# In none of Noa's chats: only the starter base learns from them.
STRANGERS = {
    person.name: person
    for person in [
        Person(
            "Zélie Montbrasier", _casual("one", "😂 😅 🥳 👀 ✨", "mdr; ah; ouais; bon", "lol; oh; yeah", SHORTHAND)
        ),
        Person(
            "Kit Harrowgate",
            _casual(
                "burst",
                "😬 🙄 😭 💀 🫠",
                "ben; euh; du coup; mdrr",
                "um; like; oh well; haha",
                {"fr": {"je suis": "chuis", "oui": "ui"}, "en": {"okay": "k", "yes": "ye"}},
            ),
        ),
        Person("Sacha Quillandre", _casual("burst", ":p ^^ xD 🤷", "ptdr; euh; wesh; ok", "lmao; ok; wait", SHORTHAND)),
    ]
}
