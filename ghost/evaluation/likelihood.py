"""How likely the person's own held-out replies are, with context and without."""

import copy
import math
import random
from collections.abc import Callable, Hashable, Sequence
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
    """Of one reply's text, and separately of the end token after it.

    A base never learnt the end token, so a joint figure would mix what fine-tuning taught about style and about
    stopping."""

    reply: float
    tokens: int
    characters: int
    end: float


def reply_nats(engine: "Engine", context: Sequence[Turn], reply: str) -> Nats:
    """-log p(reply | context) as the engine prompts, by teacher forcing. An empty context leaves the bare tag.

    If the turns exceed the model's positions, drop the oldest. Of a longer reply, only the end counts.
    """
    import torch

    turns = list(context)
    room: int = engine.model.config.max_position_embeddings
    while len(whole := encode_reply(engine, turns, reply)) > room and turns:
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


FEWEST = 10  # replies of a platform, a language or a length of context, below which it has no figure of its own
CONTEXTS = (1, 3, 7, 13, 21)  # turns of context: borders of the groups


def clusters(exchanges: Sequence[Exchange]) -> list[int]:
    """The groups to resample: each exchange's conversation, or each exchange alone if conversations are unknown."""
    known = all(one.conversation >= 0 for one in exchanges)
    return [one.conversation if known else number for number, one in enumerate(exchanges)]


def likelihood(exchanges: Sequence[Exchange], nats: Sequence[Nats], seed: int) -> dict[str, Any]:
    """Means over replies, for evaluation.json. All but `end_nats`, that of the end token, leave end tokens out.

    A model's tokens are its own: only per character can two tokenizers be compared. `perplexity` is exp of the nats a
    token: the number of equally likely tokens with the same uncertainty.
    """
    groups = clusters(exchanges)
    replies = [one.reply for one in nats]
    by_token = ratio(replies, [one.tokens for one in nats], groups, seed)
    found = {
        "nats_per_token": by_token,
        "perplexity": Estimate(math.exp(by_token.value), math.exp(by_token.low), math.exp(by_token.high), by_token.n),
        "nats_per_character": ratio(replies, [max(one.characters, 1) for one in nats], groups, seed),
        "end_nats": ratio([one.end for one in nats], [1] * len(nats), groups, seed),
    }
    return {name: vars(estimate) for name, estimate in found.items()}


def breakdowns(exchanges: Sequence[Exchange], nats: Sequence[Nats], seed: int) -> dict[str, dict[str, Any]]:
    """`likelihood` by platform, language and turns of context, without groups below FEWEST and unrecorded ones."""
    by: dict[str, Callable[[Exchange], Hashable]] = {
        "platform": lambda one: one.platform,
        "language": lambda one: one.language,
        "context": lambda one: context_group(len(one.context)),
    }
    found: dict[str, dict[str, Any]] = {}
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
    """Nats a token by which `better` is better on the same replies; paired, so hard replies cancel out."""
    differences = [one.reply - other.reply for one, other in zip(worse, better, strict=True)]
    return ratio(differences, [one.tokens for one in better], clusters(exchanges), seed)


# Does the reply depend on the context? Compare its loss after the true context, another conversation's, and none.

Context = tuple[Turn, ...]


def shuffled(exchanges: Sequence[Exchange], seed: int) -> list[Context] | None:
    """For each exchange, the context of another conversation; None if there is no other."""
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
) -> dict[str, Any] | None:
    """Nats a token of the same replies after their own context (`true`), another conversation's (`shuffled`) and none,
    for evaluation.json. None if only one conversation is held out.

    `gain` is shuffled minus true: 0 for a model that ignores the context. None minus shuffled is what the format alone
    gives. `measure(context, reply)` returns the nats of a reply; `true` are those after its own context.
    """
    others = shuffled(exchanges, seed)
    if others is None:
        return None
    groups, replies = clusters(exchanges), [one.reply for one in exchanges]
    false = [measure(context, reply) for context, reply in zip(others, replies, strict=True)]
    bare = [measure((), reply) for reply in replies]

    def mean(nats: Sequence[Nats]) -> Estimate:
        return ratio([one.reply for one in nats], [one.tokens for one in nats], groups, seed)

    gained = gain(exchanges, true, false, seed)
    found = {"true": mean(true), "shuffled": mean(false), "none": mean(bare), "gain": gained}
    return {name: vars(estimate) for name, estimate in found.items()}


# Does it answer this message, or any message? Rank the true reply among others of the person, in its context.

RANKED = 100  # held-out replies: the interval of the mean is then about ±0.06
CANDIDATES = 50
BATCH = 8  # replies of similar length that are scored at a time


Score = Callable[[Sequence[Turn], Sequence[str]], Sequence[float]]
"""(turns, replies to them) → the log-likelihood of each, in nats, up to a shared constant."""


class Ranks(NamedTuple):
    """Ranks of replies by how much likelier the context makes them: log p(reply | context) - log p(reply). So a reply
    that is likely anywhere, such as `ok`, gains no rank by that.

    `reciprocals[n]` is 1 / the rank, among `candidates`, of the reply of the exchange `places[n]`.
    """

    places: list[int]
    reciprocals: list[float]
    candidates: int


def ranks(
    contexts: Sequence[Context],
    exchanges: Sequence[Exchange],
    score: Score,
    seed: int,
    advance: Callable[[], None],
    most: int = RANKED,
) -> Ranks | None:
    """Rank the replies of at most `most` exchanges; `contexts` are what the contender is shown before each.

    The others are held-out replies of other conversations, each text once, the same for every contender. None if fewer
    than ten are there.
    """
    rng, groups = random.Random(seed), clusters(exchanges)
    drawn = sorted(rng.sample(range(len(exchanges)), min(most, len(exchanges))))
    others = {place: _others(exchanges, groups, place) for place in drawn}
    candidates = min(CANDIDATES, 1 + min(map(len, others.values()), default=0))
    if candidates < FEWEST:
        return None
    texts = sorted({one.reply for one in exchanges})
    alone = dict(zip(texts, score((), texts), strict=True))
    reciprocals = []
    for place in drawn:
        replies = [exchanges[place].reply, *rng.sample(others[place], candidates - 1)]
        scores = score(contexts[place], replies)
        true, *rest = (found - alone[reply] for found, reply in zip(scores, replies, strict=True))
        reciprocals.append(1 / (1 + sum(one >= true for one in rest)))
        advance()
    return Ranks(drawn, reciprocals, candidates)


def ranking(
    contexts: Sequence[Context], exchanges: Sequence[Exchange], score: Score, seed: int, advance: Callable[[], None]
) -> dict[str, Any] | None:
    """The mean of 1 / rank over `ranks`, that of a model that ranks at random (H(candidates) / candidates), and the
    number of candidates, for evaluation.json."""
    found = ranks(contexts, exchanges, score, seed, advance)
    if found is None:
        return None
    groups = clusters(exchanges)
    mean = ratio(found.reciprocals, [1] * len(found.places), [groups[place] for place in found.places], seed)
    chance = sum(1 / rank for rank in range(1, found.candidates + 1)) / found.candidates
    return {"reciprocal": vars(mean), "chance": chance, "candidates": found.candidates}


def _others(exchanges: Sequence[Exchange], groups: Sequence[int], place: int) -> list[str]:
    return sorted(
        {one.reply for one, group in zip(exchanges, groups, strict=True) if group != groups[place]}
        - {exchanges[place].reply}
    )


def scorer(engine: "Engine") -> Score:
    """The log-likelihoods of replies with their end tokens, in nats, without that of what all of them begin with."""
    import torch

    def score(context: Sequence[Turn], replies: Sequence[str]) -> list[float]:
        rows = [encode_reply(engine, context, reply) for reply in replies]
        shared, found, read = _shared(rows), [0.0] * len(rows), None
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))  # or most of a batch would be padding
        with torch.inference_mode():
            if shared > 1:  # read it once; the last shared token predicts where the rows part
                ids = torch.tensor([rows[0][: shared - 1]], device=engine.model.device)
                read = engine.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
            for start in range(0, len(rows), BATCH):
                places = order[start : start + BATCH]
                scores = _scored(engine, [rows[place][shared - 1 :] for place in places], read)
                for place, value in zip(places, scores, strict=True):
                    found[place] = value
        return found

    return score


def encode_reply(engine: "Engine", context: Sequence[Turn], reply: str) -> list[int]:
    turns = [*context, Turn(engine.labels.me, reply)]
    found: list[int] = encode_turns(
        engine.tokenizer, turns, engine.labels, recipe=engine.recipe, replies_only=True
    ).ids.tolist()
    return found


def _scored(engine: "Engine", rows: list[list[int]], read: Any) -> list[float]:
    """The log-likelihood of each row after its first token, after what the cache `read` holds."""
    import torch

    longest = max(map(len, rows))
    # Padding follows the shorter rows, and no token attends to later ones.
    batch = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=engine.model.device)
    cache = copy.deepcopy(read)
    if cache is not None:
        cache.batch_repeat_interleave(len(rows))
    logits = engine.model(input_ids=batch, past_key_values=cache, use_cache=cache is not None).logits[:, :-1]
    logprobs = logits.float().log_softmax(-1).gather(2, batch[:, 1:, None])[:, :, 0]
    return [float(row[: len(ids) - 1].sum()) for row, ids in zip(logprobs.cpu(), rows, strict=True)]


def _shared(rows: list[list[int]]) -> int:
    """Number of tokens that all rows begin with, at most all but the last of the shortest. The first is BOS."""
    columns = list(zip(*rows, strict=False))[:-1]
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), len(columns))
