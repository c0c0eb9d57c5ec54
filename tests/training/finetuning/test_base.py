import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ghost.errors import BaseModelError
from training.finetuning import base as bases


@pytest.fixture
def copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def refusal(name: Path | str) -> str:
    with pytest.raises(BaseModelError) as caught:
        bases.resolve_base(str(name), None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_folder_is_identified_by_its_weights(tiny_base: Path, copy: Path) -> None:
    found, copied = bases.resolve_base(str(tiny_base), None), bases.resolve_base(str(copy), "ignored")
    digest = hashlib.sha256((tiny_base / "model.safetensors").read_bytes()).hexdigest()
    assert (found.repo, found.revision) == ("tiny-base", "local")
    assert found.weights_sha256 == hashlib.sha256(f"model.safetensors {digest}\n".encode()).hexdigest()
    assert copied.weights_sha256 == found.weights_sha256


def test_a_blob_of_the_hub_cache_is_not_read_again(copy: Path) -> None:
    # The Hub's cache names a blob by its SHA-256; a name that is not its real one shows that it is believed.
    blob = copy / ("ab" * 32)
    (copy / "model.safetensors").rename(blob)
    (copy / "model.safetensors").symlink_to(blob)
    expected = hashlib.sha256(f"model.safetensors {'ab' * 32}\n".encode()).hexdigest()
    assert bases.resolve_base(str(copy), None).weights_sha256 == expected


def test_shards_are_those_of_the_index(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    shutil.copy(copy / "model-00001-of-00002.safetensors", copy / "consolidated.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / bases.INDEX).write_text(json.dumps(index))
    assert "1 of 2 shards" in refusal(copy)
    assert "model-00002-of-00002.safetensors" in refusal(copy)
    shutil.copy(copy / "model-00001-of-00002.safetensors", copy / "model-00002-of-00002.safetensors")
    assert [path.name for path in bases.weight_files(copy)] == sorted(index["weight_map"].values())


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert f"{len(content) - 1:,} bytes, its header promises {len(content):,}" in refusal(copy)
    weights.write_bytes(content[:100])
    assert "too short for its safetensors header" in refusal(copy)
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refusal(copy)
    weights.write_bytes((4).to_bytes(8, "little") + b"oops")
    assert "not a safetensors file" in refusal(copy)


def test_pickles_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "only pickles (pytorch_model.bin)" in refusal(copy)
    (copy / "pytorch_model.bin").unlink()
    assert "found none" in refusal(copy)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "not a causal language model (found BertForMaskedLM)"),
        ({}, "(found no architectures)"),
        (
            {"architectures": ["MistralForCausalLM"], "quantization_config": {"quant_method": "gptq"}},
            "quantised (gptq)",
        ),
    ],
)
def test_what_is_no_plain_causal_language_model_is_refused(copy: Path, config: object, complaint: str) -> None:
    (copy / "config.json").write_text(json.dumps(config))
    assert complaint in refusal(copy)


def test_missing_folders_and_configs_are_refused(copy: Path, tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "none")
    (copy / "config.json").unlink()
    assert "no config.json here" in refusal(copy)
    assert "a file; name the folder" in refusal(copy / "model.safetensors")


def test_an_unreachable_hub_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "the Hub could not be reached" in refusal("nobody/nothing")


def test_the_weights_are_not_fetched_to_plan(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    snapshot = tmp_path / "5fa34190089f0ee40f9cce3cbc396b89b2e5e5a8"
    asked = []

    def snapshot_download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(revision)
        snapshot.mkdir(exist_ok=True)
        for path in tiny_base.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    outline = bases.find_base("some/base", None)
    assert (outline.repo, outline.revision) == ("some/base", snapshot.name)
    assert {path.suffix for path in snapshot.iterdir()} == {".json"}
    base = bases.resolve_base("some/base", None)
    assert base.weights_sha256 == bases.resolve_base(str(tiny_base), None).weights_sha256
    assert asked == [None, None, snapshot.name]  # the weights of the very commit that was planned with


def test_a_missing_tensor_is_refused_not_invented(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"1 tensors are missing.*layers\.1\.mlp\.up_proj"):
        bases.load_base(bases.resolve_base(str(copy), None), nf4=False, bf16=False)


def test_load_base_gives_the_asked_arithmetic(tiny_base: Path) -> None:
    import torch

    base = bases.resolve_base(str(tiny_base), None)
    exact, rounded = bases.load_base(base, nf4=False, bf16=False), bases.load_base(base, nf4=True)
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16, torch.uint8}
