"""What a model folder must be for llama.cpp's `llama` architecture, and which tensors it has then."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import BaseModelError, ConversionError
from training.finetuning.shapes import Shapes, read_shapes

ARCHITECTURES = ("MistralForCausalLM", "LlamaForCausalLM")
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Decoder:
    """`context` is in tokens, `rope_base` the base of the rotary embedding's wavelengths, `biased` the projections that
    have biases.
    """

    shapes: Shapes
    context: int
    rms_eps: float
    rope_base: float
    biased: tuple[str, ...]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape (outputs, inputs) or (values,) of each tensor, by its name in the model folder."""
        shapes = self.shapes
        embeddings = (shapes.vocabulary, shapes.hidden)
        tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": embeddings}
        for layer in range(shapes.layers):
            start = f"model.layers.{layer}."
            for name, (inputs, outputs) in shapes.linear.items():
                block = "self_attn" if name in ATTENTION else "mlp"
                tensors[f"{start}{block}.{name}.weight"] = (outputs, inputs)
                if name in self.biased:
                    tensors[f"{start}{block}.{name}.bias"] = (outputs,)
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{start}{name}.weight"] = (shapes.hidden,)
        tensors["model.norm.weight"] = (shapes.hidden,)
        return tensors if shapes.tied else tensors | {"lm_head.weight": embeddings}


def read_decoder(folder: Path) -> Decoder:
    """Raises ConversionError on a config.json of which llama.cpp would make another model."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [str(name) for name in config.get("architectures") or ["no architecture"]]
        if found[0] not in ARCHITECTURES:
            raise ConversionError(f"{path}: {found[0]}; only {' and '.join(ARCHITECTURES)} can be exported")
        shapes = read_shapes(config, str(folder))
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        wanted = {"hidden_act": (config.get("hidden_act"), "silu")}
        wanted["rope_type"] = (rope.get("rope_type", rope.get("type", "default")), "default")
        for key, (value, only) in wanted.items():
            if value != only:
                raise ConversionError(f"{path}: {key} is {value!r}; only {only!r} can be exported")
        biased = (ATTENTION if config.get("attention_bias") else ()) + (FEED_FORWARD if config.get("mlp_bias") else ())
        # llama.cpp attends to everything: within one window that is what the model learnt.
        context = min(shapes.positions, config.get("sliding_window") or shapes.positions)
        rope_base = float(rope.get("rope_theta") or config["rope_theta"])
        return Decoder(shapes, context, float(config["rms_norm_eps"]), rope_base, biased)
    except BaseModelError as error:
        raise ConversionError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: not a model's config ({type(error).__name__}: {error})") from error
