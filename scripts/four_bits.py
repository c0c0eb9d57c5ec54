"""What QLoRA's 4 bits leave of a base: the values that an adapter was trained against.

bitsandbytes rounds each run of 64 values of a linear layer to 16 levels between ± its largest, and with double
quantisation those largest ones to 8 bits too (arXiv:2305.14314). Its own functions do it here, some rows at a time:
on the CPU they are slow, and need many times the memory, on a whole matrix.
"""

from collections.abc import Mapping
from typing import Any

from scripts.weights import Tensor, Weights, row_blocks

RUN = 64  # values that share a scale


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
        width = self._base.shapes[name][1]
        if start * width % RUN or (stop * width % RUN and stop < self._base.shapes[name][0]):
            return self._rounded(name, self._base.tensor(name), 0)[start:stop]  # no layer of a real model
        return self._rounded(name, self._base.rows(name, start, stop, buffer), start * width // RUN)

    def gather(self, name: str, index: list[int]) -> Tensor:
        import torch

        return torch.cat([self.rows(name, row, row + 1) for row in index])

    def _seen(self, values: Tensor) -> Tensor:
        import torch

        return values.to(torch.bfloat16 if self._bf16 else torch.float32)

    def _rounded(self, name: str, values: Tensor, first: int) -> Tensor:
        """Rows whose first run is the `first` of the tensor, quantised and back."""
        from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit

        shape = values.shape
        # As one row: bitsandbytes 0.50's kernel for CPUs takes each row for whole runs, and reads others' scales where
        # 64 does not divide the width.
        values = self._seen(values).flatten()
        codes, state = quantize_4bit(values, blocksize=RUN, quant_type="nf4", compress_statistics=False)
        scales = state.absmax
        if self._double_quant:
            scales = self._tensor_scales(name)[first : first + len(scales)]
        exact: dict[str, Any] = {"shape": values.shape, "dtype": values.dtype, "blocksize": RUN, "quant_type": "nf4"}
        return dequantize_4bit(codes, QuantState(absmax=scales, code=state.code, **exact)).view(shape)

    def _tensor_scales(self, name: str) -> Tensor:
        """The scales of all runs, rounded to 8 bits around their mean: a matter of the whole tensor."""
        import torch
        from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

        if self._scales is None or self._scales[0] != name:
            flat = torch.cat([self._largest(name, start, stop) for start, stop in self._blocks(name)])
            mean = flat.mean()
            codes, state = quantize_blockwise(flat - mean, blocksize=256)
            self._scales = name, dequantize_blockwise(codes, state).float() + mean
        return self._scales[1]

    def _largest(self, name: str, start: int, stop: int) -> Tensor:
        import torch

        values = self._seen(self._base.rows(name, start, stop)).float().flatten().abs()
        values = torch.nn.functional.pad(values, (0, -len(values) % RUN))
        return values.view(-1, RUN).amax(1)

    def _blocks(self, name: str) -> list[tuple[int, int]]:
        return [*row_blocks(self._base.shapes[name], RUN)]  # 64 rows are whole runs, whatever their width
