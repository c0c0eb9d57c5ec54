"""Find, check and load the base model, and read its shapes from config.json."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ghost.errors import BaseModelError, ConfigError
from replicate_deployment import ghost_json, model_folder
from replicate_deployment.errors import WeightsError
from replicate_deployment.model_folder import CONFIG, INDEX, SINGLE
from training.config import load_bases
from training.tokens import cached_file

# Only the files that loading reads. Mistral's repos also hold the weights as consolidated.safetensors.
SMALL = [CONFIG, "generation_config.json", "tokenizer*", "special_tokens_map.json"]
LARGE = ["model*.safetensors", INDEX]
REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # OWNER/NAME


@dataclass(frozen=True)
class Outline:
    """A base without its weights: enough to tokenise and to estimate a training.

    `revision` is the Hub's commit id, or "local".
    """

    folder: Path
    repo: str
    revision: str


@dataclass(frozen=True)
class Base(Outline):
    """A checked base folder and its identity.

    `weights_sha256` is the SHA-256 of the lines "NAME SHA256\\n" of its weight files in name order: equal for two
    folders with the same weights.
    """

    weights_sha256: str

    @property
    def block(self) -> dict[str, str]:
        """The block `base` of ghost.json."""
        return {"repo": self.repo, "revision": self.revision, "weights_sha256": self.weights_sha256}


def find_base(name: str, revision: str | None) -> Outline:
    """Find `name`: a local folder, or a Hub repo at `revision` (a commit id; None: the newest). Downloads small files
    only.

    Raises BaseModelError if it cannot be found or trained: no config, not a causal language model, already quantised.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        outline = Outline(local, local.resolve().name, "local")
    elif local.exists():
        raise BaseModelError(f"{name}: this is a file; name the folder that holds config.json")
    elif REPO.fullmatch(name):
        folder = _download(name, revision, SMALL)
        outline = Outline(folder, name, folder.name)
    else:
        raise BaseModelError(f"{name}: no such folder, and not the name of a Hub repo (OWNER/NAME)")
    _check_config(outline.folder)
    return outline


def resolve_base(name: str, revision: str | None) -> Base:
    """Find the base as find_base does, and download its weights.

    Raises BaseModelError as find_base does, and if it has only pickles, or a shard is missing or truncated.
    """
    outline = find_base(name, revision)
    if outline.revision != "local":
        _download(name, outline.revision, SMALL + LARGE)
    folder = outline.folder
    weights = weight_files(folder)
    for path in weights:
        try:
            model_folder.read_header(path)
        except WeightsError as error:
            raise BaseModelError(str(error)) from error
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the GIL: one file per core
        digest = "".join(
            f"{path.name} {sha256}\n" for path, sha256 in zip(weights, pool.map(_sha256, weights), strict=True)
        )
    return Base(folder, outline.repo, outline.revision, hashlib.sha256(digest.encode()).hexdigest())


def weight_files(folder: Path) -> list[Path]:
    """As `model_folder.weight_files`. Raises BaseModelError, naming pickles that are there instead."""
    try:
        return model_folder.weight_files(folder)
    except WeightsError as error:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in ghost_json.PICKLES)
        if pickles and not any((folder / name).exists() for name in (INDEX, SINGLE)):
            found = f"only pickles ({', '.join(pickles[:3])}), which can run code and are never read"
            raise BaseModelError(f"{folder}: weights must be {SINGLE} or shards with {INDEX}; found {found}") from None
        raise BaseModelError(str(error)) from error


def load_base(base: Base, *, nf4: bool, double_quant: bool = False, bf16: bool = True) -> Any:
    """Load the causal language model to train, on the CUDA device if there is one.

    `bf16` computes in bfloat16 instead of float32. For nf4, `double_quant` also quantises the scales (0.4 bits per
    weight less). Raises BaseModelError if a tensor that the architecture needs is missing from the files.
    """
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.utils import logging

    dtype = torch.bfloat16 if bf16 else torch.float32
    placement: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
    }
    if nf4:
        placement["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=double_quant,
        )
    logging.disable_progress_bar()  # its bar would break ours
    try:
        model, report = model_folder.load_model(base.folder, output_loading_info=True, **placement)
    except WeightsError as error:
        raise BaseModelError(str(error)) from error
    # transformers only warns about missing tensors and fills them with random numbers.
    missing = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if missing:
        raise BaseModelError(
            f"{base.folder}: {len(missing)} tensors are missing or have another shape, first {missing[0]}"
        )
    return model


def _download(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise BaseModelError(
            f"{repo}: gated on the Hub. Accept its terms at https://huggingface.co/{repo}, then: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BaseModelError(f"{repo}: no revision {revision!r} on the Hub; it must be a commit id") from error
    except errors.RepositoryNotFoundError as error:
        raise BaseModelError(
            f"{repo}: no such folder here and no such repo on the Hub (if it is private: hf auth login)"
        ) from error
    except Exception as error:  # offline, proxy, broken transfer: the HTTP library's exceptions vary
        raise BaseModelError(
            f"{repo}: no such folder here, and the Hub could not be reached ({type(error).__name__}). "
            "Go online once to cache it, or give a folder: --base PATH"
        ) from error


def _check_config(folder: Path) -> None:
    path = folder / CONFIG
    config = read_config(folder)
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):  # GPT-2 has the older name
        found = ", ".join(architectures) or "no architectures"
        raise BaseModelError(
            f"{path}: not a causal language model (found {found}); take one such as MistralForCausalLM"
        )
    if "quantization_config" in config:
        quantised = config["quantization_config"]
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else "?"
        raise BaseModelError(f"{path}: already quantised ({method}); name the full-precision base it was made from")


def _sha256(path: Path) -> str:
    """The Hub's cache names its blobs by SHA-256, so do not read 14.5 GB again to hash them."""
    blob = path.resolve().name
    return blob if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob) else ghost_json.sha256(path)


# The shapes of a base, from its config.json. Reads no weights and downloads nothing.

# Decoders like Llama. Others, such as mixtures of experts, may train, but nobody has checked that they do so rightly.
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "SmolLM3ForCausalLM")
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shapes:
    """A decoder like Llama: gated feed-forward, grouped-query attention.

    hidden      width of the residual stream
    inner       width inside the feed-forward
    heads       query heads, each `head_dim` wide
    kv_heads    key heads, and as many value heads
    tied        head and embeddings share one matrix
    biased      linear layers of a block that have biases
    head_norms  each head's query and key is normalised (Qwen3)
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
    biased: tuple[str, ...] = ()
    head_norms: bool = False

    @property
    def queries(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all keys together, and of all values."""
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
        """The linear layers of all blocks, which training holds in 4 bits."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def other_parameters(self) -> int:
        """Embeddings, head, norms and biases, which training leaves in full precision."""
        of_block = (
            2 * self.hidden + 2 * self.head_dim * self.head_norms + sum(self.linear[name][1] for name in self.biased)
        )
        return self.head_parameters * (1 if self.tied else 2) + self.layers * of_block + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def lora_parameters(self, targets: tuple[str, ...], rank: int) -> int:
        """Count the matrices A (rank × inputs) and B (outputs × rank) on each target of each block (arXiv:2106.09685).

        Raises ConfigError if a block has no such target.
        """
        for target in targets:
            if target not in self.linear:
                raise ConfigError(f"lora_target_modules: no layer {target}; there are {', '.join(sorted(self.linear))}")
        return self.layers * rank * sum(sum(self.linear[target]) for target in targets)


def shapes_of(base: str, revision: str | None = None) -> Shapes:
    """Return the shapes of a local folder, a Hub repo in the cache, or a repo in config/bases.yaml.

    Raises BaseModelError if no config.json is found or its architecture is not supported.
    """
    found = config_at_hand(base, revision)
    if found is None:
        if not REPO.fullmatch(base) or Path(base).exists():
            raise BaseModelError(
                f"{base}: no such folder with a config.json, and not the name of a Hub repo (OWNER/NAME)"
            )
        raise BaseModelError(
            f"{base}: its size is not known: no config.json in a folder of that name or in the Hub's cache "
            f"(`ghost bases` lists those known without one). Download that file: hf download {base} config.json"
        )
    return read_shapes(found, base)


def config_at_hand(base: str, revision: str | None) -> dict[str, Any] | None:
    """Return the base's config.json without using the network, or None if it is not on this disk."""
    folder = Path(base).expanduser()
    if not folder.is_dir():
        cached = cached_file(base, CONFIG, revision)
        if cached is None:
            return next((known.config for known in load_bases().values() if known.repo == base), None)
        folder = cached.parent
    return read_config(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """As `model_folder.read_config`. Raises BaseModelError."""
    if not (folder / CONFIG).exists():
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
        raise BaseModelError(f"{folder}: no {CONFIG} here (found {found}); a base is a transformers model folder")
    try:
        return model_folder.read_config(folder)
    except WeightsError as error:
        raise BaseModelError(str(error)) from error


def read_shapes(config: dict[str, Any], base: str) -> Shapes:
    """Raises BaseModelError if the config is not of one of ARCHITECTURES."""
    name = (config.get("architectures") or [None])[0]
    if name not in (None, *ARCHITECTURES):
        raise BaseModelError(f"{base}: {name} is not supported; choose a base of {', '.join(ARCHITECTURES)}")
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not isinstance(config.get(key), int)]
    if missing:
        raise BaseModelError(f"{base}: no {', '.join(missing)} in its config.json; choose a base like Mistral")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    biased = ATTENTION[:3] if name == "Qwen2ForCausalLM" else ATTENTION if config.get("attention_bias") else ()
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
        biased=biased + (FEED_FORWARD if config.get("mlp_bias") else ()),
        head_norms=name == "Qwen3ForCausalLM",
    )
