"""A base in the shape of Mistral-7B with random weights, and a LoRA adapter for it, as large as asked for."""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY, LAYERS = 4096, 14336, 32, 8, 32768, 32
PROJECTIONS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // HEADS * KEY_HEADS, HIDDEN),
    "self_attn.v_proj": (HIDDEN // HEADS * KEY_HEADS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
SHARD_BYTES = 5_000_000_000  # as the real one is cut
RANK, ALPHA = 16, 32
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}
Shapes = dict[str, tuple[int, ...]]


def shapes_of(layers: int) -> Shapes:
    """Mistral's tensors, in the order of its files."""
    shapes: Shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (HIDDEN,))
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in (PROJECTIONS | norms).items()}
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_base(folder: Path, layers: int) -> Path:
    """A snapshot as the Hub's cache holds one: links to files that are named by their SHA-256. bfloat16."""
    from ghost.demo.starter import make_tokenizer

    snapshot, blobs = folder / "snapshots" / "0", folder / "blobs"
    for path in (snapshot, blobs):
        path.mkdir(parents=True)
    shards: list[Shapes] = [{}]
    for name, shape in shapes_of(layers).items():
        if sum(map(_bytes, shards[-1].values())) + _bytes(shape) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    files = {}
    for number, shapes in enumerate(shards, start=1):
        part, link = blobs / "part", snapshot / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        blob = blobs / _write_random(part, shapes, seed=number)
        part.rename(blob)
        link.symlink_to(blob)
        files |= dict.fromkeys(shapes, link.name)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (snapshot / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    make_tokenizer(["hey tu fais quoi ce soir", "on se voit at the café then"] * 50, 512).save_pretrained(snapshot)
    return snapshot


def write_adapter(folder: Path, base: Path, layers: int) -> None:
    """Rank 16 on all seven projections, as the recipe of record trains it, with a ghost.json."""
    import torch
    from safetensors.torch import save_file

    from ghost import artifact
    from replicate_deployment.chat_format import DEFAULT_LABELS
    from replicate_deployment.tokenization import load_tokenizer
    from training.finetuning.base import resolve_base

    folder.mkdir()
    torch.manual_seed(0)
    tensors = {}
    for layer in range(layers):
        for name, (outer, inner) in PROJECTIONS.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, inner) / math.sqrt(inner)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outer, RANK) * 0.002
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    config |= {"target_modules": sorted(name.split(".")[1] for name in PROJECTIONS), "lora_dropout": 0.05}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    load_tokenizer(base).save_pretrained(folder)
    found = resolve_base(str(base), None)
    labels = {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other}
    artifact.write(
        folder,
        None,
        text={"labels": labels, "recipe": "windows", "stop_sequences": DEFAULT_LABELS.stop_sequences},
        base=found.block,
        training={"config": {"bf16": True, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": True}}},
    )


def _bytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _write_random(path: Path, shapes: Shapes, seed: int) -> str:
    """Normal values, returning the file's SHA-256."""
    digest, header, offset = hashlib.sha256(), {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + _bytes(shape)]}
        offset += _bytes(shape)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    with path.open("wb") as stream:
        for content in chain([struct.pack("<Q", len(text)), text], _random(shapes, seed)):
            digest.update(content)
            stream.write(content)
    return digest.hexdigest()


def _random(shapes: Shapes, seed: int) -> Iterator[Any]:
    """Each layer adds a little to what is there, as in a trained model: the embedding has deviation 1, and what a layer
    adds is scaled down by their number. With 0.02 for all, as models begin, 32 random layers amplify every rounding.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        mean, deviation = 0.0, 0.02
        if "norm" in name:
            mean = 1.0
        elif "embed" in name:
            deviation = 1.0
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            deviation /= math.sqrt(2 * LAYERS)
        for rows in torch.empty(shape, device="meta").split(max(1, 2**22 // math.prod(shape[1:]))):
            block = torch.empty(rows.shape).normal_(mean, deviation, generator=generator)
            yield block.bfloat16().view(torch.uint8).numpy().data
