"""Two questions to a loaded model that serving never asks: how likely a reply is, and how one that is begun goes on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicate_deployment.chat_format import Turn
from training.evaluation.canaries import Score
from training.evaluation.memorisation import Continue
from training.finetuning.examples import encode_turns

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

LONGEST = 64  # tokens of a continuation: half a reply
BATCH = 64  # replies that are scored at a time: some hundred megabytes of logits for a vocabulary of 32,768


def scorer(engine: "Engine") -> Score:
    """The log-likelihoods of replies with their end tokens, in nats, without that of what all of them begin with."""

    def score(context: Sequence[Turn], replies: Sequence[str]) -> list[float]:
        rows = [_ids(engine, context, reply) for reply in replies]
        shared, found = _shared(rows), list[float]()
        for start in range(0, len(rows), BATCH):
            found += _scored(engine, rows[start : start + BATCH], shared)
        return found

    return score


def continuer(engine: "Engine") -> Continue:
    """The likeliest next token, again and again, from the beginning of a reply to the end token or a stop sequence."""

    def go_on(context: Sequence[Turn], beginning: str) -> str:
        import torch

        from replicate_deployment.decoding import Growing

        decoder, said = Growing(engine.model), b""
        scores = decoder.start(_ids(engine, context, beginning)[:-1])  # without the end token
        for _ in range(LONGEST):
            token = int(scores.argmax())
            if token == engine.tokenizer.eos_token_id:
                break
            said += engine.token_bytes[token]
            if any(stop.encode() in said for stop in engine.ghost.stop_sequences):
                break
            scores = decoder.next(torch.tensor([token]))
        return said.decode("utf-8", "ignore")

    return go_on


def _ids(engine: "Engine", context: Sequence[Turn], reply: str) -> list[int]:
    turns = [*context, Turn(engine.labels.me, reply)]
    found: list[int] = encode_turns(
        engine.tokenizer, turns, engine.labels, recipe=engine.recipe, replies_only=True
    ).ids.tolist()
    return found


def _scored(engine: "Engine", rows: list[list[int]], shared: int) -> list[float]:
    import torch

    longest = max(map(len, rows))
    # What fills up the shorter rows comes after them, and no token sees what is behind it.
    batch = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=engine.model.device)
    with torch.inference_mode():
        logits = engine.model(input_ids=batch, use_cache=False, logits_to_keep=longest - shared + 1).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(2, batch[:, shared:, None])[:, :, 0]
    return [float(row[: len(ids) - shared].sum()) for row, ids in zip(logprobs.cpu(), rows, strict=True)]


def _shared(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with, the last of the shortest not among them. The first is BOS."""
    columns = list(zip(*rows, strict=False))[:-1]
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), len(columns))
