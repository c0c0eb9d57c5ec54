"""Attention within the segments of a packed row, registered with transformers under its own name.

transformers can do this from position ids, but with a dense mask of tokens × tokens (a quarter of a gigabyte for 16,000
tokens), and only while no cache and no attention mask is passed; otherwise segments attend to each other. Here no mask
is built: each segment gets its own causal attention, on CUDA in one call of the variable-length flash kernel, elsewhere
by one call of SDPA per segment.
"""

import inspect
from functools import cache, partial
from itertools import accumulate
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "segments"
HALF = (torch.bfloat16, torch.float16)  # dtypes of the flash kernel


def use(model: Any) -> None:
    """Make a transformers model attend within segments. Pass their `lengths` to its forward pass."""
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: list[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Take `query` (1, heads, tokens, d) and `key`, `value` (1, kv_heads, tokens, d); return (1, tokens, heads, d).

    `lengths` are the segments' token counts, in order. Raises ValueError if a mask is passed.
    """
    if attention_mask is not None:
        raise ValueError("attention within segments takes no attention mask")
    if query.is_cuda and query.dtype in HALF:
        return _flash(query, key, value, lengths, scaling), None
    parts = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float | None
) -> torch.Tensor:
    borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=query.device)
    longest = max(lengths)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, heads, d)
    attended = _kernel()(q, k, v, borders, borders, longest, longest, scale=scaling, window_size=(-1, 0))
    return cast(torch.Tensor, attended)[None]


@cache
def _kernel() -> Any:
    """Return varlen_attn for query heads that share key heads: torch 2.13 needs `enable_gqa`, which 2.11 lacks."""
    from torch.nn.attention.varlen import varlen_attn

    shared = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return partial(varlen_attn, enable_gqa=True) if shared else varlen_attn
