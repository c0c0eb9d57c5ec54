"""Every architecture that may be a base: packing, merging, decoding and exporting it, and the whole line on one."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ghost import cli
from ghost.serving.export import export
from ghost.serving.gguf_file import ByteLevelVocabulary, read_vocabulary
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.decoding import DynamicDecoder, StaticDecoder
from replicate_deployment.engine import Engine
from replicate_deployment.tokenization import load_tokenizer
from tests import models
from tests.models import ARCHITECTURES
from tests.replicate_deployment.test_decoding import CLOSE, follow
from tests.training.finetuning.conftest import LINES, quick, write_prepared
from tests.training.finetuning.test_loss import LINES as NESTED
from tests.training.finetuning.test_loss import adapted, one_by_one, trained
from tests.training.merging.forms import merge, write_adapter
from training import config as training_config
from training.finetuning import hardware
from training.finetuning.base import shapes_of
from training.finetuning.data import read_split
from training.finetuning.loss import SegmentLoss
from training.finetuning.packing import Plan, flatten, pack

RECIPE = training_config.load(Path(__file__).parents[2] / "config" / "training_config.yaml")


def of(name: str) -> Path:
    """A base, `name` being its architecture; or its merge with a random adapter."""
    architecture = name.removesuffix("-merged")
    if name == architecture:
        return models.shared(f"base-{name}", lambda folder: models.write_base(folder, name))

    def build(folder: Path) -> None:
        write_adapter(folder / "adapter", of(architecture))
        merge(folder / "adapter", of(architecture), folder / "merged")

    return models.shared(name, build) / "merged"


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@every_architecture
def test_packed_windows_are_learnt_as_if_each_were_alone(architecture: str, tmp_path: Path) -> None:
    folder, model = write_prepared(tmp_path / "p", NESTED, NESTED[:1]), adapted(of(architecture))
    config = dataclasses.replace(RECIPE, gradient_accumulation_steps=8, num_epochs=1, max_grad_norm=1e9)
    split = read_split(folder / "train.jsonl", load_tokenizer(of(architecture)), ghost_json.read(folder), config)
    apart = Plan(split, dataclasses.replace(config, collapse_nested_windows=False))
    expected, expected_gradients = one_by_one(model, split, apart)
    for budget in (150, 100_000):
        losses, gradients = trained(model, Plan(split, config), budget)
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
        for name, right in expected_gradients[0].items():
            assert (gradients[0][name] - right).norm() < 1e-4 * right.norm(), name
    (batch,) = pack(apart.steps().__next__().segments, 100_000)
    row = flatten(batch, "cpu")
    alone = SegmentLoss(model).losses(**row)
    across = SegmentLoss(model).losses(**row | {"lengths": [sum(row["lengths"])]})
    assert (across - alone).abs().max() > 1e-3, "the comparison would not notice attention across a border"


@every_architecture
def test_its_parameters_are_counted(architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(of(architecture))
    assert shapes_of(str(of(architecture))).parameters == model.num_parameters()


@every_architecture
def test_a_merged_model_computes_base_and_adapter_and_ends_as_its_base(architecture: str) -> None:
    merged, base = of(f"{architecture}-merged"), of(architecture)
    block = ghost_json.read(merged).block("merge")
    assert block["parity"]["mean_abs_logprob"] < 2e-3
    tokenizer, named = load_tokenizer(base), json.loads((merged / "generation_config.json").read_text())["eos_token_id"]
    ends = [named] if isinstance(named, int) else named
    assert ends[0] == tokenizer.eos_token_id
    engine = Engine.load(merged)
    assert engine.end_ids == {*ends}
    assert len(ends) == (1 if architecture == "Mistral" else 2)
    assert engine.ghost.block("golden")["ids"][0] == (
        tokenizer.encode("B")[0] if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    )
    newline = {token for token, spelled in enumerate(engine.token_bytes) if spelled.endswith(b"\n")}
    assert newline | engine.end_ids < engine.penalty_exempt
    exempt = {engine.token_bytes[token] for token in engine.penalty_exempt - newline - engine.end_ids}
    assert exempt == {b"A", b"B", b":"}
    replies = ["".join(engine.reply([Turn("B:", "hey.")], engine.settings, seed=seed)) for seed in range(2)]
    assert replies == ["".join(engine.reply([Turn("B:", "hey.")], engine.settings, seed=seed)) for seed in range(2)]


@every_architecture
def test_a_reply_ends_on_every_end_token_of_the_base(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(of(f"{architecture}-merged"), hashes=False)
    letter = next(token for token, spelled in enumerate(engine.token_bytes) if spelled == b"x")
    for end in engine.end_ids:
        monkeypatch.setattr(Engine, "_draw", lambda *_, end=end: (token for token in (letter, end, letter)))
        reply = engine.reply([Turn("B:", "hey")], engine.settings)
        assert ("".join(reply), reply.finish_reason) == ("x", "end_token")


@every_architecture
def test_the_static_decoder_gives_the_scores_of_transformers(architecture: str) -> None:
    model = Engine.load(of(f"{architecture}-merged"), hashes=False).model
    ids, more = list(range(5, 60)), [7, 8, 9]
    found = follow(StaticDecoder(model, 128), ids, more)
    torch.testing.assert_close(found, follow(DynamicDecoder(model), ids, more), **CLOSE)


def halves(rows: Any, heads: int) -> Any:
    """The interleaved rows of each head in transformers' order."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@every_architecture
def test_a_gguf_file_holds_the_model(architecture: str, tmp_path: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    merged = of(f"{architecture}-merged")
    file = GGUFReader(export(merged, tmp_path / "gguf", "f16")["file"])
    facts = {name: field.contents() for name, field in file.fields.items() if not name.startswith("GGUF.")}
    name = {"Mistral": "llama"}.get(architecture, architecture.lower())
    assert facts["general.architecture"] == name
    assert facts[f"{name}.block_count"] == 4
    tokenizer = load_tokenizer(merged)
    assert facts["tokenizer.ggml.add_bos_token"] == (tokenizer.bos_token_id is not None)
    assert facts["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert len(facts["tokenizer.ggml.tokens"]) == len(tokenizer) + 6
    held = {tensor.name: tensor.data for tensor in file.tensors}
    sources = {name: tensor for path in merged.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert len(held) == len(sources)
    for kind, heads in (("q", 4), ("k", 2)):
        for part in ("weight", "bias"):
            source = sources.get(f"model.layers.1.self_attn.{kind}_proj.{part}")
            if source is not None:
                rows = held[f"blk.1.attn_{kind}.{part}"]
                rows = halves(rows, heads) if name in ("llama", "smollm3") else rows
                assert np.array_equal(rows, source.astype(rows.dtype))
    assert ("blk.0.attn_q_norm.weight" in held) == (architecture == "Qwen3")
    assert ("blk.0.attn_q.bias" in held) == (architecture == "Qwen2")


def test_the_scaled_rotation_of_llama_3_1_is_exported(tmp_path: Path) -> None:
    """Long wavelengths are multiplied by the factor, short ones left alone."""
    from ghost.serving.gguf_file import read_decoder

    config = json.loads((of("Llama-merged") / "config.json").read_text())
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_parameters": rope, "head_dim": 128}))
    factors = read_decoder(tmp_path).rope_factors
    assert len(factors) == 64
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(8)
    assert min(np.diff(factors)) > -1e-6


@pytest.mark.parametrize("kind", ["llama3", "qwen", "smollm"])
def test_a_byte_level_vocabulary_is_split_as_its_tokenizer_splits(kind: str) -> None:
    tokenizer = models.make_tokenizer(kind)
    vocabulary = read_vocabulary(tokenizer, len(tokenizer) + 6)
    assert isinstance(vocabulary, ByteLevelVocabulary)
    for text in ("B: c'est l'été!\n\n\nA: 12 345 DON'T </s> <|im_end|>x", *models.SENTENCES):
        assert (
            vocabulary.encode(text) == tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        )
    named = ("accents written apart from their letters",) if kind == "qwen" else ()
    assert vocabulary.differs == named


def test_the_whole_line_on_a_base_with_a_byte_level_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ghost.serving.client import predict
    from ghost.serving.serve import running_server

    monkeypatch.setattr(hardware, "measure_cpu", lambda: 1e11, raising=False)
    data, base = write_prepared(tmp_path / "processed", LINES * 4, LINES * 3), str(of("Llama"))
    config, adapter, merged = tmp_path / "config.yaml", str(tmp_path / "adapter"), str(tmp_path / "merged")
    config.write_text(quick(RECIPE, num_epochs=1), encoding="utf-8")
    assert cli.main(["train", "--config", str(config), "--data", str(data), "--base", base, "--out", adapter]) == 0
    kept = str(tmp_path / "kept")
    assert cli.main(["merge", adapter, "--base", base, "--out", merged, "--keep-adapter", kept]) == 0
    assert cli.main(["check", merged]) == 0
    assert cli.main(["try", merged, "--held-out", str(data / "val.jsonl"), "--limit", "2"]) == 0
    assert cli.main(["export", merged, "--gguf", "q8_0", "--out", str(tmp_path / "gguf")]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hey\n")))
    assert cli.main(["chat", merged]) == 0
    with running_server(Path(merged)) as url:
        assert "\nA:" not in predict(url, "B: hey.\nA: ok.\nB: and?", seed=1)
    template = (Path(kept) / "chat_template.jinja").read_text()
    assert template == load_tokenizer(merged).chat_template
    assert "<|begin_of_text|>" in template
    assert DEFAULT_LABELS.me in template


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("BertForMaskedLM", "not a causal language model .found BertForMaskedLM"),
        ("Mistral3ForConditionalGeneration", "not a causal language model .found Mistral3For"),
        ("MixtralForCausalLM", "MixtralForCausalLM is not supported; choose a base of LlamaForCausalLM"),
        ("MambaForCausalLM", "MambaForCausalLM is not supported"),
    ],
)
def test_another_architecture_is_refused_before_anything_large_is_read(
    architecture: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, data = tmp_path / "base", write_prepared(tmp_path / "processed", LINES, LINES)
    models.make_tokenizer("llama3").save_pretrained(base)
    (base / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "x"}))
    config = tmp_path / "config.yaml"
    config.write_text(quick(RECIPE), encoding="utf-8")
    assert cli.main(["train", "--config", str(config), "--data", str(data), "--base", str(base)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert why.replace(".found", "(found") in said
