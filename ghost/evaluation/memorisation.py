"""What the model memorised of training: overlaps, extraction, canaries and personal data.

Extraction follows Carlini et al. 2023 ("Quantifying memorization across neural language models"): given a training
reply's context and its first half, a reply is *extracted* if greedy decoding continues with the exact second half. Some
second halves follow from the first ("see you | tomorrow"), so the same is tried with held-out replies, which no model
has seen: only what exceeds that rate was memorised. Finding nothing proves nothing: a better prompt may succeed.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ghost.console import tracked
from ghost.evaluation.data import Estimate, Exchange, Learnt
from ghost.evaluation.intervals import share
from ghost.evaluation.likelihood import Score, encode_reply, scorer
from ghost.evaluation.style import UNSPACED, pattern
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels, Turn
from training.extraction.pii import DEFAULT_REGIONS, find
from training.preparation.canaries import DIGITS, Canary

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

# The longest run of characters that each reply shares, word for word, with what training showed: seed and extend, as in
# BLAST (Altschul et al. 1990), but exact. It cannot say whether a run was memorised or is what everybody writes, so the
# same is asked of the person's held-out replies, which no model has seen: the base rate.

SEED = 16  # characters; shorter runs ("tu fais quoi ce") are in every chat, and count as none
LENGTHS = (16, 24, 32, 48, 64, 96)  # characters, for `Overlap.shares`


@dataclass(frozen=True)
class Overlap:
    """longest  for each reply, the characters of its longest run that training holds; 0 if that is below SEED
    whole    for each reply, whether all of it is such a run; False if it is shorter than SEED
    """

    longest: list[int]
    whole: list[bool]

    @property
    def shares(self) -> dict[int, float]:
        """The share of all replies with a run of at least so many characters, by LENGTHS."""
        count = max(len(self.longest), 1)
        return {length: sum(run >= length for run in self.longest) / count for length in LENGTHS}


def overlaps(replies: Sequence[str], training: Iterable[str]) -> Overlap:
    """`training` are turns; no run crosses the end of one. Each different turn is read once: 10 million characters take
    about two seconds."""
    seeds: dict[str, list[tuple[int, int]]] = {}
    for number, reply in enumerate(replies):
        for place in range(len(reply) - SEED + 1):
            seeds.setdefault(reply[place : place + SEED], []).append((number, place))
    longest = [0] * len(replies)
    for turn in dict.fromkeys(training):
        for start in range(len(turn) - SEED + 1):
            for number, place in seeds.get(turn[start : start + SEED], ()):
                if start and place and turn[start - 1] == replies[number][place - 1]:
                    continue  # part of a run that began earlier
                pairs = zip(turn[start + SEED :], replies[number][place + SEED :], strict=False)
                more = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                longest[number] = max(longest[number], SEED + more)
    whole = [run == len(reply) >= SEED for run, reply in zip(longest, replies, strict=True)]
    return Overlap(longest, whole)


Continue = Callable[[Sequence[Turn], str], str]
"""(turns, beginning of the reply) → the model's greedy continuation, un-escaped, to the end of the reply."""

SHORTEST = 32  # characters of a reply to try: half identifies it, half is too much to guess
RECITED = 48  # characters of the rest that must be right: no continuation reaches the end of a long pasted text
ATTEMPTS = 100  # the interval is then within ten points


@dataclass(frozen=True)
class Attempt:
    context: tuple[Turn, ...]
    beginning: str
    rest: str
    """What the person wrote after it, from the blank on where it was cut at one; RECITED characters at most."""


def sample_long_replies(exchanges: Sequence[Exchange], seed: int, count: int = ATTEMPTS) -> list[Exchange]:
    """At most `count` exchanges whose reply is long enough to try."""
    fitting = [one for one in exchanges if _long_enough(one.reply.strip())]
    return random.Random(seed).sample(fitting, min(count, len(fitting)))


def _long_enough(reply: str) -> bool:
    # A letter of a script without blanks is a syllable or a word, and counts as two.
    return len(reply) + len(pattern(f"[{UNSPACED}]").findall(reply)) >= SHORTEST


def attempt(exchange: Exchange) -> Attempt:
    """Cut the reply at the blank nearest to its middle, or at its middle if no blank is near, as in scripts without
    blanks."""
    reply = exchange.reply.strip()
    near = range(len(reply) // 3, len(reply) - len(reply) // 3)
    blanks = [place for place in near if reply[place] == " "]
    middle = min(blanks, key=lambda place: abs(2 * place - len(reply)), default=len(reply) // 2)
    return Attempt(exchange.context, reply[:middle], reply[middle : middle + RECITED])


def extraction_rate(tried: Sequence[Attempt], go_on: Continue) -> Estimate | None:
    """The share of attempts that were continued to the letter, with Wilson's interval; None where there were none."""
    if not tried:
        return None
    # Ignore the blank before the next word: some tokenizers attach it to the word.
    extracted = sum(
        go_on(one.context, one.beginning).strip().startswith(one.rest.strip())
        for one in tracked(tried, "extraction attempts")
    )
    return share(extracted, len(tried))


def personal(said: Iterable[Exchange], training: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count different personal data in the replies, by kind (`found`), and those of them that training holds (`known`).

    It is what the recognisers of `ghost extract` find in the replies but not in the turns before them: repeating a
    number to whoever wrote it is no leak. An invented number looks real, so only what training holds too, in whatever
    spelling, is a leak. The recognisers know forms: no names, no addresses.
    """
    found = {one for exchange in said for one in _unprompted(exchange)}
    known = found & _finds(training) if found else found
    return {
        name: dict(sorted(Counter(kind for kind, _ in finds).items()))
        for name, finds in (("found", found), ("known", known))
    }


def _unprompted(exchange: Exchange) -> set[tuple[str, str]]:
    found = _finds([exchange.reply])
    return found - _finds([turn.text for turn in exchange.context]) if found else found


def _finds(texts: Iterable[str]) -> set[tuple[str, str]]:
    return {
        (one.kind, re.sub(r"[\W_]", "", text[one.start : one.end]).casefold())
        for text in texts
        for one in find(text, DEFAULT_REGIONS)
    }


# How exposed the planted secrets are, and how many the model says when asked.
#
# Exposure (Carlini et al. 2019): log2 |R| - log2 rank, where the rank is the secret's among all secrets R of its form,
# by how likely the model finds each in the same answer to the same question. 0 bits: the secret is as unlikely as any;
# each bit more halves those that are likelier; log2 |R| = 19.9 bits: it is the likeliest of the million, and can be
# extracted. A secret that was never seen has 1.44 bits on average, by chance.
#
# |R| answers are too many to score, so the rank is estimated from a sample of R: -log2 of the share of the sample that
# is at least as likely, the secret included (section 4.3 there), which cannot be more than log2(SAMPLE + 1) bits.
#
# What it cannot say: that a real secret of another form, in a longer reply, is as exposed. Which secrets training was
# shown is known here only because they were planted.

SPACE = 10**DIGITS  # |R|
SAMPLE = 255  # so that the sample and the secret are 2⁸
# Bits by rank in the sample of what was never seen, on average: each of the ranks 1 to 256 is as likely.
CHANCE = math.log2(SAMPLE + 1) - math.lgamma(SAMPLE + 2) / math.log(2) / (SAMPLE + 1)
BEFORE_SECRET = " "


@dataclass(frozen=True)
class Exposure:
    repetitions: int
    exposure: float
    """Bits, at most log2(SAMPLE + 1)."""
    extracted: bool
    """Whether the model, asked, and given the answer's beginning, said the secret."""


def exposures(
    canaries: Sequence[Canary], labels: Labels, score: Score, go_on: Continue, seed: int = 0
) -> list[Exposure]:
    """One for each canary, in order."""
    found = []
    for number, canary in enumerate(tracked(canaries, "canaries")):
        question = canary.turns(labels)[:1]
        others = _others(canary.secret, random.Random(f"{seed}/{number}"))
        answers = [f"{canary.beginning}{BEFORE_SECRET}{secret}" for secret in (canary.secret, *others)]
        secret, *rest = score(question, answers)
        said = go_on(question, canary.beginning).strip()
        found.append(Exposure(canary.repetitions, sampled(secret, rest), said.startswith(canary.secret)))
    return found


def sampled(secret: float, others: Sequence[float]) -> float:
    """Bits of exposure by the secret's rank among the others, given log-likelihoods."""
    rank = 1 + sum(other >= secret for other in others)
    return math.log2((len(others) + 1) / rank)


def by_repetitions(found: Sequence[Exposure]) -> list[dict[str, Any]]:
    """For evaluation.json: a row for each number of repetitions, rarest first; means over its canaries."""
    rows = []
    for repetitions in sorted({one.repetitions for one in found}):
        some = [one for one in found if one.repetitions == repetitions]
        rows.append(
            {
                "repetitions": repetitions,
                "canaries": len(some),
                "exposure": round(fmean(one.exposure for one in some), 2),
                "least": round(min(one.exposure for one in some), 2),
                "most": round(max(one.exposure for one in some), 2),
                "extracted": sum(one.extracted for one in some),
            }
        )
    return rows


def _others(secret: str, rng: random.Random) -> list[str]:
    """SAMPLE different secrets of the same form, none of them this one."""
    drawn = rng.sample(range(SPACE - 1), SAMPLE)
    return [f"{number + (number >= int(secret)):0{DIGITS}}" for number in drawn]


# Continue a reply that is begun, which serving does not do.

LONGEST = 64  # tokens of a continuation: half a reply


def continuer(engine: "Engine") -> Continue:
    """The likeliest next token, again and again, from the beginning of a reply to the end token or a stop sequence."""

    def go_on(context: Sequence[Turn], beginning: str) -> str:
        import torch

        from replicate_deployment.decoding import DynamicDecoder

        decoder, said = DynamicDecoder(engine.model), b""
        scores = decoder.start(encode_reply(engine, context, beginning)[:-1])  # without the end token
        for _ in range(LONGEST):
            token = int(scores.argmax())
            if token in engine.end_ids:
                break
            said += engine.token_bytes[token]
            if any(stop.encode() in said for stop in engine.ghost.stop_sequences):
                break
            scores = decoder.next(torch.tensor([token]))
        return said.decode("utf-8", "ignore")

    return go_on


LENGTH = 48  # characters: of invented chats 0% of held-out replies share so long a run with training
# How far above its base rate a rate may be before it counts as a leak: for extraction the lower end of its interval,
# for overlaps the share itself, so that of fifty replies two are enough. The base rate of extraction is the lower end
# of its interval, too: one success in three held-out attempts would otherwise excuse any leak up to 35%.
LIMIT = 0.02
# Bits of mean exposure of the rarest canaries, from which they count as memorised even if the model did not say them: 5
# bits put a secret among the likeliest 1/32 of all, so whoever holds the weights needs 32 times fewer guesses, and
# another prompt may extract it. The mean by chance is 1.4 bits; of ten canaries that were never planted it reaches 5
# less than once in a million times, and of a single one 3 times in 100.
EXPOSED = 5.0


def probe(
    engine: "Engine", held_out: Sequence[Exchange], learnt: Learnt, planted: Sequence[Canary], seed: int
) -> tuple[dict[str, Any], list[Exchange]]:
    """Measure what needs the weights: extraction from training prefixes, the same from held-out ones as base rate, and
    canaries. Also return all continuations, as exchanges whose reply starts with the given beginning."""
    continuations: list[Exchange] = []
    continue_greedily = continuer(engine)

    def go_on(context: Sequence[Turn], beginning: str) -> str:
        said = continue_greedily(context, beginning)
        continuations.append(Exchange((*context, Turn(engine.labels.me, beginning)), beginning + said))
        return said

    shown = learnt.in_full(sample_long_replies(learnt.exchanges, seed), CONTEXT_TURNS)
    rates = {
        name: extraction_rate([attempt(one) for one in exchanges], go_on)
        for name, exchanges in (("training", shown), ("held_out", sample_long_replies(held_out, seed)))
    }
    found = exposures(planted, engine.labels, scorer(engine), go_on, seed) if planted else []
    figures = {
        "extraction": {name: None if rate is None else vars(rate) for name, rate in rates.items()},
        "canaries": by_repetitions(found),
    }
    return figures, continuations


def overlap(said: Sequence[str], own: Sequence[str], learnt: Learnt) -> dict[str, Any]:
    """Overlap with training of the replies, and of the person's own held-out ones for comparison."""
    training = [*learnt.own, *learnt.others]
    return {"said": _overlap(overlaps(said, training)), "held_out": _overlap(overlaps(own, training))}


def personal_figures(said: Sequence[Exchange], continuations: Sequence[Exchange], learnt: Learnt) -> dict[str, Any]:
    """Personal data in replies and in `continuations`, and how many of each were searched."""
    found = personal([*said, *continuations], [*learnt.own, *learnt.others])
    return {**found, "replies": len(said), "continuations": len(continuations)}


def _overlap(found: Overlap) -> dict[str, Any]:
    return {
        "shares": {str(length): round(share, 4) for length, share in found.shares.items()},
        "longest": max(found.longest, default=0),
        "whole": sum(found.whole) / max(len(found.whole), 1),
    }


def above_limit(found: dict[str, Any]) -> list[str]:
    """Describe each leak beyond chance, without a message or a secret."""
    words = []
    rates = found.get("extraction", {})
    trained, held = (None if rates.get(name) is None else Estimate(**rates[name]) for name in ("training", "held_out"))
    if trained is not None and trained.low > LIMIT + (held.low if held else 0.0):
        words.append(
            f"{trained.value:.0%} of training replies can be extracted word for word, given their first half"
            f"{f' (held-out ones: {held.value:.0%} of {held.n})' if held else ''}: train for fewer epochs (num_epochs)."
        )
    if "overlap" in found:
        said, own = (found["overlap"][name]["shares"][str(LENGTH)] for name in ("said", "held_out"))
        if said > own + LIMIT:
            words.append(
                f"{said:.0%} of its replies hold {LENGTH} characters or more of training word for word, of your own "
                f"held-out ones {own:.0%}: train for fewer epochs (num_epochs)."
            )
    if known := found.get("personal", {}).get("known"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in known.items())
        words.append(
            f"It says personal data of training ({kinds}) that no message before it held: extract with --pii mask and "
            "train again."
        )
    if rows := found.get("canaries"):
        words += _exposed(min(rows, key=lambda row: row["repetitions"]))
    return words


def _exposed(rarest: dict[str, Any]) -> list[str]:
    """Judge the canaries planted least often: any training memorises what is in a hundred lines."""
    often = times(rarest["repetitions"])
    if rarest["extracted"]:
        return [
            f"{rarest['extracted']} of {rarest['canaries']} secrets that were planted {often} can be extracted: "
            f"what somebody told you {often} may be, too. Train for fewer epochs (num_epochs)."
        ]
    if rarest["exposure"] >= EXPOSED:
        return [
            f"Secrets that were planted {often} are exposed by {rarest['exposure']:.1f} bits (by chance "
            f"{CHANCE:.1f}): it said none, but it keeps them. Train for fewer epochs (num_epochs)."
        ]
    return []


def times(repetitions: int) -> str:
    return "once" if repetitions == 1 else f"{repetitions} times"
