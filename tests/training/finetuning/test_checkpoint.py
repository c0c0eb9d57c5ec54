import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import TrainingError
from tests.training.finetuning.conftest import contents
from training.config import TrainingConfig, as_dict
from training.finetuning import checkpoint as checkpoints
from training.finetuning.checkpoint import (
    Checkpoint,
    Selection,
    State,
    adapter,
    differences,
    fingerprint,
    load_state_tensors,
    random_state,
    set_random_state,
    state_tensors,
)
from training.finetuning.model import set_weights

IDENTITY = {"learning_rate": 0.1, "train.jsonl": "a" * 64}


class Small:
    """A model with two trained matrices and a frozen one, its optimiser, and a step that draws random numbers."""

    def __init__(self, seed: int, *, fused: bool = False) -> None:
        import torch

        torch.manual_seed(seed)
        self.model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4, bias=False) for name in ("a", "b", "frozen")})
        self.model["frozen"].requires_grad_(False)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=fused)

    def step(self) -> None:
        import torch

        hidden = self.model["frozen"](torch.nn.functional.dropout(self.model["a"](torch.ones(4)), 0.5))
        self.model["b"](hidden).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def write(folder: Path, small: Small, **changes: Any) -> Checkpoint:
    checkpoint = Checkpoint(folder / "adapter")
    state = State("auto", 2048, rng=random_state(), best=adapter(small.model))
    state.selection.consider(3, 2.5)
    checkpoint.write(dataclasses.replace(state, **changes), state_tensors(small.model, small.optimizer), IDENTITY)
    return checkpoint


@pytest.mark.parametrize("fused", [False, True])
def test_what_was_written_goes_on_bit_for_bit(tmp_path: Path, fused: bool) -> None:
    first, second = Small(0, fused=fused), Small(1, fused=fused)
    first.step()
    log: list[dict[str, float]] = [{"step": 1, "loss": 0.1 + 0.2}]
    write(tmp_path, first, step=1, log=log, tokens=77, halved=[{"step": 1, "micro_batch_tokens": 9}])
    kept = adapter(first.model)
    for _ in range(3):
        first.step()

    state, tensors = Checkpoint(tmp_path / "adapter").read(IDENTITY)
    load_state_tensors(tensors, second.model, second.optimizer)
    set_random_state(state.rng)
    second.model["frozen"] = first.model["frozen"]  # the base, which a checkpoint does not hold
    for _ in range(3):
        second.step()
    ours, theirs = (state_tensors(small.model, small.optimizer) for small in (first, second))
    assert ours.keys() == theirs.keys()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())

    assert (state.asked, state.budget, state.step, state.tokens) == ("auto", 2048, 1, 77)
    assert (state.log, state.halved) == (log, [{"step": 1, "micro_batch_tokens": 9}])
    assert (state.selection.best, state.selection.best_step) == (2.5, 3)
    assert state.best is not None
    set_weights(second.model, state.best)
    assert all(tensor.equal(kept[name]) for name, tensor in adapter(second.model).items())


def test_a_copy_of_the_adapter_does_not_move_on() -> None:
    small = Small(0)
    copy = adapter(small.model)
    small.step()
    assert set(copy) == {"a.weight", "b.weight"}
    assert not any(tensor.equal(copy[name]) for name, tensor in adapter(small.model).items())


def test_there_is_nothing_that_could_run(tmp_path: Path) -> None:
    folder = write(tmp_path, Small(0)).folder
    assert folder == tmp_path / "adapter.checkpoint"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.json", "state.safetensors", "best.safetensors"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, name: str, harm: str) -> None:
    checkpoint = write(tmp_path, Small(0))
    path = checkpoint.folder / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "truncated":
        path.write_bytes(content[:-10])
    elif harm == "altered":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    with pytest.raises(
        TrainingError, match=rf"adapter\.checkpoint: damaged \({name} is .*; start over: rm -r "
    ) as told:
        checkpoint.read(IDENTITY)
    assert "\n" not in str(told.value)


def test_another_format_is_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, Small(0))
    facts = checkpoint.facts()
    (checkpoint.folder / "checkpoint.json").write_text(json.dumps({**facts, "format": 2}), encoding="utf-8")
    with pytest.raises(TrainingError, match="format 2, but this version of ghost reads 1"):
        checkpoint.read(IDENTITY)


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    small = Small(0)
    before = contents(write(tmp_path, small, step=1).folder.parent)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, small, step=2)
    assert contents(tmp_path) == before


def test_a_kill_between_the_renames_is_mended(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, Small(0), step=1)
    checkpoint.folder.rename(tmp_path / ".adapter.checkpoint.old")
    assert checkpoint.exists()
    assert "after step 1" in checkpoint.describe()
    checkpoint.remove()
    assert not checkpoint.exists()
    assert list(tmp_path.iterdir()) == []


def test_another_training_is_refused_by_what_differs(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, Small(0))
    with pytest.raises(TrainingError) as told:
        checkpoint.read({**IDENTITY, "learning_rate": 0.2, "train.jsonl": "b" * 64})
    words = (
        "to another training: learning_rate was 0.1 and is 0.2; train.jsonl was aaaaaaaaaaaa… and is bbbbbbbbbbbb…. "
    )
    assert words in str(told.value)
    assert f"start over: rm -r {checkpoint.folder}" in str(told.value)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"micro_batch_tokens": 512, "checkpoint_minutes": 1.0, "logging_steps": 5, "output_dir": "elsewhere"}, []),
        ({"micro_batch_size": 4, "gradient_accumulation_steps": 16, "gradient_checkpointing": True}, []),
        ({"micro_batch_size": 2}, ["windows a step was 64 and is 128"]),
        ({"seed": 1, "num_epochs": 9}, ["num_epochs was 8 and is 9", "seed was 42 and is 1"]),
        ({"evals_per_epoch": 2}, ["evals_per_epoch was 1 and is 2"]),
    ],
)
def test_what_makes_it_another_training(recipe: TrainingConfig, changes: dict[str, Any], differing: list[str]) -> None:
    data = {"train_sha256": "a", "val_sha256": "b"}
    settings, changed = as_dict(recipe), as_dict(dataclasses.replace(recipe, **changes))
    recorded = json.loads(json.dumps(fingerprint(settings, data, "c")))  # as a checkpoint holds it
    assert differences(recorded, fingerprint(changed, data, "c")) == differing
    other_data = differences(recorded, fingerprint(settings, {**data, "train_sha256": "x"}, "d"))
    assert other_data == ["train.jsonl was a and is x", "base was c and is d"]


def test_every_free_key_is_one_of_the_config() -> None:
    assert {item.name for item in dataclasses.fields(TrainingConfig)} >= checkpoints.CHANGEABLE


def test_two_processes_do_not_train_to_one_place(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from training.finetuning.checkpoint import Checkpoint\n"
    code += "with Checkpoint(Path(sys.argv[1])).alone(): print('mine', flush=True); sys.stdin.read()"
    out = tmp_path / "models" / "adapter"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        taken = pytest.raises(TrainingError, match="models/adapter: another process is training this adapter")
        with taken, Checkpoint(out).alone():
            pass
        with Checkpoint(tmp_path / "models" / "other").alone():
            pass
        other.kill()
    with Checkpoint(out).alone():
        pass
    assert not list(out.parent.iterdir())


LOSSES = st.lists(st.one_of(st.sampled_from([1.0, 2.0, math.nan, math.inf]), st.floats(0, 10)))


@given(LOSSES, st.integers(1, 5))
def test_it_keeps_the_first_of_the_lowest_and_counts_what_came_after(losses: list[float], patience: int) -> None:
    selection = Selection()
    for step, loss in enumerate(losses, start=1):
        before = [earlier for earlier in losses[: step - 1] if math.isfinite(earlier)]
        better = math.isfinite(loss) and all(loss < earlier for earlier in before)
        assert selection.consider(step, loss) == better
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert selection.best == min(finite, default=None)
    assert selection.best_step == (losses.index(min(finite)) + 1 if finite else None)
    assert selection.exhausted(patience) == (len(losses) - (selection.best_step or 0) >= patience)
    assert not selection.exhausted(None)


@given(LOSSES, LOSSES)
def test_a_resumed_one_goes_on_as_the_uninterrupted_one(before: list[float], after: list[float]) -> None:
    whole, half = Selection(), Selection()
    for step, loss in enumerate(before):
        whole.consider(step, loss)
        half.consider(step, loss)
    resumed = Selection(**json.loads(json.dumps(dataclasses.asdict(half), allow_nan=False)))
    for step, loss in enumerate(after, start=len(before)):
        assert resumed.consider(step, loss) == whole.consider(step, loss)
    assert resumed == whole
    assert all(resumed.exhausted(patience) == whole.exhausted(patience) for patience in range(1, 9))
