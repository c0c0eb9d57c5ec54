"""llama.cpp itself reads the files, where xllamacpp is installed: the extra `home`."""

from pathlib import Path

import pytest
import torch

from ghost.cli import main
from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.serving.export import export, export_adapter, export_base
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import encode, load_tokenizer
from tests import models
from tests.training.merging.forms import merge, write_adapter

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed; type: pip install xllamacpp")
from benchmarks import gguf_runtime as runtime
from ghost.serving.llama_cpp import LlamaCpp

TIE = 1e-3  # nats; llama.cpp multiplies by activations in float16


def test_llama_cpp_gives_the_ids_and_the_tokens_of_transformers(tiny_merged: Path, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(tiny_merged), runtime.load_model(tiny_merged)
    chats = [conversation(texts, DEFAULT_LABELS) for texts in PROMPTS.values()]
    with LlamaCpp(Path(export(tiny_merged, tmp_path / "gguf", "f16")["file"])) as llama:
        for text in runtime.TEXTS:
            assert llama.ids(" " + text) == encode(tokenizer, text).ids
        for turns in chats:
            chat = runtime.chat_ids(llama, tokenizer, turns, DEFAULT_LABELS.me)
            assert chat.llama == chat.transformers
            check(llama, model, chat.llama, tokenizer.eos_token_id)
        assert max(runtime.off(llama, model, [chat.llama]).likeliest) < TIE


@pytest.mark.parametrize("architecture", ["Mistral", "Llama", "Qwen2"])
def test_base_and_adapter_reply_as_the_merged_model(architecture: str, tmp_path: Path) -> None:
    base = models.shared(f"base-{architecture}", lambda folder: models.write_base(folder, architecture))
    write_adapter(tmp_path / "adapter", base)
    merge(tmp_path / "adapter", base, tmp_path / "merged")
    tokenizer, model = load_tokenizer(tmp_path / "merged"), runtime.load_model(tmp_path / "merged")
    over = Path(export_base(str(base), tmp_path / "base", "f16")["file"])
    lora = Path(export_adapter(tmp_path / "adapter", str(base), tmp_path / "lora")["file"])
    ids = encode(tokenizer, "B: hey tu fais quoi ce soir\nA:").ids
    with LlamaCpp(over) as llama:
        assert max(runtime.off(llama, model, [ids]).likeliest) > 10 * TIE, "the adapter would not be noticed"
    with LlamaCpp(over, lora) as llama:
        assert max(runtime.off(llama, model, [ids]).likeliest) < 3 * TIE
        check(llama, model, ids, tokenizer.eos_token_id)


def check(llama: LlamaCpp, model: torch.nn.Module, ids: list[int], end: int) -> None:
    """The same greedy tokens; random weights know ties, where both may part."""
    ours = runtime.greedy_transformers(model, ids, end)
    where = runtime.agreement(model, ids, ours, llama.greedy(ids, runtime.NEW_TOKENS), end)
    assert where == "all" or float(where.split()[-3]) < TIE, where


def test_the_verb_checks_a_file(tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = export(tiny_merged, tmp_path / "gguf", "q8_0")["file"]
    assert main(["check", file, "--merged", str(tiny_merged)]) == 0
    out = capsys.readouterr().out
    assert "by llama.cpp" in out
    assert "mean |Δlogp|" in out
