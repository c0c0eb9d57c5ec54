"""The arithmetic of the merge: a few rows at a time, in float32, rounded once."""

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

from scripts.adapter import Output, Update
from scripts.weights import BLOCK, ITEM_BYTES, Tensor, Weights, row_blocks
from training.errors import MergeError

LARGEST = 65520.0  # from here on FP16 rounds to infinity; its largest value is 65504


class Source(Protocol):
    """Where the values lie that the adapter is added to: `Weights`, or what 4 bits leave of them."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor: ...

    def gather(self, name: str, index: list[int]) -> Tensor: ...


class Merging:
    """One thread's: files opened for it, and memory for one block, used again and again."""

    def __init__(self, base: Source, adapter: Weights) -> None:
        import torch

        self._base, self._adapter = base, adapter
        self._raw = torch.empty(BLOCK * max(ITEM_BYTES.values()), dtype=torch.uint8)
        self._wide, self._added = (torch.empty(BLOCK) for _ in range(2))
        self._half = torch.empty(BLOCK, dtype=torch.float16)

    def fp16(self, name: str, output: Output) -> Iterator[Tensor]:
        """The merged tensor's rows, in order; each block is overwritten by the next.

        Raises MergeError, after the last block, when a value is not finite or does not fit FP16.
        """
        import torch

        wrong = unfit = 0
        for block in self.float32(output):
            low, high = block.aminmax()
            if not (low > -LARGEST and high < LARGEST):  # not `<=`: NaN compares false
                finite = torch.isfinite(block)
                wrong += int((~finite).sum())
                unfit += int((finite & (block.abs() >= LARGEST)).sum())
            half = _part(self._half, block.shape)
            yield half.copy_(block)
        if wrong or unfit:
            kind = "NaN or infinite" if wrong else "beyond FP16's largest value, 65504"
            count = math.prod(output.shape)
            raise MergeError(f"{name}: {wrong or unfit:,} of {count:,} values are {kind}; nothing was written")

    def float32(self, output: Output) -> Iterator[Tensor]:
        """W + s·B·A and what else belongs to the output, unrounded, some rows at a time, in the same memory."""
        update, shift = output.update, output.shift
        if update is None:
            for start, stop in row_blocks(output.shape):
                block = self._values(output, start, stop)
                if shift is not None:  # of a vector: nothing to multiply
                    block.add_(self._adapter.tensor(shift[0]).float()[start:stop].mul_(shift[1]))
                yield block
            return
        a, b = self._adapter.tensor(update.a).float(), self._adapter.tensor(update.b).float()
        factors = None
        if update.magnitude is not None:
            factors = self._adapter.tensor(update.magnitude).float()
            if update.transposed:  # an output is a column: its norm needs all rows
                squares = sum(block.double().square_().sum(0) for _, block in self._sums(output, update, a, b))
                factors = factors / squares.sqrt().float()
        for (start, stop), block in self._sums(output, update, a, b):
            if factors is None:
                yield block
            elif update.transposed:
                yield block.mul_(factors)
            else:
                # In float64: a float32 sum of thousands of squares would be off by more than the rounding to come.
                norms = _norms(block)
                yield block.mul_((factors[start:stop] / norms)[:, None])

    def _sums(self, output: Output, update: Update, a: Tensor, b: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """W + s·B·A, in peft's own order of operations, so that bits can be compared."""
        import torch

        for start, stop in row_blocks(output.shape):
            block = self._values(output, start, stop)
            left, right = (a[:, start:stop].t(), b.t()) if update.transposed else (b[start:stop], a)
            # In one step (addmm_) it would be faster, and summed in another order where a block is a single row.
            added = _part(self._added, block.shape)
            torch.mm(left, right, out=added)
            yield (start, stop), block.add_(added.mul_(update.scale))

    def _values(self, output: Output, start: int, stop: int) -> Tensor:
        source = self._adapter if output.from_adapter else self._base
        values = source.rows(output.source, start, stop, self._raw)
        return _part(self._wide, values.shape).copy_(values)


def _part(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape in the memory, or in new memory where a single row is larger."""
    count = math.prod(shape)
    return (memory[:count] if count <= len(memory) else memory.new_empty(count)).view(shape)


def _norms(block: Tensor) -> Tensor:
    """‖row‖ of each row, float32, summed in float64."""
    import torch

    return torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).float()
