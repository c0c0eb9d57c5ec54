from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen

from training.finetuning import attention

LENGTHS = [3, 1, 5]


def heads(*, like: int = 0) -> list[torch.Tensor]:
    """Query, key and value of nine tokens, with four heads and two."""
    generator = torch.Generator().manual_seed(like)
    return [torch.randn(1, count, sum(LENGTHS), 8, generator=generator) for count in (4, 2, 2)]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float = 0.3
) -> torch.Tensor:
    return attention.attend(torch.nn.Identity(), query, key, value, None, lengths=lengths, scaling=scaling)[0]


def test_each_segment_is_a_causal_attention_of_its_own() -> None:
    query, key, value = heads()
    found = attend(query, key, value, LENGTHS)[0]  # (tokens, heads, d)
    borders = [0, 3, 4, 9]
    for start, end in pairwise(borders):
        for place in range(start, end):
            for head in range(4):
                keys, values = key[0, head // 2, start : place + 1], value[0, head // 2, start : place + 1]
                weights = (keys @ query[0, head, place] * 0.3).softmax(0)
                torch.testing.assert_close(found[place, head], weights @ values)


def test_no_segment_sees_another() -> None:
    first, second = heads(), heads(like=1)
    mixed = [torch.cat([one[:, :, :4], two[:, :, 4:]], dim=2) for one, two in zip(first, second, strict=True)]
    assert attend(*mixed, LENGTHS)[:, :4].equal(attend(*first, LENGTHS)[:, :4])
    assert attend(*mixed, LENGTHS)[:, 4:].equal(attend(*second, LENGTHS)[:, 4:])
    # What the test above would not notice if it looked at the wrong tokens: as one segment they do see each other.
    assert not attend(*mixed, [9])[:, 4:].equal(attend(*second, [9])[:, 4:])


def test_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="no attention mask"):
        attention.attend(torch.nn.Identity(), *heads(), torch.ones(1, 9), lengths=LENGTHS)  # type: ignore[misc]


def kernel_of_torch_2_11(*given: Any, scale: float, window_size: tuple[int, int]) -> Any:
    """A segment at a time, from the borders; heads share key heads without being told."""
    query, key, value, borders = given[:4]
    assert window_size == (-1, 0)
    lengths = borders.diff().tolist()
    return attend(*(part.transpose(0, 1)[None] for part in (query, key, value)), lengths, scale)[0]


def kernel_of_torch_2_13(*given: Any, enable_gqa: bool = False, **named: Any) -> Any:
    assert enable_gqa, "without it this version refuses heads that share a key head"
    return kernel_of_torch_2_11(*given, **named)


@pytest.mark.parametrize("kernel", [kernel_of_torch_2_11, kernel_of_torch_2_13])
def test_the_flash_kernel_is_called_as_each_torch_declares_it(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    attention._kernel.cache_clear()
    try:
        assert attention._flash(*heads(), LENGTHS, 0.3).equal(attend(*heads(), LENGTHS))
    finally:
        attention._kernel.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the flash kernel needs CUDA")
def test_the_flash_kernel_agrees_with_sdpa() -> None:
    some: Any = [tensor.repeat(1, 1, 1, 8).cuda().bfloat16().requires_grad_() for tensor in heads()]
    exact: Any = [tensor.detach().float().requires_grad_() for tensor in some]
    fast, slow = attend(*some, LENGTHS), attend(*exact, LENGTHS)
    torch.testing.assert_close(fast.float(), slow, atol=2e-2, rtol=2e-2)
    fast.float().square().sum().backward()
    slow.square().sum().backward()
    for one, other in zip(some, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=5e-2, rtol=5e-2)
