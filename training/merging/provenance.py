"""Find what an adapter was trained on, and write the files beside the merged weights."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import progress
from ghost.errors import BaseModelError, MergeError, UsageError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Labels, Recipe
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.model_folder import GENERATION, TOKENIZER_FILES, read_json
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.config import base_named
from training.finetuning import checkpoint as checkpoints
from training.finetuning.base import Base, resolve_base
from training.finetuning.checkpoint import Checkpoint
from training.merging.adapter import CONFIG, WEIGHTS, Adapter, read_config
from training.merging.weights import Weights

# Write the config, the sampling defaults and the tokenizer of a merged model.

# Keys of the rotary embedding that transformers 4 reads at the top level of the config.
ROPE_KEYS = ("rope_theta", "partial_rotary_factor")


def write_configs(folder: Path, base: Base, tokenizer: Tokenizer, adapter: Adapter) -> None:
    """config.json, generation_config.json and the tokenizer; all three with the tokenizer's end token.

    Generation also ends on the other end tokens that the base names: Llama 3 and Qwen have two or three.
    """
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = read_json(base.folder, "config.json")
    generating = read_json(base.folder, GENERATION) if (base.folder / GENERATION).exists() else {}
    ends = [tokenizer.eos_token_id]
    for named in (generating.get("eos_token_id"), config.get("eos_token_id")):
        ends += [end for end in (named if isinstance(named, list) else [named]) if end not in (None, *ends)]
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
    # transformers before 4.56 reads only `torch_dtype`; later versions read it too.
    _write_json(folder / "config.json", config | {"torch_dtype": "float16"})
    # Leave out stop_strings, which make generate() fail without a tokenizer. The engine stops by ghost.json.
    ids |= {"eos_token_id": ends if len(ends) > 1 else ends[0]}
    _write_json(folder / "generation_config.json", ids | asdict(Settings()) | {"do_sample": True})
    tokenizer.save_pretrained(folder)
    # tokenizer.json holds the whole tokenizer. Under this class name both transformers 4 and 5 read it; 4 lacks the
    # class that 5 writes. Name the inputs, or 4 adds token_type_ids, which no causal model takes.
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    inputs = ["input_ids", "attention_mask"]
    _write_json(path, described | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs})


def rope_in_both_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the rotary embedding's keys for both transformers 4 and 5.

    Version 4 ignores version 5's key and falls back to a base of 10,000. Parameters per type of layer have no common
    older form, so leave them unchanged.
    """
    found = {key: config[key] for key in ROPE_KEYS if config.get(key) is not None}
    whole = found | (config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "rope_theta" not in whole or any(isinstance(value, dict) for value in whole.values()):
        return {}
    kind = whole.pop("type", "default")
    whole.setdefault("rope_type", kind)
    old: dict[str, Any] = {key: value for key, value in whole.items() if key in ROPE_KEYS}
    if whole["rope_type"] != "default":
        old["rope_scaling"] = {key: value for key, value in whole.items() if key not in ROPE_KEYS}
    return old | {"rope_parameters": whole}


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# `ghost merge --keep-adapter`: write the adapter for engines that serve many adapters over one base.
#
# vLLM's loader accepts less than merges here. Repeat its rules (vllm/lora/peft_helper.py and lora_model.py), to refuse
# by name what it would refuse or misread. docs/scaling.md shows how to serve such a folder.

KEPT_TEMPLATE = "chat_template.jinja"
LARGEST_RANK = 512  # the largest --max-lora-rank of vLLM
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
# Of what `read_config` accepts.
UNSUPPORTED_BY_VLLM = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    # vLLM before 2026 ignores both silently, so those layers would get the wrong scale.
    "rank_pattern",
    "alpha_pattern",
)


def check_keepable(folder: Path) -> None:
    """Raises MergeError, with the reasons, if vLLM cannot serve the adapter."""
    with Weights([folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []) as weights:
        found = refusals(read_config(folder), weights.shapes)
    if found:
        raise MergeError(f"{folder}: vLLM cannot serve this adapter: {'; '.join(found)}. Leave out --keep-adapter")


def refusals(config: dict[str, Any], names: Iterable[str]) -> list[str]:
    """List the reasons to refuse an adapter, from what `read_config` returned and the tensors' names."""
    found = [f"{key} = {config[key]!r:.60}" for key in UNSUPPORTED_BY_VLLM if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append(f"bias = {config['bias']!r}")
    if config["r"] > LARGEST_RANK:
        found.append(f"r = {config['r']}, of at most {LARGEST_RANK}")
    for name in names:
        layer = re.fullmatch(r"base_model\.model\.(?:.+\.)?([^.]+)\.lora_[AB]\.weight", name)
        if layer is None or layer[1] not in LAYERS:
            found.append(f"a tensor named {name}")
            break
    return found


def keep(ghost: Ghost, base: Base, out: Path, template: str) -> None:
    """Write `out`: the config, naming `base`, the weights unchanged, the chat template, and ghost.json.

    vLLM's resolver loads an adapter only if its config names the base as `vllm serve` does, to the letter. One made
    elsewhere may name a local path or a 4-bit copy.

    Raises MergeError as `check_keepable` does, UsageError if `out` holds other files.
    """
    check_keepable(ghost.folder)
    refuse_foreign_files(out, (CONFIG, WEIGHTS, KEPT_TEMPLATE, ghost_json.NAME))
    named = {"base_model_name_or_path": base.repo, "revision": None if base.revision == "local" else base.revision}
    with replace_folder(out) as written:
        config = json.dumps(read_config(ghost.folder) | named, indent=2, sort_keys=True)  # as peft writes it
        (written / CONFIG).write_text(config, encoding="utf-8")
        shutil.copyfile(ghost.folder / WEIGHTS, written / WEIGHTS)
        (written / KEPT_TEMPLATE).write_text(template, encoding="utf-8")
        artifact.write(written, ghost.facts)


RECIPE_OF_RECORD: Recipe = "windows"


@dataclass(frozen=True)
class Precision:
    """The precision of the base while the adapter was trained."""

    double_quant: bool = True
    bf16: bool = True


@contextmanager
def adapter_folder(named: Path) -> Iterator[Path]:
    """Yield the folder with the adapter: `named`, or, if that is a checkpoint, a temporary adapter made from it.

    Raises MergeError if there is no adapter, naming checkpoints beside or in the folder that could be merged instead.
    """
    if not named.exists() and (checkpoint := Checkpoint(named)).exists():
        raise MergeError(
            f"{named}: no adapter yet. {checkpoint.describe()}: continue with ghost train --resume, or merge its best "
            f"so far: ghost merge {checkpoint.folder}"
        )
    if not (named / checkpoints.FACTS).is_file():
        if named.is_dir() and not any((named / name).exists() for name in (ghost_json.NAME, CONFIG)):
            _refuse_whole_run(named)
        yield named
        return
    checkpoint = Checkpoint(named.resolve())
    checkpoint.folder = named
    # Beside the checkpoint, so that its next user removes what a kill leaves (ghost.atomic.mend).
    with tempfile.TemporaryDirectory(
        prefix=f".{named.name}.{os.getpid()}.", suffix=".part", dir=named.resolve().parent
    ) as folder:
        checkpoints.write_best(checkpoint, Path(folder))
        yield Path(folder)


def _refuse_whole_run(folder: Path) -> None:
    """transformers' Trainer, which Axolotl uses too, leaves one adapter per checkpoint and none above them."""
    found = {
        int(number[1]): path.parent
        for path in folder.glob(f"checkpoint-*/{CONFIG}")
        if (number := re.fullmatch(r"checkpoint-(\d+)", path.parent.name))
    }
    if found:
        raise MergeError(
            f"{folder}: no adapter here, only in {len(found)} checkpoints. Name one, such as the last: "
            f"ghost merge {found[max(found)]}"
        )


def read_facts(folder: Path, recipe: Recipe | None = None, labels: Labels | None = None) -> Ghost:
    """Read the adapter's ghost.json and verify its files; without one, return what the text format needs.

    Raises UsageError if there is no adapter, or if `recipe` or `labels` contradict ghost.json.
    """
    if folder.is_dir() and not (folder / CONFIG).is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise UsageError(
            f"{folder}: no adapter here ({CONFIG} is missing; found {found}); name the folder that ghost train, peft, "
            "Axolotl or Unsloth wrote"
        )
    if folder.is_dir() and not (folder / ghost_json.NAME).exists():
        chosen = labels or DEFAULT_LABELS
        text = {
            "labels": {"me": chosen.me, "other": chosen.other},
            "recipe": recipe or RECIPE_OF_RECORD,
            "stop_sequences": chosen.stop_sequences,
        }
        return Ghost(folder, {"format": ghost_json.FORMAT, "text": text, "files": {}})
    ghost = ghost_json.read(folder)
    ghost_json.verify(ghost)
    for flag, given, known in (("--recipe", recipe, ghost.recipe), ("--labels", labels, ghost.labels)):
        if given not in (None, known):
            raise UsageError(f"{flag}: {folder / ghost_json.NAME} records another value; leave the flag out")
    return ghost


def made_here(ghost: Ghost) -> bool:
    """Whether `ghost train` wrote the adapter."""
    return "base" in ghost.facts


def _training(ghost: Ghost) -> dict[str, Any]:
    """The recorded training config."""
    return (ghost.facts.get("training") or {}).get("config") or {}


def trained_in_4_bits(ghost: Ghost) -> bool:
    """Whether ghost.json records 4-bit training. Adapters made elsewhere may have used full precision."""
    return bool(_training(ghost).get("load_in_4bit"))


def precision(ghost: Ghost) -> Precision:
    """The recorded precision; for an adapter made elsewhere, the default recipe's."""
    config = _training(ghost)
    quantisation = config.get("bnb_config_kwargs") or {}
    default = Precision()
    return Precision(
        quantisation.get("bnb_4bit_use_double_quant", default.double_quant), config.get("bf16", default.bf16)
    )


def adapter_tokenizer(ghost: Ghost, base: Base) -> Tokenizer:
    """Load the adapter's tokenizer, or the base's if it has none.

    Drop a pad token that equals the end token: nothing here pads, and further training would mask the end token.
    """
    own = any((ghost.folder / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(ghost.folder if own else base.folder)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = None
    return tokenizer


def find_base(ghost: Ghost, name: str | None) -> Base:
    """Find the base of the adapter. Raises MergeError if its weights are not the recorded ones."""
    name, pinned = (None, None) if name is None else base_named(name)
    if not made_here(ghost):
        return _named_base(ghost, name, pinned)
    recorded = ghost.block("base")
    local = recorded["revision"] == "local"
    if name is None:
        name = _local_base(ghost) if local else recorded["repo"]
    with progress("hashing the base"):  # a commit is valid in its own repo only
        base = resolve_base(name, recorded["revision"] if name == recorded["repo"] and not local else None)
    if base.weights_sha256 != recorded["weights_sha256"]:
        raise MergeError(
            f"adapter of another base: {ghost.folder} was trained on {recorded['repo']} ({recorded['revision']}), "
            f"weights {recorded['weights_sha256'][:12]}…; this is {base.repo} ({base.revision}), "
            f"weights {base.weights_sha256[:12]}…. Name the right one: --base PATH_OR_REPO"
        )
    return base


def _named_base(ghost: Ghost, name: str | None, pinned: str | None) -> Base:
    """Find the base of an adapter made elsewhere, which records its name but no hash."""
    config = read_config(ghost.folder)
    recorded = config.get("base_model_name_or_path")
    if name is None and not recorded:
        raise UsageError(f"{ghost.folder / CONFIG}: names no base; say which: --base PATH_OR_REPO")
    try:
        with progress("hashing the base"):
            revision = config.get("revision") if name in (None, recorded) else pinned
            return resolve_base(str(name or recorded), revision)
    except BaseModelError as error:
        if name is not None:
            raise
        raise BaseModelError(f"{error}. {CONFIG} names this base; name another with --base PATH_OR_REPO") from error


def _local_base(ghost: Ghost) -> str:
    """Return the base's path from the training config. ghost.json holds no local paths, since it is shared."""
    try:  # plain YAML: other versions have other keys
        config = yaml.safe_load((ghost.folder / checkpoints.CONFIG).read_text(encoding="utf-8"))
        name = str(config["base_model"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        name = ""
    if not name or not Path(name).is_dir():
        base = ghost.block("base")["repo"]
        raise UsageError(f"{ghost.folder}: trained on a local folder named {base!r}; say where it is: --base PATH")
    return name


def read_labels(words: list[str] | None) -> Labels | None:
    """Parse --labels. Raises UsageError on labels that are ambiguous."""
    try:
        return Labels(*words) if words else None
    except ValueError as error:
        raise UsageError(f"--labels: {error}") from error


def weights_sha256(ghost: Ghost, name: str) -> str:
    """Return the SHA-256 of the adapter's weights."""
    try:
        return str(ghost.block("files")[name]["sha256"])
    except (KeyError, WeightsError):
        return ghost_json.sha256(ghost.folder / name)
