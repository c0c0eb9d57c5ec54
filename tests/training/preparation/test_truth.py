"""Ten thousand invented conversations, from messages to the lines of both files, beside the contract read literally."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ghost.cli import main
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import RECIPES, Recipe
from tests.training.preparation import literal, truth
from tests.training.preparation.truth import compare, write_chats
from training.preparation import dataset
from training.preparation.dataset import training_conversations

MOMENT = pd.Timedelta(milliseconds=1)


@pytest.mark.parametrize("seed", range(20))
def test_the_data_set_is_the_literal_one(tmp_path: Path, seed: int) -> None:
    """20 data sets of 500 conversations; every fourth is made by the second recipe too."""
    written = write_chats(tmp_path, seed, 500)
    tally = compare(tmp_path, written, "windows")
    assert tally.differences == []
    assert tally.conversations >= 500
    assert min(tally.windows, tally.seeds) > 40
    if seed % 4 == 0:
        assert compare(tmp_path, written, "conversations").differences == []


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    folder = tmp_path_factory.mktemp("cleaned")
    return folder, write_chats(folder, 0, 200)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_files_are_the_literal_ones(chats: tuple[Path, dict[str, list[Any]]], tmp_path: Path, recipe: str) -> None:
    folder, written = chats
    config, out = tmp_path / "me.json", tmp_path / "processed"
    config.write_text(json.dumps({"timezone": str(truth.ZONE)}))
    where = ["--cleaned", str(folder), "--out", str(out), "--user-config", str(config)]
    assert main(["prepare", *where, "--me", "Ada", "--recipe", recipe, "--force"]) == 0
    expected = literal.prepare(written, recipe)
    assert (out / "train.jsonl").read_bytes().decode() == "".join(expected.train)
    assert (out / "val.jsonl").read_bytes().decode() == "".join(expected.val)
    assert ghost_json.read(out).recipe == recipe
    report = json.loads((out / "preparation_report.json").read_text(encoding="utf-8"))
    assert report["recipe"] == recipe
    assert report["conversations"]["without_a_line"] == expected.windows.count([]) > 0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("count", [1, 2, 3, 6, 14])
def test_of_few_conversations_the_data_set_is_the_literal_one_too(tmp_path: Path, count: int, recipe: Recipe) -> None:
    """Where the rule of record holds nothing out; the comparison looks for a message on both sides."""
    held_out = set()
    for seed in range(12):
        folder = tmp_path / str(seed)
        written = write_chats(folder, seed, count, a_chat=count if seed % 2 else 1)
        assert compare(folder, written, recipe).differences == []
        held_out.add(bool(literal.prepare(written, recipe).val))
    assert True in held_out


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (dataset, "BURST", dataset.BURST - MOMENT),
        (dataset, "BURST", dataset.BURST + MOMENT),
        (dataset, "SILENCE", dataset.SILENCE - MOMENT),
        (dataset, "SILENCE", dataset.SILENCE + MOMENT),
        (dataset, "SIZES", (6, 8, 10)),
        (dataset, "STRIDE", 2),
        (dataset, "SEED", 0),
        (dataset, "training_conversations", lambda turn_counts: training_conversations(turn_counts) + 1),
        (dataset, "training_conversations", lambda turn_counts: training_conversations(turn_counts) - 1),
    ],
)
def test_the_comparison_sees_what_is_wrong(
    chats: tuple[Path, dict[str, list[Any]]], monkeypatch: pytest.MonkeyPatch, module: object, name: str, wrong: object
) -> None:
    """Every number of the contract, off by the least that can be told."""
    monkeypatch.setattr(module, name, wrong)
    assert compare(*chats, "windows").differences
