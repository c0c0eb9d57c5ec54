"""Build the trainable model (a frozen nf4 base with float32 LoRA adapters), and save the adapter."""

import warnings
from pathlib import Path
from typing import Any

from ghost.errors import BaseModelError, ConfigError, TrainingError
from replicate_deployment.tokenization import Tokenizer
from training.config import TrainingConfig
from training.finetuning.base import Base, load_base

# Keys of Gemma 2, Granite and Cohere that change logits or attention.
UNSUPPORTED = ("final_logit_softcapping", "attn_logit_softcapping", "logits_scaling", "logit_scale")


def trainable(base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
    """Return a PeftModel with float32 LoRA as its only trained parameters. B is zero, so it replies like the base.

    A is drawn from torch's global generator: seed it first. Raises ConfigError if the base lacks the config's layers or
    positions, BaseModelError if it has fewer ids than its tokenizer.
    """
    double_quant = config.bnb_config_kwargs.bnb_4bit_use_double_quant
    model = load_base(base, nf4=config.load_in_4bit, double_quant=double_quant, bf16=config.bf16)
    if config.sequence_len > model.config.max_position_embeddings:
        positions = model.config.max_position_embeddings
        raise ConfigError(f"sequence_len: {config.sequence_len}, but {base.repo} has {positions} positions")
    if len(tokenizer) > model.config.vocab_size:
        found = f"{len(tokenizer)} ids in the tokenizer, {model.config.vocab_size} in the model"
        raise BaseModelError(f"{base.folder}: {found}; they belong to different models")
    window = getattr(model.config, "sliding_window", None)
    if window is not None and config.sequence_len > window:
        raise ConfigError(f"sequence_len: {config.sequence_len}, but {base.repo} attends to {window} tokens at most")
    return adapted(model, config, base.repo)


def adapted(model: Any, config: TrainingConfig, repo: str) -> Any:
    """Freeze a loaded base and add adapters to it. `repo` names the base in errors."""
    import torch
    from peft import get_peft_model

    from training.finetuning import attention

    refuse_other_heads(model, repo)
    attention.use(model)
    model.requires_grad_(False)
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for target in config.lora_target_modules:
        if target not in linear:
            raise ConfigError(f"lora_target_modules: {repo} has no layer {target}; it has {', '.join(sorted(linear))}")
    if config.load_in_4bit:
        from bitsandbytes.nn import Linear4bit

        # On CPUs with AVX512-BF16, bitsandbytes repacks the weights at the first evaluation for a kernel without a
        # backward pass: later training would lose every gradient that passes through the base.
        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    with warnings.catch_warnings():
        # peft 0.21 reads an attribute that transformers 5.2x has renamed; the value is right.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, lora_of(config))


def lora_of(config: TrainingConfig) -> Any:
    """Make peft's LoraConfig from the config."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_target_modules),
    )


def refuse_other_heads(model: Any, repo: str) -> None:
    """Raises BaseModelError if the base computes logits or attention in a way that loss.py and attention.py do not,
    such as soft-capping or a head with a bias. Training would then minimise another loss."""
    odd = [key for key in UNSUPPORTED if getattr(model.config, key, None) not in (None, 1)]
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        odd.append("a bias in its head")
    if odd:
        raise BaseModelError(
            f"{repo} has {', '.join(odd)}, which training does not support; choose a base like Mistral"
        )


def load_adapter(model: Any, path: Path) -> None:
    """Set the adapter to the weights of a file that `save_adapter` wrote. Raises TrainingError if it has others."""
    from safetensors.torch import load

    tensors = load(path.read_bytes())
    shapes = {in_files(name): parameter.shape for name, parameter in trained(model)}
    if {name: one.shape for name, one in tensors.items()} != shapes:
        raise TrainingError(f"{path}: holds other matrices than this training has; train from the start")
    set_weights(model, {name: tensors[in_files(name)] for name, _ in trained(model)})


def trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def set_weights(model: Any, weights: dict[str, Any]) -> None:
    """Set the trained parameters to `weights`."""
    import torch

    with torch.no_grad():
        for name, parameter in trained(model):
            parameter.copy_(weights[name])


def in_files(name: str) -> str:
    """peft's name of a parameter in files, which leaves out the adapter's name."""
    return name.replace(".default.", ".")


def save_adapter(model: Any, base: Base, folder: Path) -> None:
    """Write adapter_model.safetensors, and adapter_config.json, which names the base by repo and revision.

    peft's save_pretrained would add a model card and ask the Hub about the base. Raises TrainingError if a weight is
    not finite.
    """
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    write_adapter_files(folder, tensors, model.peft_config["default"], base.repo, base.revision)


def write_adapter_files(folder: Path, tensors: dict[str, Any], lora: Any, repo: str, revision: str) -> None:
    """`tensors` have the names that peft uses in files. Raises TrainingError as save_adapter does."""
    from safetensors.torch import save

    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise TrainingError(
                f"{name} holds NaN or infinity: lower learning_rate, or set bf16: true, and train again"
            )
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # save_file would make it readable by its owner only
    (folder / "adapter_model.safetensors").write_bytes(save(contiguous))
    lora.base_model_name_or_path = repo
    lora.revision = None if revision == "local" else revision
    lora.target_modules = sorted(lora.target_modules)  # a set: its order changes from run to run
    lora.inference_mode = True  # as peft saves it, so loading it does not prepare it for training
    lora.save_pretrained(folder)
