"""How likely a model finds what the person really answered, in nats."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from replicate_deployment.chat_format import Turn
from replicate_deployment.tokenization import encode, encode_prompt
from training.finetuning.examples import encode_turns

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
