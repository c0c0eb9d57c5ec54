"""What `ghost evaluate` says on the terminal: the verdict, a line for each contender, the next steps. No message."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.evaluation.authorship import says_something
from training.evaluation.plots import NAMES, shown

Figures = Mapping[str, Any]


def summary(found: Figures, page: Path) -> str:
    held = found["held_out"]
    of = f" of {held['of']:,}" if held["of"] > held["replies"] else ""
    count = held["conversations"]
    talks = "" if count is None else f" in {count:,} conversation{'s' * (count != 1)}"
    lines = [f"held out     {held['replies']:,}{of} replies of yours{talks}"]
    if count is None:
        lines.append("             not told by platform and language: val.about.jsonl is missing or damaged")
    lines += found["verdict"]["summary"]
    lines += [f"{NAMES[kind]:<24}{_figures(found['contenders'][kind])}" for kind in shown(found)]
    lines += [f"not judged   {NAMES[kind]}: {why}" for kind, why in found["missing"].items()]
    lines += [f"next step    {step}" for step in found["verdict"]["steps"]]
    return "\n".join([*lines, f"report       {page}"])


def _figures(one: Figures) -> str:
    parts = []
    if "likelihood" in one:
        loss = one["likelihood"]["nats_per_token"]
        parts.append(f"loss {loss['value']:.3f} ({loss['low']:.3f}-{loss['high']:.3f})")
    if one.get("style"):
        parts.append(f"style {sum(not part['off'] for part in one['style'].values())} of {len(one['style'])}")
    if "authorship" in one and says_something(one["authorship"]):
        parts.append(f"told apart {one['authorship']['value']:.0%}")
    if "stopping" in one:
        parts.append(f"ends by itself {one['stopping']['itself']['value']:.0%}")
    return ", ".join([*parts, f"{one['seconds']:.0f} s"])
