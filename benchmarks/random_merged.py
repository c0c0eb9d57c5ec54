"""A merged folder of Mistral-7B's shape with random weights, FP16, that `Engine.load` accepts like any other."""

import json
import math
from pathlib import Path

from benchmarks.large_model import CONFIG, LAYERS, SHARD_BYTES, Shapes, shapes_of


def write_merged(folder: Path, layers: int, device: str) -> None:
    """Written beside and renamed when whole. Values as `large_model` has them, drawn on `device`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from ghost import artifact
    from ghost.atomic import replace_folder
    from ghost.demo.starter import make_tokenizer
    from replicate_deployment import golden
    from replicate_deployment.chat_format import DEFAULT_LABELS, chat_template
    from replicate_deployment.settings import Settings

    with replace_folder(folder) as aside:
        generator = torch.Generator(device).manual_seed(0)
        shards = _shards(layers)
        files: dict[str, str] = {}
        for number, shapes in enumerate(shards, start=1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            tensors = {
                key: torch.empty(shape, device=device).normal_(*_normal(key), generator=generator).half().cpu()
                for key, shape in shapes.items()
            }
            save_file(tensors, aside / name, metadata={"format": "pt"})
            files |= dict.fromkeys(shapes, name)
        total = sum(2 * math.prod(shape) for shapes in shards for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (aside / "model.safetensors.index.json").write_text(json.dumps(index))
        config = CONFIG | {"num_hidden_layers": layers, "torch_dtype": "float16"}
        (aside / "config.json").write_text(json.dumps(config))
        tokenizer = make_tokenizer(["hey tu fais quoi ce soir", "on se voit at the café then"] * 50, 512)
        tokenizer.chat_template = chat_template(DEFAULT_LABELS, recipe="windows")
        tokenizer.save_pretrained(aside)
        dtype = torch.float32 if device == "cpu" else torch.float16
        model = AutoModelForCausalLM.from_pretrained(aside, dtype=dtype, device_map={"": device})
        labels = {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other}
        artifact.write(
            aside,
            None,
            text={"labels": labels, "recipe": "windows", "stop_sequences": DEFAULT_LABELS.stop_sequences},
            merge={"dtype": "float16"},
            sampling=vars(Settings()),
            golden=golden.record(model.eval(), tokenizer, DEFAULT_LABELS),
        )


def _shards(layers: int) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    for name, shape in shapes_of(layers).items():
        if 2 * sum(math.prod(each) for each in (*shards[-1].values(), shape)) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    return shards


def _normal(name: str) -> tuple[float, float]:
    """Mean and deviation; each layer adds a little to what is there, as in a trained model."""
    if "norm" in name:
        return 1.0, 0.02
    if "embed" in name:
        return 0.0, 1.0
    return 0.0, 0.02 / math.sqrt(2 * LAYERS) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
