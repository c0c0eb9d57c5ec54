"""What lies beside the weights of a merged model: its config, the sampling defaults, the tokenizer."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer
from scripts.adapter import Adapter
from training.errors import MergeError
from training.finetuning.base import Base

# Of the rotary embedding, what transformers 4 has as keys of the config itself.
BESIDE = ("rope_theta", "partial_rotary_factor")


def write_configs(folder: Path, base: Base, tokenizer: Tokenizer, adapter: Adapter) -> None:
    """config.json, generation_config.json and the tokenizer; the end token is the tokenizer's in all three."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    vocab_size = adapter.vocab_size or config["vocab_size"]
    if len(tokenizer) > vocab_size:
        raise MergeError(
            f"{tokenizer.name_or_path}: {len(tokenizer)} ids in the tokenizer, {vocab_size} in the model; save the "
            "resized embeddings with the adapter (modules_to_save: embed_tokens, lm_head)"
        )
    for key in ("dtype", "_name_or_path"):
        config.pop(key, None)
    if config.get("pad_token_id") == tokenizer.eos_token_id:
        config["pad_token_id"] = None
    config |= ids | {"vocab_size": vocab_size}
    config |= {"tie_word_embeddings": False} if adapter.unties else {}
    config |= rope_in_both_spellings(config)
    # `torch_dtype`: the name that transformers before 4.56 knows; later ones read it too.
    _write_json(folder / "config.json", config | {"torch_dtype": "float16"})
    # No stop_strings: plain generate() then fails without a tokenizer. Stops are the engine's, from ghost.json.
    _write_json(folder / "generation_config.json", ids | asdict(Settings()) | {"do_sample": True})
    tokenizer.save_pretrained(folder)
    # Whatever class it has here, tokenizer.json holds all of it. By this name transformers 4 and 5 read that file; the
    # class that 5 writes down is one that 4 does not have. 4 would add token_type_ids, which no causal model takes.
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    inputs = ["input_ids", "attention_mask"]
    _write_json(path, described | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs})


def rope_in_both_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """The keys by which transformers 4 knows the rotary embedding, and the one of 5.

    4 passes over that of 5 in silence and takes its default, a base of 10,000. Parameters by type of layer have no
    older spelling that all models share: they stay as they are.
    """
    found = {key: config[key] for key in BESIDE if config.get(key) is not None}
    whole = found | (config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "rope_theta" not in whole or any(isinstance(value, dict) for value in whole.values()):
        return {}
    kind = whole.pop("type", "default")
    whole.setdefault("rope_type", kind)
    old: dict[str, Any] = {key: value for key, value in whole.items() if key in BESIDE}
    if whole["rope_type"] != "default":
        old["rope_scaling"] = {key: value for key, value in whole.items() if key not in BESIDE}
    return old | {"rope_parameters": whole}


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
