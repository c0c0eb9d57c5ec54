"""What several processes train is what one process trains."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost import cli
from ghost.errors import TrainingError
from replicate_deployment.tokenization import load_tokenizer
from tests import forks
from tests.models import SENTENCES
from tests.training.conftest import RECIPE_OF_RECORD
from tests.training.finetuning import several
from tests.training.finetuning.conftest import LINES, quick, weights, write_prepared
from tests.training.finetuning.several import Run
from training.config import TrainingConfig
from training.finetuning.packing import Segment
from training.finetuning.processes import Alone, dummy_segment, joined, share
from training.finetuning.train import REPORT

ACCELERATE = RECIPE_OF_RECORD.parent / "accelerate"
# Eight steps of about 190 tokens, so each of two or three processes has two or three micro-batches.
KEYS: dict[str, Any] = {"num_epochs": 2, "micro_batch_tokens": 48, "checkpoint_minutes": 1e-9}
WINDOWS = [*LINES, *LINES[:2], *(f"B: {one}\nA: {other}</s>" for one, other in permutations(SENTENCES, 2))]


Outcomes = list[list[int | str]]  # by rank: exit code, what it said

BLOWS: dict[str, tuple[int, int, str]] = {  # rank, forward pass, what
    "killed": (1, 5, "killed"),
    "leaderless": (0, 5, "killed"),
    "stopped": (1, 5, "stopped"),
    "failed": (1, 5, "failure"),
    "memory": (1, 5, "memory"),
    "memory of the first": (0, 5, "memory"),
}
GO_ON = r"\S+\.checkpoint holds step [23] of 8\. Continue: accelerate launch … -m ghost\.cli train .* --resume\n$"


class Trainings:
    """Folders of adapters beside each other, trained with the same config on the same data."""

    def __init__(self, folder: Path, base: Path, recipe: TrainingConfig) -> None:
        self.folder, self.base = folder, base
        self._outcomes: dict[str, Outcomes] = {}
        write_prepared(folder / "processed", WINDOWS, WINDOWS[:5])
        (folder / "config.yaml").write_text(quick(recipe, **KEYS), encoding="utf-8")

    def arguments(self, name: str, *more: str) -> list[str]:
        paths = {"config": "config.yaml", "data": "processed", "out": name}
        flags = [word for flag, path in paths.items() for word in (f"--{flag}", str(self.folder / path))]
        return ["train", *flags, "--base", str(self.base), *more]

    def alone(self, name: str, *more: str) -> int:
        return cli.main(self.arguments(name, *more))

    def together(self, name: str) -> Outcomes:
        """Of two processes that something befalls, where the name says so, else of three. Once for all tests."""
        if name not in self._outcomes:
            run: Run = {"arguments": self.arguments(name), "count": 3}
            if name in BLOWS:
                run |= {"count": 2, "blow": BLOWS[name]}
            elif name == "sharing":
                run |= {"count": 2, "fsdp": True, "blow": (1, 5, "memory")}
            elif name == "resumed":
                self.together("killed")
                run["arguments"] = self.arguments("killed", "--resume")
            result = self.folder / f"{name}.json"
            assert forks.run(several.main, run, result) == 0
            self._outcomes[name] = json.loads(result.read_text(encoding="utf-8"))
        return self._outcomes[name]

    def report(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / name / REPORT).read_text(encoding="utf-8")))

    def assert_same(self, name: str, other: str) -> None:
        """Curves and adapters: a sum in another order differs in the seventh digit of float32, six steps amplify it."""
        ours, theirs = self.report(name), self.report(other)
        for key in ("steps", "kept_step", "tokens", "windows"):
            assert ours[key] == theirs[key]
        for entry, expected in zip(ours["log"], theirs["log"], strict=True):
            assert entry == pytest.approx(expected, rel=2e-5)
        for entry, expected in zip(ours["evaluations"], theirs["evaluations"], strict=True):
            assert entry == pytest.approx(expected, rel=2e-5)
        one, another = weights(self.folder / name), weights(self.folder / other)
        assert one.keys() == another.keys()
        assert any(tensor.any() for tensor in one.values())
        for key, tensor in one.items():
            assert tensor.allclose(another[key], rtol=0, atol=2e-5), key


@pytest.fixture(scope="module")
def trainings(tiny_base: Path, recipe: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """With one that a single process made, and is called `alone`."""
    found = Trainings(tmp_path_factory.mktemp("trainings"), tiny_base, recipe)
    assert found.alone("alone") == 0
    return found


@pytest.mark.exhaustive
def test_three_processes_train_what_one_trains(trainings: Trainings) -> None:
    (code, said), *others = trainings.together("three")
    assert code == 0, said
    assert "ghost merge" in said
    assert others == [[0, ""], [0, ""]]  # the first one speaks for all
    trainings.assert_same("three", "alone")


@pytest.mark.parametrize(
    ("name", "codes", "why"),
    [
        ("killed", [1, -9], "step 3: another process of this training is gone"),
        pytest.param("stopped", [143, 1], "stopped", marks=pytest.mark.exhaustive),
        pytest.param(
            "failed", [1, 99], "step 3: process 1 of 2 failed: an illegal instruction", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_the_first_process_keeps_what_was_learnt(trainings: Trainings, name: str, codes: list[int], why: str) -> None:
    first, second = trainings.together(name)
    assert [first[0], second[0]] == codes
    assert re.search(rf"(^|\n)ghost train: {re.escape(why)}; {GO_ON}", str(first[1])), first[1]
    # What is no error of a person's is said in full by whom it befell, and only there.
    assert second[1] == ("RuntimeError('an illegal instruction\\nof many lines')\n" if name == "failed" else "")


@pytest.mark.exhaustive
def test_without_the_first_process_the_others_end(trainings: Trainings) -> None:
    assert [code for code, _ in trainings.together("leaderless")] == [-9, 1]


def test_a_checkpoint_of_two_processes_goes_on_with_three(trainings: Trainings) -> None:
    (code, said), *others = trainings.together("resumed")
    assert code == 0, said
    assert others == [[0, ""], [0, ""]]  # the first one speaks for all
    assert trainings.report("killed")["resumed_at"] in ([2], [3])  # in the third step
    trainings.assert_same("killed", "alone")


@pytest.mark.exhaustive
def test_a_checkpoint_of_two_processes_goes_on_with_one(trainings: Trainings) -> None:
    trainings.together("stopped")
    assert trainings.alone("stopped", "--resume") == 0
    assert trainings.report("stopped")["resumed_at"] in ([2], [3])  # a stop lets the first end what it waits for
    trainings.assert_same("stopped", "alone")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["memory", "memory of the first"])
def test_memory_that_runs_out_in_one_halves_the_budget_of_all(trainings: Trainings, name: str) -> None:
    outcomes = trainings.together(name)
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    (halved,) = trainings.report(name)["out_of_memory"]
    assert halved["step"] == 3
    trainings.assert_same(name, "alone")


@pytest.mark.exhaustive
def test_where_weights_are_divided_nobody_waits_for_who_lacks_memory(trainings: Trainings) -> None:
    first, second = trainings.together("sharing")
    assert first[0] == 99  # on a CPU PyTorch notices; GPUs wait until the launcher ends them
    assert second == [1, ANY]
    assert re.search(r"ghost train: process 1 ran out of memory.*--resume\n$", str(second[1])), second[1]


@pytest.mark.parametrize(("name", "fsdp"), [("ddp", None), ("fsdp", "true")])
def test_accelerate_reads_its_configs(name: str, fsdp: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    line = ["--config_file", str(ACCELERATE / f"{name}.yaml"), "--num_processes", "2", "-m", "ghost.cli", "train"]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["accelerate", *line])  # it looks there for what was given
        args, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(line))
    assert args.use_fsdp if fsdp else args.multi_gpu
    assert (args.module, args.training_script, args.training_script_args) == (True, "ghost.cli", ["train"])
    environment = prepare_multi_gpu_env(args)
    assert args.nproc_per_node == "2"
    assert environment.get("ACCELERATE_USE_FSDP") == fsdp


@pytest.mark.exhaustive
def test_accelerate_launches_it(trainings: Trainings) -> None:
    """As the README has it, with the base's weights divided. Twenty seconds: torch is imported three times."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / "fsdp.yaml")]
    launch += ["--num_processes", "2", "--main_process_port", "0", "-m", "ghost.cli"]
    done = subprocess.run([*launch, *trainings.arguments("launched")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ghost merge") == 1
    trainings.assert_same("launched", "alone")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3", **launcher}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=r"3 processes for 2 GPUs.*--num_processes 2"), joined():
        pass


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some clusters set for programs of another kind
    with joined() as processes:
        assert isinstance(processes, Alone)
        assert processes.count == 1


def segments_of(lengths: Sequence[int]) -> list[Segment]:
    def one(length: int) -> Segment:
        ids = np.arange(length, dtype=np.int32)
        return Segment(ids, ids[:1], ids[:1], np.ones(1, dtype=np.float32), 1)

    return [one(length) for length in lengths]


@given(st.lists(st.integers(1, 100), max_size=20), st.integers(1, 5))
def test_shares_are_even_and_whole(lengths: list[int], count: int) -> None:
    segments = segments_of(lengths)
    parts = share(segments, count)
    assert len(parts) == count
    assert sorted(map(id, segments)) == sorted(id(segment) for part in parts for segment in part)
    loads = [sum(len(segment.ids) for segment in part) for part in parts]
    assert max(loads) - min(loads) <= max(lengths, default=0)
    assert parts == share(segments, count)


def test_what_is_weightless_has_no_gradient(tiny_base: Path, recipe: TrainingConfig) -> None:
    import torch

    from training.finetuning import packing
    from training.finetuning.base import resolve_base
    from training.finetuning.loss import SegmentLoss

    config = dataclasses.replace(recipe, bf16=False, lora_dropout=0.0)
    model = Alone().model(resolve_base(str(tiny_base), None), config, load_tokenizer(tiny_base))
    segment = dummy_segment(segments_of([9, 5, 7]))
    assert len(segment.ids) == 5
    assert packing.forward_backward(SegmentLoss(model), [segment], 8.0, bf16=False).item() == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert gradients
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)
