"""Set up accelerated decoding and check it on this machine. Failures are logged and the optimisation is skipped."""

import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .decoding import INDUCTOR_OPTIONS, STATIC_TOKENS, DynamicDecoder, StaticDecoder, decoder_layer
from .golden import TOLERANCE

log = logging.getLogger("ghost")

LLAMA_SHAPED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


def static_decoder(model: Any, ids: Sequence[int]) -> StaticDecoder | None:
    """Return the fastest static decoder whose scores after `ids` match those of transformers, or None.

    Try compiled with a CUDA graph, then the CUDA graph alone; log one line for each that fails.
    """
    unsupported = _unsupported(model)
    if unsupported:
        log.warning("decoding is not accelerated: %s", unsupported)
        return None
    length = min(STATIC_TOKENS, model.config.max_position_embeddings)
    for name, layer in (("compiled", compiled_layer()), ("recorded", decoder_layer)):
        try:
            decoder = StaticDecoder(model, length, layer)
            decoder.record()
            _verify(decoder, model, ids)
            return decoder
        # Compilers and drivers raise any type of exception; fall back on all of them.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            log.warning("decoding is not %s and will be slower: %s: %s", name, type(error).__name__, reason)
    return None


def compiled_layer() -> Callable[..., Any]:
    """Return `decoder_layer` compiled once, at its first call, for all layers of a model."""
    layer: Callable[..., Any] = torch.compile(decoder_layer, fullgraph=True, dynamic=False, options=INDUCTOR_OPTIONS)
    return layer


def _unsupported(model: Any) -> str:
    config = model.config
    if config.model_type not in LLAMA_SHAPED:
        return f"only {', '.join(LLAMA_SHAPED)} are supported, and this is a {config.model_type} model"
    if (window := getattr(config, "sliding_window", None)) is not None:
        return f"only full attention is supported, and this model has a sliding window of {window:,} tokens"
    return ""


def keep_compiled_code(beside: Path) -> None:
    """Point Inductor's cache at a folder next to the model folder, which holds only what ghost.json lists, if that can
    be written to.

    Call it before transformers loads a model: the import of torch's compiler settles on its default, a folder that a
    reboot empties. Inductor unpickles and runs what it finds in its cache, so a folder that other users can write to is
    not used.
    """
    folder = beside.resolve().with_name(f".{beside.resolve().name}.inductor")
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:  # for example, a read-only volume
        return
    own = getattr(os, "geteuid", lambda: found.st_uid)()  # Windows reports no owner
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("%s is a link, or writable by others: compiled code is not kept; remove it", folder)
        return
    if os.access(folder, os.W_OK):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def _verify(decoder: StaticDecoder, model: Any, ids: Sequence[int]) -> None:
    """Raise ArithmeticError when a step's log-probabilities differ from those of transformers' forward pass."""
    dynamic, last = DynamicDecoder(model), torch.tensor(ids[-1:], device=model.device)
    dynamic.start(ids[:-1])
    decoder.start(ids[:-1])
    expected, found = (way.next(last).float().log_softmax(-1) for way in (dynamic, decoder))
    top = expected.topk(5).indices
    moved = float((found[top] - expected[top]).abs().max())
    if not moved <= TOLERANCE:  # a NaN fails too
        raise ArithmeticError(f"a log-probability of the golden prompt moves by {moved:.3f}, more than {TOLERANCE}")
