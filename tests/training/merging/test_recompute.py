"""The check of the arithmetic: it lets through what is right, and notices what is off by one unit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import MergeError
from training.merging import proof
from training.merging.adapter import Adapter, Output, Update, read_adapter
from training.merging.merge import Merging
from training.merging.proof import check_arithmetic
from training.merging.weights import Weights, plan_shards, write_index, write_shard

SHARD = "model-00001-of-00001.safetensors"
FORMS = {
    "LoRA": {},
    "rsLoRA of rank 16": {"rank": 16},
    "the other way round": {"transposed": True},
    "DoRA": {"dora": True},
    "DoRA, the other way round": {"dora": True, "transposed": True},
}


def write(folder: Path, outputs: dict[str, Output], fp16: Callable[[str], Any]) -> None:
    shapes = {name: output.shape for name, output in outputs.items()}
    write_shard(folder / SHARD, shapes, lambda name: [fp16(name)])
    write_index(folder, shapes, plan_shards(shapes))


def invented(folder: Path, dtype: str, rank: int, transposed: bool, dora: bool) -> Adapter:
    """One matrix of (48, 32) and one vector, in `folder / "base"`, with an adapter for both in `folder`."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(rank)
    (folder / "base").mkdir()
    tensors = {"x.weight": torch.randn(48, 32), "x.bias": torch.randn(48), "y.weight": torch.randn(9)}
    save_file(
        {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()},
        folder / "base" / "model.safetensors",
    )
    outer, inner = (32, 48) if transposed else (48, 32)
    factors = {
        "A": torch.randn(rank, inner),
        "B": torch.randn(outer, rank),
        "m": torch.rand(outer),
        "v": torch.randn(48),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    update = Update("A", "B", rank, 0.3, transposed, "m" if dora else None)
    outputs = {
        "x.weight": Output((48, 32), "x.weight", update=update),
        "x.bias": Output((48,), "x.bias", shift=("v", 0.3)),
        "y.weight": Output((9,), "y.weight"),
    }
    return Adapter(folder, {}, outputs, None, {}, False, frozenset(), {})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_one_unit_in_the_last_place_is_noticed(form: str, dtype: str, tmp_path: Path) -> None:
    """Whatever the base's dtype; but for the few values where float32 itself is not that exact."""
    import torch

    adapter = invented(tmp_path, dtype, **{"rank": 1, "transposed": False, "dora": False} | FORMS[form])
    (tmp_path / "merged").mkdir()
    with Weights.of_model(tmp_path / "base") as base, adapter.open() as tensors:
        merging = Merging(base, tensors)
        honest = {
            name: torch.cat([block.clone() for block in merging.fp16(name, output)])
            for name, output in adapter.outputs.items()
        }
        write(tmp_path / "merged", adapter.outputs, honest.__getitem__)
        found = check_arithmetic(base, adapter, tmp_path / "merged", seed=0)
        assert (found.tensors, found.merged, found.values_checked) == (3, 2, 48 * 32 + 48 + 9)
        for name, right in honest.items():
            for target in (torch.inf, -torch.inf):
                wrong = honest | {name: torch.nextafter(right, torch.full_like(right, target))}
                write(tmp_path / "merged", adapter.outputs, wrong.__getitem__)
                with pytest.raises(MergeError, match=rf"{name}: ([\d,]+) values are not") as refused:
                    check_arithmetic(base, adapter, tmp_path / "merged", seed=0)
                noticed = int(str(refused.value).split()[1].replace(",", ""))
                assert noticed > 0.95 * right.numel()


def test_one_changed_value_is_found_in_the_files(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "changed")
    content = bytearray((merged / SHARD).read_bytes())
    content[-2] ^= 1  # the last bit of the last value of the last tensor, the final norm
    (tmp_path / "changed" / SHARD).write_bytes(content)
    plan = read_adapter(adapter, tiny_base)
    with Weights.of_model(tiny_base) as base:
        assert check_arithmetic(base, plan, merged, seed=0).tensors == len(base.shapes)
        with pytest.raises(MergeError, match=r"model\.norm\.weight: 1 values are not"):
            check_arithmetic(base, plan, tmp_path / "changed", seed=0)


def test_of_a_large_tensor_some_rows_are_checked(
    merged: Path, adapter: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "SAMPLED_ROWS", 10)
    plan = read_adapter(adapter, tiny_base)
    with Weights.of_model(tiny_base) as base:
        one, other = (check_arithmetic(base, plan, merged, seed=seed) for seed in (0, 1))
        expected = sum(10 * shape[1] if len(shape) == 2 else 10 for shape in base.shapes.values())
        whole = check_arithmetic(base, plan, merged, seed=0, whole=True)
    assert one.values_checked == other.values_checked == expected < one.values == whole.values_checked


def test_a_tensor_too_few_or_of_another_kind_is_found(
    merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    plan = read_adapter(adapter, tiny_base)
    tensors = load_file(merged / SHARD)
    lost = tensors.pop("model.norm.weight")
    for more, message in (
        ({}, "1 tensors are only planned or only written, first model.norm.weight"),
        ({"model.norm.weight": lost.float()}, r"model.norm.weight: written as F32 \[64\], not F16 \[64\]"),
        ({"model.norm.weight": lost[1:]}, r"written as F16 \[63\], not F16 \[64\]"),
    ):
        save_file(tensors | more, tmp_path / "model.safetensors")
        with Weights.of_model(tiny_base) as base, pytest.raises(MergeError, match=message):
            check_arithmetic(base, plan, tmp_path, seed=0)
