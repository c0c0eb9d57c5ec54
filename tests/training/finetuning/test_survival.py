"""Whatever ends a training, it goes on to the very adapter that it would have given."""

import errno
import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact, cli
from tests import forks
from tests.training.finetuning import mortal
from tests.training.finetuning.conftest import LINES, Ghost, WriteConfig, contents, quick, write_prepared
from training.config import TrainingConfig
from training.finetuning import checkpoint, loop, train
from training.finetuning import report as samples

AT_EACH_STEP = 1e-9  # checkpoint_minutes
# Six steps of one or two micro-batches: as small as they can be, since the longest window has 38 tokens.
KEYS: dict[str, Any] = {"lora_dropout": 0.1, "micro_batch_tokens": 38, "sample_replies": 2}
UNSEEN = ["B: can you cook\nA: mdr café 😂😂</s>", "B: on se voit\nA: ok</s>"]


def read_report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / train.REPORT).read_text(encoding="utf-8")))


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base ends no reply, and to sample them draws no random number: how long they are decides nothing."""
    monkeypatch.setattr(samples, "NEW_TOKENS", 4)


@pytest.fixture(scope="module")
def reference(tiny_base: Path, recipe: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a training that nothing happens to."""
    folder = tmp_path_factory.mktemp("reference")
    write_prepared(folder / "processed", LINES * 4, LINES[:2])
    (folder / "config.yaml").write_text(quick(recipe, **KEYS), encoding="utf-8")
    paths = ["--data", folder / "processed", "--base", tiny_base, "--out", folder / "adapter"]
    assert cli.main(["train", "--config", str(folder / "config.yaml"), *map(str, paths)]) == 0
    return folder / "adapter"


def same(one: Path, other: Path) -> bool:
    return (one / "adapter_model.safetensors").read_bytes() == (other / "adapter_model.safetensors").read_bytes()


def calling(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, before: Callable[[], None]
) -> list[int]:
    """Have `before` called ahead of call `number` of `owner.name`. What is returned gets an entry a call."""
    honest, calls = getattr(owner, name), list[int]()

    def called(*arguments: Any, **keywords: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == number:
            before()
        return honest(*arguments, **keywords)

    monkeypatch.setattr(owner, name, called)
    return calls


@pytest.mark.parametrize(
    ("loop_kills", "end_kills"), [(1, 1), pytest.param(10, 3, marks=pytest.mark.exhaustive)], ids=["two", "thirteen"]
)
def test_kills_change_nothing(
    loop_kills: int, end_kills: int, tiny_base: Path, write_config: WriteConfig, tmp_path: Path
) -> None:
    """While it trains, and while the adapter is written."""
    data = write_prepared(tmp_path / "unseen", LINES * 4, UNSEEN)
    keys: dict[str, Any] = {"lora_dropout": 0.1, "num_epochs": 6, "micro_batch_tokens": 38, "logging_steps": 3}
    config = write_config(checkpoint_minutes=AT_EACH_STEP, micro_batch_size=2, **keys)
    out, result = tmp_path / "adapter", tmp_path / "result.json"
    arguments = ["train", "--config", config, "--data", data, "--base", tiny_base, "--out", out]
    assert forks.run(mortal.main, [*map(str, arguments)], {"loop": loop_kills, "end": end_kills}, result) == 0
    told = json.loads(result.read_text(encoding="utf-8"))
    assert told["code"] == 0
    # Once the checkpoint is gone, nothing is left to kill.
    assert told["killed"][: loop_kills + 1] == ["loop"] * loop_kills + ["end"]

    whole = tmp_path / "adapter.whole"
    assert same(out, whole)
    survived, spared = read_report(out), read_report(whole)
    assert len(survived["resumed_at"]) > loop_kills // 2
    assert spared["resumed_at"] == []
    assert 0 < spared["kept_step"] < spared["steps"] == 24  # the best weights are among what has to survive
    for report in (survived, spared):
        for changing in ("resumed_at", "seconds", "tokens_per_second"):
            del report[changing]
    assert survived == spared
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_in_the_middle_of_a_step(
    ghost_train: Ghost,
    reference: Path,
    old_adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    from training.finetuning.loss import SegmentLoss

    before = contents(old_adapter)
    with monkeypatch.context() as patched:  # in the first of the fourth step's two micro-batches
        calling(patched, SegmentLoss, "forward", 6, lambda: os.kill(os.getpid(), number))
        assert ghost_train(out="models/adapter", **KEYS) == 128 + number
    assert contents(old_adapter) == before
    (line,) = capfd.readouterr().err.splitlines()
    words, command = line.split(". Continue: ")
    assert words == f"ghost train: stopped; {old_adapter}.checkpoint holds step 3 of 6"
    ghost, *arguments = shlex.split(command)
    assert (ghost, arguments[-1]) == ("ghost", "--resume")
    assert cli.main(arguments) == 0
    assert "resume    after step 3" in capfd.readouterr().out
    assert read_report(old_adapter)["resumed_at"] == [3]
    assert same(old_adapter, reference)
    assert cli.main(arguments) == 0  # once more, as a machine does that was taken away after the last step
    assert capfd.readouterr().out.endswith(f"{old_adapter} is trained already\n")
    assert not checkpoint.Checkpoint(old_adapter).exists()


@pytest.mark.parametrize(
    ("where", "owner", "name", "call", "step"),
    [
        ("in an evaluation", loop, "heldout_loss", 2, 2),
        ("while a checkpoint is written", os, "fsync", 3, 2),
        ("between two steps", loop, "random_state", 3, 2),
    ],
)
def test_a_stop_anywhere_else(
    ghost_train: Ghost,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    owner: Any,
    name: str,
    call: int,
    step: int,
) -> None:
    with monkeypatch.context() as patched:
        calling(patched, owner, name, call, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert ghost_train(checkpoint_minutes=AT_EACH_STEP, **KEYS) == 128 + signal.SIGTERM
    assert not (tmp_path / "adapter").exists()
    assert checkpoint.Checkpoint(tmp_path / "adapter").facts()["step"] == step
    assert ghost_train("--resume", **KEYS) == 0
    assert same(tmp_path / "adapter", reference)


def test_a_stop_while_the_adapter_is_written_waits_for_it(
    ghost_train: Ghost,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    calling(monkeypatch, artifact, "write", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert ghost_train(**KEYS) == 128 + signal.SIGTERM
    out = tmp_path / "adapter"
    assert capfd.readouterr().err == f"ghost train: stopped, but {out} was already written. Next: ghost merge {out}\n"
    assert same(out, reference)
    assert not checkpoint.Checkpoint(out).exists()


def test_a_terminal_that_breaks_leaves_a_checkpoint(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def gone() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    calling(monkeypatch, loop, "heldout_loss", 2, gone)
    assert ghost_train(**KEYS) == 1
    assert capfd.readouterr().err == "ghost train: the disk: Input/output error\n"
    assert checkpoint.Checkpoint(tmp_path / "adapter").facts()["step"] == 2


def test_a_full_disk_costs_no_training(
    ghost_train: Ghost,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:  # full after the second checkpoint; a stop after the fourth step
        calling(patched, os, "fsync", 5, lambda: patched.setattr(os, "fsync", full) or full())
        calling(patched, loop, "random_state", 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert ghost_train(checkpoint_minutes=AT_EACH_STEP, **KEYS) == 128 + signal.SIGTERM
    third, fourth, stopped, last = capfd.readouterr().err.splitlines()
    kept = "checkpoint not written (No space left on device); that of step 2 is intact"
    assert [third, fourth] == [f"ghost train: step {number}: {kept}" for number in (3, 4)]
    assert stopped == fourth
    assert "adapter.checkpoint holds step 2 of 6. Continue: " in last
    assert ghost_train("--resume", **KEYS) == 0
    assert same(tmp_path / "adapter", reference)


@pytest.mark.parametrize(
    ("budget", "fails", "halved"),
    [
        (128, lambda call, tokens: tokens > 38, [64, 38]),
        (45, lambda call, tokens: call == 2, [38]),  # when the first micro-batch has left its gradients
    ],
)
def test_exhausted_memory_halves_the_micro_batches_and_nothing_else(
    ghost_train: Ghost,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    budget: int,
    fails: Callable[[int, int], bool],
    halved: list[int],
) -> None:
    import torch

    from training.finetuning.loss import SegmentLoss

    honest, calls = SegmentLoss.forward, list[int]()

    def forward(self: Any, **row: Any) -> Any:
        calls.append(row["input_ids"].shape[1])
        if fails(len(calls), calls[-1]):
            torch.rand(3)  # what had been drawn when memory ran out must not change what follows
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return honest(self, **row)

    monkeypatch.setattr(SegmentLoss, "forward", forward)
    assert ghost_train(out="small", **{**KEYS, "micro_batch_tokens": budget}) == 0
    told = capfd.readouterr().err.splitlines()
    start = "ghost train: step 1: out of memory; continuing with"
    assert [line.partition(" tokens")[0] for line in told] == [f"{start} {tokens}" for tokens in halved]
    report = read_report(tmp_path / "small")
    assert report["out_of_memory"] == [{"step": 1, "micro_batch_tokens": tokens} for tokens in halved]
    assert report["micro_batch_tokens"] == 38
    assert same(tmp_path / "small", reference)


def test_memory_for_not_even_one_window(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    from training.finetuning.loss import SegmentLoss

    def forward(self: Any, **row: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SegmentLoss, "forward", forward)
    assert ghost_train(**KEYS) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "step 1: the GPU has too little memory for one window of 38 tokens: set gradient_checkpointing" in line
    assert not (tmp_path / "adapter").exists()


def test_a_broken_gpu_is_one_line(
    ghost_train: Ghost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    from training.finetuning.loss import SegmentLoss

    def broken() -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    calling(monkeypatch, SegmentLoss, "forward", 6, broken)
    assert ghost_train(checkpoint_minutes=AT_EACH_STEP, **KEYS) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("ghost train: step 4: CUDA error: unspecified launch failure; ")
    assert "adapter.checkpoint holds step 3 of 6. Continue: ghost train --config " in line


def test_a_loss_that_is_no_number_names_the_last_checkpoint(
    ghost_train: Ghost, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train(learning_rate=1e30, checkpoint_minutes=AT_EACH_STEP) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "step 2: the loss is nan, the gradient norm nan. Lower learning_rate" in line
    assert line.endswith(f"no adapter was written; {tmp_path / 'adapter'}.checkpoint is of step 1")


def test_a_checkpoint_is_neither_overwritten_nor_mistaken(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        calling(patched, loop, "random_state", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert ghost_train(**KEYS) == 128 + signal.SIGTERM
    kept = contents(tmp_path / "adapter.checkpoint")
    capfd.readouterr()
    assert ghost_train(**KEYS) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "adapter.checkpoint holds a training that was interrupted after step 2. Continue: ghost train --" in line
    assert line.endswith(f"--resume; or start over: rm -r {tmp_path / 'adapter.checkpoint'}")
    assert ghost_train("--resume", **{**KEYS, "lora_dropout": 0.2}) == 1
    assert "belongs to another training: lora_dropout was 0.1 and is 0.2. Restore" in capfd.readouterr().err
    assert contents(tmp_path / "adapter.checkpoint") == kept
    # How a step is computed may change on the way.
    assert ghost_train("--resume", **{**KEYS, "micro_batch_tokens": 64, "gradient_checkpointing": True}) == 0
    assert read_report(tmp_path / "adapter")["micro_batch_tokens"] == 64


def test_resuming_without_a_checkpoint_begins(
    ghost_train: Ghost, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """So that the command of a machine that may be taken away and given back can always carry --resume."""
    assert ghost_train("--resume", **KEYS) == 0
    assert "resume    no checkpoint: from the start" in capfd.readouterr().out
    assert same(tmp_path / "adapter", reference)
