"""Compute W + s·B·A in blocks, and write it to shards."""

import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from ghost.console import progress
from ghost.errors import MergeError
from training.finetuning.base import Base
from training.merging.adapter import Adapter, Output, Update
from training.merging.provenance import Precision
from training.merging.weights import BLOCK, ITEM_BYTES, Tensor, Weights, fp16_bytes, one_thread, row_blocks, write_shard

# Merge a few rows at a time, in float32, and round once.

FP16_OVERFLOW = 65520.0  # FP16 rounds this and more to infinity; its largest value is 65504


class Source(Protocol):
    """The base weights to merge onto: `Weights`, or the same rounded to nf4."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor: ...

    def gather(self, name: str, index: list[int]) -> Tensor: ...


class Merging:
    """The merge in one thread, with its own open files and one reused block of memory."""

    def __init__(self, base: Source, adapter: Weights) -> None:
        import torch

        self._base, self._adapter = base, adapter
        self._raw = torch.empty(BLOCK * max(ITEM_BYTES.values()), dtype=torch.uint8)
        self._wide, self._added = (torch.empty(BLOCK) for _ in range(2))
        self._half = torch.empty(BLOCK, dtype=torch.float16)

    def fp16(self, name: str, output: Output) -> Iterator[Tensor]:
        """Yield the merged tensor's rows in order; each block is overwritten by the next.

        Raises MergeError after the last block if a value is not finite or does not fit FP16.
        """
        import torch

        wrong = unfit = 0
        for block in self.float32(output):
            low, high = block.aminmax()
            if not (low > -FP16_OVERFLOW and high < FP16_OVERFLOW):  # not `<=`: NaN compares false
                finite = torch.isfinite(block)
                wrong += int((~finite).sum())
                unfit += int((finite & (block.abs() >= FP16_OVERFLOW)).sum())
            half = _part(self._half, block.shape)
            yield half.copy_(block)
        if wrong or unfit:
            kind = "NaN or infinite" if wrong else "beyond FP16's largest value, 65504"
            count = math.prod(output.shape)
            raise MergeError(f"{name}: {wrong or unfit:,} of {count:,} values are {kind}; nothing was written")

    def float32(self, output: Output) -> Iterator[Tensor]:
        """Yield the merged rows, unrounded, a block at a time in the same memory."""
        import torch

        update, shift = output.update, output.shift
        if update is None:
            for start, stop in row_blocks(output.shape):
                block = self._values(output, start, stop)
                if shift is not None:  # biases are vectors
                    block.add_(self._adapter.tensor(shift[0]).float()[start:stop].mul_(shift[1]))
                yield block
            return
        a, b = self._adapter.tensor(update.a).float(), self._adapter.tensor(update.b).float()
        factors = None
        if update.magnitude is not None:
            factors = self._adapter.tensor(update.magnitude).float()
            if update.transposed:  # outputs are columns, so their norms need all rows
                squares = sum(block.double().square_().sum(0) for _, block in self._sums(output, update, a, b))
                factors = factors / squares.sqrt().float()
        for (start, stop), block in self._sums(output, update, a, b):
            if factors is None:
                yield block
            elif update.transposed:
                yield block.mul_(factors)
            else:
                # float64: a float32 sum of thousands of squares would err by more than FP16 rounds.
                norms = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).float()
                yield block.mul_((factors[start:stop] / norms)[:, None])

    def _sums(self, output: Output, update: Update, a: Tensor, b: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Yield W + s·B·A, in peft's order of operations, so that results are bit-equal."""
        import torch

        for start, stop in row_blocks(output.shape):
            block = self._values(output, start, stop)
            left, right = (a[:, start:stop].t(), b.t()) if update.transposed else (b[start:stop], a)
            # addmm_ would be faster, but sums single-row blocks in another order.
            added = _part(self._added, block.shape)
            torch.mm(left, right, out=added)
            yield (start, stop), block.add_(added.mul_(update.scale))

    def _values(self, output: Output, start: int, stop: int) -> Tensor:
        source = self._adapter if output.from_adapter else self._base
        values = source.rows(output.source, start, stop, self._raw)
        return _part(self._wide, values.shape).copy_(values)


def _part(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of this shape in `memory`, or in new memory if it is too small."""
    count = math.prod(shape)
    return (memory[:count] if count <= len(memory) else memory.new_empty(count)).view(shape)


# Round base weights to nf4 and back: the values that a QLoRA adapter was trained against.
#
# bitsandbytes rounds each block of 64 values of a linear layer to 16 levels between ± its absolute maximum, and with
# double quantisation rounds those maxima to 8 bits (arXiv:2305.14314). This does the same, some rows at a time:
# bitsandbytes' own CPU function takes three times as long, and on a whole matrix many times the memory. Tests hold both
# bit-equal.

RUN = 64  # values that share a scale
CELLS = 64  # of equal width from -1 to 1; each contains at most one border between levels


class Nf4Weights:
    """The base's tensors as in training: `quantised` ones rounded to nf4, all in the dtype of computation."""

    def __init__(self, base: Weights, quantised: frozenset[str], *, double_quant: bool, bf16: bool) -> None:
        self._base, self._quantised = base, quantised
        self._double_quant, self._bf16 = double_quant, bf16
        self._scales: tuple[str, Tensor] | None = None  # of the last tensor

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._base.shapes

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Return rows like `Weights.rows`, in bfloat16 or float32."""
        if name not in self._quantised:
            return self._seen(self._base.rows(name, start, stop, buffer))
        height, width = self._base.shapes[name]
        if start * width % RUN or (stop * width % RUN and stop < height):
            return self.rows(name, 0, height)[start:stop]  # blocks end within a row; does not occur in real models
        values = self._seen(self._base.rows(name, start, stop, buffer))
        runs, largest = _runs(values)
        scales = largest
        if self._double_quant:
            first = start * width // RUN
            scales = self._tensor_scales(name)[first : first + len(largest)]
        rounded = _rounded(runs, largest).mul_(scales[:, None])
        return self._seen(rounded.flatten()[: values.numel()].view(values.shape))

    def gather(self, name: str, index: list[int]) -> Tensor:
        import torch

        return torch.cat([self.rows(name, row, row + 1) for row in index])

    def _seen(self, values: Tensor) -> Tensor:
        import torch

        return values.to(torch.bfloat16 if self._bf16 else torch.float32)

    def _tensor_scales(self, name: str) -> Tensor:
        """Return the scales of all blocks, rounded to 8 bits around the mean of the whole tensor."""
        import torch
        from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

        if self._scales is None or self._scales[0] != name:
            blocks = row_blocks(self._base.shapes[name], RUN)  # 64 rows are whole blocks at any width
            largest = torch.cat([_runs(self._seen(self._base.rows(name, *block)))[1] for block in blocks])
            with one_thread():  # each number of threads sums in another order
                mean = largest.mean()
            codes, state = quantize_blockwise(largest - mean, blocksize=256)
            self._scales = name, dequantize_blockwise(codes, state).float() + mean
        return self._scales[1]


@cache
def _levels() -> tuple[Tensor, Tensor]:
    """Return (cells,), the border between two levels in each cell, beyond 1 if it has none; and (2 · cells,), the
    levels below and above it."""
    import torch
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    borders = (levels[1:] + levels[:-1]) / 2
    low = torch.bucketize(torch.arange(CELLS + 1) / (CELLS / 2) - 1, borders)  # one more cell: for 1 itself
    border = torch.full((CELLS + 1,), 2.0)
    border[((borders + 1) * (CELLS / 2)).int()] = borders
    return border, levels[torch.stack([low, (low + 1).clamp(max=15)], 1)].flatten()


def _runs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (blocks, 64) float32, padded with zeros, and the absolute maximum of each block."""
    import torch

    flat = values.flatten().float()
    if len(flat) % RUN:
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % RUN))
    runs = flat.view(-1, RUN)
    return runs, runs.abs().amax(1)


def _rounded(runs: Tensor, largest: Tensor) -> Tensor:
    """Return the nearest level to each value, relative to the block's maximum. Faster than a search in all borders."""
    import torch

    border, levels = _levels()
    shares = (runs * (1 / largest.clamp(min=1e-38))[:, None]).clamp_(-1, 1).flatten()
    cells = (shares * (CELLS / 2)).add_(CELLS / 2).int()
    above = shares > torch.index_select(border, 0, cells)
    return torch.index_select(levels, 0, cells.mul_(2).add_(above)).view(-1, RUN)


BaseWeights = Literal["original", "dequantized"]


@dataclass(frozen=True)
class Sources:
    """What a merge reads. Each thread opens its own files."""

    base: Base
    adapter: Adapter
    precision: Precision
    base_weights: BaseWeights

    @contextmanager
    def open(self) -> Iterator[tuple[Source, Weights]]:
        """Open the base weights to merge onto, and the adapter's."""
        with Weights.of_model(self.base.folder) as base, self.adapter.open() as tensors:
            if self.base_weights == "original":
                yield base, tensors
            else:
                yield Nf4Weights(base, self.adapter.quantised, **asdict(self.precision)), tensors


def write_shards(folder: Path, sources: Sources, shards: dict[str, list[str]]) -> dict[str, str]:
    """Write the shards in parallel, one thread each, and return their SHA-256.

    Raises MergeError if the disk is too small or a value does not fit FP16.
    """
    outputs = sources.adapter.outputs
    free, needed = shutil.disk_usage(folder).free, sum(fp16_bytes(output.shape) for output in outputs.values())
    if needed > free:
        raise MergeError(
            f"{folder.parent}: {free / 1e9:.1f} GB free, the merged model needs {needed / 1e9:.1f} GB; free the rest, "
            "or write to another disk: --out FOLDER"
        )
    stop = threading.Event()

    def write(shard: str) -> str:
        with one_thread(), sources.open() as (base, tensors):
            merging = Merging(base, tensors)

            def blocks(name: str) -> Iterator[Tensor]:
                for block in merging.fp16(name, outputs[name]):
                    if stop.is_set():
                        raise CancelledError
                    yield block
                bar.advance()

            return write_shard(folder / shard, {name: outputs[name].shape for name in shards[shard]}, blocks)

    with progress("merging", total=len(outputs)) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        writers = [pool.submit(write, shard) for shard in shards]
        try:
            for done in as_completed(writers):
                done.result()
        finally:  # after a signal or an error, end the others at their next block
            stop.set()
            pool.shutdown(cancel_futures=True)
    return {shard: writer.result() for shard, writer in zip(shards, writers, strict=True)}
