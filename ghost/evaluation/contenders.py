"""Who is compared: the merged model, its base, the base with a few of the person's turns, base + adapter.

Each is an Engine, so all are prompted and sampled as the model will be served. One is in memory at a time.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ghost.errors import BaseModelError, UsageError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn
from replicate_deployment.errors import GhostError, WeightsError

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine
    from training.finetuning.base import Base

Kind = Literal["merged", "base", "few_shot", "adapter", "served"]
NAMES: dict[Kind, str] = {
    "base": "base",
    "few_shot": "base, shown a few turns",
    "adapter": "base + adapter",
    "merged": "merged",
    "served": "served",
}


@dataclass(frozen=True)
class Contender:
    """`shots` stand in front of every prompt."""

    kind: Kind
    engine: "Engine"
    shots: tuple[Turn, ...] = ()

    def prompt(self, context: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """The turns to answer: as many of the last as stay with the shots within what the engine looks at."""
        from replicate_deployment.chat_format import CONTEXT_TURNS

        return (*self.shots, *context[-(CONTEXT_TURNS - len(self.shots)) :])


def line_up(
    model: Path, adapter: Path | None, base: str | None, shots: tuple[Turn, ...], missing: dict[Kind, str]
) -> Iterator[Contender]:
    """The contenders of a merged model, one at a time: let go of each before asking for the next.

    What there is none of, or cannot be loaded, is put into `missing`, with the reason. Before the first is given, which
    takes minutes to judge, raises WeightsError when `model` cannot be served, UsageError or BaseModelError when the
    adapter or the base that was named is not the one it was made from.
    """
    from replicate_deployment.engine import Engine

    engine = Engine.load(model, accelerate=False)  # what is compiled would hold on to the weights
    ghost, device, dtype = engine.ghost, engine.model.device, engine.model.dtype
    if adapter is not None:
        check_adapter(adapter, ghost)
    adapter, found, why = adapter or adapter_beside(model), None, ""
    try:
        found = find_base(ghost, adapter, base)
    except GhostError as error:
        if base is not None:
            raise
        why = str(error)
    yield Contender("merged", engine)
    shell = replace(engine, model=None)  # tokenizer, labels, settings: all but the weights
    del engine

    try:
        weights = None if found is None else load(found, device, dtype)
    except BaseModelError as error:
        weights, why = None, str(error)
    if weights is None:
        for kind in ("base", "few_shot", "adapter"):
            missing[kind] = why
        return
    yield Contender("base", replace(shell, model=weights))
    if shots:
        yield Contender("few_shot", replace(shell, model=weights), shots)
    else:
        missing["few_shot"] = "no exchange of training is short enough to stand in a prompt"
    if adapter is None:
        missing["adapter"] = f"no adapter beside {model} that it was merged from; name it: --adapter FOLDER"
        return
    try:
        adapted = with_adapter(weights, adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # whatever peft and safetensors make of a broken one
        missing["adapter"] = f"{adapter}: cannot be loaded ({str(error).strip().splitlines()[0]})"
        return
    yield Contender("adapter", replace(shell, model=adapted))


def check_adapter(folder: Path, ghost: ghost_json.Ghost) -> None:
    """Raises UsageError when its weights are not those that the model's ghost.json says it was merged from."""
    from training.merging.adapter import WEIGHTS

    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UsageError(f"--adapter {folder}: no {WEIGHTS} in it; name the folder that ghost train wrote")
    recorded = ghost.facts.get("merge", {}).get("adapter_sha256")
    if recorded is not None and ghost_json.sha256(weights) != recorded:
        raise UsageError(
            f"--adapter {folder}: not the adapter that {ghost.folder} was merged from; name that one, or merge this "
            f"one: ghost merge {folder}"
        )


def adapter_beside(model: Path) -> Path | None:
    """`adapter` beside the merged model, as `ghost train` and `ghost merge` leave them, if it is the model's own."""
    folder = model.resolve().parent / "adapter"
    try:
        training = [ghost_json.read(path).facts.get("training") for path in (folder, model)]
    except WeightsError:
        return None
    return folder if training[0] is not None and training[0] == training[1] else None


def find_base(ghost: ghost_json.Ghost, adapter: Path | None, name: str | None) -> "Base":
    """The base that ghost.json records, from a folder or from the Hub's cache; nothing is downloaded unless named.

    Raises BaseModelError or another GhostError when it is not there, or its weights are not the recorded ones.
    """
    from training.merging import provenance

    recorded = ghost.block("base")
    if name is None and recorded.get("revision") not in (None, "local"):
        name = cached(recorded["repo"], recorded["revision"])
        if name is None:
            raise BaseModelError(f"{recorded['repo']} is not on this disk; to fetch it: --base {recorded['repo']}")
    if name is None:  # a local folder, whose place only the adapter's own config remembers
        if adapter is None:
            raise BaseModelError(f"the base, {recorded['repo']}, was a local folder; say where it is: --base PATH")
        return provenance.find_base(ghost_json.read(adapter), None)
    return provenance.find_base(ghost, name)


def cached(repo: str, revision: str) -> str | None:
    """The folder of a Hub repo in the cache of this machine, if all of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(repo, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return None


def load(base: "Base", device: Any, dtype: Any) -> Any:
    """The base in the precision of the merged model: what differs between the two is then what was learnt."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            base.folder,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        ).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(f"{base.folder}: cannot be loaded ({str(error).strip().splitlines()[0]})") from error


def with_adapter(weights: Any, adapter: Path) -> Any:
    """The same model with the adapter's matrices beside its own. It cannot be the bare base again."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.2x by the attribute's old name; the answer is right.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(weights, str(adapter)).eval().get_base_model()
