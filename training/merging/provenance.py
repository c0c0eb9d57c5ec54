"""Where an adapter comes from: what its ghost.json tells, and for one made elsewhere what flags tell instead."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Labels, Recipe
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from scripts.lora_config import CONFIG, read_config
from training.console import progress
from training.errors import BaseModelError, MergeError, UsageError
from training.finetuning import checkpoint as checkpoints
from training.finetuning.base import Base, resolve_base
from training.finetuning.checkpoint import Checkpoint
from training.finetuning.train import write_best

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
    # Beside the checkpoint, whose next user removes what a kill leaves (training.aside.mend).
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
