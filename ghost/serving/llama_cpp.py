"""llama.cpp in this process, by the xllamacpp package, for checks of GGUF files on a CPU.

Prompts go in as token ids. Greedy, without a repetition penalty and without the sampling defaults of the file.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghost.errors import ConversionError
from ghost.serving.gguf_file import check_file

CONTEXT = 2048  # tokens
PLAIN = {"temperature": 0.0, "repeat_penalty": 1.0, "stop": []}


class LlamaCpp:
    """A GGUF file, open, with a LoRA adapter over it if `lora` names one."""

    def __init__(self, file: Path, lora: Path | None = None) -> None:
        """Raises ConversionError when llama.cpp cannot load the files."""
        import xllamacpp

        for path in (file, lora):
            if path is not None:
                check_file(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.n_gpu_layers, params.cache_ram_mib = CONTEXT, 1, 0, 0
        params.warmup, params.verbosity = False, 0
        # More threads wait for each other at every layer, actively: on busy cores that takes seconds a token.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        if lora is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        with _quiet():
            try:
                self._server = xllamacpp.Server(params)
            except (RuntimeError, ValueError) as error:
                first = str(error).partition("\n")[0]
                raise ConversionError(f"{lora or file}: llama.cpp cannot load it ({first})") from error

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Tokenise as llama.cpp does. Special tokens in `text` are read as such if `special`; else they are text, and
        BOS goes before it where the file names one.
        """
        answer = self._ask("tokenize", {"content": text, "add_special": not special, "parse_special": special})
        return [int(token) for token in answer["tokens"]]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return up to `count` tokens after `ids`, until the end token."""
        asked = {"prompt": [*ids], "n_predict": count, "return_tokens": True, "cache_prompt": True, **PLAIN}
        return [int(token) for token in self._ask("completion", asked)["tokens"]]

    def logprobs(self, ids: Sequence[int], wanted: Sequence[int]) -> list[float]:
        """Return the log-probabilities in nats of the tokens `wanted` after `ids`."""
        # llama.cpp gives no figures where the drawn token ends the text, or a character only in part. So let it draw a
        # letter: the figures are of the unchanged logits.
        letter = self.ids("x")[-1]
        asked = {"prompt": [*ids], "n_predict": 1, "cache_prompt": True, "logit_bias": [[letter, 1000.0]], **PLAIN}
        for best in (300, 1_000_000):  # it lists the likeliest; a whole vocabulary takes a third of a second
            (place,) = self._ask("completion", asked | {"n_probs": best})["completion_probabilities"]
            found = {int(token["id"]): float(token["logprob"]) for token in place["top_logprobs"]}
            if all(token in found for token in wanted):
                break
        return [found[token] for token in wanted]

    def _ask(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        import httpx2

        with _quiet():
            answer = httpx2.post(f"{self._server.listening_address}/{what}", json=asked, timeout=600)
        if answer.status_code != 200:
            raise ConversionError(f"llama.cpp refused to {what}: {answer.text[:200]}")
        return dict(answer.json())

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: Any) -> None:
        with _quiet():
            del self._server


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what native code writes to stderr: llama.cpp tells every step there."""
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
