"""The models to compare: the merged one, its base, the base with few-shot examples, and base + adapter.

Each is an Engine, so all are prompted and sampled as in serving. Only one is in memory at a time.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost.errors import BaseModelError, UsageError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels, Turn
from replicate_deployment.errors import GhostError, WeightsError
from replicate_deployment.model_folder import load_model, path_of

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine
    from training.finetuning.base import Base

Kind = str
"""One of NAMES; of another ghost, its folder as it was typed."""
NAMES: dict[Kind, str] = {
    "base": "base",
    "few_shot": "base, shown a few turns",
    "adapter": "base + adapter",
    "merged": "merged",
    "served": "served",
}


def name_of(kind: Kind) -> str:
    return NAMES.get(kind, kind)


@dataclass(frozen=True)
class Contender:
    """`shots` are few-shot examples in front of every prompt."""

    kind: Kind
    engine: "Engine"
    shots: tuple[Turn, ...] = ()

    @property
    def name(self) -> str:
        return name_of(self.kind)

    @property
    def size(self) -> dict[str, int]:
        """Of the weights as they are in memory; matrices that two layers share count once."""
        parameters = list(self.engine.model.parameters())
        return {
            "parameters": sum(one.numel() for one in parameters),
            "bytes": sum(one.nbytes for one in parameters),
        }

    def prompt(self, context: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """The shots and as many of the last turns as the engine's context still holds."""
        return (*self.shots, *context[-(CONTEXT_TURNS - len(self.shots)) :])


def line_up(
    model: Path, adapter: Path | None, base: str | None, shots: tuple[Turn, ...], missing: dict[Kind, str]
) -> Iterator[Contender]:
    """Yield the contenders of a merged model. Drop each before asking for the next.

    `missing` receives those that do not exist or cannot be loaded, with the reason. Before the first, which takes
    minutes to evaluate, raises WeightsError if `model` cannot be served, UsageError or BaseModelError if the named
    adapter or base is not the one it was made from.
    """
    from replicate_deployment.engine import Engine

    engine = Engine.load(model, accelerate=False)  # compiled code would keep the weights in memory
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
    # What peft and safetensors raise on a broken one.
    except (GhostError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        missing["adapter"] = f"{adapter}: cannot be loaded ({str(error).strip().splitlines()[0]})"
        return
    yield Contender("adapter", replace(shell, model=adapted))


def check_others(folders: Sequence[Path], model: Path, labels: Labels) -> None:
    """Raises UsageError if one of the ghosts to compare with is named twice or writes other labels than the held-out
    lines, WeightsError if one is not whole."""
    known = {model.resolve()}
    for folder in folders:
        ghost = ghost_json.read_merged(folder)
        if ghost.labels != labels:
            raise UsageError(
                f"--contender {folder}: its labels are {ghost.labels.me} and {ghost.labels.other}, those of the "
                f"held-out lines {labels.me} and {labels.other}; name a ghost that was trained on the same labels"
            )
        ghost_json.verify(ghost)
        if folder.resolve() in known:
            raise UsageError(f"--contender {folder}: named twice; name each ghost once")
        known.add(folder.resolve())


def others(folders: Sequence[Path]) -> Iterator[Contender]:
    """Yield each ghost to compare with. Drop each before asking for the next."""
    from replicate_deployment.engine import Engine

    for folder in folders:
        yield Contender(str(folder), Engine.load(folder, accelerate=False))


def check_adapter(folder: Path, ghost: ghost_json.Ghost) -> None:
    """Raises UsageError if the model's ghost.json records other adapter weights."""
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
    """The folder `adapter` beside the merged model, if the model was merged from it."""
    folder = model.resolve().parent / "adapter"
    try:
        training = [ghost_json.read(path).facts.get("training") for path in (folder, model)]
    except WeightsError:
        return None
    return folder if training[0] is not None and training[0] == training[1] else None


def find_base(ghost: ghost_json.Ghost, adapter: Path | None, name: str | None) -> "Base":
    """Find the base that ghost.json records, in a folder or the Hub's cache; download it only if `name` names a repo.

    Raises BaseModelError or another GhostError if it is missing or its weights are not the recorded ones.
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
    """The folder of a Hub repo in this machine's cache, if it is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(repo, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return None


def load(base: "Base", device: Any, dtype: Any) -> Any:
    """Load the base in the merged model's precision, so that they differ only by what was learnt."""
    try:
        return load_model(base.folder, dtype=dtype, device_map={"": device}).eval()
    except WeightsError as error:
        raise BaseModelError(str(error)) from error


def with_adapter(weights: Any, adapter: Path) -> Any:
    """Add the adapter's matrices to the model, which cannot become the bare base again."""
    from peft import PeftModel

    from training.merging.adapter import WEIGHTS, read_config

    read_config(adapter)  # refuses what peft would import or load from elsewhere
    path_of(adapter, WEIGHTS)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.2x by the attribute's old name; the answer is right.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(weights, str(adapter)).eval().get_base_model()
