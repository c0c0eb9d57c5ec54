"""How likely the person's own replies are to a contender: loss and perplexity, in all and by where they are from."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from training.evaluation.exchange import Estimate, Exchange
from training.evaluation.intervals import ratio
from training.evaluation.likelihood import Nats

FEWEST = 10  # replies of a platform, a language or a length of context, below which it is not shown alone
CONTEXTS = (1, 3, 7, 13, 21)  # turns of context: borders of the groups


@dataclass(frozen=True)
class Likelihood:
    """Means over replies, without their end tokens, and `end` over those alone.

    A model's tokens are its own: only per character can two tokenizers be compared.
    """

    nats_per_token: Estimate
    nats_per_character: Estimate
    end: Estimate
    """Nats of the end token after a whole reply: how unlikely it finds it that the person was done."""

    @property
    def perplexity(self) -> Estimate:
        """exp of the nats a token: among how many equally likely tokens the model is as unsure as it is here."""
        found = self.nats_per_token
        return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.n)

    def as_json(self) -> dict[str, Any]:
        named = {
            "nats_per_token": self.nats_per_token,
            "perplexity": self.perplexity,
            "nats_per_character": self.nats_per_character,
            "end_nats": self.end,
        }
        return {name: vars(estimate) for name, estimate in named.items()}


def clusters(exchanges: Sequence[Exchange]) -> list[int]:
    """What to resample: the conversation of each exchange, or each by itself where conversations are not known."""
    known = all(one.conversation >= 0 for one in exchanges)
    return [one.conversation if known else number for number, one in enumerate(exchanges)]


def likelihood(exchanges: Sequence[Exchange], nats: Sequence[Nats], seed: int) -> Likelihood:
    groups = clusters(exchanges)
    replies = [one.reply for one in nats]
    return Likelihood(
        ratio(replies, [one.tokens for one in nats], groups, seed),
        ratio(replies, [max(one.characters, 1) for one in nats], groups, seed),
        ratio([one.end for one in nats], [1] * len(nats), groups, seed),
    )


def breakdowns(
    exchanges: Sequence[Exchange], nats: Sequence[Nats], seed: int
) -> Mapping[str, Mapping[str, Likelihood]]:
    """The same by platform, language and turns of context; groups below FEWEST, and what nobody recorded, left out."""
    by: dict[str, Callable[[Exchange], Hashable]] = {
        "platform": lambda one: one.platform,
        "language": lambda one: one.language,
        "context": lambda one: context_group(len(one.context)),
    }
    found: dict[str, dict[str, Likelihood]] = {}
    for name, key in by.items():
        places: dict[str, list[int]] = {}
        for place, exchange in enumerate(exchanges):
            places.setdefault(str(key(exchange)), []).append(place)
        found[name] = {
            group: likelihood([exchanges[place] for place in some], [nats[place] for place in some], seed)
            for group, some in sorted(places.items(), key=lambda item: (len(item[0]), item[0]))
            if group and len(some) >= FEWEST
        }
    return {name: groups for name, groups in found.items() if groups}


def context_group(turns: int) -> str:
    """`1-2`, in turns before the reply."""
    for first, following in pairwise(CONTEXTS):
        if turns < following:
            return f"{first}-{following - 1}"
    return f"{CONTEXTS[-1]}+"


def gain(exchanges: Sequence[Exchange], better: Sequence[Nats], worse: Sequence[Nats], seed: int) -> Estimate:
    """Nats a token by which `better` finds the same replies likelier: paired, so what is hard in a reply cancels."""
    differences = [one.reply - other.reply for one, other in zip(worse, better, strict=True)]
    return ratio(differences, [one.tokens for one in better], clusters(exchanges), seed)
