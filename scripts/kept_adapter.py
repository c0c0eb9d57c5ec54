"""`ghost merge --keep-adapter`: the adapter as engines read it that serve many adapters over one base.

What vLLM's loader takes is stricter than what merges: its rules (vllm/lora/peft_helper.py and lora_model.py) are
repeated here, so that an adapter that would be refused there, or read wrongly, is refused here by name.
docs/scaling.md says how such a folder is served.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from replicate_deployment import chat_format, ghost_json
from replicate_deployment.ghost_json import Ghost
from scripts.adapter import WEIGHTS
from scripts.lora_config import CONFIG, read_config
from scripts.weights import Weights
from training import artifact
from training.aside import refuse_foreign_files, replace_folder
from training.errors import MergeError

TEMPLATE = "chat_template.jinja"
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


def check(folder: Path) -> None:
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
    check(ghost.folder)
    refuse_foreign_files(out, (CONFIG, WEIGHTS, TEMPLATE, ghost_json.NAME))
    with replace_folder(out) as aside:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(ghost.folder / name, aside / name)
        template = chat_format.chat_template(ghost.labels, recipe=ghost.recipe)
        (aside / TEMPLATE).write_text(template, encoding="utf-8")
        artifact.write(aside, ghost.facts)
