"""llama.cpp itself reads the file: where it is installed, which the house never asks for."""

from pathlib import Path

import pytest

from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.serving.export import export
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import encode, load_tokenizer

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: it builds from source, see benchmarks/results/gguf.md"
)
from benchmarks import gguf_runtime as runtime  # noqa: E402

TIE = 1e-3  # nats; llama.cpp multiplies by activations in float16


def test_llama_cpp_gives_the_ids_and_the_tokens_of_transformers(tiny_merged: Path, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(tiny_merged), runtime.load_model(tiny_merged)
    llama = runtime.open_llama(Path(export(tiny_merged, tmp_path / "gguf", "f16")["file"]))
    for text in runtime.TEXTS:
        assert runtime.text_ids(llama, text) == encode(tokenizer, text).ids
    chats: list[list[Turn]] = [conversation(texts, DEFAULT_LABELS) for texts in PROMPTS.values()]
    for turns in chats:
        chat = runtime.chat_ids(llama, tokenizer, turns, DEFAULT_LABELS.me)
        assert chat.llama == chat.transformers
        assert max(runtime.off(llama, model, chat.llama)) < TIE
        ours = runtime.greedy_transformers(model, chat.llama, tokenizer.eos_token_id)
        theirs = runtime.greedy_llama(llama, chat.llama, tokenizer.eos_token_id)
        same = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if same is not None:  # random weights know ties: they may part there, and only there
            best = runtime.logprobs(model, [*chat.llama, *ours[:same]])[-1].topk(2).values
            assert float(best[0] - best[1]) < TIE
    llama.close()
