"""A random adapter on the tiny base, written by peft itself, and its merge."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEXT = {
    "labels": {"me": "A:", "other": "B:"},
    "recipe": "windows",
    "stop_sequences": ["\nB:", "\n<", "\n\n", "\nA:"],
}
TRAINING = {"config": {"bf16": True, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": True}}, "steps": 1}
Recipe = Callable[..., Path]


@pytest.fixture(scope="session")
def make_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """`make_adapter(edit=..., **lora)`: a folder like the one that `ghost train` writes, with random A and B.

    `edit(tensors)` changes the tensors, `config(document)` adapter_config.json, before ghost.json lists the files.
    """

    def make(
        edit: Callable[[dict[str, Any]], object] | None = None,
        config: Callable[[dict[str, Any]], object] | None = None,
        **lora: Any,
    ) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from safetensors.torch import load_file, save_file
        from transformers import AutoModelForCausalLM

        from replicate_deployment.tokenization import load_tokenizer
        from training import artifact
        from training.finetuning.base import resolve_base

        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(1)
        settings = {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | lora
        with warnings.catch_warnings():  # peft 0.21 asks transformers for a name that it is about to rename
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        if edit is not None:
            tensors = load_file(folder / "adapter_model.safetensors")
            edit(tensors)
            save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        if config is not None:
            document = json.loads((folder / "adapter_config.json").read_text())
            config(document)
            (folder / "adapter_config.json").write_text(json.dumps(document))
        load_tokenizer(tiny_base).save_pretrained(folder)
        base = resolve_base(str(tiny_base), None)
        recorded = {"repo": base.repo, "revision": base.revision, "weights_sha256": base.weights_sha256}
        artifact.write(folder, None, text=TEXT, data={"counts": {"windows": 7}}, base=recorded, training=TRAINING)
        return folder

    return make


@pytest.fixture(scope="session")
def adapter(make_adapter: Recipe) -> Path:
    return make_adapter()


@pytest.fixture(scope="session")
def merged(adapter: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter merged, once for all tests that only read it."""
    from training.cli import main

    out = tmp_path_factory.mktemp("models") / "merged"
    assert main(["merge", str(adapter), "--base", str(tiny_base), "--out", str(out)]) == 0
    return out
