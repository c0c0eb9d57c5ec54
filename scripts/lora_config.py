"""adapter_config.json, as peft writes it: read, and refused by name where it says what no merge here knows."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.errors import MergeError

CONFIG = "adapter_config.json"
# What the merge does, or what changes no arithmetic. Any other key must be off: a form of adapter that this program
# does not know would otherwise be merged as if it were plain LoRA.
UNDERSTOOD = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",  # both tied weights are in the file then
    "eva_config",  # how A began
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
# Beginnings that leave W as it is; PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ train against a changed one.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


def read_config(folder: Path) -> dict[str, Any]:
    """Raises MergeError when it is missing, malformed, or asks for what is not merged."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise MergeError(f"{folder}: no such folder; name the one that holds {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha, kind = config["r"], config["lora_alpha"], config["peft_type"]
    except FileNotFoundError as error:
        raise MergeError(f"{folder}: no {CONFIG} here; name the folder that `ghost train` wrote") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MergeError(f"{path}: not a readable adapter config ({type(error).__name__}: {error})") from error
    on = {key: value for key, value in config.items() if value and key not in UNDERSTOOD}
    if kind != "LORA":
        on = {"peft_type": kind}
    elif config.get("init_lora_weights", True) not in PLAIN_STARTS:
        on = {"init_lora_weights": config["init_lora_weights"]}
    if on:
        found = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sorted(on.items()))
        raise MergeError(
            f"{path}: {found}: not merged here; train without it, or merge with peft (merge_and_unload) where memory "
            "allows"
        )
    if not (_is_rank(rank) and _is_alpha(alpha)):
        raise MergeError(f"{path}: r: {rank!r}, lora_alpha: {alpha!r}: a positive whole number and a number expected")
    for key, right in (("rank_pattern", _is_rank), ("alpha_pattern", _is_alpha)):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or not all(map(right, pattern.values())):
            raise MergeError(f"{path}: {key}: {pattern!r}: positive numbers by module name expected")
    if not config.get("target_modules"):
        raise MergeError(f"{path}: no target_modules, so nothing says which weights must have an adapter")
    return dict(config)


def as_peft(config: dict[str, Any]) -> Any:
    """peft's LoraConfig, for a model without values: what A and B began as does not matter to a merge."""
    from peft import LoraConfig

    known = {field.name for field in fields(LoraConfig)}
    settled = {"inference_mode": True, "init_lora_weights": True, "eva_config": None, "base_model_name_or_path": None}
    return LoraConfig(**{key: value for key, value in config.items() if key in known} | settled)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_alpha(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
