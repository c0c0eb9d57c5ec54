"""What does not fit is named, in one error, and nothing is left behind."""

import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import ConversionError
from ghost.serving.export import export
from replicate_deployment import ghost_json
from tests.ghost.serving.export.conftest import Change, edit_config, edit_tokenizer, edit_weights, rewrite


def too_large(tensors: dict[str, Any]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].float()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("inf")


def narrower(tensors: dict[str, Any]) -> None:
    for name in ("gate_proj", "up_proj"):
        for layer in range(2):
            tensors[f"model.layers.{layer}.mlp.{name}.weight"] = tensors[f"model.layers.{layer}.mlp.{name}.weight"][
                :200
            ]
            down = f"model.layers.{layer}.mlp.down_proj.weight"
            tensors[down] = tensors[down][:, :200].contiguous()


def narrow(folder: Path) -> None:
    edit_weights(narrower)(folder)
    edit_config(intermediate_size=200)(folder)


REFUSED: dict[str, tuple[Change, str]] = {
    "architecture": (edit_config(architectures=["GemmaForCausalLM"]), "GemmaForCausalLM; only LlamaForCausalLM, "),
    "activation": (edit_config(hidden_act="gelu"), "hidden_act is 'gelu'; only 'silu'"),
    "rope": (
        edit_config(rope_parameters={"rope_theta": 1e4, "rope_type": "yarn", "factor": 8.0}),
        "rope_type is 'yarn'; only 'default'",
    ),
    "no epsilon": (edit_config(rms_norm_eps=None), "not a model's config"),
    "missing tensor": (edit_weights(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight")), "is missing"),
    "another tensor": (
        edit_weights(lambda tensors: tensors.update(odd=tensors["model.norm.weight"].clone())),
        "no place",
    ),
    "shape": (edit_config(num_key_value_heads=2), r"k_proj.weight: \[16, 64\]; .* \[32, 64\]"),
    "value": (edit_weights(too_large), r"model.layers.1.mlp.up_proj.weight: a value is NaN, infinite"),
    "rows of q8_0": (narrow, "rows of 200 values, but q8_0 needs multiples of 32"),
    "tokenizer": (
        edit_tokenizer(lambda document: document.update(normalizer={"type": "NFC"})),
        "its normalizer is NFC",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_llama_cpp_would_read_otherwise_is_refused(
    change: Change, message: str, merged: Path, tmp_path: Path
) -> None:
    rewrite(merged, change)
    with pytest.raises(ConversionError, match=message):
        export(merged, tmp_path / "gguf", "q8_0")
    assert [*tmp_path.iterdir()] == [merged]


def test_a_golden_prompt_that_would_change_is_refused(merged: Path, tmp_path: Path) -> None:
    rewrite(merged, lambda _: None, lambda ghost: ghost["golden"]["ids"].pop())
    with pytest.raises(ConversionError, match="golden prompt"):
        export(merged, tmp_path / "gguf", "f16")


def test_a_full_disk_is_told_before_it_is_filled(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConversionError, match=r"ghost-f16\.gguf takes 0\.0 GB and the disk has 0\.0 GB free.*--out"):
        export(tiny_merged, tmp_path / "gguf", "f16")
    assert [*tmp_path.iterdir()] == []


def test_a_stop_leaves_the_export_before(tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.merging.weights import Weights

    out = tmp_path / "gguf"
    export(tiny_merged, out, "f16")
    before = (out / "ghost-f16.gguf").read_bytes()

    def cut(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Weights, "rows", cut)
    with pytest.raises(OSError, match="No space"):
        export(tiny_merged, out, "q8_0")
    assert (out / "ghost-f16.gguf").read_bytes() == before
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("tampered", 1, "its SHA-256 is not the one in ghost.json"),
        ("foreign", 2, "holds other files: ghost-q4.gguf"),
        ("inside", 2, "may hold no other weights"),
        ("itself", 2, "holds other files"),
        ("nothing", 1, "no such folder"),
    ],
)
def test_one_line_says_what_to_do(
    name: str, code: int, message: str, merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = {"inside": merged / "gguf", "itself": merged}.get(name, tmp_path / "gguf")
    if name == "tampered":
        with (merged / "tokenizer.json").open("r+") as stream:
            stream.write("[")
    elif name == "foreign":
        out.mkdir()
        (out / "ghost-q4.gguf").touch()
    model = tmp_path / "nothing" if name == "nothing" else merged
    assert main(["export", str(model), "--gguf", "f16", "--out", str(out)]) == code
    err = capsys.readouterr().err
    assert err.startswith("ghost export: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_verb_says_what_it_wrote(tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    out = tmp_path / "gguf"
    assert main(["export", str(tiny_merged), "--gguf", "q8_0", "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == (out / "ghost-q8_0.gguf").stat().st_size
    assert main(["export", str(tiny_merged), "--gguf", "q8_0", "--out", str(out)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "llama-server" in line)
    command = shlex.split(line[line.index("llama-server") :])
    assert command[:4] == ["llama-server", "-m", str(out / "ghost-q8_0.gguf"), "--jinja"]
    # llama-server reads escapes in what follows -r.
    stops = [word.encode().decode("unicode_escape") for flag, word in pairwise(command) if flag == "-r"]
    assert stops == ghost_json.read(out).stop_sequences
    with pytest.raises(SystemExit):
        main(["export", str(tiny_merged), "--gguf", "q9_9"])
