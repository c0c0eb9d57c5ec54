import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.errors import WeightsError
from training.finetuning.base import Entry, read_header


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_reads_what_safetensors_writes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(3, 5, dtype=torch.float16), "b": torch.zeros(2), "none": torch.zeros(0)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "x.safetensors")
    assert {name: (entry.dtype, entry.size, entry.shape) for name, entry in found.items()} == {
        "a": ("F16", 30, (3, 5)),
        "b": ("F32", 8, (2,)),
        "none": ("F32", 0, (0,)),
    }


def test_each_tensor_is_where_it_says(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {name: torch.randint(255, (length,), dtype=torch.uint8) for name, length in (("a", 7), ("b", 300))}
    save_file(tensors, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    for name, entry in read_header(tmp_path / "x.safetensors").items():
        assert content[entry.start : entry.start + entry.size] == bytes(tensors[name].tolist())


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(4)
    path.write_bytes(whole)
    assert read_header(path) == {"a": Entry("F16", 4, (2,), len(whole) - 4)}
    assert f"{len(whole) - 1} bytes, its header promises {len(whole)}" in refusal(path, whole[:-1])
    assert f"{len(whole) + 1} bytes, its header promises {len(whole)}" in refusal(path, whole + b"x")
    assert "too short for its safetensors header; copy" in refusal(path, whole[:20])
    assert "too short" in refusal(path, b"")
    assert "git lfs pull" in refusal(path, b"version https://git-lfs.github.com/spec/v1\n")
    for text in (
        b"oops",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F16"}}',
        b'{"a": {"dtype": "F16", "data_offsets": [1]}}',
    ):
        assert "not a safetensors file" in refusal(path, len(text).to_bytes(8, "little") + text)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_header_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    try:
        found = read_header(path)
    except WeightsError:
        return
    assert found == {}  # forty bytes hold no tensor's entry
