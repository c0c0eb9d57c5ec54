"""`ghost check` on a whole model, and on one damaged in each way that it is meant to notice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment import ghost_json
from replicate_deployment.tokenization import Encoding
from scripts import sanity_check, test_model
from scripts.sanity_check import Outcome, Subject
from training import artifact
from training.cli import main


@pytest.fixture(autouse=True)
def two_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never end a reply, so each costs the whole limit."""
    prompts = {name: test_model.PROMPTS[name] for name in ("short", "forged turn")}
    monkeypatch.setattr(sanity_check, "PROMPTS", prompts)


def damaged(merged: Path, folder: Path, damage: Callable[[Path], object]) -> Path:
    """A copy of the model with the damage done, and listed as if it belonged there."""
    shutil.copytree(merged, folder)
    damage(folder)
    facts = ghost_json.read(folder).facts
    artifact.write(folder, facts)
    return folder


def failures(folder: Path) -> dict[str, str]:
    return {outcome.name: outcome.detail for outcome in sanity_check.inspect(Subject(folder)) if not outcome.ok}


def edit_json(name: str, **changes: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(document))

    return edit


def edit_weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model-00001-of-00001.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return edit


def to_float32(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()


def other_head(tensors: dict[str, Any]) -> None:
    tensors["lm_head.weight"] *= 3


def no_newline_piece(folder: Path) -> None:
    """As in a tokenizer without byte fallback for it: the newline becomes <unk>."""
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<0x0A>", "<nl>"), encoding="utf-8")


def test_a_merged_model_passes_every_check(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(merged), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert [check["name"] for check in document["checks"]] == [*sanity_check.CHECKS]
    details = {check["name"]: check["detail"] for check in document["checks"]}
    assert details["dtype"] == "21 tensors, all F16"
    assert details["endings"].startswith("greedy: ")


DAMAGES = {
    "one F32 tensor": (edit_weights(to_float32), "dtype", r"1 of 21 tensors are not F16, first model\.norm\.weight"),
    "other weights": (edit_weights(other_head), "golden prompt", "not the weights of the merge"),
    "end token of config": (edit_json("config.json", eos_token_id=7), "special tokens", "config.json says 7"),
    "end token of generate": (
        edit_json("generation_config.json", eos_token_id=None),
        "special tokens",
        "eos_token_id differs: .*generation_config.json says None",
    ),
    "pad is end": (
        edit_json("tokenizer_config.json", pad_token="</s>"),
        "special tokens",
        "pad token is the end token",
    ),
    "newline": (no_newline_piece, "newline", "not the one token"),
}


@pytest.mark.parametrize(("damage", "check", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_by_its_check(damage: Any, check: str, message: str, merged: Path, tmp_path: Path) -> None:
    import re

    found = failures(damaged(merged, tmp_path / "model", damage))
    assert check in found
    assert re.search(message, found[check])


def test_a_changed_file_fails_before_anything_is_loaded(merged: Path, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    [outcome] = sanity_check.inspect(Subject(tmp_path / "model"))
    assert (outcome.name, outcome.ok) == ("files", False)
    assert "tokenizer.json" in outcome.detail


def test_a_failure_sets_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().out.startswith("FAIL  files")


def test_logits_must_be_finite(merged: Path) -> None:
    import torch

    subject = Subject(merged)
    with torch.no_grad():
        subject.engine.model.lm_head.weight[5] = float("nan")
    [outcome] = [outcome for outcome in sanity_check.inspect(subject) if outcome.name == "logits"]
    assert not outcome.ok
    assert outcome.detail == "prompt 'short': NaN or infinite logits"


def test_the_prompt_must_be_a_prefix(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a tokenizer whose last token before the reply depends on what follows it."""
    honest = sanity_check.encode
    monkeypatch.setattr(sanity_check, "encode", lambda *parts: Encoding(honest(*parts).ids[::-1], []))
    [outcome] = [outcome for outcome in sanity_check.inspect(Subject(merged)) if outcome.name == "prompt prefix"]
    assert not outcome.ok
    assert "'short'" in outcome.detail


def test_a_reply_that_goes_on_fails_the_endings(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sanity_check.answer
    monkeypatch.setattr(sanity_check, "answer", lambda *parts: replace(honest(*parts), leaked=True))
    *_, last = sanity_check.inspect(Subject(merged))
    assert last == Outcome("endings", False, "2 of 2 greedy replies go on past a stop sequence")
