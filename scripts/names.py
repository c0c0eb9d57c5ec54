"""The names in an adapter's file, whatever wrapped the model when it was saved."""

from pathlib import Path

from scripts.weights import Weights
from training.errors import MergeError

# torch.compile's, FSDP's and activation checkpointing's wrappers leave a word wherever they stood.
WORDS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# peft's own: the name of the adapter stands after these, and is gone from what peft saves.
NAMED = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "modules_to_save"}
ADAPTER = "default"


def place(name: str) -> str:
    """What an adapter's tensor belongs to, by the base's own names: `model.layers.0.mlp.up_proj.lora_A.weight`.

    A tensor that replaces one of the base has just the name of that: `base_layer` and `modules_to_save` are left out,
    as are the wrappers' words and the adapter's name. `original_module` stays: peft uses what has replaced it.
    """
    words = [word for word in name.split(".") if word not in WORDS]
    while words[:1] == ["module"]:  # DistributedDataParallel's
        del words[0]
    while words[:2] == ["base_model", "model"]:
        del words[:2]
    kept = [
        word for before, word in zip(["", *words], words, strict=False) if not (word == ADAPTER and before in NAMED)
    ]
    if kept[-2:] == ["lora_magnitude_vector", "weight"]:
        del kept[-1]  # peft writes it without
    return ".".join(word for word in kept if word not in ("base_layer", "modules_to_save"))


def by_place(path: Path, weights: Weights) -> dict[str, str]:
    """The names in the file, by place. Raises MergeError when two differ and belong to one place."""
    found: dict[str, str] = {}
    for name in weights.shapes:
        other = found.setdefault(place(name), name)
        if other != name and not weights.equal(other, name):
            raise MergeError(f"{path}: {other} and {name} are for the same place, and differ; which one was trained?")
    if not found:
        raise MergeError(f"{path}: holds no tensor; was the adapter saved?")
    return found
