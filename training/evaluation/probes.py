"""What is asked of a model about secrets: how it goes on from a beginning, and how likely it finds each of many.

Without the repetition penalty and without chance, which serving has: they would hide what the weights know.
"""

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicate_deployment.chat_format import Turn, escape, render_prompt, spans
from replicate_deployment.stopping import ReplyScanner
from replicate_deployment.tokenization import encode
from training.finetuning.examples import encode_turns

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

LONGEST = 96  # tokens of a continuation
TOGETHER = 32  # replies that go through the model at once


def go_on(engine: "Engine", turns: Sequence[Turn], beginning: str) -> str:
    """The likeliest next tokens after the reply's beginning, one by one, to the end of the turn; un-escaped."""
    import torch
    from transformers import DynamicCache

    prompt = f"{render_prompt(turns, engine.labels)} {escape(beginning, engine.labels)}"
    ends = [span.end for span in spans(turns, engine.labels, recipe=engine.recipe)]
    step = encode(engine.tokenizer, prompt, ends=ends).ids
    scanner, utf8 = ReplyScanner(engine.ghost.stop_sequences, engine.labels), _utf8()
    cache = DynamicCache(config=engine.model.config)
    said = ""
    for _ in range(LONGEST):
        with torch.inference_mode():
            ids = torch.tensor([step], device=engine.model.device)
            logits = engine.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        token = int(logits[0, -1].argmax())
        if token == engine.tokenizer.eos_token_id:
            break
        said += scanner.feed(utf8.decode(engine.token_bytes[token]))
        if scanner.stopped is not None:
            break
        step = [token]
    return said + scanner.finish()


def score(engine: "Engine", turns: Sequence[Turn], replies: Sequence[str]) -> list[float]:
    """log p(reply | turns) in nats, of the text without its end token, for each of many replies to the same turns."""
    import torch

    found: list[float] = []
    for first in range(0, len(replies), TOGETHER):
        rows, starts = [], []
        for reply in replies[first : first + TOGETHER]:
            example = encode_turns(
                engine.tokenizer,
                [*turns, Turn(engine.labels.me, reply)],
                engine.labels,
                recipe="windows",  # only the last turn is looked at
                replies_only=True,
            )
            rows.append(example.ids[:-1].tolist())
            starts.append(int(example.reply.argmax()))
        longest = max(map(len, rows))
        # What is behind a row's end changes nothing before it: attention looks back only.
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=engine.model.device)
        with torch.inference_mode():
            logits = engine.model(input_ids=padded, use_cache=False).logits.float()
            nats = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), padded[:, 1:].flatten(), reduction="none"
            ).view(len(rows), -1)
        found += [
            -float(nats[row, start - 1 : len(ids) - 1].sum())
            for row, (ids, start) in enumerate(zip(rows, starts, strict=True))
        ]
    return found


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="ignore")
