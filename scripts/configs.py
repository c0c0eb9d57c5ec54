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
    # `torch_dtype`: the name that transformers before 4.56 knows; later ones read it too.
    _write_json(folder / "config.json", config | {"torch_dtype": "float16"})
    # No stop_strings: plain generate() then fails without a tokenizer. Stops are the engine's, from ghost.json.
    _write_json(folder / "generation_config.json", ids | asdict(Settings()) | {"do_sample": True})
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
