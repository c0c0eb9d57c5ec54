import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import BaseModelError, ConfigError
from training.config import TrainingConfig, load_bases
from training.finetuning.base import Shapes, config_at_hand, read_shapes, shapes_of

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
    with pytest.raises(BaseModelError, match=r"config\.json: not a model's config"):
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
