"""How likely the person's own held-out replies are, with context and without."""

import math
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ghost.evaluation.data import Estimate, Exchange
from ghost.evaluation.intervals import ratio
from replicate_deployment.chat_format import Turn
from replicate_deployment.tokenization import encode, encode_prompt
from training.finetuning.data import encode_turns

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine


class Nats(NamedTuple):
    """Of one reply: of its text, and, apart, of the end token after it.

    The end token is apart because a base never learnt to say it: in one figure, what fine-tuning taught about style and
    what it taught about stopping could not be told from each other.
    """

    reply: float
    tokens: int
    characters: int
    end: float


def reply_nats(engine: "Engine", context: Sequence[Turn], reply: str) -> Nats:
    """-log p(reply | context) as the engine prompts, by teacher forcing. An empty context leaves the bare tag.

    The oldest turns are left out where all are more than the model has positions for. A reply longer than that by
    itself counts by its end.
    """
    import torch

    labels, turns = engine.labels, list(context)
    room: int = engine.model.config.max_position_embeddings
    answer = Turn(labels.me, reply)
    while True:
        whole = encode_turns(
            engine.tokenizer, [*turns, answer], labels, recipe=engine.recipe, replies_only=True
        ).ids.tolist()
        if len(whole) <= room or not turns:
            break
        turns = turns[1:]
    start = len(_prompt(engine, turns))
    start, whole = max(1, start - max(0, len(whole) - room)), whole[-room:]
    ids = torch.tensor([whole[:-1]], device=engine.model.device)
    with torch.inference_mode():
        logits = engine.model(input_ids=ids, use_cache=False, logits_to_keep=len(whole) - start).logits[0].float()
    targets = torch.tensor(whole[start:], device=logits.device)
    nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    return Nats(sum(nats[:-1]), len(nats) - 1, len(reply), nats[-1])


def _prompt(engine: "Engine", turns: Sequence[Turn]) -> Any:
    if turns:
        return encode_prompt(engine.tokenizer, turns, engine.labels, engine.recipe)
    return encode(engine.tokenizer, engine.labels.me).ids


# How likely the person's own replies are to a contender: loss and perplexity, in all and by where they are from.

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


# Does the reply depend on what was said? Its loss after the true context, after another conversation's, after none.

Context = tuple[Turn, ...]


@dataclass(frozen=True)
class ContextUse:
    """Nats a token of the same replies; `gain` is shuffled less true, of the same replies, 0 for a model that does not
    listen. What the true context gives beyond the format is the gain; what the format gives is none less shuffled."""

    true: Estimate
    shuffled: Estimate
    none: Estimate
    gain: Estimate


def shuffled(exchanges: Sequence[Exchange], seed: int) -> list[Context] | None:
    """For each exchange the context of one of another conversation; None where there is no other."""
    order = random.Random(seed).sample(range(len(exchanges)), len(exchanges))
    groups = clusters(exchanges)
    found: list[Context] = [()] * len(exchanges)
    for place, number in enumerate(order):
        later = (order[(place + step) % len(order)] for step in range(1, len(order)))
        other = next((one for one in later if _differ(exchanges, groups, number, one)), None)
        if other is None:
            return None
        found[number] = exchanges[other].context
    return found


def _differ(exchanges: Sequence[Exchange], groups: Sequence[int], one: int, other: int) -> bool:
    return groups[one] != groups[other] and exchanges[one].context[-1] != exchanges[other].context[-1]


def context_use(
    exchanges: Sequence[Exchange], true: Sequence[Nats], measure: Callable[[Context, str], Nats], seed: int
) -> ContextUse | None:
    """`measure(context, reply)` tells the nats of a reply, `true` those after its own context. None where no second
    conversation is held out."""
    others = shuffled(exchanges, seed)
    if others is None:
        return None
    groups, replies = clusters(exchanges), [one.reply for one in exchanges]
    false = [measure(context, reply) for context, reply in zip(others, replies, strict=True)]
    bare = [measure((), reply) for reply in replies]

    def mean(nats: Sequence[Nats]) -> Estimate:
        return ratio([one.reply for one in nats], [one.tokens for one in nats], groups, seed)

    return ContextUse(mean(true), mean(false), mean(bare), gain(exchanges, true, false, seed))
