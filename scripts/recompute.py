"""The arithmetic of a merge, checked in the files as they were written, by other code in a wider format."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.adapter import Adapter, Output, Update
from scripts.merging import Source
from scripts.weights import Weights, row_blocks
from training.console import progress
from training.errors import MergeError

SAMPLED_ROWS = 256  # of a larger tensor; a smaller one is checked whole
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
    """Every tensor in `folder` is F16 and what its Output says, computed in float32 and rounded once.

    Recomputed in float64 by numpy. A float32 result lies within e of the exact x (see `_exact`), and rounding keeps
    order, so a correct value lies in [fp16(x - e), fp16(x + e)]: one number, but for the few x that lie within e of a
    rounding border or cancel to about e. What nothing was added to is fp16(W) exactly.

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
            raise MergeError(f"{len(stray)} tensors are planned or written only, first {stray[0]}")
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
    """The output's rows in float64, and how far float32 arithmetic may be from them.

    For v = W + s·B·A: e = (r + 4)·u·|s|·|B|·|A| + u·|W|, the standard bound for a dot product of length r and the
    steps after it (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). For DoRA's m·v / ‖v‖ the norm's own
    relative error ‖e‖ / ‖v‖ is added, and four steps' rounding.
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
    """‖v‖ and ‖e‖ of each column: of all rows, not of the sampled ones."""
    import numpy

    source = adapter if output.from_adapter else base

    def sums() -> Iterator[tuple[Array, Array]]:
        for start, stop in row_blocks(output.shape):
            values = source.rows(output.source, start, stop).double().numpy()
            yield _sum(values, update, a, b, slice(start, stop))

    squares = [((exact**2).sum(0), (error**2).sum(0)) for exact, error in sums()]
    exact, error = (numpy.sqrt(numpy.sum(part, axis=0)) for part in zip(*squares, strict=True))
    return exact, error
