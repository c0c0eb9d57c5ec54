"""A base of a given shape with random weights, made on the device: as fast and as large as the real one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from training.config import TrainingConfig

FLASH, EACH, DENSE = "flash, variable lengths", "SDPA, a call a segment", "SDPA, dense mask"


def random_base(facts: dict[str, Any], config: TrainingConfig, device: str) -> Any:
    """A MistralForCausalLM of the shape in `facts`, a config.json; its linear layers in nf4 if the config says so.

    A layer at a time, so that no more than one is ever there in full precision. Random and not zero: a chip draws less
    power on zeros, and runs faster for it.
    """
    import torch
    from transformers import MistralConfig, MistralForCausalLM
    from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

    dtype = torch.bfloat16 if config.bf16 else torch.float32
    torch.manual_seed(config.seed)
    shape = MistralConfig(**{**facts, "num_hidden_layers": 0, "sliding_window": None})
    with torch.device(device):
        model = cast(MistralForCausalLM(shape), dtype)
        shape.num_hidden_layers = facts["num_hidden_layers"]
        for number in range(shape.num_hidden_layers):
            layer = cast(MistralDecoderLayer(shape, number), dtype)
            if config.load_in_4bit:
                quantise(layer, config, dtype)
            model.model.layers.append(layer)
    model.is_loaded_in_4bit = config.load_in_4bit  # what peft asks, before it looks at the layers
    return model


def cast(module: Any, dtype: Any) -> Any:
    """Parameters only: the frequencies of the positions stay float32, as in a base that is loaded."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def quantise(layer: Any, config: TrainingConfig, dtype: Any) -> None:
    """Put bitsandbytes' layers in place of the linear ones, as transformers does when it loads a base."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    settings = {
        "quant_type": config.bnb_config_kwargs.bnb_4bit_quant_type,
        "compress_statistics": config.bnb_config_kwargs.bnb_4bit_use_double_quant,
    }
    linear = [(name, module) for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)]
    for name, module in linear:
        weight = module.weight.data
        small = Linear4bit(
            module.in_features, module.out_features, bias=False, compute_dtype=dtype, device="meta", **settings
        )
        small.weight = Params4bit(weight, requires_grad=False, **settings).to(weight.device)
        layer.set_submodule(name, small)


@contextmanager
def attending(model: Any, backend: str) -> Iterator[None]:
    """The base of a PeftModel attends by `backend`; afterwards as `ghost train` has it."""
    from training.finetuning import attention

    base, kernel = model.get_base_model(), attention.HALF
    none: Any = ()
    if backend == DENSE:
        base.set_attn_implementation("sdpa")
    elif backend == EACH:
        attention.HALF = none  # no type is the flash kernel's
    try:
        yield
    finally:
        attention.HALF = kernel
        base.set_attn_implementation(attention.NAME)


@contextmanager
def checkpointed(model: Any, wanted: bool) -> Iterator[None]:
    base = model.get_base_model()
    if wanted:
        base.activation_checkpointing_enable()
    try:
        yield
    finally:
        if wanted:
            base.activation_checkpointing_disable()
