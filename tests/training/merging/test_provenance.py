"""Adapters that `ghost train` did not write: peft's own, Axolotl's, Unsloth's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import UsageError
from ghost.serving import checks
from ghost.serving.checks import Model
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels
from training.finetuning.base import resolve_base
from training.merging.provenance import adapter_tokenizer, read_facts

Make = Callable[..., Path]


@pytest.fixture
def elsewhere(adapter: Path, tiny_base: Path, tmp_path: Path) -> Make:
    """`elsewhere(*files, **config)`: what peft saves, and `files` of a tokenizer; no ghost.json."""

    def make(*files: str, **config: Any) -> Path:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        for name in ("adapter_model.safetensors", *files):
            shutil.copy(adapter / name, folder)
        document = json.loads((adapter / "adapter_config.json").read_text())
        document |= {"base_model_name_or_path": str(tiny_base), "revision": None} | config
        (folder / "adapter_config.json").write_text(json.dumps(document))
        return folder

    return make


def test_it_merges_as_ours_does(
    elsewhere: Make, merged: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["merge", str(elsewhere()), "--out", str(out)]) == 0
    assert "tiny-base (local), as named, not on record; its original weights" in capsys.readouterr().out
    shard = "model-00001-of-00001.safetensors"
    assert (out / shard).read_bytes() == (merged / shard).read_bytes()
    ghost = ghost_json.read(out)
    ghost_json.verify(ghost)
    assert (ghost.recipe, ghost.labels) == ("windows", Labels())
    assert ghost.stop_sequences == Labels().stop_sequences
    assert ghost.block("base")["weights_sha256"] == resolve_base(str(tiny_base), None).weights_sha256
    assert "training" not in ghost.facts
    assert ghost.block("golden") == ghost_json.read(merged).block("golden")  # the base's tokenizer
    model = Model(out)
    for check in (checks.shards, checks.end_token, checks.template):
        check(model)


def test_what_the_folder_does_not_say_comes_from_flags(elsewhere: Make, tmp_path: Path) -> None:
    flags = ["--recipe", "conversations", "--labels", "Me:", "You:"]
    assert main(["merge", str(elsewhere()), "--out", str(tmp_path / "out"), *flags]) == 0
    ghost = ghost_json.read(tmp_path / "out")
    assert (ghost.recipe, ghost.labels) == ("conversations", Labels("Me:", "You:"))
    assert "Me:" in ghost.block("golden")["prompt"]
    checks.template(Model(tmp_path / "out"))


def test_flags_do_not_overrule_what_is_known(adapter: Path) -> None:
    assert read_facts(adapter, "windows", Labels()).recipe == "windows"
    with pytest.raises(UsageError, match=r"--recipe: .*ghost\.json records another value"):
        read_facts(adapter, "conversations")
    with pytest.raises(UsageError, match=r"--labels: .*ghost\.json records another value"):
        read_facts(adapter, None, Labels("X:", "Y:"))


def test_a_merge_over_the_old_one(elsewhere: Make, tmp_path: Path) -> None:
    folder = elsewhere()
    for _ in range(2):
        assert main(["merge", str(folder), "--out", str(tmp_path / "out")]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["merge", *arguments])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error


def test_bad_flags(elsewhere: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = str(elsewhere()), str(tmp_path / "out")
    code, error = refusal(capsys, folder, "--out", out, "--labels", "A", "B:")
    assert (code, "--labels: label 'A': one word that ends in its only colon" in error) == (2, True)
    code, error = refusal(capsys, folder, "--out", out, "--shard-size", "0")
    assert (code, "--shard-size 0: must be above 0" in error) == (2, True)


def test_a_base_that_cannot_be_found(elsewhere: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = elsewhere(base_model_name_or_path="/somewhere/else/mistral")
    code, error = refusal(capsys, str(folder), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "/somewhere/else/mistral: no such folder" in error
    assert "adapter_config.json names this base; name another with --base PATH_OR_REPO" in error


def test_an_adapter_that_names_no_base(elsewhere: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refusal(capsys, str(elsewhere(base_model_name_or_path="")), "--out", str(tmp_path / "out"))
    assert (code, "names no base; say which: --base PATH_OR_REPO" in error) == (2, True)


def test_a_quantised_base_is_refused(
    elsewhere: Make, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unsloth's adapters name the 4-bit repo that they were trained on."""
    four_bits = tmp_path / "mistral-bnb-4bit"
    shutil.copytree(tiny_base, four_bits)
    config = json.loads((four_bits / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (four_bits / "config.json").write_text(json.dumps(config))
    folder = elsewhere(base_model_name_or_path=str(four_bits))
    code, error = refusal(capsys, str(folder), "--out", str(tmp_path / "out"))
    assert (code, "already quantised (bitsandbytes); name the full-precision base" in error) == (1, True)
    assert main(["merge", str(folder), "--base", str(tiny_base), "--out", str(tmp_path / "out")]) == 0


def test_pickles_are_not_read(elsewhere: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = elsewhere()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    code, error = refusal(capsys, str(folder), "--out", str(tmp_path / "out"))
    assert (code, "adapter_model.bin is a pickle, which can run code and is never read" in error) == (1, True)


def test_a_folder_that_is_no_adapter(tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder, found in ((tmp_path / "empty", "nothing"), (tiny_merged, "chat_template.jinja, ")):
        code, error = refusal(capsys, str(folder), "--out", str(tmp_path / "out"))
        assert (code, f"no adapter here (adapter_config.json is missing; found {found}" in error) == (2, True)


def test_a_pad_token_that_is_the_end_token_is_dropped(
    adapter: Path, elsewhere: Make, tiny_base: Path, tmp_path: Path
) -> None:
    """As Axolotl's examples set it: masked as padding, the end of a reply would never be learnt again."""
    from replicate_deployment.tokenization import load_tokenizer

    folder = elsewhere()
    tokenizer = load_tokenizer(adapter)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"pad_token_id": 2}))
    assert adapter_tokenizer(read_facts(folder), resolve_base(str(base), None)).pad_token is None
    assert main(["merge", str(folder), "--base", str(base), "--out", str(tmp_path / "out")]) == 0
    assert "end 2 and BOS 1" in checks.end_token(Model(tmp_path / "out"))


def test_a_tokenizer_with_more_ids_than_the_model(
    elsewhere: Make, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from replicate_deployment.tokenization import load_tokenizer

    folder = elsewhere()
    tokenizer = load_tokenizer(adapter)
    tokenizer.add_tokens([f"<more-{number}>" for number in range(3)])
    tokenizer.save_pretrained(folder)
    code, error = refusal(capsys, str(folder), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "450 ids in the tokenizer, 447 in the model; save the resized embeddings with the adapter" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]
