"""What QLoRA's 4 bits leave of a base: the values that an adapter was trained against.

bitsandbytes rounds each run of 64 values of a linear layer to 16 levels between ± its largest one, and with double
quantisation those largest ones to 8 bits too (arXiv:2305.14314). The same here, some rows at a time: its own function
for CPUs takes three times as long, and on a whole matrix many times the memory. Tests hold the two equal to the bit.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from scripts.weights import Tensor, Weights, row_blocks

RUN = 64  # values that share a scale
CELLS = 64  # of equal width from -1 to 1: no cell holds more than one border between levels


class FourBits:
    """The base's tensors as training saw them: `quantised` ones rounded to nf4, all in the dtype of computation."""

    def __init__(self, base: Weights, quantised: frozenset[str], *, double_quant: bool, bf16: bool) -> None:
        self._base, self._quantised = base, quantised
        self._double_quant, self._bf16 = double_quant, bf16
        self._scales: tuple[str, Tensor] | None = None  # of the tensor asked for last

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._base.shapes

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """As `Weights.rows`, in bfloat16 or float32."""
        if name not in self._quantised:
            return self._seen(self._base.rows(name, start, stop, buffer))
        height, width = self._base.shapes[name]
        if start * width % RUN or (stop * width % RUN and stop < height):
            return self.rows(name, 0, height)[start:stop]  # runs that end within a row: no layer of a real model
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
        """The scales of all runs, rounded to 8 bits around their mean: a matter of the whole tensor."""
        import torch
        from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

        if self._scales is None or self._scales[0] != name:
            blocks = row_blocks(self._base.shapes[name], RUN)  # 64 rows are whole runs, whatever their width
            largest = torch.cat([_runs(self._seen(self._base.rows(name, *block)))[1] for block in blocks])
            mean = largest.mean()
            codes, state = quantize_blockwise(largest - mean, blocksize=256)
            self._scales = name, dequantize_blockwise(codes, state).float() + mean
        return self._scales[1]


class _Levels(NamedTuple):
    border: Tensor
    """(cells,): where a cell's values change from one level to the next; beyond 1 where they do not."""
    levels: Tensor
    """(2 · cells,): the level below and the one above the border of each cell."""


@cache
def _levels() -> _Levels:
    import torch
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    borders = (levels[1:] + levels[:-1]) / 2
    low = torch.bucketize(torch.arange(CELLS + 1) / (CELLS / 2) - 1, borders)  # one more cell: for 1 itself
    border = torch.full((CELLS + 1,), 2.0)
    border[((borders + 1) * (CELLS / 2)).int()] = borders
    return _Levels(border, levels[torch.stack([low, (low + 1).clamp(max=15)], 1)].flatten())


def _runs(values: Tensor) -> tuple[Tensor, Tensor]:
    """(runs, 64) in float32, the last one filled up with zeros, and the largest absolute value of each."""
    import torch

    flat = values.flatten().float()
    if len(flat) % RUN:
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % RUN))
    runs = flat.view(-1, RUN)
    return runs, runs.abs().amax(1)


def _rounded(runs: Tensor, largest: Tensor) -> Tensor:
    """The nearest level of each value, as a share of its run's largest. A search through all borders takes longer."""
    import torch

    border, levels = _levels()
    shares = (runs * (1 / largest.clamp(min=1e-38))[:, None]).clamp_(-1, 1).flatten()
    cells = (shares * (CELLS / 2)).add_(CELLS / 2).int()
    above = shares > torch.index_select(border, 0, cells)
    return torch.index_select(levels, 0, cells.mul_(2).add_(above)).view(-1, RUN)
