"""A random adapter on the tiny base, written by peft itself, and its merge."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
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


@contextmanager
def quiet() -> Iterator[None]:
    """What peft 0.21 and transformers say of each other, and of weights that a test ties on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*tie")
        warnings.filterwarnings("ignore", message=".*save_embedding_layers.*to `True`")
        warnings.filterwarnings("ignore", message=r".*lora_B\.bias")  # a vector, as it should be
        yield


@pytest.fixture(scope="session")
def make_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """`make_base(kind, dtype=...)`: random weights in the tiny base's size, with its tokenizer, made once.

    mistral: the tiny base itself. biased: a Llama whose linear layers have biases. tied: one tensor is embedding and
    head. gpt2: layers that lie the other way round.
    """

    @cache
    def make(kind: str, dtype: str = "float32") -> Path:
        import torch
        from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

        from replicate_deployment.tokenization import load_tokenizer
        from training.sample.starter import save_base

        if (kind, dtype) == ("mistral", "float32"):
            return tiny_base
        torch.manual_seed(5)
        tokenizer = load_tokenizer(tiny_base)
        ids = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2}
        if kind == "mistral":
            model = AutoModelForCausalLM.from_pretrained(tiny_base)
        elif kind == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=256, **ids))
        else:
            shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
            shape |= {"num_key_value_heads": 2, "max_position_embeddings": 256}
            biased, tied = kind == "biased", kind == "tied"
            config = LlamaConfig(attention_bias=biased, mlp_bias=biased, tie_word_embeddings=tied, **shape, **ids)
            model = LlamaForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they start at zero
                torch.nn.init.normal_(parameter, std=0.1)
        folder = tmp_path_factory.mktemp("bases") / kind
        save_base(folder, model.to(getattr(torch, dtype)), tokenizer)
        return folder

    return make


@pytest.fixture(scope="session")
def make_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """`make_adapter(edit=..., **lora)`: a folder like the one that `ghost train` writes, every value of it random.

    `edit(tensors)` changes the tensors, `config(document)` adapter_config.json, before ghost.json lists the files;
    `resize` adds ids to the vocabulary of `base`, and one token to its tokenizer.
    """

    def make(
        edit: Callable[[dict[str, Any]], object] | None = None,
        config: Callable[[dict[str, Any]], object] | None = None,
        *,
        base: Path = tiny_base,
        resize: int = 0,
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
        tokenizer = load_tokenizer(base)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            if resize:
                tokenizer.add_tokens(["<extra>"])
                model.resize_token_embeddings(model.config.vocab_size + resize)
            model = get_peft_model(model, LoraConfig(**settings))
            for name, parameter in model.named_parameters():
                if "lora_magnitude_vector" in name:
                    parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
                elif parameter.requires_grad and "lora_A" not in name:
                    parameter.data += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(folder)
        if edit is not None:
            tensors = load_file(folder / "adapter_model.safetensors")
            edit(tensors)
            save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        if config is not None:
            document = json.loads((folder / "adapter_config.json").read_text())
            config(document)
            (folder / "adapter_config.json").write_text(json.dumps(document))
        tokenizer.save_pretrained(folder)
        found = resolve_base(str(base), None)
        recorded = {"repo": found.repo, "revision": found.revision, "weights_sha256": found.weights_sha256}
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
