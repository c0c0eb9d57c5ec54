"""Load a verified folder's weights onto the device."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch

from . import ghost_json
from .errors import WeightsError
from .ghost_json import Ghost
from .model_folder import load_model
from .tokenization import Tokenizer, load_tokenizer


def load(ghost: Ghost, device: str, *, hashes: bool = True, load_in_4bit: bool = False) -> tuple[Any, Tokenizer]:
    """Return (model, tokenizer): FP16 on an accelerator, float32 on a CPU. `load_in_4bit`: nf4, computing in those.

    Hashes the files while they load, because hashing on one core takes longer than loading onto a GPU. This is safe:
    loading runs no code from the files.

    Raises WeightsError when the files do not match ghost.json or cannot be loaded.
    """
    ghost_json.verify(ghost, hashes=False)
    with ThreadPoolExecutor(max_workers=1) if hashes else nullcontext() as pool:
        hashed = pool.submit(ghost_json.verify, ghost) if pool else None
        try:
            loaded = _read(ghost, device, load_in_4bit)
        except WeightsError:
            if hashed:
                hashed.result()  # an altered file is the better explanation
            raise
        if hashed:
            hashed.result()
    return loaded


def _read(ghost: Ghost, device: str, load_in_4bit: bool) -> tuple[Any, Tokenizer]:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the container's log; callers show their own
    tokenizer = load_tokenizer(ghost.folder)
    dtype = torch.float32 if device == "cpu" else torch.float16
    model = load_model(
        ghost.folder,
        dtype=dtype,
        device_map={"": device},  # load straight onto the device, not through CPU memory
        quantization_config=_nf4(dtype) if load_in_4bit else None,
    )
    return model.eval(), tokenizer


def _nf4(dtype: torch.dtype) -> Any:
    """Return the 4-bit settings of QLoRA training (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)."""
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise WeightsError("4-bit loading needs bitsandbytes, which is not installed; type: pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
