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

CONTEXT = 2048  # tokens


class LlamaCpp:
    """A GGUF file, open, with a LoRA adapter over it if `lora` names one."""

    def __init__(self, file: Path, lora: Path | None = None, *, exact_cache: bool = False) -> None:
        """`exact_cache` keeps keys and values in float32; llama.cpp's default is float16.

        Raises ConversionError when llama.cpp cannot load the files.
        """
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.n_gpu_layers, params.cache_ram_mib = CONTEXT, 1, 0, 0
        params.warmup = False
        if exact_cache:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
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
        import httpx2

        asked = {"content": text, "add_special": not special, "parse_special": special}
        answer = httpx2.post(f"{self._server.listening_address}/tokenize", json=asked, timeout=60)
        return [int(token) for token in answer.json()["tokens"]]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return up to `count` tokens after `ids`; an end token is the last."""
        return [next(iter(best)) for best in self._next(ids, count, 1)]

    def logprobs(self, ids: Sequence[int], wanted: Sequence[int]) -> list[float]:
        """Return the log-probabilities in nats of the tokens `wanted` after `ids`."""
        for best in (300, 1_000_000):  # llama.cpp lists the likeliest; a whole vocabulary takes a third of a second
            found = self._next(ids, 1, best)[0]
            if all(token in found for token in wanted):
                break
        return [found[token] for token in wanted]

    def _next(self, ids: Sequence[int], count: int, best: int) -> list[dict[int, float]]:
        asked = {"prompt": [*ids], "n_predict": count, "n_probs": best, "cache_prompt": True}
        asked |= {"temperature": 0.0, "repeat_penalty": 1.0, "stop": []}
        with _quiet():
            answer = self._server.handle_completions(asked)
        if "choices" not in answer:
            raise ConversionError(f"llama.cpp refused {len(ids)} tokens: {str(answer)[:200]}")
        places = answer["choices"][0]["logprobs"]["content"]
        return [{int(token["id"]): float(token["logprob"]) for token in place["top_logprobs"]} for place in places]

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
