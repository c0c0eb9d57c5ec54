"""Models without values: what transformers and peft would build, to ask about and to run a layer at a time.

Parameters lie on PyTorch's meta device, which knows shapes only, so a 7B model takes no memory worth naming.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.lora_config import CONFIG, as_peft
from scripts.weights import Tensor
from training.errors import BaseModelError, MergeError


def skeleton(folder: Path, vocab_size: int | None = None) -> Any:
    """The causal language model of `folder`'s config.json; with `vocab_size`, as if its vocabulary were resized."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config.vocab_size = vocab_size or config.vocab_size
        with init_empty_weights(include_buffers=False):  # most buffers are computed, not read from files
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelError(f"{folder / 'config.json'}: no model can be built from it ({why})") from error
    for module in model.modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and leaf not in module._non_persistent_buffers_set:
                module._buffers[leaf] = buffer.to("meta")
    return model.eval()


def with_adapter(model: Any, config: dict[str, Any]) -> Any:
    """The PeftModel that peft makes of a skeleton by adapter_config.json: its own reading of targets and patterns."""
    from peft import get_peft_model

    try:
        with _quiet():
            return get_peft_model(model, as_peft(config), low_cpu_mem_usage=True).eval()
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MergeError(f"{CONFIG} does not fit this base; peft says: {why}") from error


@contextmanager
def streamed(model: Any, read: Callable[[str], Tensor]) -> Iterator[None]:
    """Within the block the model can be called: what has no values yet gets them from `read(name)`, float32, when its
    layer's turn comes, and loses them after it. So one linear layer, or the head, is in memory at a time.
    """
    import torch

    def fill(module: Any, *_: object) -> None:
        for owner, leaf, name in homes[module]:
            values = read(name)
            buffer = leaf in owner._buffers
            (owner._buffers if buffer else owner._parameters)[leaf] = (
                values if buffer else torch.nn.Parameter(values, requires_grad=False)
            )

    def drop(module: Any, *_: object) -> None:
        for owner, leaf, name in homes[module]:
            (owner._buffers if leaf in owner._buffers else owner._parameters)[leaf] = empty[name]

    homes, empty, handles = {}, {}, []
    for unit, missing in _units(model):
        homes[unit] = missing
        for owner, leaf, name in missing:
            empty[name] = getattr(owner, leaf)
        handles += [unit.register_forward_pre_hook(fill), unit.register_forward_hook(drop, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _units(model: Any) -> Iterator[tuple[Any, list[tuple[Any, str, str]]]]:
    """The modules that are filled as a whole, each with (owner, leaf, name) of what it lacks.

    A module with parameters of its own; and peft's wrapper of a layer whole, since it reads its parts' weights without
    calling them. The copy that `modules_to_save` has replaced is never asked for.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inside: set[Any] = set()
    for path, module in model.named_modules():
        if module in inside:
            continue
        whole = isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        if whole:
            inside.update(module.modules())
        missing = []
        for place, owner in module.named_modules() if whole else [("", module)]:
            if "original_module" in place.split("."):
                continue
            for leaf, value in [*owner._parameters.items(), *owner._buffers.items()]:
                if value is not None and value.is_meta:
                    missing.append((owner, leaf, ".".join(filter(None, (path, place, leaf)))))
        if missing:
            yield module, missing


@contextmanager
def _quiet() -> Iterator[None]:
    """peft warns of what could go wrong with its own merge (ties, biases), which is looked after here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
