"""A small prepared folder and a config that trains on it in a second."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from replicate_deployment import ghost_json
from training import artifact
from training.finetuning import config as training_config
from training.finetuning.config import TrainingConfig

RECIPE_OF_RECORD = Path(__file__).parents[3] / "config" / "training_config.yaml"
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


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_prepared(tmp_path / "processed", LINES * 4, LINES[:2])


@pytest.fixture(scope="session")
def recipe() -> TrainingConfig:
    return training_config.load(RECIPE_OF_RECORD)


@pytest.fixture
def write_config(tmp_path: Path, recipe: TrainingConfig) -> Callable[..., Path]:
    """Write a config that trains the tiny base in a second; keywords replace keys."""

    def write(**changes: object) -> Path:
        quick: dict[str, object] = {
            "bf16": False,
            "lora_dropout": 0.0,
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_epochs": 3,
            "learning_rate": 1e-2,
        }
        path = tmp_path / "config.yaml"
        path.write_text(training_config.dump(dataclasses.replace(recipe, **{**quick, **changes})), encoding="utf-8")  # type: ignore[arg-type]
        return path

    return write
