"""A small prepared folder and a config that trains on it in a second."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact, cli
from replicate_deployment import ghost_json
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning import hardware

LINES = [
    "B: hey tu fais quoi ce soir\nA: pas grand chose, I was about to cook something</s>",
    "B: did you see the match?\nA: mdr ok\nsee you there <3\nB: on se voit at the café then\nA: c'était dingue 😂</s>",
    "A: hey\nB: ok see you\nA: mdr</s>",
    "B: tu fais quoi\nA: something\n A: not a tag</s>",
]
TEXT = {"labels": {"me": "A:", "other": "B:"}, "recipe": "windows", "stop_sequences": ["\nB:"]}


def write_prepared(folder: Path, train: Sequence[str], val: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    for name, texts in (("train.jsonl", train), ("val.jsonl", val)):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / name).write_text(lines, encoding="utf-8", newline="\n")
    artifact.write(
        folder,
        None,
        text=TEXT,
        data={
            "counts": {},
            "train_sha256": ghost_json.sha256(folder / "train.jsonl"),
            "val_sha256": ghost_json.sha256(folder / "val.jsonl"),
        },
    )
    return folder


@pytest.fixture(autouse=True)
def one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training says that it expects does not depend on what this machine does just now, nor takes its time."""
    monkeypatch.setattr(hardware, "measure_cpu", lambda: 1e11, raising=False)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_prepared(tmp_path / "processed", LINES * 4, LINES[:2])


def quick(recipe: TrainingConfig, **changes: Any) -> str:
    """A config that trains the tiny base in a second; keywords replace keys."""
    keys: dict[str, Any] = {
        "bf16": False,
        "lora_dropout": 0.0,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_epochs": 3,
        "learning_rate": 1e-2,
        "sample_replies": 0,
    }
    return training_config.dump(dataclasses.replace(recipe, **{**keys, **changes}))


@pytest.fixture
def write_config(tmp_path: Path, recipe: TrainingConfig) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(quick(recipe, **changes), encoding="utf-8")
        return path

    return write


WriteConfig = Callable[..., Path]
Ghost = Callable[..., int]


@pytest.fixture
def ghost_train(tiny_base: Path, prepared: Path, write_config: WriteConfig, tmp_path: Path) -> Ghost:
    """Run `ghost train` on the tiny base; keywords replace keys of the config."""

    def run(
        *arguments: str,
        data: Path = prepared,
        base: Path = tiny_base,
        out: str = "adapter",
        overwrite: bool = True,
        **keys: Any,
    ) -> int:
        paths = ["--data", str(data), "--base", str(base), "--out", str(tmp_path / out)]
        flags = ["--overwrite"] if overwrite else []
        return cli.main(["train", "--config", str(write_config(**keys)), *paths, *flags, *arguments])

    return run


@pytest.fixture
def old_adapter(tmp_path: Path) -> Path:
    """An earlier training's adapter, in the place of which the next one is to come."""
    folder = tmp_path / "models" / "adapter"
    folder.mkdir(parents=True)
    (folder / "training_report.json").write_text("the old one", encoding="utf-8")
    artifact.write(folder, None, text=TEXT, training={"steps": 1})
    return folder


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    """Also of empty folders, which hold b""."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
