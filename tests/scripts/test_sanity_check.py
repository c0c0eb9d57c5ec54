"""`ghost check` on a whole model, and on one damaged in each way that it is meant to notice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ghost import artifact
from ghost.cli import main
from ghost.evaluation import trained_checks
from ghost.evaluation.trained_checks import Trained
from ghost.serving import checks
from ghost.serving.checks import Result
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import encode_prompt
from scripts import sanity_check, test_model
from tests.training.merging.forms import merge
from training.merging import proof


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
    return {result.check: result.found for result in sanity_check.inspect(Trained(folder)) if result.status != "ok"}


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
    assert [check["check"] for check in document["checks"]] == [*sanity_check.CHECKS]
    details = {check["check"]: check["found"] for check in document["checks"]}
    assert details["shards"].startswith("1 with 21 F16 tensors")
    assert details["endings"].startswith("greedy: ")
    assert details["values"] == "21 tensors, every value finite, no matrix of zeros"
    skipped = {check["check"] for check in document["checks"] if check["status"] == "skipped"}
    assert skipped == {"held-out loss", "adapter", "parity"}  # nothing of it lies beside the model


def one_nan(tensors: dict[str, Any]) -> None:
    """In a row of the embedding that no prompt reaches."""
    tensors["model.embed_tokens.weight"][-1, 3] = float("nan")


def all_zero(tensors: dict[str, Any]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] *= 0


DAMAGES = {
    "a NaN": (edit_weights(one_nan), "values", "model.embed_tokens.weight: NaN or infinite values"),
    "a matrix of zeros": (edit_weights(all_zero), "values", r"layers\.1\.mlp\.up_proj\.weight: every value is 0"),
    "one F32 tensor": (edit_weights(to_float32), "shards", r"1 of 21 tensors are not F16, first model\.norm\.weight"),
    "other weights": (edit_weights(other_head), "golden prompt", "not the weights of the merge"),
    "end token of config": (edit_json("config.json", eos_token_id=7), "end token", "config.json says 7"),
    "end token of generate": (
        edit_json("generation_config.json", eos_token_id=None),
        "end token",
        "eos_token_id differs or is missing: .*generation_config.json says None",
    ),
    "pad is end": (
        edit_json("tokenizer_config.json", pad_token="</s>"),
        "end token",
        "pad token is the end token",
    ),
    "newline": (no_newline_piece, "tokenizer", "cannot spell every text"),
}


@pytest.mark.parametrize(("damage", "check", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_by_its_check(damage: Any, check: str, message: str, merged: Path, tmp_path: Path) -> None:
    import re

    found = failures(damaged(merged, tmp_path / "model", damage))
    assert check in found
    assert re.search(message, found[check])


def test_what_preflight_looks_at_is_looked_at_here() -> None:
    shared = {name for name, check in sanity_check.CHECKS.items() if checks.CHECKS.get(name) == check}
    assert set(checks.CHECKS) - shared == {"ghost.json and hashes"}  # the same, behind a progress bar
    assert "ghost.json and hashes" in sanity_check.CHECKS


def test_a_changed_file_fails_before_anything_is_loaded(merged: Path, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    [result] = sanity_check.inspect(Trained(tmp_path / "model"))
    assert (result.check, result.status) == ("ghost.json and hashes", "failed")
    assert "tokenizer.json" in result.found


def test_a_failure_sets_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().out.startswith("failed  ghost.json and hashes")


def test_logits_must_be_finite(merged: Path) -> None:
    import torch

    model = Trained(merged)
    with torch.no_grad():
        model.engine.model.lm_head.weight[5] = float("nan")
    *_, last = sanity_check.inspect(model)
    assert last == Result("logits", "failed", "prompt 'short': NaN or infinite logits")


def test_the_loaded_tokenizer_must_end_where_the_model_does(merged: Path) -> None:
    """As when a file that only transformers reads names another end token."""
    model = Trained(merged)
    model.engine.tokenizer.eos_token = "<s>"
    *_, last = sanity_check.inspect(model)
    assert last == Result(
        "golden prompt", "failed", "once loaded, the tokenizer's end token is 1 and the model's 2", "ghost merge"
    )


def test_the_prompt_must_be_a_prefix(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a tokenizer whose last token before the reply depends on what follows it."""
    monkeypatch.setattr(sanity_check, "encode_prompt", lambda *parts: encode_prompt(*parts)[::-1])
    [result] = [result for result in sanity_check.inspect(Trained(merged)) if result.check == "prompt prefix"]
    assert result.status == "failed"
    assert "'short'" in result.found


@pytest.mark.parametrize(("recipe", "ends"), [("windows", 0), ("conversations", 1)])
def test_prompts_are_those_of_the_recipe(recipe: str, ends: int, merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `conversations` an end token is behind each earlier turn of the person: without it no prompt is served."""
    import torch

    asked: list[list[int]] = []

    def scores(input_ids: Any, use_cache: bool) -> Any:
        asked.append(input_ids[0].tolist())
        return SimpleNamespace(logits=torch.zeros(1))

    model = Trained(merged)
    tokenizer, labels = model.tokenizer, model.ghost.labels
    weights = type("Model", (), {"device": "cpu", "__call__": staticmethod(scores)})()
    engine = SimpleNamespace(tokenizer=tokenizer, labels=labels, recipe=recipe, model=weights)
    described: Any = SimpleNamespace(
        engine=engine, tokenizer=tokenizer, ghost=SimpleNamespace(labels=labels, recipe=recipe)
    )
    monkeypatch.setattr(sanity_check, "PROMPTS", {"three turns": ["salut", "yo", "ça va ?"]})
    sanity_check.prefix(described)
    sanity_check.logits(described)
    assert [ids.count(tokenizer.eos_token_id) for ids in asked] == [ends]


def test_a_reply_that_goes_on_fails_the_endings(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanity_check, "answer", lambda *parts: replace(test_model.answer(*parts), written="else"))
    *_, last = sanity_check.inspect(Trained(merged))
    assert last == Result("endings", "failed", "2 of 2 greedy replies: not one turn")


def checked(model: Trained, check: str) -> Result:
    return next(result for result in sanity_check.inspect(model) if result.check == check)


def only(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    monkeypatch.setattr(sanity_check, "CHECKS", {name: sanity_check.CHECKS[name] for name in checks})


def test_adapter_and_merge_are_held_beside_each_other(
    merged: Path, adapter: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "adapter", "parity")
    one, two = sanity_check.inspect(Trained(merged, adapter, str(tiny_base)))
    assert (one.status, one.found) == ("ok", "28 tensors, every value finite")
    assert two.status == "ok"
    assert two.found.startswith("mean |Δlogp| ")


def test_a_merge_that_is_not_base_and_adapter_fails(
    merged: Path, adapter: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "ALLOWED", 0.01)
    found = checked(Trained(merged, adapter, str(tiny_base)), "parity")
    assert found.status == "failed"
    assert "not base + adapter: mean |Δlogp|" in found.found
    assert "allowed, 0.01 times the rounding" in found.found


def test_an_adapter_that_learnt_nothing_fails(
    make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(tensors: dict[str, Any]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name] *= 0

    folder = make_adapter(untrained)
    merge(folder, tiny_base, tmp_path / "merged")  # as earlier versions did; `ghost merge` refuses
    only(monkeypatch, "adapter")
    found = checked(Trained(tmp_path / "merged", folder), "adapter")
    assert found == Result(
        "adapter", "failed", f"all 14 B matrices of {folder} are 0: this model is its base, untrained", "ghost train"
    )


def test_one_dead_matrix_is_a_figure_and_a_nan_a_failure(
    make_adapter: Callable[..., Path], tmp_path: Path, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(value: float) -> Callable[[dict[str, Any]], None]:
        def edit(tensors: dict[str, Any]) -> None:
            tensors["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"][:] = value

        return edit

    only(monkeypatch, "adapter")
    for value, status, said in ((0.0, "ok", "1 of 14 B matrices are 0"), (float("nan"), "failed", "NaN or infinite")):
        folder = make_adapter(spoil(value))
        model = Trained(merged, folder)
        model.ghost.block("merge")["adapter_sha256"] = ghost_json.sha256(folder / "adapter_model.safetensors")
        found = checked(model, "adapter")
        assert (found.status, said in found.found) == (status, True)


def test_another_adapter_than_was_merged_fails(merged: Path, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter(lambda tensors: tensors["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"].mul_(2))
    found = checked(Trained(merged, folder), "adapter")
    assert (found.status, found.found) == ("failed", f"{folder} is not the adapter that was merged")


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (3.5, 2.5, "ok"),
        (3.5, 3.5, "failed"),
        (3.5, 4.0, "failed"),
        (3.5, float("nan"), "failed"),
        (None, 2.5, "skipped"),
    ],
)
def test_the_loss_on_record_must_have_fallen(
    before: float | None, after: float, status: str, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "held-out loss")
    model = Trained(merged)
    measured = {"before": None if before is None else {"reply_loss": before}, "after": {"reply_loss": after}}
    model.ghost.facts["training"] = {"heldout": measured}
    [found] = sanity_check.inspect(model)
    assert found.status == status
    if status != "skipped":
        assert found.found.startswith(f"{before:.3f} before training, {after:.3f} after")


def test_what_cannot_be_looked_at_is_skipped_with_the_reason(merged: Path, adapter: Path, tmp_path: Path) -> None:
    lonely = Trained(merged)
    with pytest.raises(checks.Skipped, match="--adapter FOLDER names one"):
        trained_checks.adapter(lonely)
    with pytest.raises(checks.Skipped, match="say where it is: --base PATH"):
        trained_checks.same(Trained(merged, adapter))
