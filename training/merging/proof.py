"""Prove a merge from the written files: recompute its arithmetic, and compare it with base + adapter on a text.

The arithmetic shows that each tensor is what it should be, to the bit. The comparison shows that nothing is missing:
log-probabilities may differ only by what FP16's rounding of the weights does. That depends on the model, so it is
measured in the same run: vary each rounded weight within its rounding error, at random, and compare that model with the
merged one.

All run layer by layer and read each layer's weights from disk, so a 7B model needs the memory of its largest matrix.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ghost.console import progress
from ghost.errors import MergeError
from replicate_deployment import golden
from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import Tokenizer, encode
from training.merging.adapter import Adapter, Output, Update, meta_model, place, streamed, with_adapter
from training.merging.merge import Source
from training.merging.weights import BLOCK, Tensor, Weights, one_thread, row_blocks

# Times what rounding changes. A right merge changed 0.9 to 1.1 times as much at a 7B's widths, 0.5 to 1.9 on small
# random models of 32 and 48 layers; one that lacked the adapter in one layer's attention 850 to 2,900 times. One that
# lacked a single q_proj, 7 to 22 times, may pass here: the arithmetic sees it.
ALLOWED = 10


@dataclass(frozen=True)
class Parity:
    """The merged model beside base + adapter on the same text: log-probabilities of its tokens in nats, the share of
    equal argmaxes, and how much rounding changes log-probabilities."""

    mean_abs_logprob: float
    max_abs_logprob: float
    greedy_agreement: float
    tokens: int
    rounding: float
    """Mean |Δ log-probability| between the merged model and the same within its rounding error."""
    limit: float

    def __str__(self) -> str:
        return (
            f"mean |Δlogp| {self.mean_abs_logprob:.2g} nats, max {self.max_abs_logprob:.2g}, same greedy token "
            f"{self.greedy_agreement:.1%} of {self.tokens}; {self.limit:.2g} allowed, {ALLOWED} times the rounding"
        )

    @property
    def holds(self) -> bool:
        return self.mean_abs_logprob <= self.limit  # a NaN does not


def probes(tokenizer: Tokenizer, labels: Labels, *, whole: bool = False) -> list[list[int]]:
    """Return the ids of the golden prompt; if `whole`, also of a few conversations in two languages, with emoji.

    Each token takes about half a CPU second in the three runs of a 7B model.
    """
    prompt = golden.prompt(tokenizer, labels)[1]
    if not whole:
        return [prompt]
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
    return [prompt, *(encode(tokenizer, text, end=True).ids for text in texts)]


class Score(NamedTuple):
    """A model on one probe of n tokens."""

    logprobs: Tensor
    """(n - 1,): log-probability of each token after the first, in nats."""
    greedy: Tensor
    """(n - 1,): the likeliest token at the same position."""
    following: Tensor
    """(vocabulary,): log-probabilities of the token after the last."""


def compare(
    folder: Path, base_folder: Path, base: Source, adapter: Adapter, probes: list[list[int]]
) -> tuple[Parity, Tensor]:
    """Compare the merged model in `folder` with base + adapter as peft runs them, the base's weights read from `base`.

    Return the result, and the merged model's log-probabilities of the token after the first probe, (vocabulary,).
    """
    import torch

    merged = score_merged(folder, probes)
    trained = score_trained(base_folder, base, adapter, probes)
    varied = score_merged(folder, probes, _rounded(base, adapter))
    distance = _distances(merged, trained)
    agreed = torch.cat([a.greedy == b.greedy for a, b in zip(merged, trained, strict=True)]).double().mean()
    rounding = float(_distances(merged, varied).mean())
    mean, largest = float(distance.mean()), float(distance.max())
    figures = Parity(mean, largest, float(agreed), len(distance), rounding, ALLOWED * rounding)
    return figures, merged[0].following


def _distances(one: list[Score], other: list[Score]) -> Tensor:
    """|Δ log-probability| of each of the probes' tokens, in nats."""
    import torch

    return torch.cat([(a.logprobs - b.logprobs).abs() for a, b in zip(one, other, strict=True)])


def _rounded(base: Source, adapter: Adapter) -> set[str]:
    """Return the merged tensors whose values had to be rounded to FP16; bfloat16 and FP16 values fit."""
    import torch

    def is_wide(output: Output) -> bool:
        return not output.from_adapter and base.rows(output.source, 0, 1).dtype == torch.float32

    return {name for name, output in adapter.outputs.items() if output.update or output.shift or is_wide(output)}


def score_merged(folder: Path, probes: list[list[int]], vary: Collection[str] = ()) -> list[Score]:
    """Score the merged model, read from its files, with the values of the tensors `vary` varied within their rounding
    error."""
    import torch

    model = meta_model(folder)
    ties = dict(model.all_tied_weights_keys)
    noise = torch.rand(2 * BLOCK, generator=torch.Generator().manual_seed(0)) - 0.5

    with Weights.of_model(folder) as weights:

        def read(name: str) -> Tensor:
            name = name if name in weights.shapes else ties[name]
            values = _float32(weights, name)
            if name in vary:
                for number, part in enumerate(values.flatten().split(BLOCK)):
                    start = number * 7919 % BLOCK
                    part += noise[start : start + len(part)] * fp16_spacing(part)
            return values

        return score(model, probes, read, "merged model, varied" if vary else "merged model")


def fp16_spacing(values: Tensor) -> Tensor:
    """Distance of each FP16 value, given in float32, to the next larger one."""
    import torch

    powers = (values.view(torch.int32) & 0x7F800000).view(torch.float32)  # of 2, by float32's exponent
    return powers.clamp_(min=2.0**-14).mul_(2.0**-10)


def score_trained(base_folder: Path, base: Source, adapter: Adapter, probes: list[list[int]]) -> list[Score]:
    """Score base + adapter unmerged, as peft runs them, with the base's weights from `base`."""
    model = with_adapter(meta_model(base_folder, adapter.vocab_size), adapter.config)
    with adapter.open() as weights:

        def read(name: str) -> Tensor:
            name = place(name)
            if name in adapter.names:
                return _float32(weights, adapter.names[name])
            output = adapter.outputs.get(name) or adapter.outputs[adapter.ties[name]]
            return _float32(weights if output.from_adapter else base, output.source)

        return score(model, probes, read, "base + adapter")


def score(model: Any, probes: list[list[int]], read: Callable[[str], Tensor], label: str) -> list[Score]:
    """Score all probes in one batch. Padding on the right does not matter to a causal model."""
    import torch

    longest = max(map(len, probes))
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in probes])
    with progress(label) as bar, torch.inference_mode():

        def read_in_one_thread(name: str) -> Tensor:
            bar.advance()
            with one_thread():
                return read(name)

        with streamed(model, read_in_one_thread):
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
    values, buffer = torch.empty(shape), torch.empty(4 * BLOCK, dtype=torch.uint8)
    for start, stop in row_blocks(shape):  # avoid a second copy of the whole tensor
        values[start:stop] = source.rows(name, start, stop, buffer)
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


def check_arithmetic(base: Source, adapter: Adapter, folder: Path, *, seed: int, whole: bool = False) -> Arithmetic:
    """Check that every tensor in `folder` is F16 and equals its Output, computed in float32 and rounded once.

    Check some rows of each tensor, or all (`whole`).

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
        one_thread(),
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
            rows = [*range(math.prod(shape[:1]))]
            if not whole:
                rows = sorted(choice.sample(rows, min(SAMPLED_ROWS, len(rows))))
            wrong = 0
            for start in range(0, len(rows), SAMPLED_ROWS):
                part = rows[start : start + SAMPLED_ROWS]
                exact, error = _exact(output, part, base, tensors)
                written = merged.gather(name, part).numpy()
                with numpy.errstate(over="ignore"):  # just below FP16's largest value the upper bound may round to inf
                    low, high = ((exact + sign * error).astype(numpy.float16) for sign in (-1, 1))
                wrong += int((~((low <= written) & (written <= high))).sum())
                checked += written.size
            if wrong:
                raise MergeError(f"{name}: {wrong:,} values are not fp16(W + s·B·A); nothing was written")
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
