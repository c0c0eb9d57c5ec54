"""All that a training needs to go on as if nothing had happened, in one folder beside the adapter's.

    checkpoint.json      the step, what was measured, what belongs to what (the fingerprint), config, data and base for
                         an adapter that is made of it, the other files' SHA-256
    state.safetensors    adapter, optimiser, random state
    best.safetensors     the adapter of the best held-out loss so far, where there is one and it is asked for

Where the data stand is the step's number alone, since the plan follows from data and seed; so is the learning rate.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghost.atomic import discard, mend, replace_folder
from ghost.errors import TrainingError
from ghost.signals import Stopped, handled_by
from replicate_deployment import ghost_json

# When a stop from outside takes effect while training: where nothing is half-done, and never inside of a step.


class Interruption:
    """Within `held()` a stop waits for the next `check()`; within `at_once()`, for work that nothing depends on, it
    does not wait. Further stops change nothing: a service that repeats itself must not cost the checkpoint.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._waits = True

    def held(self) -> AbstractContextManager[None]:
        return handled_by(self._note)

    def check(self) -> None:
        """Raises Stopped when somebody asked for it."""
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


# Which step's weights to keep: those whose held-out loss of the replies was lowest.


class Selection:
    """The best measurement so far, and how many have come since.

    best       its loss in nats a token; None before the first that is a number
    best_step  optimiser steps done when it was taken
    """

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_step: int | None = None
        self._since = 0

    def consider(self, step: int, loss: float) -> bool:
        """Whether this loss is lower than all before it. Of equals the first is kept: it has memorised less."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.best_step, self._since = loss, step, 0
            return True
        self._since += 1
        return False

    def exhausted(self, patience: int | None) -> bool:
        """Whether `patience` measurements in a row were no better; never with None."""
        return patience is not None and self._since >= patience

    def to_json(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "since": self._since}

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> "Selection":
        """What `to_json` wrote: a resumed training judges as the one that was interrupted."""
        selection = cls()
        selection.best, selection.best_step = recorded["best"], recorded["best_step"]
        selection._since = recorded["since"]
        return selection


# How far a training is, and the tensors it consists of: adapter, optimiser, random state.

Tensors = dict[str, Any]


@dataclass
class State:
    """How far a training is.

    asked        the config's `micro_batch_tokens`
    budget       tokens of a micro-batch: what that came to, less whenever memory ran out
    step         optimiser steps done
    tokens       tokens that went through the model in them
    seconds      of `training`, `evaluating` and in `total`, with checkpoints; over all runs, without what a crash lost
    log          an entry every `logging_steps`
    evaluations  the held-out losses, with their steps
    resumed      the steps at which the training was taken up again
    halved       when memory ran out, and the budget since
    best         the adapter of `selection.best_step`
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


def gather(model: Any, optimizer: Any) -> Tensors:
    """Adapter and optimiser as flat tensors, on the CPU: `adapter/PARAMETER`, `optimizer/QUANTITY/PARAMETER`."""
    tensors: Tensors = {}
    for name, parameter in trained(model):
        tensors[f"adapter/{name}"] = parameter.detach().cpu().contiguous()
        for quantity, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{quantity}/{name}"] = tensor.cpu().contiguous()
    return tensors


def scatter(tensors: Tensors, model: Any, optimizer: Any) -> None:
    """What `gather` gathered, put back."""
    names = [name for name, _ in trained(model)]
    put(model, {name: tensors[f"adapter/{name}"] for name in names})
    states: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            quantity, _, name = rest.partition("/")
            states.setdefault(names.index(name), {})[quantity] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def adapter(model: Any) -> Tensors:
    """A copy of the trained parameters, on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in trained(model)}


def put(model: Any, weights: Tensors) -> None:
    """Make `weights` the trained parameters."""
    import torch

    with torch.no_grad():
        for name, parameter in trained(model):
            parameter.copy_(weights[name])


def trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def random_state() -> Tensors:
    """Of torch's generators: dropout is all that draws from them while training."""
    import torch

    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: Tensors) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


FORMAT = 1
FACTS, STATE, BEST = "checkpoint.json", "state.safetensors", "best.safetensors"

# Neither where files lie nor how a step is computed changes what is learnt; all other keys may not differ.
FREE = {"base_model", "revision_of_model", "datasets", "test_datasets", "output_dir"}
FREE |= {"micro_batch_size", "gradient_accumulation_steps", "micro_batch_tokens", "gradient_checkpointing"}
FREE |= {"checkpoint_minutes", "sample_replies", "use_tensorboard", "logging_steps"}
_FIELDS = [item.name for item in dataclasses.fields(State) if item.name not in ("selection", "best", "rng")]


def fingerprint(settings: dict[str, Any], data: dict[str, Any], weights_sha256: str) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: each setting that alters what is learnt, data, base.

    `settings` is the config as a mapping, `data` the block of ghost.json.
    """
    return {
        **{key: value for key, value in settings.items() if key not in FREE},
        "windows a step": settings["micro_batch_size"] * settings["gradient_accumulation_steps"],
        "train.jsonl": data["train_sha256"],
        "val.jsonl": data["val_sha256"],
        "base": weights_sha256,
    }


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the adapter of a checkpoint would say of itself, so that one can be made of it.

    config  as the text of a training_config.yaml
    ghost   the facts of the data's ghost.json
    base    the block of ghost.json
    """

    config: str
    ghost: dict[str, Any]
    base: dict[str, Any]


class Checkpoint:
    """The folder `<out>.checkpoint`. Its errors name `anew`, the command that does away with it."""

    origin: Origin | None = None  # of the training that writes it

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".checkpoint")
        self.anew = f"rm -r {self.folder}"
        self._lock = out.with_name(out.name + ".lock")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block no other process trains to the same place; a killed one holds nobody up.

        Raises TrainingError when another does: of two that go on from one checkpoint, one would undo the other's work.
        """
        from filelock import FileLock, Timeout

        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            adapter = self._lock.with_suffix("")
            raise TrainingError(
                f"{adapter}: is being trained by another process; let it end, or stop that one"
            ) from error
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows, which removes no file that is open
                self._lock.unlink(missing_ok=True)
            lock.release()

    def exists(self) -> bool:
        mend(self.folder)
        return self.folder.exists()

    def remove(self) -> None:
        """At once: a half of it left by a kill would be refused as damaged."""
        discard(self.folder)

    def write(self, state: State, tensors: Tensors, identity: dict[str, Any]) -> None:
        """The folder anew, aside and renamed: whatever happens meanwhile, one whole checkpoint is there.

        `tensors`: adapter and optimiser. Raises OSError when the disk refuses; the checkpoint before is untouched.
        """
        from safetensors.torch import save

        files = {STATE: save({**tensors, **{f"rng/{name}": tensor for name, tensor in state.rng.items()}})}
        if state.best is not None:
            files[BEST] = save(state.best)
        facts = {
            "format": FORMAT,
            "fingerprint": identity,
            **{name: getattr(state, name) for name in _FIELDS},
            "selection": state.selection.to_json(),
            "origin": self.origin and dataclasses.asdict(self.origin),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        files[FACTS] = (json.dumps(facts, indent=1) + "\n").encode()
        with replace_folder(self.folder) as folder:
            for name, content in files.items():
                _write(folder / name, content)

    def facts(self) -> dict[str, Any]:
        """Raises TrainingError when the folder holds no readable checkpoint of this format."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            found, missing = facts["format"], {*_FIELDS, "fingerprint", "selection", "files"} - facts.keys()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"{FACTS} is missing or unreadable") from error
        if found != FORMAT:
            raise TrainingError(
                f"{self.folder}: of format {found}, and this version of ghost knows {FORMAT}; begin anew: {self.anew}"
            )
        if missing:
            raise self._damaged(f"{FACTS} lacks {', '.join(sorted(missing))}")
        return facts

    def describe(self) -> str:
        """What it holds, in words. Raises TrainingError as `facts` does."""
        facts = self.facts()
        return f"{self.folder} holds a training that was interrupted after step {facts['step']:,}"

    def read(self, identity: dict[str, Any]) -> tuple[State, Tensors]:
        """The state, and the tensors of adapter and optimiser, on the CPU.

        Raises TrainingError when the folder is damaged, or of another training than `identity` names.
        """
        from safetensors.torch import load

        facts = self.facts()
        if differing := differences(facts["fingerprint"], identity):
            raise TrainingError(
                f"{self.folder} is of another training: {'; '.join(differing[:3])}{'; …' if differing[3:] else ''}. "
                f"Go back to that, or begin anew: {self.anew}"
            )
        self._verify(facts)
        tensors = load((self.folder / STATE).read_bytes())
        best = load((self.folder / BEST).read_bytes()) if BEST in facts["files"] else None
        rng = {name.removeprefix("rng/"): tensors.pop(name) for name in [*tensors] if name.startswith("rng/")}
        return _state(facts, best, rng), tensors

    def best(self) -> tuple[State, Tensors]:
        """The adapter of the best held-out loss so far, by the names of the model's parameters; where none was measured
        or asked for, the last one. The state lacks what only going on needs.

        Raises TrainingError when the folder is damaged.
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
        return TrainingError(f"{self.folder}: damaged ({why}), so it cannot be continued; begin anew: {self.anew}")


def _state(facts: dict[str, Any], best: Tensors | None, rng: Tensors) -> State:
    selection = Selection.from_json(facts["selection"])
    return State(**{name: facts[name] for name in _FIELDS}, selection=selection, best=best, rng=rng)


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints, in words: `KEY was X and is Y`."""

    def show(value: Any) -> str:
        return str(value)[:12] + "…" if len(str(value)) == 64 else str(value)

    return [
        f"{key} was {show(recorded.get(key))} and is {show(now.get(key))}"
        for key in {**recorded, **now}
        if recorded.get(key) != now.get(key)
    ]


def _write(path: Path, content: bytes) -> None:
    """On the disk when it returns, and not only on its way: a machine that is taken away is not shut down."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
