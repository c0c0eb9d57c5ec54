import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import BaseModelError, ConfigError
from replicate_deployment.errors import WeightsError
from replicate_deployment.model_folder import INDEX, Entry, read_header
from training.config import TrainingConfig, load_bases
from training.finetuning import base as bases
from training.finetuning.base import Shapes, config_at_hand, read_shapes, shapes_of


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
    (copy / INDEX).write_text(json.dumps(index))
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
    assert "no model.safetensors" in refusal(copy)


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


MISTRAL = "mistralai/Mistral-7B-v0.3"
CONFIG = load_bases()["mistral-7b"].config
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_the_base_of_record_is_known_without_a_file(recipe: TrainingConfig) -> None:
    assert recipe.base_model == MISTRAL
    shapes = shapes_of(recipe.base_model, recipe.revision_of_model)
    assert shapes.parameters == 7_248_023_552  # what the Hub counts in its safetensors
    assert shapes.lora_parameters(recipe.lora_target_modules, recipe.lora_r) == 41_943_040


def test_it_is_known_on_a_core_install_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    assert shapes_of(MISTRAL).layers == 32


def test_parameters_are_those_of_the_model(tmp_path: Path) -> None:
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
    )

    small: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "vocab_size": 97}
    small |= {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
    for number, model in enumerate(
        [
            MistralForCausalLM(MistralConfig(**small, num_attention_heads=4, num_key_value_heads=2, head_dim=16)),
            LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=4, tie_word_embeddings=True)),
            LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=1)),
            GemmaForCausalLM(GemmaConfig(**small, num_attention_heads=4, num_key_value_heads=2, head_dim=8)),
        ]
    ):
        folder = tmp_path / str(number)
        model.config.save_pretrained(folder)
        shapes = shapes_of(str(folder))
        assert shapes.parameters == model.num_parameters()
        assert shapes.positions == model.config.max_position_embeddings


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj"), ("down_proj",)])
def test_lora_parameters_are_those_that_are_trained(
    tiny_base: Path, recipe: TrainingConfig, targets: tuple[str, ...]
) -> None:
    from replicate_deployment.tokenization import load_tokenizer
    from training.finetuning.base import resolve_base
    from training.finetuning.model import trainable

    config = dataclasses.replace(recipe, lora_target_modules=targets, lora_r=5)
    model = trainable(resolve_base(str(tiny_base), None), config, load_tokenizer(tiny_base))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert shapes_of(str(tiny_base)).lora_parameters(targets, 5) == trained


def test_a_target_that_no_block_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer query_key_value; there are down_proj, gate_proj"):
        shapes_of(MISTRAL).lora_parameters(("q_proj", "query_key_value"), 16)


def test_the_hub_cache_is_read_before_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    snapshot = tmp_path / "models--mistralai--Mistral-7B-v0.3" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}), encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    assert shapes_of(MISTRAL, "0123").layers == 3
    assert shapes_of(MISTRAL, "another revision").layers == 32


def test_an_unknown_base_says_how_to_make_it_known() -> None:
    with pytest.raises(BaseModelError, match=r"hf download someone/else config\.json$"):
        shapes_of("someone/else")


def test_a_folder_without_a_config_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"no config\.json here"):
        shapes_of(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"config\.json: not readable JSON"):
        config_at_hand(str(tmp_path), None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"intermediate_size": None}, "no intermediate_size in its config"),
        ({"hidden_size": "4096", "vocab_size": None}, "no hidden_size, vocab_size in its config"),
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM is not supported; choose a base of LlamaFor"),
    ],
)
def test_other_architectures_are_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(BaseModelError, match=f"^a base: {why}"):
        read_shapes({**CONFIG, **changes}, "a base")


def test_every_query_has_a_key_of_its_own_unless_said(recipe: TrainingConfig) -> None:
    few = {key: CONFIG[key] for key in CONFIG if key != "num_key_value_heads"}
    assert read_shapes(few, "a base") == Shapes(4096, 14336, 32, 32, 32, 128, 32768, 32768, tied=False)


def header_refusal(path: Path, content: bytes) -> str:
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
    assert f"{len(whole) - 1} bytes, its header promises {len(whole)}" in header_refusal(path, whole[:-1])
    assert f"{len(whole) + 1} bytes, its header promises {len(whole)}" in header_refusal(path, whole + b"x")
    assert "too short for its safetensors header; copy" in header_refusal(path, whole[:20])
    assert "too short" in header_refusal(path, b"")
    assert "git lfs pull" in header_refusal(path, b"version https://git-lfs.github.com/spec/v1\n")
    for text in (
        b"oops",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F16"}}',
        b'{"a": {"dtype": "F16", "data_offsets": [1]}}',
    ):
        assert "not a safetensors file" in header_refusal(path, len(text).to_bytes(8, "little") + text)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_header_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    try:
        found = read_header(path)
    except WeightsError:
        return
    assert found == {}  # forty bytes hold no tensor's entry
