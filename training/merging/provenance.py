"""What an adapter was trained on, and what a merge writes beside its weights."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import progress
from ghost.errors import BaseModelError, MergeError, UsageError
from replicate_deployment import chat_format, ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Labels, Recipe
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.finetuning import checkpoint as checkpoints
from training.finetuning.base import Base, resolve_base
from training.finetuning.checkpoint import Checkpoint
from training.finetuning.train import write_best
from training.merging.adapter import CONFIG, WEIGHTS, Adapter, read_config
from training.merging.weights import Weights

# What lies beside the weights of a merged model: its config, the sampling defaults, the tokenizer.

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


# `ghost merge --keep-adapter`: the adapter as engines read it that serve many adapters over one base.
#
# What vLLM's loader takes is stricter than what merges: its rules (vllm/lora/peft_helper.py and lora_model.py) are
# repeated here, so that an adapter that would be refused there, or read wrongly, is refused here by name.
# docs/scaling.md says how such a folder is served.

KEPT_TEMPLATE = "chat_template.jinja"
LARGEST_RANK = 512  # of vLLM's --max-lora-rank
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
# Only where the matrices begin; others (PiSSA, OLoRA, …) change the base too, which all ghosts there share.
PLAIN_INITS = {"gaussian", "eva", "orthogonal"}
UNKNOWN_THERE = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
    # Versions before 2026 read neither, in silence: such layers would have another scale than in training.
    "rank_pattern",
    "alpha_pattern",
)


def check_keepable(folder: Path) -> None:
    """Raises MergeError, naming what it is, when an engine would not take the adapter as it is."""
    if found := refusals(read_config(folder), names_of(folder)):
        raise MergeError(f"{folder}: vLLM cannot serve this adapter: {'; '.join(found)}. Leave out --keep-adapter")


def names_of(folder: Path) -> list[str]:
    if not (folder / WEIGHTS).is_file():
        return []
    with Weights([folder / WEIGHTS]) as weights:
        return list(weights.shapes)


def refusals(config: dict[str, Any], names: list[str]) -> list[str]:
    """Why it would not be taken, a reason each: of adapter_config.json, and of the tensors' names."""
    found = [f"{key} = {config[key]!r:.60}" for key in UNKNOWN_THERE if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append(f"bias = {config['bias']!r}")
    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower() not in PLAIN_INITS:
        found.append(f"init_lora_weights = {begun!r}, which changed the base as well")
    if not 0 < config["r"] <= LARGEST_RANK:
        found.append(f"r = {config['r']}, of at most {LARGEST_RANK}")
    for name in names:
        layer = re.fullmatch(r"base_model\.model\.(?:.+\.)?([^.]+)\.lora_[AB]\.weight", name)
        if layer is None or layer[1] not in LAYERS:
            found.append(f"a tensor named {name}")
            break
    return found


def keep(ghost: Ghost, out: Path) -> None:
    """Write `out`: config and weights as they are, the chat template of its text, and ghost.json with its stops.

    Raises MergeError as `check` does, UsageError when `out` holds something else.
    """
    check_keepable(ghost.folder)
    refuse_foreign_files(out, (CONFIG, WEIGHTS, KEPT_TEMPLATE, ghost_json.NAME))
    with replace_folder(out) as aside:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(ghost.folder / name, aside / name)
        template = chat_format.chat_template(ghost.labels, recipe=ghost.recipe)
        (aside / KEPT_TEMPLATE).write_text(template, encoding="utf-8")
        artifact.write(aside, ghost.facts)


TRAINING_CONFIG = "training_config.yaml"
RECIPE_OF_RECORD: Recipe = "windows"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


@dataclass(frozen=True)
class Precision:
    """In what the base was held while the adapter was trained."""

    double_quant: bool = True
    bf16: bool = True


@contextmanager
def adapter_folder(named: Path) -> Iterator[Path]:
    """The folder that holds the adapter: `named`, or, where that is the checkpoint of a training, one made of it that
    lasts as long as the block.

    Raises MergeError when there is no adapter but something near it that can be merged: a checkpoint beside the folder,
    or several in it.
    """
    if not named.exists() and (checkpoint := Checkpoint(named)).exists():
        raise MergeError(
            f"{named}: no adapter yet. {checkpoint.describe()}: go on with ghost train --resume, or merge its best so "
            f"far: ghost merge {checkpoint.folder}"
        )
    if not (named / checkpoints.FACTS).is_file():
        if named.is_dir() and not any((named / name).exists() for name in (ghost_json.NAME, CONFIG)):
            _refuse_whole_run(named)
        yield named
        return
    checkpoint = Checkpoint(named.resolve())
    checkpoint.folder = named
    # Beside the checkpoint, whose next user removes what a kill leaves (ghost.atomic.mend).
    with tempfile.TemporaryDirectory(
        prefix=f".{named.name}.{os.getpid()}.", suffix=".part", dir=named.resolve().parent
    ) as folder:
        write_best(checkpoint, Path(folder))
        yield Path(folder)


def _refuse_whole_run(folder: Path) -> None:
    """The Trainer of transformers, which Axolotl runs too, leaves one adapter a checkpoint, and none beside them."""
    found = {
        int(number[1]): path.parent
        for path in folder.glob(f"checkpoint-*/{CONFIG}")
        if (number := re.fullmatch(r"checkpoint-(\d+)", path.parent.name))
    }
    if found:
        raise MergeError(
            f"{folder}: no adapter but those of {len(found)} checkpoints. Name one, as the last: "
            f"ghost merge {found[max(found)]}"
        )


def read_facts(folder: Path, recipe: Recipe | None = None, labels: Labels | None = None) -> Ghost:
    """The adapter's ghost.json, its files verified; where there is none, the facts that the text format needs.

    Raises UsageError when `recipe` or `labels` contradict ghost.json, which was written by those who knew.
    """
    if folder.is_dir() and not (folder / ghost_json.NAME).exists() and (folder / CONFIG).is_file():
        told = labels or DEFAULT_LABELS
        text = {
            "labels": {"me": told.me, "other": told.other},
            "recipe": recipe or RECIPE_OF_RECORD,
            "stop_sequences": told.stop_sequences,
        }
        return Ghost(folder, {"format": ghost_json.FORMAT, "text": text, "files": {}})
    ghost = ghost_json.read(folder)
    ghost_json.verify(ghost)
    for flag, told_flag, known in (("--recipe", recipe, ghost.recipe), ("--labels", labels, ghost.labels)):
        if told_flag not in (None, known):
            raise UsageError(f"{flag}: {folder / ghost_json.NAME} says otherwise, and it knows; leave the flag out")
    return ghost


def made_here(ghost: Ghost) -> bool:
    """Whether `ghost train` wrote the adapter."""
    return "base" in ghost.facts


def _training(ghost: Ghost) -> dict[str, Any]:
    """The configuration of training, as recorded."""
    return (ghost.facts.get("training") or {}).get("config") or {}


def trained_in_4_bits(ghost: Ghost) -> bool:
    """Whether that is on record: an adapter made elsewhere may have learnt on whole weights."""
    return bool(_training(ghost).get("load_in_4bit"))


def precision(ghost: Ghost) -> Precision:
    """As recorded; for an adapter made elsewhere, that of the recipe of record."""
    config = _training(ghost)
    quantisation = config.get("bnb_config_kwargs") or {}
    default = Precision()
    return Precision(
        quantisation.get("bnb_4bit_use_double_quant", default.double_quant), config.get("bf16", default.bf16)
    )


def tokenizer_of(ghost: Ghost, base: Base) -> Tokenizer:
    """The adapter's own; for one that brings none, the base's.

    Elsewhere the end token often pads as well. Nothing here pads, and whoever trains this model further would leave the
    end token out of the loss: such a pad token is dropped.
    """
    own = any((ghost.folder / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(ghost.folder if own else base.folder)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = None
    return tokenizer


def find_base(ghost: Ghost, name: str | None) -> Base:
    """The base that the adapter was trained on. Raises MergeError when its weights are not the recorded ones."""
    if not made_here(ghost):
        return _named_base(ghost, name)
    recorded = ghost.block("base")
    local = recorded["revision"] == "local"
    if name is None:
        name = _local_base(ghost) if local else recorded["repo"]
    with progress("hashing the base"):  # a commit means something in its own repo only
        base = resolve_base(name, recorded["revision"] if name == recorded["repo"] and not local else None)
    if base.weights_sha256 != recorded["weights_sha256"]:
        raise MergeError(
            f"adapter of another base: {ghost.folder} was trained on {recorded['repo']} ({recorded['revision']}), "
            f"weights {recorded['weights_sha256'][:12]}…; this is {base.repo} ({base.revision}), "
            f"weights {base.weights_sha256[:12]}…. Name the right one: --base PATH_OR_REPO"
        )
    return base


def _named_base(ghost: Ghost, name: str | None) -> Base:
    """Of an adapter made elsewhere: nothing on record tells its weights, only what it is called."""
    config = read_config(ghost.folder)
    told = config.get("base_model_name_or_path")
    if name is None and not told:
        raise UsageError(f"{ghost.folder / CONFIG}: names no base; say which: --base PATH_OR_REPO")
    try:
        with progress("hashing the base"):
            return resolve_base(str(name or told), config.get("revision") if name in (None, told) else None)
    except BaseModelError as error:
        if name is not None:
            raise
        raise BaseModelError(f"{error}. {CONFIG} names this base; name another with --base PATH_OR_REPO") from error


def _local_base(ghost: Ghost) -> str:
    """Where the base lay at the time of training. ghost.json does not say: it travels, and paths are private."""
    try:  # read as plain YAML: a recipe of another version has other keys, and the same base
        config = yaml.safe_load((ghost.folder / TRAINING_CONFIG).read_text(encoding="utf-8"))
        name = str(config["base_model"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        name = ""
    if not name or not Path(name).is_dir():
        base = ghost.block("base")["repo"]
        raise UsageError(f"{ghost.folder}: trained on a local folder named {base!r}; say where it is: --base PATH")
    return name


def read_labels(words: list[str] | None) -> Labels | None:
    """Of --labels. Raises UsageError on what could not be told apart."""
    try:
        return Labels(*words) if words else None
    except ValueError as error:
        raise UsageError(f"--labels: {error}") from error


def weights_sha256(ghost: Ghost, name: str) -> str:
    """Of the adapter's tensors."""
    try:
        return str(ghost.block("files")[name]["sha256"])
    except (KeyError, WeightsError):
        return ghost_json.sha256(ghost.folder / name)
