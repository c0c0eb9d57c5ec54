"""Prove a merge: recompute samples of its arithmetic, and compare log-probabilities with peft's.

Against base + adapter in float32, log-probabilities differ only by FP16's rounding of the weights: their mean must stay
below LIMIT. Against the 4-bit base of training they also differ by the nf4 rounding, which a merge onto the original
weights undoes on purpose: print this, but do not limit it. Greedy agreement is not limited either: rounding alone
changed 0.2-0.4% of argmaxes on a toy model.

Both models run all probes layer by layer and read each layer's weights from disk, so the proof of a 7B model needs the
memory of its largest matrix.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ghost.console import progress
from ghost.errors import MergeError
from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import Tokenizer, encode
from training.merging.adapter import Adapter, Output, Update, meta_model, place, streamed, with_adapter
from training.merging.merge import Source
from training.merging.weights import Tensor, Weights, row_blocks

LIMIT = 2e-3  # nats


class Difference(NamedTuple):
    """Two models on the same text: log-probabilities of its tokens in nats, and the share of equal argmaxes."""

    mean_abs_logprob: float
    max_abs_logprob: float
    greedy_agreement: float
    tokens: int


def probes(tokenizer: Tokenizer, labels: Labels) -> list[list[int]]:
    """Return the ids of a few finished conversations: two languages, mixed, accents, emoji, short and long."""
    conversations = [
        ["hey! tu fais quoi ce soir ?", "rien de spécial, je cuisine 🍝"],
        ["did you watch the match yesterday?", "yeah, what a game. I still can't believe that last goal"],
        ["on se voit at the café?", "oui, give me ten minutes", "ok à toute !", "👍"],
        ["ça va mieux depuis hier ?", "un peu, merci\nj'ai dormi douze heures", "tant mieux 😊", "et toi ?"],
        ["can you send me the address", "12 rue des Lilas, second floor, the door on the left after the stairs"],
        ["lol", "mdr"],
    ]
    sides = (labels.other, labels.me)
    texts = [
        render([Turn(sides[number % 2], text) for number, text in enumerate(texts)], labels) for texts in conversations
    ]
    return [encode(tokenizer, text, end=True).ids for text in texts]


class Score(NamedTuple):
    """A model on one probe of n tokens."""

    logprobs: Tensor
    """(n - 1,): log-probability of each token after the first, in nats."""
    greedy: Tensor
    """(n - 1,): the likeliest token at the same position."""
    following: Tensor
    """(vocabulary,): log-probabilities of the token after the last."""


def difference(one: list[Score], other: list[Score]) -> Difference:
    """Compare two models on the same probes."""
    import torch

    distances = torch.cat([(a.logprobs - b.logprobs).abs() for a, b in zip(one, other, strict=True)])
    agreed = torch.cat([a.greedy == b.greedy for a, b in zip(one, other, strict=True)])
    mean, largest = float(distances.mean()), float(distances.max())
    return Difference(mean, largest, float(agreed.double().mean()), len(distances))


def score_merged(folder: Path, probes: list[list[int]]) -> list[Score]:
    """Score the merged model, read from its files."""
    model = meta_model(folder)
    ties = dict(model.all_tied_weights_keys)
    with Weights.of_model(folder) as weights:

        def read(name: str) -> Tensor:
            return _float32(weights, name if name in weights.shapes else ties[name])

        return score(model, probes, read, "merged model")


def score_trained(
    base_folder: Path, base: Source, adapter: Adapter, probes: list[list[int]], label: str
) -> list[Score]:
    """Score base + adapter unmerged, as peft runs them, with the base's weights from `base`."""
    model = with_adapter(meta_model(base_folder, adapter.vocab_size), adapter.config)
    with adapter.open() as weights:

        def read(name: str) -> Tensor:
            name = place(name)
            if name in adapter.names:
                return _float32(weights, adapter.names[name])
            output = adapter.outputs.get(name) or adapter.outputs[adapter.ties[name]]
            return _float32(weights if output.from_adapter else base, output.source)

        return score(model, probes, read, label)


def score(model: Any, probes: list[list[int]], read: Callable[[str], Tensor], label: str) -> list[Score]:
    """Score all probes in one batch. Padding on the right does not matter to a causal model."""
    import torch

    longest = max(map(len, probes))
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in probes])
    with progress(label) as bar, torch.inference_mode():

        def counted_read(name: str) -> Tensor:
            bar.advance()
            return read(name)

        with streamed(model, counted_read):
            logits = model(input_ids=batch, use_cache=False).logits
        return [*_scores(logits, batch, [*map(len, probes)])]


def _scores(logits: Tensor, batch: Tensor, lengths: list[int]) -> Iterator[Score]:
    for row, ids, length in zip(logits, batch, lengths, strict=True):
        logprobs = row[:length].float().log_softmax(-1)
        of_tokens = logprobs[:-1].gather(1, ids[1:length, None])[:, 0]
        yield Score(of_tokens, logprobs[:-1].argmax(-1), logprobs[-1].clone())


def _float32(source: Source, name: str) -> Tensor:
    import torch

    shape = source.shapes[name]
    values = torch.empty(shape)
    for start, stop in row_blocks(shape):  # avoid a second copy of the whole tensor
        values[start:stop] = source.rows(name, start, stop)
    return values


# Check the arithmetic in the written files, by independent code in float64.

SAMPLED_ROWS = 256  # per tensor; smaller tensors are checked whole
FLOAT32_UNIT = 2.0**-24  # half the distance from 1 to the next float32
Array = Any  # numpy's


@dataclass(frozen=True)
class Arithmetic:
    """How much was recomputed."""

    tensors: int
    merged: int
    values_checked: int
    values: int
    seed: int


def check_arithmetic(base: Source, adapter: Adapter, folder: Path, *, seed: int) -> Arithmetic:
    """Check that every tensor in `folder` is F16 and equals its Output, computed in float32 and rounded once.

    Recompute in float64 with numpy. A float32 result lies within e of the exact x (see `_exact`) and rounding is
    monotonic, so a correct value lies in [fp16(x - e), fp16(x + e)]: a single number, unless x is within e of a
    rounding border or cancels to about e. Tensors without an update must equal fp16(W).

    Raises MergeError naming the first tensor that fails.
    """
    import numpy

    choice = random.Random(seed)
    checked = 0
    outputs = adapter.outputs
    with (
        Weights.of_model(folder) as merged,
        adapter.open() as tensors,
        progress("checking the arithmetic", total=len(outputs)) as bar,
    ):
        stray = sorted(outputs.keys() ^ merged.shapes.keys())
        if stray:
            raise MergeError(f"{len(stray)} tensors are only planned or only written, first {stray[0]}")
        for name, output in outputs.items():
            shape = output.shape
            if merged.dtypes[name] != "F16" or merged.shapes[name] != shape:
                raise MergeError(
                    f"{name}: written as {merged.dtypes[name]} {[*merged.shapes[name]]}, not F16 {[*shape]}"
                )
            count = math.prod(shape[:1])
            rows = sorted(choice.sample(range(count), SAMPLED_ROWS)) if count > SAMPLED_ROWS else [*range(count)]
            exact, error = _exact(output, rows, base, tensors)
            written = merged.gather(name, rows).numpy()
            with numpy.errstate(over="ignore"):  # just below FP16's largest value the upper bound may round to inf
                low, high = ((exact + sign * error).astype(numpy.float16) for sign in (-1, 1))
            wrong = int((~((low <= written) & (written <= high))).sum())
            if wrong:
                raise MergeError(f"{name}: {wrong:,} of {written.size:,} values checked are not fp16(W + s·B·A)")
            checked += written.size
            bar.advance()
    changed = sum(output.from_adapter or bool(output.update or output.shift) for output in outputs.values())
    return Arithmetic(len(outputs), changed, checked, sum(math.prod(o.shape) for o in outputs.values()), seed)


def _exact(output: Output, rows: list[int], base: Source, adapter: Weights) -> tuple[Array, Array]:
    """Return the output's rows in float64, and the largest possible error of float32 arithmetic.

    For v = W + s·B·A: e = (r + 4)·u·|s|·|B|·|A| + u·|W|, the standard bound for a dot product of length r and the steps
    after it (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). For DoRA's m·v / ‖v‖ add the norm's relative
    error ‖e‖ / ‖v‖ and the rounding of four steps.
    """
    import numpy

    values = (adapter if output.from_adapter else base).gather(output.source, rows).double().numpy()
    update = output.update
    if output.shift is not None:
        shift = output.shift[1] * adapter.gather(output.shift[0], rows).double().numpy()
        return values + shift, FLOAT32_UNIT * (abs(values) + 3 * abs(shift))
    if update is None:
        return values, numpy.zeros_like(values)
    a, b = (adapter.tensor(name).double().numpy() for name in (update.a, update.b))
    exact, error = _sum(values, update, a, b, rows)
    if update.magnitude is None:
        return exact, error
    magnitude = adapter.tensor(update.magnitude).double().numpy()
    if update.transposed:
        norms, errors = _column_norms(output, update, a, b, base, adapter)
    else:
        norms, errors = (numpy.sqrt((part**2).sum(1, keepdims=True)) for part in (exact, error))
        magnitude = magnitude[rows][:, None]
    factor = magnitude / norms
    return factor * exact, abs(factor) * (error + abs(exact) * (errors / norms + 4 * FLOAT32_UNIT))


def _sum(values: Array, update: Update, a: Array, b: Array, rows: list[int] | slice) -> tuple[Array, Array]:
    left, right = (a[:, rows].T, b.T) if update.transposed else (b[rows], a)
    scale = update.scale
    error = FLOAT32_UNIT * ((update.rank + 4) * abs(scale) * (abs(left) @ abs(right)) + abs(values))
    return values + scale * (left @ right), error


def _column_norms(
    output: Output, update: Update, a: Array, b: Array, base: Source, adapter: Weights
) -> tuple[Array, Array]:
    """Return ‖v‖ and ‖e‖ of each column, over all rows."""
    import numpy

    source = adapter if output.from_adapter else base

    def sums() -> Iterator[tuple[Array, Array]]:
        for start, stop in row_blocks(output.shape):
            values = source.rows(output.source, start, stop).double().numpy()
            yield _sum(values, update, a, b, slice(start, stop))

    squares = [((exact**2).sum(0), (error**2).sum(0)) for exact, error in sums()]
    exact, error = (numpy.sqrt(numpy.sum(part, axis=0)) for part in zip(*squares, strict=True))
    return exact, error
