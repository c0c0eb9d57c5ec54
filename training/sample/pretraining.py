"""Pretraining of the starter base: other people's chats, packed rows, one plain loop.

The person of the demo is not in this corpus: her partners and their friends are, on both sides of the conversation. So
the base knows the format, the languages and what can be talked about, and her voice is left to fine-tuning.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Any

from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import encode
from training.console import progress
from training.sample.chats import conversations, other_chats, turns


@dataclass(frozen=True)
class Recipe:
    """Every number that the starter base depends on."""

    seed: int = 0
    vocab_size: int = 4096
    hidden: int = 256
    layers: int = 4  # in the same minute: 2.8 nats per token, 6 layers reach 3.3
    heads: int = 8
    tokenizer_windows: int = 4000  # texts that the tokenizer is trained on
    row: int = 128  # tokens
    rows: int = 4  # per step; in a fixed minute, many small steps learn far more than few large ones
    steps: int = 360
    warmup: int = 20  # steps
    lr: float = 3e-3  # of the embeddings ten times this
    weight_decay: float = 0.1


def windows(seed: int) -> Iterator[str]:
    """Endless rendered windows of 1 to 10 turns that end in an A: turn, from every pair of the other people."""
    rng = Random(seed)
    labels = Labels()
    chats = [(chat, conversations(chat, seed=seed, mean_gap=24)) for chat in other_chats()]
    for number in count():
        chat, stream = chats[number % len(chats)]
        said = [Turn(labels.me if mine else labels.other, text) for mine, text in turns(next(stream), chat.members[0])]
        size = rng.randint(1, 10)
        window: list[Turn] = []
        for turn in said:
            window.append(turn)
            if turn.label == labels.me and len(window) >= size:
                yield render(window)
                window, size = [], rng.randint(1, 10)


def packed_rows(tokenizer: Any, recipe: Recipe) -> Iterator[list[int]]:
    """Windows one after the other, each with BOS and end token, cut every `row` tokens."""
    ids: list[int] = []
    for window in windows(recipe.seed):
        ids += encode(tokenizer, window, end=True).ids
        while len(ids) >= recipe.row:
            yield ids[: recipe.row]
            ids = ids[recipe.row :]


def pretrain(model: Any, tokenizer: Any, recipe: Recipe) -> float:
    """Train `model` in place for `recipe.steps` steps; returns the mean loss (nats per token) of the last tenth."""
    import torch

    _initialise(model)
    embeddings = list(model.get_input_embeddings().parameters())
    rest = [parameter for name, parameter in model.named_parameters() if "embed_tokens" not in name]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "peak": recipe.lr}, {"params": embeddings, "peak": 10 * recipe.lr}],
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    stream = packed_rows(tokenizer, recipe)
    losses: list[float] = []
    model.train()
    with progress("pretraining the starter base", total=recipe.steps) as bar:
        for step in range(recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _schedule(step, recipe)
            ids = torch.tensor(list(islice(stream, recipe.rows)))
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
            bar.advance()
    model.eval()
    last = losses[-max(1, recipe.steps // 10) :]
    return sum(last) / len(last)


def _initialise(model: Any) -> None:
    """Wide embeddings, and branches that start at nothing, as in nanochat.

    With the faster embeddings: 3.80 nats per token after 51,000 tokens, where the usual 0.02 everywhere gave 4.77.
    """
    import torch

    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, 1)
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)
