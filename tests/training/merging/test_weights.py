"""Reading by offset, and writing as a stream."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import MergeError
from training.merging import weights as reading
from training.merging.weights import Weights, plan_shards, row_blocks, write_index, write_shard


@pytest.fixture
def tensors() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    return {
        "wide": torch.randn(7, 300),
        "half": torch.randn(5, 3, 2).half(),
        "brain": torch.randn(40, 8).bfloat16(),
        "vector": torch.randn(11),
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
    }


@pytest.fixture
def saved(tensors: dict[str, Any], tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_reads_what_safetensors_wrote(tensors: dict[str, Any], saved: Path) -> None:
    import torch

    with Weights([saved]) as weights:
        assert set(weights.shapes) == set(tensors)
        for name, tensor in tensors.items():
            found = weights.tensor(name)
            assert found.dtype == tensor.dtype
            assert weights.shapes[name] == tuple(tensor.shape)
            assert torch.equal(found, tensor)
        assert torch.equal(weights.rows("brain", 3, 9), tensors["brain"][3:9])
        assert torch.equal(weights.gather("wide", [0, 2, 6]), tensors["wide"][[0, 2, 6]])
        assert torch.equal(weights.gather("vector", [1, 10]), tensors["vector"][[1, 10]])


def test_a_buffer_is_used_where_it_is_large_enough(tensors: dict[str, Any], saved: Path) -> None:
    import torch

    buffer = torch.empty(7 * 300 * 4, dtype=torch.uint8)
    with Weights([saved]) as weights:
        found = weights.rows("wide", 0, 7, buffer)
        assert found.data_ptr() == buffer.data_ptr()
        small = weights.rows("wide", 0, 7, buffer[:100])
        assert small.data_ptr() != buffer.data_ptr()
        assert torch.equal(found, small)


def test_equal_compares_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    monkeypatch.setattr(reading, "BLOCK", 8)
    one = torch.randn(9, 4)
    other = one.clone()
    other[8, 3] += 1
    zeros = {"zero": torch.tensor([0.0]), "minus": torch.tensor([-0.0])}
    save_file(
        {"one": one, "same": one.clone(), "other": other, "half": one.half(), **zeros}, tmp_path / "x.safetensors"
    )
    with Weights([tmp_path / "x.safetensors"]) as weights:
        assert weights.equal("one", "same")
        assert not weights.equal("one", "other")
        assert not weights.equal("one", "half")
        assert not weights.equal("zero", "minus")


@pytest.mark.parametrize("shape", [(0, 3), (1, 5), (100, 30), (7,), (), (64, 10_000)])
@pytest.mark.parametrize("multiple", [1, 16])
def test_blocks_of_rows_cover_all_once(shape: tuple[int, ...], multiple: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 1000)
    blocks = [*row_blocks(shape, multiple)]
    rows = [row for start, stop in blocks for row in range(start, stop)]
    assert rows == [*range(shape[0] if shape else 1)]
    assert all(start % multiple == 0 for start, _ in blocks)


def test_a_file_that_cannot_be_merged_is_refused(tensors: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def refusal(*files: Path) -> str:
        with pytest.raises(MergeError) as caught, Weights(files):
            pass
        return str(caught.value)

    save_file({"ids": torch.arange(3)}, tmp_path / "ids.safetensors")
    assert "ids is I64; only BF16, F16, F32 merge" in refusal(tmp_path / "ids.safetensors")
    assert "holds none, and so does a file before it" in refusal(saved, saved)
    assert "not a readable safetensors file" in refusal(tmp_path / "gone.safetensors")
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "lie").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "a: 8 bytes do not fit F32 [3]" in refusal(tmp_path / "lie")


def test_a_file_that_shrinks_is_noticed(saved: Path) -> None:
    with Weights([saved]) as weights:
        saved.write_bytes(saved.read_bytes()[:-200])
        with pytest.raises(MergeError, match="became shorter while it was read"):
            [weights.tensor(name) for name in weights.shapes]


def test_a_shard_is_what_safetensors_would_read(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from replicate_deployment.ghost_json import sha256

    halves = {name: tensor.half() for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in halves.items()}
    path = tmp_path / "y.safetensors"
    found = write_shard(path, shapes, lambda name: halves[name].reshape(-1).split(5) if halves[name].numel() else [])
    assert found == sha256(path)
    read = load_file(path)
    assert set(read) == set(halves)
    assert all(torch.equal(read[name], tensor) for name, tensor in halves.items())


def test_a_shard_is_filled_but_not_over(tmp_path: Path) -> None:
    shapes = {"a": (10,), "b": (10,), "c": (30,), "d": (1,)}
    shards = plan_shards(shapes, shard_bytes=40)
    assert shards == {
        "model-00001-of-00003.safetensors": ["a", "b"],
        "model-00002-of-00003.safetensors": ["c"],
        "model-00003-of-00003.safetensors": ["d"],
    }
    write_index(tmp_path, shapes, shards)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * 51
    assert index["weight_map"]["c"] == "model-00002-of-00003.safetensors"
