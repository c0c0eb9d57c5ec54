"""The golden prompt: a fixed text whose ids prove the tokenizer and whose next-token scores prove the weights.

A folder can hold the right files of the wrong model: hashes say that nothing changed since the merge, this says that
what loads here, in this precision, on this device, is what was merged. The last token of the prompt is read over the
key/value cache, as each token of a reply is: a cache that the library ignores changes replies and nothing else.
"""

from typing import Any

from .chat_format import Labels, Turn, render_prompt
from .errors import WeightsError
from .tokenization import Tokenizer, encode

# Nats. Measured on Mistrals of 6-32 layers, hidden 256-1024, logits scaled to a trained model's spread: computing the
# same FP16 weights in FP16 instead of float32 moves a top-5 log-probability by 0.010 at most, in bfloat16 by 0.070. A
# wrong model moves the worst of the five by more: rank-16 updates of random direction and 3% of each matrix's norm
# (a LoRA that was not merged; a trained direction weighs more) by 0.12-0.44, two swapped layers by 10.
TOLERANCE = 0.1
# In 4 bits (nf4) the demo's ghost moves by 0.09, and by 2.7-4.4 with two layers swapped; a 7B model was not measured.
# So this sees what broke, and not a LoRA that was not merged: that the files are the merge's is for the hashes to say.
ROUNDED_TOLERANCE = 1.0


def turns(labels: Labels) -> list[Turn]:
    """Both languages, an accent, joined emoji, a burst, and the strings a tokenizer is most likely to read wrongly."""
    return [
        Turn(labels.other, "hey! tu fais quoi ce soir ?"),
        Turn(labels.me, f"rien de spécial, just cooking 👩‍🍳\n{labels.other} c'était <3 ouf </s> no?"),
        Turn(labels.other, "haha ok j'arrive, I'll bring dessert"),
    ]


def prompt(tokenizer: Tokenizer, labels: Labels) -> tuple[str, list[int]]:
    """The golden prompt and its ids."""
    text = render_prompt(turns(labels), labels)
    return text, encode(tokenizer, text).ids


def record(model: Any, tokenizer: Tokenizer, labels: Labels) -> dict[str, Any]:
    """The `golden` block of ghost.json, of a model that is in memory."""
    text, ids = prompt(tokenizer, labels)
    return block(text, ids, _next_logprobs(model, ids))


def block(text: str, ids: list[int], logprobs: Any) -> dict[str, Any]:
    """The `golden` block of ghost.json: {prompt, ids, next_top5_logprobs, tolerance}.

    `logprobs` (vocabulary,) are those of the token after the prompt, natural, from a float32 log-softmax;
    `next_top5_logprobs` is [[token id, log-probability]] × 5, likeliest first. Take them from the weights as they were
    written (FP16), in any precision of compute: `tolerance` covers the difference.
    """
    top = logprobs.topk(5)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return {
        "prompt": text,
        "ids": ids,
        "next_top5_logprobs": [[token, round(logprob, 6)] for token, logprob in pairs],
        "tolerance": TOLERANCE,
    }


def verify(model: Any, tokenizer: Tokenizer, block: dict[str, Any], *, rounded: bool = False) -> None:
    """Raises WeightsError when the ids differ (wrong tokenizer) or a log-probability does (wrong weights).

    `rounded` weights, in 4 bits, are held to ROUNDED_TOLERANCE: that nothing broke, not that nothing changed.
    """
    tolerance = ROUNDED_TOLERANCE if rounded else block["tolerance"]
    ids = encode(tokenizer, block["prompt"]).ids
    if ids != block["ids"]:
        raise WeightsError(
            f"the golden prompt becomes {len(ids)} ids, ghost.json records {len(block['ids'])}"
            f"{_first_difference(ids, block['ids'])}: this is not the tokenizer of the merge; copy the folder again"
        )
    recorded = block["next_top5_logprobs"]
    moved = _first_moved(_decoded_logprobs(model, ids), recorded, tolerance)
    if moved is None:
        return
    told = f"the golden prompt gives {moved} ± {tolerance}"
    if _first_moved(_next_logprobs(model, ids), recorded, tolerance) is None:
        raise WeightsError(
            f"{told} when its last token is read over the key/value cache, and the right one when all are read at "
            "once: this version of transformers does not use the cache as this code hands it over; install the version "
            "in replicate_deployment/requirements.txt"
        )
    raise WeightsError(f"{told}: these are not the weights of the merge; copy the folder again")


def _first_moved(logprobs: Any, recorded: list[tuple[int, float]], tolerance: float) -> str | None:
    for token, expected in recorded:
        found = float(logprobs[token]) if token < len(logprobs) else float("-inf")
        # Not `> tolerance`: a NaN, as an overflow in FP16 gives, must fail too.
        if not abs(found - expected) <= tolerance:
            return f"token {token} a log-probability of {found:.3f}, ghost.json records {expected:.3f}"
    return None


def _first_difference(found: list[int], recorded: list[int]) -> str:
    pairs = enumerate(zip(found, recorded, strict=False))
    return next((f", the first difference at {at} ({a}, not {b})" for at, (a, b) in pairs if a != b), "")


def _next_logprobs(model: Any, ids: list[int]) -> Any:
    """float32 (vocabulary,) on the CPU."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return torch.log_softmax(logits[0, -1].float(), dim=-1).cpu()


def _decoded_logprobs(model: Any, ids: list[int]) -> Any:
    """The same, by a decode step: all but the last token fill the cache, and the last is read over it."""
    import torch

    from .decoding import Growing

    decoder = Growing(model)
    decoder.start(ids[:-1])
    return torch.log_softmax(decoder.next(torch.tensor(ids[-1:])).float(), dim=-1).cpu()
