"""Set up the fast way to decode where there is one, prove it on this machine, and do without it where it fails."""

import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .decoding import INDUCTOR, STATIC_TOKENS, Growing, Static, decoder_layer
from .golden import TOLERANCE

log = logging.getLogger("ghost")


def static_decoder(model: Any, ids: Sequence[int], cache_beside: Path) -> Static | None:
    """The fastest static decoder that gives the scores that transformers gives after `ids`; None when none does.

    Compiled and recorded; else recorded only; else none, with one log line for each step down. What the compiler made
    is kept in a folder beside `cache_beside`, where one can be made, for the next start.
    """
    unfit = _unfit(model)
    if unfit:
        log.warning("decoding is not accelerated: %s", unfit)
        return None
    _keep_what_is_compiled(cache_beside)
    length = min(STATIC_TOKENS, model.config.max_position_embeddings)
    for name, layer in (("compiled", compiled_layer()), ("recorded", decoder_layer)):
        try:
            decoder = Static(model, length, layer)
            decoder.record()
            _prove(decoder, model, ids)
            return decoder
        # Compilers and drivers raise whatever they like, and none of it is a reason not to answer.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            log.warning("decoding is not %s, and slower for it: %s: %s", name, type(error).__name__, reason)
    return None


def compiled_layer() -> Callable[..., Any]:
    """One compilation, at its first call, for all layers of a model."""
    layer: Callable[..., Any] = torch.compile(decoder_layer, fullgraph=True, dynamic=False, options=INDUCTOR)
    return layer


def _unfit(model: Any) -> str:
    config = model.config
    if config.model_type != "mistral":
        return f"that is written for Mistral, and this is a {config.model_type} model"
    if (window := getattr(config, "sliding_window", None)) is not None:
        return f"that is written for attention to all tokens, and this model's reaches {window:,} back"
    return ""


def _keep_what_is_compiled(beside: Path) -> None:
    """Beside the folder and not in it: a model folder holds what its ghost.json lists.

    Inductor reads the variable whenever it looks for its cache. Its default is a folder that a reboot empties.
    It unpickles and runs what it finds there, so a folder that others could have filled is not used.
    """
    folder = beside.resolve().with_name(f".{beside.resolve().name}.inductor")
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:  # a volume that is read-only
        return
    own = getattr(os, "geteuid", lambda: found.st_uid)()  # Windows tells no owner
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("%s is a link, or others may write to it: what is compiled is not kept; remove it", folder)
        return
    if os.access(folder, os.W_OK):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def _prove(decoder: Static, model: Any, ids: Sequence[int]) -> None:
    """Raises ArithmeticError when a step's log-probabilities are not those of transformers' forward pass."""
    growing, last = Growing(model), torch.tensor(ids[-1:], device=model.device)
    growing.start(ids[:-1])
    decoder.start(ids[:-1])
    expected, found = (way.next(last).float().log_softmax(-1) for way in (growing, decoder))
    top = expected.topk(5).indices
    moved = float((found[top] - expected[top]).abs().max())
    if not moved <= TOLERANCE:  # a NaN fails too
        raise ArithmeticError(f"a log-probability of the golden prompt moves by {moved:.3f}, more than {TOLERANCE}")
