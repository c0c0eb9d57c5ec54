"""The base model: found, checked before anything is loaded, and loaded as training or the merge needs it."""

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError
from replicate_deployment.safetensors_header import read_header
from training.errors import BaseModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Only what loading reads: Mistral's own repos hold the weights a second time, as consolidated.safetensors.
SMALL = ["config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"]
LARGE = ["model*.safetensors", INDEX]
PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Outline:
    """A base without its weights: enough to tokenise, and to know what training it takes.

    `revision` is the Hub's commit id, or "local".
    """

    folder: Path
    repo: str
    revision: str


@dataclass(frozen=True)
class Base(Outline):
    """A checked base folder and what identifies it.

    `weights_sha256` is the SHA-256 of the lines "NAME SHA256\\n" of its weight files in name order, so two folders with
    the same weights agree wherever they lie.
    """

    weights_sha256: str


def find_base(name: str, revision: str | None) -> Outline:
    """What `name` means: a local folder, else a Hub repo at `revision` (a commit id; None: its newest), of which only
    the small files are fetched.

    Raises BaseModelError when it cannot be found or could not be trained: no config, not a causal language model,
    already quantised.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        outline = Outline(local, local.resolve().name, "local")
    elif local.exists():
        raise BaseModelError(f"{name}: a file; name the folder that holds its config.json")
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        folder = _download(name, revision, SMALL)
        outline = Outline(folder, name, folder.name)
    else:
        raise BaseModelError(f"{name}: no such folder, and not the name of a Hub repo (OWNER/NAME)")
    _check_config(outline.folder)
    return outline


def resolve_base(name: str, revision: str | None) -> Base:
    """The base that `name` means, as find_base has it, with its weights.

    Raises BaseModelError as find_base does, and on pickles only, or a shard that is missing or truncated.
    """
    outline = find_base(name, revision)
    if outline.revision != "local":
        _download(name, outline.revision, SMALL + LARGE)
    folder = outline.folder
    weights = weight_files(folder)
    for path in weights:
        try:
            read_header(path)
        except WeightsError as error:
            raise BaseModelError(str(error)) from error
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves the interpreter free: a file on each core
        digest = "".join(
            f"{path.name} {sha256}\n" for path, sha256 in zip(weights, pool.map(_sha256, weights), strict=True)
        )
    return Base(folder, outline.repo, outline.revision, hashlib.sha256(digest.encode()).hexdigest())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that loading reads, in name order: the index's shards, or the single file.

    Raises BaseModelError when there are none, or a shard of the index is missing.
    """
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BaseModelError(f"{folder / INDEX}: not a readable index ({type(error).__name__})") from error
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        found = f"only pickles ({', '.join(pickles[:3])}), which can run code and are never read" if pickles else "none"
        raise BaseModelError(f"{folder}: weights must be {SINGLE} or shards with {INDEX}; found {found}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BaseModelError(
            f"{folder}: {len(missing)} of {len(names)} shards of {INDEX} are missing, first {missing[0]}; "
            "download the base again"
        )
    return [folder / name for name in names]


def load_base(base: Base, *, nf4: bool, double_quant: bool = False, bf16: bool = True) -> Any:
    """The causal language model: nf4 for training, on the CUDA device where there is one; or float32 on the CPU.

    For nf4, `double_quant` also quantises its scales (0.4 bits a weight less), and computation is in bfloat16 or
    else in float32. Raises BaseModelError when a tensor that the architecture needs is not in the files.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    placement: dict[str, Any] = {"dtype": torch.float32}
    if nf4:
        dtype = torch.bfloat16 if bf16 else torch.float32
        placement = {
            "dtype": dtype,
            "device_map": {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_use_double_quant=double_quant,
            ),
        }
    logging.disable_progress_bar()  # its own bar would break ours; it says nothing that a person needs
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **placement,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(f"{base.folder}: cannot be loaded ({str(error).strip().splitlines()[0]})") from error
    # transformers fills what it does not find with random numbers and only warns.
    missing = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if missing:
        raise BaseModelError(f"{base.folder}: {len(missing)} tensors missing or of another shape, first {missing[0]}")
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
    except Exception as error:  # offline, proxies, a broken transfer: the HTTP library's own exceptions, which vary
        raise BaseModelError(
            f"{repo}: no such folder here, and the Hub could not be reached ({type(error).__name__}). "
            "Go online once to cache it, or give a folder: --base PATH"
        ) from error


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
        raise BaseModelError(f"{folder}: no config.json here (found {found}); a base is a transformers model folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architectures = [str(name) for name in config.get("architectures") or []]
    except (ValueError, AttributeError, TypeError) as error:
        raise BaseModelError(f"{path}: not a model's config ({type(error).__name__})") from error
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):  # GPT-2 has the older name
        found = ", ".join(architectures) or "no architectures"
        raise BaseModelError(
            f"{path}: not a causal language model (found {found}); take one such as MistralForCausalLM"
        )
    if "quantization_config" in config:
        method = (config["quantization_config"] or {}).get("quant_method", "?")
        raise BaseModelError(f"{path}: already quantised ({method}); name the full-precision base it was made from")


def _sha256(path: Path) -> str:
    """The Hub's cache links to a blob that is named by its SHA-256: 14.5 GB need no second reading."""
    blob = path.resolve().name
    return blob if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob) else ghost_json.sha256(path)
