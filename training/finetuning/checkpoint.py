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
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from replicate_deployment import ghost_json
from training.aside import discard, mend, replace_folder
from training.errors import TrainingError
from training.finetuning.selection import Selection
from training.finetuning.state import State, Tensors

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
