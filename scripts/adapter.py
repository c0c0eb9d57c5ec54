"""A LoRA adapter folder, checked tensor by tensor against the base that it is merged onto.

W' = W + s·B·A, with s = alpha / r, or alpha / sqrt(r) for rsLoRA (https://arxiv.org/abs/2312.03732). W is
(out, in), A is (r, in), B is (out, r). Every number comes from adapter_config.json.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.weights import Tensor, Weights
from training.errors import MergeError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's wrapper around the model
FACTORS = (".lora_A.weight", ".lora_B.weight")
# What plain LoRA and rsLoRA need, or what changes no arithmetic. Any other key must be off: a form of adapter that
# this program does not know would otherwise be merged as if it were plain LoRA.
UNDERSTOOD = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
# Initialisations that leave W as it is; PiSSA, OLoRA, CorDA and LoftQ train against a changed one.
PLAIN_STARTS = (True, False, "gaussian")


@dataclass(frozen=True)
class Adapter:
    """The factors of every adapted weight. `targets` holds names of base tensors, as in the base's files."""

    rank: int
    scale: float
    targets: frozenset[str]
    _weights: Weights

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A (r, in) and B (out, r) of a base tensor in float32, or None when it has no adapter."""
        if name not in self.targets:
            return None
        a, b = (self._weights.tensor(_adapter_name(name, factor)).float() for factor in FACTORS)
        return a, b


@contextmanager
def open_adapter(folder: Path, base: Weights) -> Iterator[Adapter]:
    """The adapter of `folder`, if every one of its tensors has its place in `base`.

    Raises MergeError on a form of adapter other than plain LoRA and rsLoRA, on a tensor that would not be used, on
    a factor without its other half, on a target without factors and on shapes that do not fit.
    """
    config = _read_config(folder)
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    with Weights([folder / WEIGHTS]) as weights:
        targets = _pair(folder / WEIGHTS, weights, base)
        for name in sorted(targets):
            a, b = (weights.shapes[_adapter_name(name, factor)] for factor in FACTORS)
            _check_shapes(name, base.shapes[name], a, b, rank)
        _check_targets(folder, targets, base)
        yield Adapter(rank, scale, targets, weights)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
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
    elif config.get("bias", "none") != "none":
        on = {"bias": config["bias"]}
    elif config.get("init_lora_weights", True) not in PLAIN_STARTS:
        on = {"init_lora_weights": config["init_lora_weights"]}
    if on:
        found = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sorted(on.items()))
        raise MergeError(f"{path}: {found}: only plain LoRA and rsLoRA are merged; train without it")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, (int, float)) and math.isfinite(alpha)):
        raise MergeError(f"{path}: r: {rank!r}, lora_alpha: {alpha!r}: a positive whole number and a number expected")
    if not config.get("target_modules"):
        raise MergeError(f"{path}: no target_modules, so nothing says which weights must have an adapter")
    return dict(config)


def _pair(path: Path, weights: Weights, base: Weights) -> frozenset[str]:
    """The base tensors that the adapter changes; every tensor of the adapter belongs to one of them."""
    halves: dict[str, set[str]] = {}
    unused = []
    for name in weights.shapes:
        factor = next((factor for factor in FACTORS if name.endswith(factor)), None)
        target = None if factor is None else name.removeprefix(PREFIX).removesuffix(factor) + ".weight"
        if factor is None or not name.startswith(PREFIX) or target not in base.shapes:
            unused.append(name)
        else:
            halves.setdefault(target, set()).add(factor)
    if unused:
        raise MergeError(f"{path}: {len(unused)} tensors have no place in this base, first {unused[0]}")
    if not halves:
        raise MergeError(f"{path}: holds no LoRA tensor; was the adapter saved?")
    for target, found in sorted(halves.items()):
        if len(found) < len(FACTORS):
            missing = next(factor for factor in FACTORS if factor not in found)
            raise MergeError(f"{path}: {_adapter_name(target, missing)} is missing; its other half is there")
    return frozenset(halves)


def _check_shapes(name: str, w: list[int], a: list[int], b: list[int], rank: int) -> None:
    if len(w) != 2 or a != [rank, w[1]] or b != [w[0], rank]:
        raise MergeError(f"{name}: W is {w}, A is {a}, B is {b}, r is {rank}: they do not fit; is it another base?")


def _check_targets(folder: Path, targets: frozenset[str], base: Weights) -> None:
    """Every module that adapter_config.json targets has its factors, by peft's own reading of `target_modules`."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig.from_pretrained(str(folder))
    modules = {name.removesuffix(".weight"): name for name in base.shapes if name.endswith(".weight")}
    left = [
        name for module, name in modules.items() if name not in targets and check_target_module_exists(config, module)
    ]
    if left:
        raise MergeError(
            f"{folder / WEIGHTS}: {len(left)} weights that {CONFIG} targets have no factors, first {left[0]}; "
            "copy the adapter again"
        )


def _adapter_name(target: str, factor: str) -> str:
    return PREFIX + target.removesuffix(".weight") + factor
