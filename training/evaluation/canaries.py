"""How exposed the planted secrets are, and how many the model says when it is asked.

Exposure (Carlini et al. 2019): log2 |R| - log2 rank, where the rank is the secret's among all secrets R of its form, by
how likely the model finds each in the same answer to the same question. 0 bits: the secret is as unlikely as any; each
bit more halves those that are likelier; log2 |R| = 19.9 bits: it is the likeliest of the million, and can be extracted.
A secret that was never seen has 1.44 bits on average, by chance.

|R| answers are too many to score, so the rank is estimated from a sample of R, in two ways (section 4.3 there):
  `exposure`      -log2 of the share of the sample that is at least as likely, the secret included. It assumes nothing
                  and cannot say more than log2(SAMPLE + 1) bits.
  `extrapolated`  -log2 of the mass above the secret's log-likelihood of a skew-normal distribution fitted to the
                  sample's, at most log2 |R|. It tells apart what lies beyond the sample, if the tail is as the fit has
                  it.

What it cannot say: that a real secret of another form, in a longer reply, is as exposed. Which secrets training was
shown is known here only because they were planted.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from replicate_deployment.chat_format import Labels, Turn
from training.console import progress
from training.evaluation.memorisation import Continue
from training.preparation.canaries import DIGITS, Canary

Score = Callable[[Sequence[Turn], Sequence[str]], Sequence[float]]
"""(turns, replies to them) → the log-likelihood of each, in nats; but for a constant that they share."""

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
    extrapolated: float
    """Bits, at most log2 |R|."""
    extracted: bool
    """Whether the model, asked, and given the answer's beginning, said the secret."""


def exposures(
    canaries: Sequence[Canary], labels: Labels, score: Score, go_on: Continue, seed: int = 0
) -> list[Exposure]:
    """One for each canary, in order."""
    found = []
    with progress("canaries", len(canaries)) as bar:
        for number, canary in enumerate(canaries):
            question = canary.turns(labels)[:1]
            others = _others(canary.secret, random.Random(f"{seed}/{number}"))
            answers = [f"{canary.beginning}{BEFORE_SECRET}{secret}" for secret in (canary.secret, *others)]
            secret, *rest = score(question, answers)
            said = go_on(question, canary.beginning).strip()
            found.append(
                Exposure(
                    canary.repetitions,
                    sampled(secret, rest),
                    extrapolated(secret, rest),
                    said.startswith(canary.secret),
                )
            )
            bar.advance()
    return found


def sampled(secret: float, others: Sequence[float]) -> float:
    """Bits of exposure by the secret's rank among the others, given log-likelihoods."""
    rank = 1 + sum(other >= secret for other in others)
    return math.log2((len(others) + 1) / rank)


def extrapolated(secret: float, others: Sequence[float]) -> float:
    """Bits of exposure by a skew-normal distribution fitted to the others, given log-likelihoods."""
    from scipy.stats import skewnorm

    ceiling = math.log2(SPACE)
    if max(others) == min(others):
        return 0.0 if secret <= others[0] else ceiling
    mass = float(skewnorm.sf(secret, *skewnorm.fit(others)))
    return min(ceiling, -math.log2(mass)) if mass > 0 else ceiling


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
                "extrapolated": round(fmean(one.extrapolated for one in some), 2),
                "extracted": sum(one.extracted for one in some),
            }
        )
    return rows


def _others(secret: str, rng: random.Random) -> list[str]:
    """SAMPLE different secrets of the same form, none of them this one."""
    drawn = rng.sample(range(SPACE - 1), SAMPLE)
    return [f"{number + (number >= int(secret)):0{DIGITS}}" for number in drawn]
