"""The forms that an adapter can have: bases and adapters with random values, as peft itself writes them."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from replicate_deployment import ghost_json
from scripts import merge_lora_fp16
from training.merging import provenance
from training.merging.weights import Weights

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEXT = {
    "labels": {"me": "A:", "other": "B:"},
    "recipe": "windows",
    "stop_sequences": ["\nB:", "\n<", "\n\n", "\nA:"],
}
TRAINING = {"config": {"bf16": True, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": True}}, "steps": 1}
# name: (kind of base, what LoraConfig gets beside r, alpha and the seven projections)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("mistral", {}),
    "rsLoRA": ("mistral", {"use_rslora": True}),
    "DoRA": ("mistral", {"use_dora": True}),
    "DoRA + rsLoRA": ("mistral", {"use_dora": True, "use_rslora": True}),
    "rank and alpha patterns": (
        "mistral",
        {
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 8},
            "alpha_pattern": {"down_proj": 3, r"^model\.layers\.0\.self_attn\.o_proj": 5},
        },
    ),
    "patterns + rsLoRA": ("mistral", {"rank_pattern": {"v_proj": 9}, "use_rslora": True}),
    "some layers": ("mistral", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "a regular expression": ("mistral", {"target_modules": r".*\.1\..*(gate|up)_proj"}),
    "all linear, but one": ("mistral", {"target_modules": "all-linear", "exclude_modules": ["k_proj"]}),
    "orthogonal start": ("mistral", {"init_lora_weights": "orthogonal"}),
    "modules_to_save": ("mistral", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "modules_to_save: norms": ("mistral", {"modules_to_save": ["norm", "input_layernorm"]}),
    "modules_to_save with a bias": ("biased", {"target_modules": ["q_proj"], "modules_to_save": ["v_proj"]}),
    "LoRA on embedding and head": ("mistral", {"target_modules": [*TARGETS, "embed_tokens", "lm_head"]}),
    "DoRA on embedding and head": (
        "mistral",
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "use_dora": True},
    ),
    "bias: all": ("biased", {"bias": "all"}),
    "bias: lora_only": ("biased", {"bias": "lora_only", "target_modules": ["q_proj", "o_proj"]}),
    "lora_bias": ("biased", {"lora_bias": True, "target_modules": ["q_proj", "k_proj", "down_proj"]}),
    "fan_in_fan_out": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "fan_in_fan_out, DoRA": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "tied embeddings": ("tied", {}),
    "tied, both saved": ("tied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
}
# What peft's merge gets wrong on tied weights: it adds to both what was trained for one. The running adapter is right.
UNTIED: dict[str, dict[str, Any]] = {
    "LoRA on a tied embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "LoRA on a tied head": {"target_modules": ["q_proj", "lm_head"]},
    "only the embedding saved": {"modules_to_save": ["embed_tokens"]},
    "LoRA on both, kept tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
}


@contextmanager
def quiet() -> Iterator[None]:
    """What peft 0.21 and transformers say of each other, and of weights that a test ties on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*tie")
        warnings.filterwarnings("ignore", message=".*save_embedding_layers.*to `True`")
        warnings.filterwarnings("ignore", message=r".*lora_B\.bias")  # a vector, as it should be
        yield


def write_base(folder: Path, kind: str, dtype: str, tiny_base: Path) -> None:
    """Random weights in the tiny base's size, with its tokenizer.

    mistral: the tiny base itself. biased: a Llama whose linear layers have biases. tied: one tensor is embedding and
    head. gpt2: layers that lie the other way round.
    """
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    from ghost.demo.starter import save_base
    from replicate_deployment.tokenization import load_tokenizer

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
    save_base(folder, model.to(getattr(torch, dtype)), tokenizer)


def write_adapter(
    folder: Path,
    base: Path,
    edit: Callable[[dict[str, Any]], object] | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
    *,
    resize: int = 0,
    **lora: Any,
) -> None:
    """A folder like the one that `ghost train` writes, every value of it random.

    `edit(tensors)` changes the tensors, `config(document)` adapter_config.json, before ghost.json lists the files;
    `resize` adds ids to the vocabulary of `base`, and one token to its tokenizer.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from ghost import artifact
    from replicate_deployment.tokenization import load_tokenizer
    from training.finetuning.base import resolve_base

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
    recorded = found.block
    artifact.write(folder, None, text=TEXT, data={"counts": {"windows": 7}}, base=recorded, training=TRAINING)


def merge(adapter: Path, base: Path, out: Path) -> dict[str, Any]:
    ghost = ghost_json.read(adapter)
    return merge_lora_fp16.merge(ghost, provenance.find_base(ghost, str(base)), out)


def with_peft(adapter: Path, base: Path, vocab_size: int | None = None) -> Any:
    """The adapter on its base in float32, loaded by peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if vocab_size is not None:
            model.resize_token_embeddings(vocab_size)
        return PeftModel.from_pretrained(model, adapter).eval()


class Compared(NamedTuple):
    """Written FP16 values beside exact ones: the share of nearest values, and the largest distance from the exact value
    in units of the last place (half a unit is FP16's own rounding)."""

    nearest: float
    distance: float


def compared(written: Any, exact: Any) -> Compared:
    nearest = exact.detach().half()
    unit = 2.0 ** (nearest.float().abs().clamp(min=2.0**-14).log2().floor() - 10)  # below 2**-14 they are all alike
    return Compared(
        float((written == nearest).float().mean()), float(((written.float() - exact.detach()).abs() / unit).max())
    )


def beside_peft(adapter: Path, base: Path, out: Path, kind: str, block: dict[str, Any]) -> dict[str, Compared]:
    """Each tensor of the merged model `out` beside peft's own merge in float32. The same names are in both."""
    with quiet():
        model = with_peft(adapter, base, block.get("vocab_size")).merge_and_unload()
    tied = set(model.all_tied_weights_keys) if kind in ("tied", "gpt2") and not block["untied"] else set()
    expected = {name: value for name, value in model.state_dict().items() if name not in tied}
    with Weights.of_model(out) as merged:
        assert set(merged.shapes) == set(expected)
        assert set(merged.dtypes.values()) == {"F16"}
        return {name: compared(merged.tensor(name), exact) for name, exact in expected.items()}
