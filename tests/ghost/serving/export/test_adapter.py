"""An adapter and its base as GGUF files, q4_0, k-quants by llama.cpp's quantizer, and what `ghost check` refuses."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghost.cli import main
from ghost.errors import ConversionError
from ghost.serving.export import export, export_adapter, export_base
from tests import models
from tests.ghost.serving.export.test_gguf import halves, read
from tests.training.merging.forms import write_adapter

ALPHA = "adapter.lora.alpha"


@pytest.fixture
def base() -> Path:
    return models.shared("base-Mistral", lambda folder: models.write_base(folder, "Mistral"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", base)
    return tmp_path / "adapter"


def test_the_file_adds_what_the_merge_adds(adapter: Path, base: Path, tmp_path: Path) -> None:
    """alpha / rank · B·A, the rows of queries and keys in llama.cpp's order."""
    from training.merging.adapter import read_adapter

    facts = export_adapter(adapter, str(base), tmp_path / "gguf")
    file = read(Path(facts["file"]))
    fields = {name: field.contents() for name, field in file.fields.items()}
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    held = {tensor.name: tensor.data.astype(np.float32) for tensor in file.tensors}
    known = read_adapter(adapter, base)
    with known.open() as weights:
        for name, heads in (("q_proj", 4), ("k_proj", 2), ("o_proj", 0)):
            update = known.outputs[f"model.layers.1.self_attn.{name}.weight"].update
            assert update is not None
            added = update.scale * (weights.tensor(update.b).float() @ weights.tensor(update.a).float()).numpy()
            target = f"blk.1.attn_{'output' if name == 'o_proj' else name[0]}.weight"
            a, b = held[f"{target}.lora_a"], held[f"{target}.lora_b"]
            found = fields[ALPHA] / len(a) * (halves(b, heads) if heads else b) @ a
            assert np.allclose(found, added, atol=2e-3 * np.abs(added).max())
    modelfile = (tmp_path / "gguf" / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./../gguf-base/base-q4_0.gguf\nADAPTER ./ghost-lora.gguf\n")


def test_other_scales_are_kept(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "plain", base)
    write_adapter(tmp_path / "rs", base, use_rslora=True)
    files = [export_adapter(tmp_path / name, str(base), tmp_path / f"{name}-gguf")["file"] for name in ("plain", "rs")]
    plain, scaled = ({t.name: t.data.astype(np.float32) for t in read(Path(file)).tensors} for file in files)
    name = "blk.0.ffn_up.weight.lora_b"
    rank = plain[name].shape[1]
    assert np.allclose(scaled[name], plain[name] * rank**0.5, rtol=2e-3, atol=1e-6)


def test_more_than_lora_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "dora", base, use_dora=True)
    with pytest.raises(ConversionError, match="plain LoRA on linear layers only; merge the adapter"):
        export_adapter(tmp_path / "dora", str(base), tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


def test_four_bits_spare_the_head_and_the_values(tiny_merged: Path, tmp_path: Path) -> None:
    file = read(Path(export(tiny_merged, tmp_path / "gguf", "q4_0")["file"]))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in file.tensors}
    assert kinds["output.weight"] == kinds["blk.0.attn_v.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == "Q4_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_k_quants_are_made_by_llama_cpp(tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConversionError, match=r"needs llama\.cpp's llama-quantize, which is not on PATH"):
        export(tiny_merged, tmp_path / "gguf", "q4_k_m")
    tool = tmp_path / "bin" / "llama-quantize"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\n[ "$3" = Q4_K_M ] && /bin/cp "$1" "$2"\n')
    tool.chmod(0o755)
    facts = export(tiny_merged, tmp_path / "gguf", "q4_k_m")
    assert facts["quantizer"] == str(tool)
    assert sorted(os.listdir(tmp_path / "gguf")) == ["Modelfile", "ghost-q4_k_m.gguf", "ghost.json"]
    tool.write_text("#!/bin/sh\necho 'no such type' >&2\nexit 3\n")
    with pytest.raises(ConversionError, match=r"exit code 3.: no such type"):
        export(tiny_merged, tmp_path / "gguf", "q6_k")
    assert (tmp_path / "gguf" / "ghost-q4_k_m.gguf").is_file()


def checked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    code = main(["check", *map(str, arguments), "--json"])
    results = {result["check"]: result for result in json.loads(capsys.readouterr().out)["checks"]}
    assert code == int(any(result["status"] == "failed" for result in results.values()))
    return results


def test_a_broken_file_fails_the_check(
    tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    file = Path(export(tiny_merged, tmp_path / "gguf", "q4_0")["file"])
    good = checked(capsys, file, "--merged", tiny_merged)
    assert good["ids"]["status"] == good["weights"]["status"] == "ok"
    assert "xllamacpp is not installed" in good["log-probabilities"]["found"]
    content = file.read_bytes()
    for name, cut, found in (
        ("cut", content[:-5000], "truncated"),
        ("short", content[:3000], "truncated"),
        ("no", b"FROM x", "no GGUF file"),
        ("foreign", content.replace(b"ghost.facts", b"other.facts"), "not written by ghost export"),
    ):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(cut)
        assert found in checked(capsys, path)["file and facts"]["found"], name
    altered = bytearray(content)
    altered[-3000:] = bytes(3000)
    (tmp_path / "altered.gguf").write_bytes(altered)
    assert checked(capsys, tmp_path / "altered.gguf", "--merged", tiny_merged)["weights"]["status"] == "failed"


def test_an_adapter_is_checked_against_its_base(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = export_adapter(adapter, str(base), tmp_path / "lora")["file"]
    over = export_base(str(base), tmp_path / "base", "q4_0")["file"]
    assert checked(capsys, lora, "--base", over)["adapter and base"]["status"] == "ok"
    write_adapter(tmp_path / "other", base, lambda tensors: [tensor.neg_() for tensor in tensors.values()])
    other = checked(capsys, lora, "--base", over, "--adapter", tmp_path / "other")
    assert "another ghost's" in other["adapter and base"]["found"]
    wrong = models.shared("base-Llama", lambda folder: models.write_base(folder, "Llama"))
    elsewhere = export_base(str(wrong), tmp_path / "wrong", "q8_0")["file"]
    assert "was trained on base" in checked(capsys, lora, "--base", elsewhere)["adapter and base"]["found"]
