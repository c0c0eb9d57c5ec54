"""The golden prompt: a fixed text whose ids check the tokenizer and whose next-token scores check the weights.

Hashes show that no file changed since the merge; this shows that the model as loaded, in this precision on this device,
computes what was merged. The last token is read over the KV cache, as in a reply, because a cache that transformers
silently ignores would otherwise go unnoticed.
"""

from typing import Any

from .chat_format import Labels, Turn, render_prompt
from .errors import WeightsError
from .tokenization import Tokenizer, encode

# Nats. Measured on Mistrals of 6-32 layers, hidden 256-1024, logits scaled to a trained model's spread: computing the
# same FP16 weights in FP16 instead of float32 moves a top-5 log-probability by at most 0.010, in bfloat16 by 0.070. A
# wrong model moves the worst of the five further: rank-16 updates of random direction and 3% of each matrix's norm
# (a missing LoRA; a trained direction weighs more) by 0.12-0.44, two swapped layers by 10.
TOLERANCE = 0.1
# In 4 bits (nf4) the demo's ghost moves by 0.09, and by 2.7-4.4 with two layers swapped; a 7B model was not measured.
# This detects gross errors but not a missing LoRA; the hashes cover that.
ROUNDED_TOLERANCE = 1.0


def turns(labels: Labels) -> list[Turn]:
    """Return turns with both languages, an accent, joined emoji, a burst and strings that tokenizers often misread."""
    return [
        Turn(labels.other, "hey! tu fais quoi ce soir ?"),
        Turn(labels.me, f"rien de spécial, just cooking 👩‍🍳\n{labels.other} c'était <3 ouf </s> no?"),
        Turn(labels.other, "haha ok j'arrive, I'll bring dessert"),
    ]


def prompt(tokenizer: Tokenizer, labels: Labels) -> tuple[str, list[int]]:
    """Return the golden prompt and its ids."""
    text = render_prompt(turns(labels), labels)
    return text, encode(tokenizer, text).ids


def record(model: Any, tokenizer: Tokenizer, labels: Labels) -> dict[str, Any]:
    """Return the `golden` block of ghost.json for a model in memory."""
    text, ids = prompt(tokenizer, labels)
    return block(text, ids, _next_logprobs(model, ids))


def block(text: str, ids: list[int], logprobs: Any) -> dict[str, Any]:
    """Return the `golden` block of ghost.json: {prompt, ids, next_top5_logprobs, tolerance}.

    `logprobs` (vocabulary,) are the natural log-probabilities of the token after the prompt, from a float32
    log-softmax; `next_top5_logprobs` is [[token id, log-probability]] × 5, likeliest first. Compute them from the
    weights as written (FP16), in any compute precision: `tolerance` covers the difference.
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
    """Raise WeightsError when the ids (wrong tokenizer) or a log-probability (wrong weights) differ.

    For `rounded` (4-bit) weights, ROUNDED_TOLERANCE applies, which detects only gross errors.
    """
    tolerance = ROUNDED_TOLERANCE if rounded else block["tolerance"]
    ids = encode(tokenizer, block["prompt"]).ids
    if ids != block["ids"]:
        raise WeightsError(
            f"the golden prompt gives {len(ids)} ids, ghost.json records {len(block['ids'])}"
            f"{_first_difference(ids, block['ids'])}: this is not the tokenizer of the merge; copy the folder again"
        )
    recorded = block["next_top5_logprobs"]
    moved = _first_moved(_decoded_logprobs(model, ids), recorded, tolerance)
    if moved is None:
        return
    complaint = f"the golden prompt gives {moved} ± {tolerance}"
    if _first_moved(_next_logprobs(model, ids), recorded, tolerance) is None:
        raise WeightsError(
            f"{complaint} with the KV cache, but the correct one without it: this version of transformers ignores the "
            "cache that this code passes; install the version in replicate_deployment/requirements.txt"
        )
    if rounded:
        raise WeightsError(
            f"{complaint}: 4 bits change this model too much, or these are not the weights of the merge; load it in "
            "16 bits"
        )
    raise WeightsError(f"{complaint}: these are not the weights of the merge; copy the folder again")


def _first_moved(logprobs: Any, recorded: list[tuple[int, float]], tolerance: float) -> str | None:
    for token, expected in recorded:
        found = float(logprobs[token]) if token < len(logprobs) else float("-inf")
        # Not `> tolerance`: a NaN, for example from an FP16 overflow, must fail too.
        if not abs(found - expected) <= tolerance:
            return f"token {token} a log-probability of {found:.3f}, ghost.json records {expected:.3f}"
    return None


def _first_difference(found: list[int], recorded: list[int]) -> str:
    pairs = enumerate(zip(found, recorded, strict=False))
    return next((f", first difference at {at} ({a}, not {b})" for at, (a, b) in pairs if a != b), "")


def _next_logprobs(model: Any, ids: list[int]) -> Any:
    """Return the log-probabilities of the next token: float32 (vocabulary,) on the CPU."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return torch.log_softmax(logits[0, -1].float(), dim=-1).cpu()


def _decoded_logprobs(model: Any, ids: list[int]) -> Any:
    """Return the same by a decode step: fill the KV cache with all but the last token, then read that."""
    import torch

    from .decoding import DynamicDecoder

    decoder = DynamicDecoder(model)
    decoder.start(ids[:-1])
    return torch.log_softmax(decoder.next(torch.tensor(ids[-1:])).float(), dim=-1).cpu()
