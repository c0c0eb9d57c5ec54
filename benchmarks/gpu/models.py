"""The models that the rows measure: Mistral-7B's shape with random weights, or a tiny one that a CPU can rehearse."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from training import config as training_config
from training.config import TrainingConfig
from training.finetuning.base import config_at_hand

BASE = "mistralai/Mistral-7B-v0.3"
CONFIG = Path(__file__).parents[2] / training_config.DEFAULT_PATH
FLOOR_GPU = "H200"  # what floors are set for, and whose data sheet counts where nothing is measured
FLASH, EACH, DENSE = "flash, variable lengths", "SDPA, a call a segment", "SDPA, dense mask"


@dataclass(frozen=True)
class Scale:
    """What a real run and a trial on a CPU differ in. `divisor` divides the tokens that rows put through at once."""

    device: str = "cuda"
    divisor: int = 1
    conversations: int = 200  # that training windows are cut from
    seconds: float = 6.0  # of training steps, at least
    prompt: int = 256  # tokens
    tokens: int = 256  # of a reply
    replies: int = 12
    backend: str = "inductor"  # of torch.compile

    @property
    def facts(self) -> dict[str, Any]:
        """The base's config.json."""
        if self.device == "cuda":
            return config_at_hand(BASE, None) or {}
        return {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
            "max_position_embeddings": 2048,
        }

    def recipe(self, *, nf4: bool = True) -> TrainingConfig:
        """The recipe of record, on a base in nf4 or in bfloat16."""
        recipe = training_config.load(CONFIG)
        recipe = replace(recipe, adapter="qlora" if nf4 else "lora", load_in_4bit=nf4, gradient_checkpointing=False)
        return recipe if self.device == "cuda" else replace(recipe, sequence_len=256, gradient_accumulation_steps=8)


REAL = Scale()
TRIAL = Scale("cpu", divisor=64, conversations=4, seconds=0, prompt=16, tokens=8, replies=2, backend="aot_eager")


def random_model(facts: dict[str, Any], dtype: Any, device: str, *, quantised: TrainingConfig | None = None) -> Any:
    """A MistralForCausalLM of the shape in `facts`, a config.json; its linear layers in nf4 as `quantised` says.

    A layer at a time, so that no more than one is ever there in full precision. Random and not zero: a chip draws less
    power on zeros, and runs faster for it. Each layer adds a little to what is there, as in a trained model: with 0.02
    everywhere, as models begin, 32 random layers amplify every rounding.
    """
    import torch
    from transformers import MistralConfig, MistralForCausalLM
    from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

    torch.manual_seed(42)
    shape = MistralConfig(**{**facts, "num_hidden_layers": 0, "sliding_window": None})
    small = 0.02 / (2 * facts["num_hidden_layers"]) ** 0.5

    def drawn(module: Any) -> Any:
        """Parameters only: the frequencies of the positions stay float32, as in a base that is loaded."""
        for name, parameter in module.named_parameters():
            parameter.data = parameter.data.to(dtype)
            if "norm" in name:
                parameter.data.normal_(1.0, 0.02)
            else:
                inner = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.data.normal_(0.0, small if inner else 1.0 if "embed" in name else 0.02)
        return module

    with torch.device(device):
        model = drawn(MistralForCausalLM(shape))
        shape.num_hidden_layers = facts["num_hidden_layers"]
        for number in range(shape.num_hidden_layers):
            layer = drawn(MistralDecoderLayer(shape, number))
            if quantised and quantised.load_in_4bit:
                quantise(layer, quantised, dtype)
            model.model.layers.append(layer)
    return model


def random_base(facts: dict[str, Any], config: TrainingConfig, device: str) -> Any:
    """A base as `load_base` loads one for `config`."""
    import torch

    model = random_model(facts, torch.bfloat16 if config.bf16 else torch.float32, device, quantised=config)
    model.is_loaded_in_4bit = config.load_in_4bit  # what peft asks, before it looks at the layers
    return model


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


def merged(scratch: Path, scale: Scale) -> Path:
    """Return the folder of a merged model that `Engine.load` accepts like any other, FP16, in the page cache.

    Written by a process of its own: what that process' allocator keeps of the card would count in a row's peak.
    """
    folder = scratch / "merged"
    if not folder.is_dir():
        code = "import sys, pathlib; from benchmarks.gpu import models as m"
        code += "; m.write_merged(pathlib.Path(sys.argv[1]), m.Scale(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", code, str(folder), scale.device], check=True)
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as stream:
            while stream.read(2**24):
                pass
    return folder


def write_merged(folder: Path, scale: Scale) -> None:
    import torch

    from ghost import artifact
    from ghost.atomic import replace_folder
    from ghost.demo.starter import make_tokenizer
    from replicate_deployment import golden
    from replicate_deployment.chat_format import DEFAULT_LABELS, chat_template
    from replicate_deployment.settings import Settings

    tokenizer = make_tokenizer(["hey tu fais quoi ce soir", "on se voit at the café then"] * 50, 512)
    tokenizer.chat_template = chat_template(DEFAULT_LABELS, recipe="windows")
    model = random_model(scale.facts, torch.float16, scale.device).eval()
    labels = {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other}
    with replace_folder(folder) as aside:
        tokenizer.save_pretrained(aside)
        model.save_pretrained(aside, max_shard_size="5GB")
        artifact.write(
            aside,
            None,
            text={"labels": labels, "recipe": "windows", "stop_sequences": DEFAULT_LABELS.stop_sequences},
            merge={"dtype": "float16"},
            sampling=vars(Settings()),
            golden=golden.record(model if scale.device == "cuda" else model.float(), tokenizer, DEFAULT_LABELS),
        )


def bytes_of_a_token(facts: dict[str, Any]) -> int:
    """Weights in FP16 that a decoding step reads: all but the embedding, of which it reads one row."""
    from training.finetuning.base import read_shapes

    shapes = read_shapes(facts, BASE)
    return 2 * (shapes.parameters - prod((shapes.vocabulary, shapes.hidden)))


def peak_memory() -> int | None:
    """What PyTorch has held of a GPU at most, in use or not, and what the driver counts besides: CUDA itself, and
    whoever else uses the card. None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return int(torch.cuda.max_memory_reserved() + total - free - torch.cuda.memory_reserved())
