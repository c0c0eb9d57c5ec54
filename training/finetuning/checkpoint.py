"""The checkpoint: a folder beside the adapter's that holds all that is needed to continue a training.

    checkpoint.json      step, measurements, fingerprint; config, data and base, to make an adapter from it; the SHA-256
                         of the other files
    state.safetensors    adapter, optimiser, random state
    best.safetensors     the adapter with the lowest held-out loss so far, if the config asks for it

The position in the data and the learning rate follow from the step number.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ghost import artifact
from ghost.atomic import discard, mend, replace_folder
from ghost.errors import TrainingError
from ghost.signals import Stopped, handled_by
from replicate_deployment import ghost_json
from training import config as training_config
from training.finetuning.model import in_files, lora_of, set_weights, trained, write_adapter_files

# Delay SIGINT and SIGTERM while training until no step is half-done.


class Interruption:
    """Within `deferred()` a stop waits for the next `check()`; within `at_once()` it takes effect immediately, for work
    that can be lost. Only the first signal counts, so a repeated one cannot cost the checkpoint.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._waits = True

    def deferred(self) -> AbstractContextManager[None]:
        return handled_by(self._note)

    def check(self) -> None:
        """Raises Stopped if a signal has arrived."""
        if self._number is not None:
            raise Stopped(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self._waits = False
        try:
            self.check()
            yield
        finally:
            self._waits = True

    def _note(self, number: int) -> None:
        first = self._number is None
        self._number = self._number or number
        if first and not self._waits:
            self.check()


# Keep the weights of the step with the lowest held-out loss of the replies.


@dataclass
class Selection:
    """The best measurement so far, and how many have come since.

    best       its loss in nats per token; None before the first finite one
    best_step  optimiser steps done when it was taken
    """

    best: float | None = None
    best_step: int | None = None
    since: int = 0

    def consider(self, step: int, loss: float) -> bool:
        """Whether this loss is lower than all before it. Of equal ones keep the first, which has memorised less."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.best_step, self.since = loss, step, 0
            return True
        self.since += 1
        return False

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` measurements were no better. None: never."""
        return patience is not None and self.since >= patience


# The state of a training: progress, adapter, optimiser, random state.

Tensors = dict[str, Any]


@dataclass
class State:
    """The state of a training.

    asked        the config's `micro_batch_tokens`
    budget       tokens per micro-batch, as resolved from `asked` and lowered whenever memory ran out
    step         optimiser steps done
    tokens       tokens that went through the model in them
    seconds      `training`, `evaluating` and `total` (with checkpoints), over all runs, without time lost in a crash
    log          one entry every `logging_steps`
    evaluations  held-out losses, with their steps
    resumed      steps at which the training was resumed
    halved       each time memory ran out: the step, and the new budget
    best         the adapter at `selection.best_step`
    rng          torch's random state after `step` steps
    """

    asked: int | str
    budget: int
    step: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluating": 0.0, "total": 0.0})
    log: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    halved: list[dict[str, int]] = field(default_factory=list)
    selection: Selection = field(default_factory=Selection)
    best: Tensors | None = None
    rng: Tensors = field(default_factory=dict)


def state_tensors(model: Any, optimizer: Any) -> Tensors:
    """Return adapter and optimiser as flat CPU tensors: `adapter/PARAMETER`, `optimizer/QUANTITY/PARAMETER`."""
    tensors: Tensors = {}
    for name, parameter in trained(model):
        tensors[f"adapter/{name}"] = parameter.detach().cpu().contiguous()
        for quantity, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{quantity}/{name}"] = tensor.cpu().contiguous()
    return tensors


def load_state_tensors(tensors: Tensors, model: Any, optimizer: Any) -> None:
    """Load what `state_tensors` returned into model and optimiser."""
    names = [name for name, _ in trained(model)]
    set_weights(model, {name: tensors[f"adapter/{name}"] for name in names})
    states: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            quantity, _, name = rest.partition("/")
            states.setdefault(names.index(name), {})[quantity] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def adapter(model: Any) -> Tensors:
    """Copy the trained parameters to the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in trained(model)}


def random_state() -> Tensors:
    """The state of torch's generators, from which only dropout draws during training."""
    import torch

    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: Tensors) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


FORMAT = 1
CONFIG = "training_config.yaml"
# Keep local paths out of ghost.json, which goes to the Hub and into the container.
LOCAL_KEYS = {"base_model", "revision_of_model", "datasets", "test_datasets", "output_dir"}
FACTS, STATE, BEST = "checkpoint.json", "state.safetensors", "best.safetensors"

# Keys that may change between runs: paths, and how a step is computed. No other key may differ.
CHANGEABLE = LOCAL_KEYS | {"micro_batch_size", "gradient_accumulation_steps", "micro_batch_tokens"}
CHANGEABLE |= {"gradient_checkpointing", "checkpoint_minutes", "sample_replies", "logging_steps"}
_FIELDS = [item.name for item in dataclasses.fields(State) if item.name not in ("selection", "best", "rng")]


def fingerprint(
    settings: dict[str, Any], data: dict[str, Any], weights_sha256: str, continues: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must be equal to resume a checkpoint: data, base, adapter that it continues, and each setting that changes
    what is learnt.

    `settings` is the config as a mapping, `data` the block of ghost.json, `continues` Parent.lineage.
    """
    return {
        **{key: value for key, value in settings.items() if key not in CHANGEABLE},
        "windows a step": settings["micro_batch_size"] * settings["gradient_accumulation_steps"],
        "train.jsonl": data["train_sha256"],
        "val.jsonl": data["val_sha256"],
        "base": weights_sha256,
        "continued adapter": continues and continues["adapter_sha256"],
    }


@dataclass(frozen=True)
class Origin:
    """What is needed to make an adapter from a checkpoint.

    config     the text of training_config.yaml
    ghost      the facts of the data's ghost.json
    base       the `base` block of ghost.json
    continues  Parent.lineage of the adapter that it continues
    """

    config: str
    ghost: dict[str, Any]
    base: dict[str, Any]
    continues: dict[str, Any] | None = None


class Checkpoint:
    """The folder `<out>.checkpoint`. `remove_command` deletes it; errors name it."""

    origin: Origin | None = None  # set by the training that writes it

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".checkpoint")
        self.remove_command = f"rm -r {self.folder}"
        self._lock = out.with_name(out.name + ".lock")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the output, so that no other process trains to it. The lock ends with the process.

        Raises TrainingError if another process holds it.
        """
        from filelock import FileLock, Timeout

        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            adapter = self._lock.with_suffix("")
            raise TrainingError(
                f"{adapter}: another process is training this adapter; wait for it, or stop it"
            ) from error
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows does not delete open files
                self._lock.unlink(missing_ok=True)
            lock.release()

    def exists(self) -> bool:
        mend(self.folder)
        return self.folder.exists()

    def remove(self) -> None:
        """Rename, then delete, so that a kill leaves no half of it."""
        discard(self.folder)

    def write(self, state: State, tensors: Tensors, identity: dict[str, Any]) -> None:
        """Write to a temporary folder, then rename, so that a whole checkpoint exists at any time.

        `tensors`: adapter and optimiser. Raises OSError if the disk fails; the previous checkpoint is then untouched.
        """
        from safetensors.torch import save

        files = {STATE: save({**tensors, **{f"rng/{name}": tensor for name, tensor in state.rng.items()}})}
        if state.best is not None:
            files[BEST] = save(state.best)
        facts = {
            "format": FORMAT,
            "fingerprint": identity,
            **{name: getattr(state, name) for name in _FIELDS},
            "selection": dataclasses.asdict(state.selection),
            "origin": self.origin and dataclasses.asdict(self.origin),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        files[FACTS] = (json.dumps(facts, indent=1) + "\n").encode()
        with replace_folder(self.folder) as folder:
            for name, content in files.items():
                _write(folder / name, content)

    def facts(self) -> dict[str, Any]:
        """Raises TrainingError if the folder holds no readable checkpoint of this format."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            found, missing = facts["format"], {*_FIELDS, "fingerprint", "selection", "files"} - facts.keys()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"{FACTS} is missing or unreadable") from error
        if found != FORMAT:
            raise TrainingError(
                f"{self.folder}: format {found}, but this version of ghost reads {FORMAT}; start over: "
                f"{self.remove_command}"
            )
        if missing:
            raise self._damaged(f"{FACTS} lacks {', '.join(sorted(missing))}")
        return facts

    def describe(self) -> str:
        """Describe what it holds. Raises TrainingError as `facts` does."""
        facts = self.facts()
        return f"{self.folder} holds a training that was interrupted after step {facts['step']:,}"

    def read(self, identity: dict[str, Any]) -> tuple[State, Tensors]:
        """Return the state, and the tensors of adapter and optimiser, on the CPU.

        Raises TrainingError if the folder is damaged or belongs to another training than `identity`.
        """
        from safetensors.torch import load

        facts = self.facts()
        if differing := differences(facts["fingerprint"], identity):
            raise TrainingError(
                f"{self.folder} belongs to another training: "
                f"{'; '.join(differing[:3])}{'; …' if differing[3:] else ''}. "
                f"Restore those settings, or start over: {self.remove_command}"
            )
        self._verify(facts)
        tensors = load((self.folder / STATE).read_bytes())
        best = load((self.folder / BEST).read_bytes()) if BEST in facts["files"] else None
        rng = {name.removeprefix("rng/"): tensors.pop(name) for name in [*tensors] if name.startswith("rng/")}
        return _state(facts, best, rng), tensors

    def best(self) -> tuple[State, Tensors]:
        """Return the adapter with the lowest held-out loss so far, by the model's parameter names; if none was measured
        or asked for, the latest. The state lacks what only resuming needs.

        Raises TrainingError if the folder is damaged.
        """
        from safetensors.torch import load

        facts = self.facts()
        self._verify(facts)
        if BEST in facts["files"]:
            tensors = load((self.folder / BEST).read_bytes())
            return _state(facts, tensors, {}), tensors
        tensors = load((self.folder / STATE).read_bytes())
        held = {name.removeprefix("adapter/"): tensors[name] for name in tensors if name.startswith("adapter/")}
        return _state(facts, None, {}), held

    def _verify(self, facts: dict[str, Any]) -> None:
        for name, digest in facts["files"].items():
            if not (self.folder / name).is_file() or ghost_json.sha256(self.folder / name) != digest:
                raise self._damaged(f"{name} is missing or altered")

    def _damaged(self, why: str) -> TrainingError:
        return TrainingError(
            f"{self.folder}: damaged ({why}), so it cannot be resumed; start over: {self.remove_command}"
        )


def _state(facts: dict[str, Any], best: Tensors | None, rng: Tensors) -> State:
    recorded = {name: facts[name] for name in _FIELDS}
    return State(**recorded, selection=Selection(**facts["selection"]), best=best, rng=rng)


def write_best(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """Write the best adapter so far of an interrupted training to the empty `folder`. Return its `training` block.

    It has no tokenizer (the base has one), report or plot. Raises TrainingError if the checkpoint is damaged, was
    written by an earlier version of ghost, or has no finished step.
    """
    recorded = checkpoint.facts()
    if not recorded.get("origin"):
        raise TrainingError(
            f"{checkpoint.folder}: written by an earlier version of ghost; continue with ghost train --resume"
        )
    if not recorded["step"]:
        raise TrainingError(f"{checkpoint.folder}: has no finished step yet; continue with ghost train --resume")
    origin, (state, held) = Origin(**recorded["origin"]), checkpoint.best()
    (folder / CONFIG).write_text(origin.config, encoding="utf-8")
    config = training_config.load(folder / CONFIG)
    tensors = {in_files(name): tensor for name, tensor in held.items()}
    write_adapter_files(folder, tensors, lora_of(config), origin.base["repo"], origin.base["revision"])
    facts = {**outcome(state), "continues": origin.continues}
    block = training_block(training_config.as_dict(config), facts) | {"interrupted": True}
    artifact.write(folder, origin.ghost, base=origin.base, training=block)
    return block


def training_block(config: dict[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make the `training` block of ghost.json. `facts` as in training_report.json."""
    settings = {key: value for key, value in config.items() if key not in LOCAL_KEYS}
    named = ("steps", "kept_step", "heldout", "preferences", "versions")
    lineage = {"continues": facts["continues"]} if facts.get("continues") else {}
    return {"config": settings, **{key: facts[key] for key in named if key in facts}, **lineage}


def outcome(state: State) -> dict[str, Any]:
    """The part that ghost.json also holds."""
    return {
        "steps": state.step,
        "kept_step": kept_step(state),
        "heldout": {"before": _heldout(state, 0), "after": _heldout(state, kept_step(state))},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }


def kept_step(state: State) -> int:
    """The step whose weights the adapter has."""
    return state.step if state.best is None else state.selection.best_step or state.step


def _heldout(state: State, step: int) -> dict[str, float] | None:
    """The measurement after `step` steps."""
    found = [entry for entry in state.evaluations if entry["step"] == step]
    return {key: value for key, value in found[-1].items() if key != "step"} if found else None


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the differences between two fingerprints, as `KEY was X and is Y`."""

    def show(value: Any) -> str:
        return str(value)[:12] + "…" if len(str(value)) == 64 else str(value)

    return [
        f"{key} was {show(recorded.get(key))} and is {show(now.get(key))}"
        for key in {**recorded, **now}
        if recorded.get(key) != now.get(key)
    ]


def _write(path: Path, content: bytes) -> None:
    """Write and sync: a spot machine may vanish without shutting down."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
