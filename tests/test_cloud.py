"""config/cloud.sky.yaml: read by SkyPilot itself, and its commands run on this machine, in the place of a cloud's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ghost import cli
from tests.schemas import ROOT, ask, needs
from tests.training.finetuning.conftest import LINES, write_prepared
from training import config as training_config

CLOUD = ROOT / "config" / "cloud.sky.yaml"
CHATS = {f"data/processed/{name}" for name in ("train.jsonl", "val.jsonl", "ghost.json")}

LOAD = """
import json, sys
import sky, yaml
from sky.catalog import get_common_gpus
from sky.data import storage_utils
document = yaml.safe_load(open(sys.argv[1], encoding="utf-8"))
task = sky.Task.from_yaml_config(document, env_overrides=[("BUCKET", "ghost-test")])
task.expand_and_validate_file_mounts()  # all of task.validate() but the look at today's catalogue, online
(bucket,) = task.storage_mounts.values()
print(json.dumps({
    "gpus": [sorted(name for resources in task.resources for name in resources.accelerators), get_common_gpus()],
    "spot": all(resources.use_spot for resources in task.resources),
    "recovery": [resources.job_recovery for resources in task.resources],
    "files": task.file_mounts,
    "bucket": [list(task.storage_mounts), bucket.name, bucket.mode.value, bucket.persistent, bucket.source],
    "left out": storage_utils.get_excluded_files("replicate_deployment"),
}))
"""


@pytest.fixture
def document() -> dict[str, Any]:
    return dict(yaml.safe_load(CLOUD.read_text(encoding="utf-8")))


def test_of_the_chats_only_what_prepare_wrote_leaves_the_machine(document: dict[str, Any]) -> None:
    mounts = {target: source for target, source in document["file_mounts"].items() if isinstance(source, str)}
    assert "workdir" not in document
    assert {source for source in mounts.values() if source.startswith("data")} == CHATS
    for target, source in mounts.items():
        assert target == f"~/ghost/{source}"
    # A folder travels whole, but for what git ignores: none may hold, or be, one that chats or weights are put in.
    assert {source for source in mounts.values() if (ROOT / source).is_dir()} == {
        "ghost",
        "training",
        "scripts",
        "replicate_deployment",
    }


@needs("sky")
def test_skypilots_own_loader_reads_it(tmp_path: Path, document: dict[str, Any]) -> None:
    clone = tmp_path / "clone"
    for source in document["file_mounts"].values():
        if isinstance(source, str):
            path = clone / source
            (path if (ROOT / source).is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.touch()
    shutil.copy(ROOT / ".gitignore", clone)
    weights = clone / "replicate_deployment" / "weights" / "model.safetensors"
    weights.parent.mkdir()
    weights.touch()
    (weights.parents[1] / "engine.py").touch()
    subprocess.run(["git", "init", "--quiet", str(clone)], check=True)

    done = ask(LOAD, str(CLOUD), home=tmp_path, cwd=clone)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    gpus, known = found["gpus"]
    assert gpus == sorted(document["resources"]["accelerators"])
    assert set(gpus) <= set(known)
    assert found["spot"]
    assert {tuple(recovery["recover_on_exit_codes"]) for recovery in found["recovery"]} == {(128 + signal.SIGTERM,)}
    assert found["bucket"] == [["~/bucket"], "ghost-test", "MOUNT", True, None]
    assert set(found["files"].values()) == {
        str(clone / source) for source in document["file_mounts"].values() if isinstance(source, str)
    }
    assert "weights/" in found["left out"]


@pytest.fixture
def machine(tmp_path: Path, tiny_base: Path, document: dict[str, Any]) -> Path:
    """A home as SkyPilot leaves it before `run`: what is mounted, and an empty bucket."""
    home = tmp_path / "home"
    ghost = home / "ghost"
    prepared = write_prepared(tmp_path / "prepared", LINES * 4, [])
    for target, source in document["file_mounts"].items():
        if isinstance(source, str) and not (ROOT / source).is_dir():
            path = home / target.removeprefix("~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(prepared / path.name if source in CHATS else ROOT / source, path)
    path = ghost / "config" / "training_config.yaml"
    quick = {"bf16": False, "base_model": str(tiny_base), "revision_of_model": None}
    quick |= {"gradient_accumulation_steps": 8, "num_epochs": 3}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | quick), encoding="utf-8")
    training_config.load(path)
    (home / "bucket").mkdir()
    return home


def start(home: Path, commands: str) -> subprocess.Popen[str]:
    """The commands in a session of their own: what a cloud stops is the whole machine."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        ["bash", "-c", commands],
        env={**os.environ, "HOME": str(home), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def begin(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a training on that machine's data, stopped in the fourth of six steps."""
    from training.finetuning.loss import SegmentLoss

    honest, calls = SegmentLoss.forward, list[int]()

    def forward(self: SegmentLoss, **row: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, **row)

    config, data = home / "ghost" / "config" / "training_config.yaml", home / "ghost" / "data" / "processed"
    with monkeypatch.context() as patched:
        patched.setattr(SegmentLoss, "forward", forward)
        arguments = ["train", "--config", str(config), "--data", str(data), "--out", str(folder / "adapter")]
        assert cli.main(arguments) == 128 + signal.SIGTERM
    return folder / "adapter.checkpoint"


# Trains until it is told to stop, as far as its machine can see.
STAND_IN = """#!/bin/bash
cp -r {checkpoint} models/adapter.checkpoint
trap 'exit 143' TERM
while true; do sleep 0.1; done
"""


def newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns > other.stat().st_mtime_ns


@pytest.fixture
def taken_away(
    machine: Path, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    """A machine that was taken away while it trained, and its commands."""
    assert "sleep 60" in document["run"]
    commands = document["run"].replace("sleep 60", "sleep 0.1")
    bucket, ghost = machine / "bucket", machine / "ghost"
    stand_in = ghost / ".venv" / "bin" / "ghost"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(STAND_IN.format(checkpoint=begin(machine, tmp_path, monkeypatch)), encoding="utf-8")
    stand_in.chmod(0o700)

    kept, checkpoint = ghost / "kept", ghost / "models" / "adapter.checkpoint" / "checkpoint.json"
    with start(machine, commands) as first:
        while not (list(bucket.glob("*.tar")) and newer(kept, checkpoint)):  # copied while it trains
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.05)
        os.utime(kept, (0, 0))  # as if a newer checkpoint were there, which is copied when the machine is taken away
        os.killpg(first.pid, signal.SIGTERM)
        said, _ = first.communicate()
    assert first.returncode == 128 + signal.SIGTERM, said
    return machine, commands


def test_each_checkpoint_is_copied_and_the_last_one_too(taken_away: tuple[Path, str]) -> None:
    home, _ = taken_away
    assert newer(home / "ghost" / "kept", home / "ghost" / "models" / "adapter.checkpoint" / "checkpoint.json")
    assert 1 <= len(list((home / "bucket").glob("*.tar"))) <= 2


@pytest.mark.exhaustive
def test_what_one_machine_began_the_next_one_finishes(taken_away: tuple[Path, str]) -> None:
    """On the second it is the verb itself, in a process that imports torch and peft: ten seconds."""
    home, commands = taken_away
    bucket, ghost = home / "bucket", home / "ghost"
    shutil.rmtree(ghost / "models")
    for left in ("kept", "copy.tar", ".venv/bin/ghost"):
        (ghost / left).unlink()
    (bucket / "9999999999.tar").write_bytes(b"cut off")  # newer than all, and no use
    with start(home, commands) as second:
        said, _ = second.communicate()
    assert second.returncode == 0, said
    report = json.loads((bucket / "adapter" / "training_report.json").read_text(encoding="utf-8"))
    assert (report["resumed_at"], report["steps"]) == ([4], 6)
    assert [path.name for path in bucket.iterdir()] == ["adapter"]
