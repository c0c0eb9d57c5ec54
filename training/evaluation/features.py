"""What is counted of a reply's style, and what each figure cannot say.

An observation is what one reply shows of a feature: a count by kind, a count of YES and NO, or numbers. Replies are
what is drawn at random later, so that several words of one reply never count as independent.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from training.evaluation.distances import NO, YES
from training.evaluation.exchange import Exchange
from training.extraction.languages import UNDETERMINED, WRITTEN_OUT, detect

Observation = Counter[str] | list[float]
# Scripts that put no blank between words. A run of their letters is a whole message, which no figure may hold.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
COMMON = 50  # words; the first fifty of a language are almost all function words (Burrows 2002 takes 40 to 150)
OTHER_WORDS = "(any other word)"
NO_MARK, EMOJI_MARK = "(none)", "(emoji)"


@dataclass(frozen=True)
class Reference:
    """What the words of a reply are held against: the same for the person's replies and for generated ones."""

    common: frozenset[str]
    """The person's own most frequent words."""
    of_others: frozenset[str]
    """Every word that the other side writes in the contexts."""

    @classmethod
    def of(cls, own: Sequence[Exchange]) -> "Reference":
        theirs: set[str] = set()
        mine: Counter[str] = Counter()
        turns = {turn for exchange in own for turn in exchange.context}  # windows share most of theirs
        others = {exchange.context[-1].label for exchange in own if exchange.context}
        for label, text in turns:
            if label in others:
                theirs.update(words(text))
            else:
                mine.update(words(text))
        for reply in {exchange.reply for exchange in own}:
            mine.update(words(reply))
        # Ties by the alphabet: sets have no order of their own from run to run.
        ranked = sorted(mine, key=lambda word: (-mine[word], word))
        return cls(frozenset(ranked[:COMMON]), frozenset(theirs))


Observe = Callable[[Sequence[Exchange], Reference], Sequence[Observation]]


@dataclass(frozen=True)
class Feature:
    key: str
    title: str
    measure: Literal["jensen_shannon", "kolmogorov_smirnov", "difference"]
    observe: Observe
    cannot_say: str


@cache
def _pattern(source: str) -> Any:
    import regex

    return regex.compile(source)


def words(text: str) -> list[str]:
    """Runs of letters, an apostrophe or hyphen inside included, in lower case; single letters of UNSPACED scripts."""
    letters = rf"[[\p{{L}}\p{{M}}]--[{UNSPACED}]]+"
    source = rf"(?V1)[{UNSPACED}&&\p{{L}}]\p{{M}}*|{letters}(?:['’-]{letters})*"
    return _pattern(source).findall(text.lower())  # type: ignore[no-any-return]


def emoji(text: str) -> list[str]:
    """Emoji as Unicode draws them (a family, a flag, a skin tone is one), and the plainest emoticons."""
    found = _pattern(
        r"\p{RI}{2}|[0-9#*]\uFE0F?\u20E3"
        r"|(?:\p{Emoji_Presentation}|\p{Extended_Pictographic}\uFE0F?)\p{Emoji_Modifier}?"
        r"(?:\u200D\p{Extended_Pictographic}\uFE0F?\p{Emoji_Modifier}?)*"
        r"|(?<![\w:;<])(?:[:;][-'’]?[()DPpo/|*]|[xX]D|<3|\^\^)(?!\w)"
    ).findall(text)
    return [one for one in found if one not in "©®™"]


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _by_reply(observed: Callable[[str], Observation]) -> Observe:
    return lambda exchanges, _: [observed(exchange.reply) for exchange in exchanges]


def _counted(answers: Sequence[bool]) -> Counter[str]:
    yes = sum(answers)
    return Counter({YES: yes, NO: len(answers) - yes})


def _lower(reply: str) -> Counter[str]:
    return _counted([line == line.lower() for line in lines(reply) if line.lower() != line.upper()])


def _capital(reply: str) -> Counter[str]:
    firsts = [next((letter for letter in line if letter.lower() != letter.upper()), "") for line in lines(reply)]
    return _counted([first == first.upper() for first in firsts if first])


def _shouted(reply: str) -> Counter[str]:
    found = _pattern(r"\p{L}{2,}").findall(reply)
    return _counted([word == word.upper() for word in found if word.lower() != word.upper()])


def _final_marks(reply: str) -> Counter[str]:
    return Counter(map(_final_mark, lines(reply)))


def _final_mark(line: str) -> str:
    line = line.rstrip()
    if (found := emoji(line)) and line.endswith(found[-1]):
        return EMOJI_MARK
    last = line[-1]
    if not unicodedata.category(last).startswith("P"):
        return NO_MARK
    return "…" if line.endswith("...") else last


def _marks(reply: str) -> Counter[str]:
    for one in emoji(reply):
        reply = reply.replace(one, " ")
    return Counter(letter for letter in reply if unicodedata.category(letter).startswith("P"))


def _repeated(reply: str) -> Counter[str]:
    return _counted([bool(_pattern(r"[!?]{2}|\.{2}|…").search(line)) for line in lines(reply)])


def _stretched(reply: str) -> Counter[str]:
    return _counted([bool(_pattern(r"(\p{L})\1\1").search(word)) for word in words(reply)])


def _own_words(exchanges: Sequence[Exchange], reference: Reference) -> list[Observation]:
    return [_counted([word not in reference.of_others for word in words(exchange.reply)]) for exchange in exchanges]


def _common_words(exchanges: Sequence[Exchange], reference: Reference) -> list[Observation]:
    return [
        Counter(word if word in reference.common else OTHER_WORDS for word in words(exchange.reply))
        for exchange in exchanges
    ]


def _languages(exchanges: Sequence[Exchange], _: Reference) -> list[Observation]:
    detected = detect([exchange.reply for exchange in exchanges])
    return [Counter([language] * (language != UNDETERMINED)) for language in detected]


def _switches(exchanges: Sequence[Exchange], _: Reference) -> list[Observation]:
    asked = detect([exchange.context[-1].text if exchange.context else "" for exchange in exchanges])
    answered = detect([exchange.reply for exchange in exchanges])
    return [
        Counter([f"{one}→{other}"] * (UNDETERMINED not in (one, other)))
        for one, other in zip(asked, answered, strict=True)
    ]


FEATURES = (
    Feature(
        "characters", "characters a reply", "kolmogorov_smirnov", _by_reply(lambda reply: [float(len(reply))]),
        "whether what is said deserved that length; a reply cut at the token limit counts as long as it got",
    ),
    Feature(
        "words", "words a reply", "kolmogorov_smirnov", _by_reply(lambda reply: [float(len(words(reply)))]),
        "anything of languages written without spaces, where each letter counts as a word",
    ),
    Feature(
        "lines", "lines a reply (bursts)", "kolmogorov_smirnov", _by_reply(lambda reply: [float(len(lines(reply)))]),
        "whether lines were messages of a burst or one message's lines: the data does not tell them apart",
    ),
    Feature(
        "emoji_rate", "replies with emoji", "difference", _by_reply(lambda reply: _counted([bool(emoji(reply))])),
        "how many there are in one reply; of emoticons only the plainest are known",
    ),
    Feature(
        "emoji", "which emoji", "jensen_shannon", _by_reply(lambda reply: Counter(emoji(reply))),
        "whether one fits what it answers; a person with many rare ones is far from themselves too",
    ),
    Feature(
        "lower_case", "lines all in lower case", "difference", _by_reply(_lower),
        "anything of scripts without capitals, whose lines are not counted",
    ),
    Feature(
        "capital_first", "lines that begin with a capital", "difference", _by_reply(_capital),
        "whether the person or their keyboard put the capital",
    ),
    Feature(
        "all_caps", "words all in capitals", "difference", _by_reply(_shouted),
        "a shout from an abbreviation such as SNCF",
    ),
    Feature(
        "final_mark", "what ends a line", "jensen_shannon", _by_reply(_final_marks),
        "anything about the marks inside of a line",
    ),
    Feature(
        "marks", "which punctuation", "jensen_shannon", _by_reply(_marks),
        "how much of it there is; emoticons are not counted",
    ),
    Feature(
        "repeated_marks", "lines with !!, ?? or ...", "difference", _by_reply(_repeated),
        "how long such a run is",
    ),
    Feature(
        "shorthand", "words of a list of abbreviations", "difference",
        _by_reply(lambda reply: _counted([word in WRITTEN_OUT for word in words(reply)])),
        "anything beyond some hundred common abbreviations of French, English, Spanish and German",
    ),
    Feature(
        "own_spellings", "words that no partner writes", "difference", _own_words,
        "a typo from a rare or foreign word, a name or an invention: no dictionary of chats is there to tell",
    ),
    Feature(
        "stretched", "words with a letter drawn out", "difference", _by_reply(_stretched),
        "how far it is drawn out, nor anything of languages written without spaces",
    ),
    Feature(
        "language", "language of the reply", "jensen_shannon", _languages,
        "a language from two or three words: such replies are not counted, and one that mixes two counts for one",
    ),
    Feature(
        "switching", "language by the partner's language", "jensen_shannon", _switches,
        "switches within one reply; whatever either side said in too few words is not counted",
    ),
    Feature(
        "function_words", f"the person's {COMMON} commonest words", "jensen_shannon", _common_words,
        "which words are function words, so a name that is often said is among them; they are chosen on the person's "
        "own replies, which flatters the person a little",
    ),
)  # fmt: skip
