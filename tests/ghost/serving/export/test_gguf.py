"""The file read back by gguf's own reader: every tensor, and every fact of the model and its tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghost.serving.export import export
from replicate_deployment import ghost_json
from tests.ghost.serving.export.conftest import edit_config, rewrite
from training.merging.weights import Weights

HEADS, KV_HEADS = 4, 1  # of the tiny base


def read(path: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(path)


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in read(path).fields.items() if not name.startswith("GGUF.")}


def sources(folder: Path) -> dict[str, Any]:
    """The model's tensors as float16 arrays, by the names that llama.cpp looks for."""
    from safetensors.numpy import load_file

    short = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "o_proj": "attn_output"}
    short |= {f"{name}_proj": f"attn_{name}" for name in "qkv"} | {
        f"{n}_proj": f"ffn_{n}" for n in ("gate", "up", "down")
    }
    ends = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    ends |= {"lm_head.weight": "output.weight"}
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        parts = name.split(".")
        tensors[ends[name] if name in ends else f"blk.{parts[2]}.{short[parts[-2]]}.{parts[-1]}"] = tensor
    return tensors


def halves(rows: Any, heads: int) -> Any:
    """Undo the interleaving, row by row: in each head, even rows are its first half and odd ones its second."""
    import numpy as np

    return np.concatenate([part for head in np.split(rows, heads) for part in (head[0::2], head[1::2])])


def test_f16_holds_every_tensor_to_the_bit(tiny_merged: Path, tmp_path: Path) -> None:
    import numpy as np

    facts = export(tiny_merged, tmp_path / "gguf", "f16")
    expected, found = sources(tiny_merged), {tensor.name: tensor for tensor in read(Path(facts["file"])).tensors}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
        values = halves(tensor.data, heads) if heads else tensor.data
        assert values.dtype == (np.float16 if values.ndim > 1 else np.float32)
        assert np.array_equal(values, expected[name]), name
    assert facts["tensors"] == len(expected)


def test_q8_0_is_within_its_rounding(tiny_merged: Path, tmp_path: Path) -> None:
    """Half a step: of 127 to the largest value of each 32, and the step itself is rounded to float16."""
    import numpy as np
    from gguf import GGMLQuantizationType, dequantize

    facts = export(tiny_merged, tmp_path / "gguf", "q8_0")
    expected = sources(tiny_merged)
    for tensor in read(Path(facts["file"])).tensors:
        kind = GGMLQuantizationType.F32 if tensor.name.endswith("_norm.weight") else GGMLQuantizationType.Q8_0
        assert tensor.tensor_type == kind, tensor.name
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(tensor.name.split(".")[-2])
        values = dequantize(tensor.data, kind).reshape(tensor.shape[::-1])
        true = expected[tensor.name].astype(np.float32)
        off = np.abs((halves(values, heads) if heads else values) - true)
        largest = np.abs(true.reshape(-1, 32)).max(1, keepdims=True)
        assert (off.reshape(-1, 32) <= largest / 127 * (0.5 + 127 * 2**-11)).all(), tensor.name
        assert off.any() == (kind == GGMLQuantizationType.Q8_0)


def test_the_facts_are_those_of_the_model_folder(tiny_merged: Path, tmp_path: Path) -> None:
    from replicate_deployment.tokenization import load_tokenizer

    found = fields(Path(export(tiny_merged, tmp_path / "gguf", "f16")["file"]))
    tokenizer, config = load_tokenizer(tiny_merged), json.loads((tiny_merged / "config.json").read_text())
    size = config["vocab_size"]
    scores = found.pop("tokenizer.ggml.scores")
    assert len(scores) == len(found["tokenizer.ggml.token_type"]) == size
    assert len(set(scores)) == 1 + len(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"])
    del found["tokenizer.ggml.token_type"]  # test_vocabulary.py looks at both, by token
    assert found.pop("llama.attention.layer_norm_rms_epsilon") == pytest.approx(config["rms_norm_eps"])
    sampling = {name: found.pop(f"general.sampling.{name}") for name in ("temp", "top_p", "min_p", "penalty_repeat")}
    assert sampling == pytest.approx({"temp": 0.7, "top_p": 1.0, "min_p": 0.0, "penalty_repeat": 1.2})
    ghost = ghost_json.read(tiny_merged).facts
    assert json.loads(found["ghost.facts"]) == {
        "format": 1,
        "kind": "merged",
        **{name: ghost[name] for name in ("text", "sampling", "golden")},
    }
    assert found == {
        "general.sampling.top_k": 0,
        "general.architecture": "llama",
        "general.type": "model",
        "ghost.facts": found["ghost.facts"],
        "general.name": "ghost",  # and nothing of a local base, whose name is somebody's path
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.vocab_size": size,
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokenizer.convert_ids_to_tokens(range(size)),
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def test_a_base_of_the_hub_is_named_with_its_licence(merged: Path, tmp_path: Path) -> None:
    def published(ghost: dict[str, Any]) -> None:
        ghost["base"] = {"repo": "mistralai/Mistral-7B-v0.3", "revision": "caa1feb0e54d415e2df31207e5f4e273e33509b1"}

    rewrite(merged, lambda _: None, published)
    found = fields(Path(export(merged, tmp_path / "gguf", "f16")["file"]))
    assert found["general.license"] == "apache-2.0"
    assert found["general.base_model.0.repo_url"] == "https://huggingface.co/mistralai/Mistral-7B-v0.3"
    assert (found["general.base_model.0.organization"], found["general.base_model.0.name"]) == (
        "mistralai",
        "Mistral-7B-v0.3",
    )


def test_a_sliding_window_bounds_the_context(merged: Path, tmp_path: Path) -> None:
    rewrite(merged, edit_config(sliding_window=512))
    assert fields(Path(export(merged, tmp_path / "gguf", "f16")["file"]))["llama.context_length"] == 512


def test_what_is_held_at_once_is_a_block_of_rows(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in blocks of 1,024 values, and of whole heads where rows change places, the file is the same."""
    import hashlib

    from training.merging import weights as reading

    whole = export(tiny_merged, tmp_path / "whole", "q8_0")
    held: list[int] = []
    rows = Weights.rows
    monkeypatch.setattr(reading, "BLOCK", 1024)

    def watched(self: Weights, name: str, start: int, stop: int) -> Any:
        block = rows(self, name, start, stop)
        held.append(block.numel())
        return block

    monkeypatch.setattr(Weights, "rows", watched)
    monkeypatch.delattr(Weights, "tensor")
    blocks = export(tiny_merged, tmp_path / "blocks", "q8_0")
    assert blocks["sha256"] == whole["sha256"]
    assert blocks["sha256"] == hashlib.sha256(Path(blocks["file"]).read_bytes()).hexdigest()
    assert max(held) == 1024
    assert len(held) > 5 * blocks["tensors"]


def test_the_folder_is_an_artifact(tiny_merged: Path, tmp_path: Path) -> None:
    """It is listed and hashed, of the model's facts, replaced as a whole, and not taken for a model to serve."""
    facts = export(tiny_merged, tmp_path / "gguf", "f16")
    ghost = ghost_json.read(tmp_path / "gguf")
    ghost_json.verify(ghost)
    assert ghost.facts["files"]["ghost-f16.gguf"] == {"sha256": facts["sha256"], "size": facts["bytes"]}
    assert ghost.facts["golden"] == ghost_json.read(tiny_merged).facts["golden"]
    assert ghost.block("export")["type"] == "f16"
    export(tiny_merged, tmp_path / "gguf", "q8_0")
    assert sorted(path.name for path in (tmp_path / "gguf").iterdir()) == ["Modelfile", "ghost-q8_0.gguf", "ghost.json"]
