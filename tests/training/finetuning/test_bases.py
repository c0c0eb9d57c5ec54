"""The bases that have a name: their facts, and what the verbs make of the name."""

import json
from datetime import date
from pathlib import Path

import pytest

from ghost import cli
from ghost.errors import BaseModelError
from training import config as training_config
from training.config import KnownBase, TrainingConfig, base_named, load_bases
from training.finetuning import bases, hardware
from training.finetuning.base import read_shapes, shapes_of
from training.finetuning.hardware import Device
from training.finetuning.train import with_arguments

BASES = load_bases()


@pytest.mark.parametrize(("name", "base"), BASES.items())
def test_the_shapes_give_the_parameters_that_the_card_states(name: str, base: KnownBase) -> None:
    shapes = shapes_of(*base_named(name))
    assert shapes == read_shapes(base.config, name)
    assert shapes.parameters / 1e9 == pytest.approx(base.billions, rel=0.03)
    assert base.config["architectures"]
    assert base.read >= date(2026, 11, 1)
    assert base.revision is None or len(base.revision) == 40


def test_the_default_has_a_name(recipe: TrainingConfig) -> None:
    assert base_named("mistral-7b") == (recipe.base_model, recipe.revision_of_model)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("qwen3-4b").mkdir()
    assert base_named("qwen3-4b") == ("qwen3-4b", None)
    assert base_named("someone/else") == ("someone/else", None)


def test_a_name_takes_its_repo_and_revision(recipe: TrainingConfig) -> None:
    taken = with_arguments(recipe, None, "smollm2-135m", None)
    assert (taken.base_model, taken.revision_of_model) == ("HuggingFaceTB/SmolLM2-135M", None)
    back = with_arguments(taken, None, "mistral-7b", None)
    assert (back.base_model, back.revision_of_model) == (recipe.base_model, recipe.revision_of_model)


def test_an_unknown_name_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseModelError, match=r"not in bases\.yaml; did you mean qwen3-4b\?"):
        base_named("qwen-4b")
    assert cli.main(["estimate", "--base", "mistral"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "mistral-7b" in told[0]


def test_the_table_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "_device", lambda: Device("NVIDIA X", 10 * 10**9, True, None))
    assert cli.main(["bases", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["bases"]
    assert found.keys() == BASES.keys()
    for base in found.values():
        assert base["memory"]["bits4"] < base["memory"]["fp16"]
        assert base["fits"] == {need: size <= 10**10 for need, size in base["memory"].items()}
        assert 0 < base["dollars_per_million_tokens"][0] < base["dollars_per_million_tokens"][1] < 1
    assert found["mistral-7b"]["fits"] == {"train": True, "fp16": False, "bits4": True}
    assert not any(found["mistral-nemo-12b"]["fits"][need] for need in ("train", "fp16"))
    # By hand: 7,248,023,552 weights of two bytes; for 1,024 tokens, keys and values of 32 layers, 1,024 wide each.
    assert found["mistral-7b"]["memory"]["fp16"] == 2 * 7_248_023_552 + 1024 * 32 * 2 * 1024 * 2


def test_the_table_names_every_base_and_what_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "_device", lambda: Device("CPU", 3 * 10**9, False, None))
    assert cli.main(["bases"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(BASES)]}
    assert rows.keys() == BASES.keys()
    assert rows["mistral-7b"].startswith("mistral-7b *")
    assert rows["mistral-7b"].endswith("  no")
    assert rows["qwen3-4b"].endswith("  serve in 4 bits")
    assert rows["smollm2-135m"].endswith("  train, serve, serve in 4 bits")


def test_what_training_needs_is_what_training_refuses_by(recipe: TrainingConfig) -> None:
    shapes = shapes_of(recipe.base_model)
    least = bases.needs(shapes, recipe, hardware.load_prices()).train
    found = hardware.resolve_budget(shapes, recipe, least + 10**6, longest=recipe.sequence_len)
    assert (found.tokens, found.checkpointing) == (recipe.sequence_len, True)
    with pytest.raises(Exception, match="does not fit"):
        hardware.resolve_budget(shapes, recipe, least - 10**7, longest=recipe.sequence_len)


def test_a_wrong_key_is_named_with_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    shipped = (Path(__file__).parents[3] / "config" / "bases.yaml").read_text(encoding="utf-8")
    Path("config/bases.yaml").write_text(shipped.replace("licence", "license").replace("tried: all", "tested: all"))
    with pytest.raises(training_config.ConfigError, match=r"unknown key bases\.smollm2-135m\.tested"):
        load_bases()
