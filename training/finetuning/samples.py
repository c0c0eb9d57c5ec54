"""What the model says while it trains: a few held-out prompts, the same at each measurement, answered.

The held-out loss can fall while replies no longer end, or are all the same. Two figures and three replies show it,
early enough to stop. Replies are greedy, so no random number is drawn and what is learnt does not depend on it; all are
drawn at once, so a measurement is NEW_TOKENS small passes and no more.

They are messages: shown neither on the terminal nor in a report, but written to `<out>.replies.txt`, beside the adapter
like TensorBoard's curves, readable by its owner only. Its neighbour val.jsonl holds the same prompts.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replicate_deployment.chat_format import Labels
from replicate_deployment.tokenization import Tokenizer, token_bytes
from training.finetuning.examples import Example

NEW_TOKENS = 48  # of a reply: half of what serving allows, and more than most have
LONGEST = 512  # tokens of a prompt; so what a measurement takes is bounded
SHOWN = 3  # replies in the file, of each measurement
SAME = 0.1  # distinct-2 below which everything is said again and again


class Prompt(NamedTuple):
    """Ids up to the tag of a held-out reply, and of the reply."""

    ids: list[int]
    reply: list[int]


class Answered(NamedTuple):
    """ended       share of replies that ended by themselves within NEW_TOKENS
    distinct_2  different pairs of words over pairs of words, in all of them; None where there are none
    texts       the replies, up to where they ended or went on as somebody else
    """

    ended: float
    distinct_2: float | None
    texts: list[str]

    @property
    def figures(self) -> dict[str, float]:
        return {"ended": self.ended} | ({} if self.distinct_2 is None else {"distinct_2": round(self.distinct_2, 4)})


class Samples:
    """`count` prompts, evenly spread over the held-out examples; false where there are none.

    start  steps done before: of a resumed training, whose file is gone on with
    """

    def __init__(
        self, heldout: Sequence[Example], tokenizer: Tokenizer, labels: Labels, *, count: int, out: Path, start: int
    ) -> None:
        fitting = [found for example in heldout if (found := prompt_of(example)) and len(found.ids) <= LONGEST]
        places = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).round().astype(int).tolist()
        self.prompts = [fitting[place] for place in places]
        self.path = out.with_name(out.name + ".replies.txt")
        self._bytes, self._end, self._labels = token_bytes(tokenizer), tokenizer.eos_token_id, labels
        self._fresh = start == 0

    def __bool__(self) -> bool:
        return bool(self.prompts)

    def answer(self, objective: Any, *, bf16: bool) -> Answered:
        """By the model of `objective`, as it stands. It is left in the mode it was found in."""
        from training.finetuning import attention

        mode, causal = objective.training, objective.model.get_base_model()
        objective.eval()
        causal.set_attn_implementation("sdpa")  # that of training knows no cache
        try:
            drawn = self._draw(causal, bf16)
        finally:
            attention.use(causal)
            objective.train(mode)
        ended = [self._end in ids for ids in drawn]
        texts = [self._text(ids) for ids in drawn]
        return Answered(sum(ended) / len(ended), distinct(texts, 2), texts)

    def write(self, title: str, answered: Answered) -> None:
        """Raises OSError. A training that begins anew begins the file anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if self._fresh else os.O_APPEND)
        blocks = [title]
        for prompt, text in list(zip(self.prompts, answered.texts, strict=True))[:SHOWN]:
            asked = self._decode(prompt.ids).removesuffix(f"\n{self._labels.me}")
            last = asked[asked.rfind(f"\n{self._labels.other}") + 1 :]
            blocks.append(f"{last}\n  you: {self._text(prompt.reply)}\n  it:  {text}")
        with os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write("\n\n".join(blocks) + "\n\n\n")
        self._fresh = False

    def _draw(self, causal: Any, bf16: bool) -> list[list[int]]:
        """Of each prompt the likeliest tokens, one by one, up to its end token."""
        import torch
        from transformers import DynamicCache

        from replicate_deployment.decoding import cache_argument

        device = next(causal.parameters()).device
        longest = max(len(prompt.ids) for prompt in self.prompts)
        rows = [[self._end] * (longest - len(prompt.ids)) + prompt.ids for prompt in self.prompts]
        there = [[0] * (longest - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in self.prompts]
        ids, mask = torch.tensor(rows, device=device), torch.tensor(there, device=device)
        cache = {cache_argument(causal): DynamicCache(config=causal.config)}
        drawn: list[list[int]] = [[] for _ in rows]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for _ in range(NEW_TOKENS):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                logits = causal(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=places,
                    use_cache=True,
                    logits_to_keep=1,
                    **cache,
                ).logits
                ids = logits[:, -1].argmax(-1, keepdim=True)
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
                for reply, token in zip(drawn, ids[:, 0].tolist(), strict=True):
                    if self._end not in reply:
                        reply.append(token)
                if all(self._end in reply for reply in drawn):
                    break
        return drawn

    def _text(self, ids: Sequence[int]) -> str:
        text = self._decode(ids)
        stops = [place for stop in self._labels.stop_sequences if (place := text.find(stop)) >= 0]
        return text[: min(stops, default=len(text))].strip()

    def _decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "ignore")


def prompt_of(example: Example) -> Prompt | None:
    """Of the example's last reply; None where nothing comes before it."""
    places = np.flatnonzero(example.reply)
    if not len(places):
        return None
    start = int(places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]])
    stop = int(places[-1]) + 1
    return Prompt(example.ids[:start].tolist(), example.ids[start:stop].tolist()) if start > 1 else None


def distinct(texts: Sequence[str], size: int) -> float | None:
    """Different n-grams of words over all n-grams (Li et al. 2016, arXiv:1510.03055); None where there are none.

    It falls as texts grow more, so only equally many texts of like length can be compared; near 0 a model repeats
    itself. It cannot say whether what is varied makes sense.
    """
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.split()
        grams.update(tuple(words[place : place + size]) for place in range(len(words) - size + 1))
    return len(grams) / grams.total() if grams else None


def collapsed(evaluations: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last two measurements found a model that nobody wants: no reply ends, all say the same again and
    again, and the person's are less likely to it than to the base. Each alone may pass; all three do not."""
    if not evaluations or evaluations[0]["step"]:
        return False
    base, *trained = evaluations
    return (
        len(trained) > 1
        and all(
            one.get("ended", 1) == 0
            and one.get("distinct_2", 1) < SAME
            and not one["reply_loss"] <= base["reply_loss"]  # no number is none either
            for one in trained[-2:]
        )
    )
