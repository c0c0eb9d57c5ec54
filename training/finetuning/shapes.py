"""How large a base is, from the handful of numbers in its config.json: no weight is read, nothing is downloaded."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.errors import BaseModelError, ConfigError

# Of mistralai/Mistral-7B-v0.3, from its config.json at commit caa1feb0e54d415e2df31207e5f4e273e33509b1, the one that
# training_config.yaml pins; noted 2026-11-22. They give the 7,248,023,552 parameters that the Hub counts. So the price
# of the recipe of record is known before its 14.5 GB are on any disk.
KNOWN: dict[str, dict[str, Any]] = {
    "mistralai/Mistral-7B-v0.3": {
        "architectures": ["MistralForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "vocab_size": 32768,
    }
}


@dataclass(frozen=True)
class Shapes:
    """A decoder of the Llama and Mistral kind: gated feed-forward, grouped-query attention, no biases.

    hidden   width of the residual stream       inner     width inside the feed-forward
    heads    of queries, each `head_dim` wide   kv_heads  of keys and of values
    tied     head and embeddings are one matrix
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    tied: bool

    @property
    def queries(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all keys together; of all values, too."""
        return self.kv_heads * self.head_dim

    @cached_property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer of a block, by the name that `lora_target_modules` uses."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Of all blocks: what training holds in 4 bits."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def other_parameters(self) -> int:
        """Embeddings, head and norms: what training leaves in full precision."""
        return self.head_parameters * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def lora_parameters(self, targets: tuple[str, ...], rank: int) -> int:
        """Of the matrices A (rank × inputs) and B (outputs × rank) on each target of each block (arXiv:2106.09685).

        Raises ConfigError on a target that no block has.
        """
        for target in targets:
            if target not in self.linear:
                raise ConfigError(f"lora_target_modules: no layer {target}; there are {', '.join(sorted(self.linear))}")
        return self.layers * rank * sum(sum(self.linear[target]) for target in targets)


def shapes_of(base: str, revision: str | None = None) -> Shapes:
    """The shapes of a local folder, of a Hub repo in the cache, or of one whose numbers stand above.

    Raises BaseModelError when its config.json is neither, or is of another architecture.
    """
    found = config_at_hand(base, revision)
    if found is None:
        known = ", ".join(KNOWN)
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) or Path(base).exists():
            raise BaseModelError(
                f"{base}: no such folder with a config.json, and not the name of a Hub repo (OWNER/NAME)"
            )
        raise BaseModelError(
            f"{base}: its size is not known: no config.json in such a folder or in the Hub's cache, and the bases "
            f"known without one are {known}. Fetch that file alone: hf download {base} config.json"
        )
    return read_shapes(found, base)


def config_at_hand(base: str, revision: str | None) -> dict[str, Any] | None:
    """The base's config.json, without the network; None where it is not to be had."""
    path: Any = Path(base).expanduser() / "config.json"
    if not path.parent.is_dir():
        path = _cached(base, revision)
    if path is None:
        return KNOWN.get(base)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(f"{base}: no config.json here; a base is a transformers model folder") from None
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path}: not a model's config ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise BaseModelError(f"{path}: not a model's config (a {type(found).__name__})")
    return found


def _cached(base: str, revision: str | None) -> Path | None:
    try:
        from huggingface_hub import errors, try_to_load_from_cache
    except ImportError:  # the core install has no Hub
        return None
    try:
        found = try_to_load_from_cache(base, "config.json", revision=revision)
    except errors.HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def read_shapes(config: dict[str, Any], base: str) -> Shapes:
    """Raises BaseModelError on a config that is not of a gated decoder without experts."""
    if config.get("num_local_experts") or config.get("num_experts"):
        raise BaseModelError(f"{base}: a mixture of experts, whose memory and speed this does not know")
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not isinstance(config.get(key), int)]
    if missing:
        raise BaseModelError(f"{base}: no {', '.join(missing)} in its config.json; take a base shaped as Mistral is")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    return Shapes(
        hidden=hidden,
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocabulary=config["vocab_size"],
        positions=config.get("max_position_embeddings") or 0,
        tied=bool(config.get("tie_word_embeddings", False)),
    )
