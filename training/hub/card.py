"""The model card: what a person should know before they talk to this, from ghost.json. No content of any chat."""

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from replicate_deployment.ghost_json import Ghost

TEMPLATE = Path(__file__).parent / "card.md"
UNKNOWN = "not on record"
# Of the resolved configuration: what the recipe is, not where files lie on somebody's disk.
RECIPE = (
    "sequence_len",
    "num_epochs",
    "learning_rate",
    "lr_scheduler",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "train_on_inputs",
)


def write(ghost: Ghost, repo: str, licence: str | None) -> str:
    """The card of a merged model as Markdown with the Hub's YAML header; `licence` is the base's, as the Hub has it."""
    base = ghost.facts.get("base") or {}
    name = str(base.get("repo") or UNKNOWN)
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if on_the_hub(base):
        metadata |= {"base_model": name, "base_model_relation": "finetune"}
    if licence and licence != "other":  # which says nothing without a name and a link
        metadata["license"] = licence
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        metadata=yaml.safe_dump(metadata | {"tags": ["ghost-in-the-shell"]}, sort_keys=False),
        name=repo.split("/")[1],
        base=f"[{name}](https://huggingface.co/{name})" if on_the_hub(base) else name,
        revision=f"revision {base.get('revision') or UNKNOWN}",
        license=licence or f"{UNKNOWN}; look at the base",
        me=ghost.labels.me,
        other=ghost.labels.other,
        data=_table((ghost.facts.get("data") or {}).get("counts") or {}),
        training=_table(_training(ghost)),
        merge=_table(_merge(ghost)),
    )


def on_the_hub(base: Mapping[str, Any]) -> bool:
    """Whether a base is a repo that others can look up, rather than a folder on somebody's disk."""
    commit = re.fullmatch(r"[0-9a-f]{40}", str(base.get("revision")))
    return bool(commit and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(base.get("repo"))))


def _training(ghost: Ghost) -> dict[str, Any]:
    training = ghost.facts.get("training") or {}
    config, heldout = training.get("config") or {}, training.get("heldout") or {}
    figures = {"recipe": ghost.facts["text"].get("recipe")} | {key: config.get(key) for key in RECIPE}
    figures |= {"steps": training.get("steps"), "step kept": training.get("kept_step")}
    for when in ("before", "after"):
        measured = heldout.get(when) or {}
        figures[f"held-out loss {when}, nats a token"] = measured.get("loss")
        figures[f"held-out loss {when}, replies alone"] = measured.get("reply_loss")
    return figures


def _merge(ghost: Ghost) -> dict[str, Any]:
    merge = ghost.facts["merge"]
    parity = merge.get("parity") or {}
    return {"dtype": merge.get("dtype"), "onto the base's weights": merge.get("base_weights")} | {
        f"parity: {key}": value for key, value in parity.items()
    }


def _table(figures: Mapping[str, Any]) -> str:
    """Figures and short words only: a text of any length, a list or a block has no place in a card."""
    lines = ["| | |", "|---|---|"]
    for key, value in figures.items():
        if isinstance(value, bool | int | float) or (isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,40}", value)):
            shown = f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) if len(lines) > 2 else f"{UNKNOWN.capitalize()}."
