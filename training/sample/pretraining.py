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
    layers: int = 6
    heads: int = 8
    tokenizer_windows: int = 4000  # texts that the tokenizer is trained on
    row: int = 256  # tokens
    rows: int = 8  # per step
    steps: int = 100
    warmup: int = 10  # steps
    lr: float = 3e-3
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

    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay, fused=True
    )
    stream = packed_rows(tokenizer, recipe)
    losses: list[float] = []
    model.train()
    with progress("pretraining the starter base", total=recipe.steps) as bar:
        for step in range(recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * _schedule(step, recipe)
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


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)
