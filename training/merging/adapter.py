"""Read a LoRA adapter and match it with the base's tensors on a meta-device model.

LoRA and rsLoRA: W' = W + s·B·A, with s = alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2106.09685, 2312.03732).
DoRA: W' = m · (W + s·B·A) / ‖W + s·B·A‖, a norm for each output (arXiv:2402.09353). W is (out, in), A is (r, in), B is
(out, r), m is (out,); embeddings and Conv1D are stored transposed, as (in, out). peft decides on the meta-device model
which layer has which rank and scale.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ghost.errors import BaseModelError, MergeError
from replicate_deployment import model_folder
from replicate_deployment.errors import WeightsError, first_line
from training.merging.weights import Shape, Tensor, Weights

# Read adapter_config.json as peft writes it, and refuse what this merge does not support.

CONFIG = model_folder.ADAPTER_CONFIG
# Keys that the merge handles, or that do not affect the arithmetic. Any other key must be off, or an unknown form of
# adapter would be merged as if it were plain LoRA. With `ensure_weight_tying` both tied weights are in the file;
# `eva_config` initialises A.
SUPPORTED = """
alpha_pattern auto_mapping base_model_name_or_path bias ensure_weight_tying eva_config exclude_modules
fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform lora_alpha lora_bias
lora_dropout megatron_core modules_to_save peft_type peft_version qalora_group_size r rank_pattern revision
target_modules task_type use_dora use_rslora
"""
# Initialisations that leave W unchanged. PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ change it.
PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva")


def read_config(folder: Path) -> dict[str, Any]:
    """Raises MergeError if it is missing, malformed, or has an unsupported setting."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise MergeError(f"{folder}: no such folder; name the one that holds {CONFIG}")
    if not path.exists():
        raise MergeError(f"{folder}: no {CONFIG} here; name the folder that `ghost train` wrote")
    try:
        config = model_folder.read_json(folder, CONFIG)
        rank, alpha, kind = config["r"], config["lora_alpha"], config["peft_type"]
    except WeightsError as error:
        raise MergeError(str(error)) from error
    except KeyError as error:
        raise MergeError(f"{path}: not a readable adapter config ({type(error).__name__}: {error})") from error
    on = {key: value for key, value in config.items() if value and key not in SUPPORTED.split()}
    if kind != "LORA":
        on = {"peft_type": kind}
    elif config.get("init_lora_weights", True) not in PLAIN_INITS:
        on = {"init_lora_weights": config["init_lora_weights"]}
    if on:
        found = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sorted(on.items()))
        raise MergeError(
            f"{path}: {found}: not merged here; train without it, or merge with peft (merge_and_unload) where memory "
            "allows"
        )
    if not (_is_rank(rank) and _is_alpha(alpha)):
        raise MergeError(f"{path}: r: {rank!r}, lora_alpha: {alpha!r}: a positive whole number and a number expected")
    for key, right in (("rank_pattern", _is_rank), ("alpha_pattern", _is_alpha)):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or not all(map(right, pattern.values())):
            raise MergeError(f"{path}: {key}: {pattern!r}: positive numbers by module name expected")
    texts = [text for value in config.values() for text in (value if isinstance(value, (list, dict)) else [value])]
    for text in texts:  # peft matches them with each module's name
        if isinstance(text, str) and (len(re.findall(r"[*+]", text)) > 5 or model_folder.may_explode(text)):
            raise MergeError(f"{path}: {text!r:.80} may take for ever to match; name the modules themselves")
    if not config.get("target_modules"):
        raise MergeError(f"{path}: no target_modules, so nothing says which weights must have an adapter")
    return dict(config)


def as_peft(config: dict[str, Any]) -> Any:
    """Make peft's LoraConfig for a meta-device model, without the initialisation, which a merge does not need."""
    from peft import LoraConfig

    known = {field.name for field in fields(LoraConfig)}
    settled = {"inference_mode": True, "init_lora_weights": True, "eva_config": None, "base_model_name_or_path": None}
    return LoraConfig(**{key: value for key, value in config.items() if key in known} | settled)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_alpha(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# Meta-device models: built by transformers and peft with shapes but no values, to be inspected and to be run one layer
# at a time. A 7B model takes almost no memory.


def meta_model(folder: Path, vocab_size: int | None = None) -> Any:
    """Build the causal language model of `folder`'s config.json; with `vocab_size`, as if its vocabulary were
    resized."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    try:
        config = model_folder.sized_config(folder)
        config.vocab_size = vocab_size or config.vocab_size
        with init_empty_weights(include_buffers=False):  # most buffers are computed
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    except WeightsError as error:
        raise BaseModelError(str(error)) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, ArithmeticError) as error:
        raise BaseModelError(
            f"{folder / 'config.json'}: no model can be built from it ({first_line(error)})"
        ) from error
    for module in model.modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and leaf not in module._non_persistent_buffers_set:
                module._buffers[leaf] = buffer.to("meta")
    return model.eval()


def with_adapter(model: Any, config: dict[str, Any]) -> Any:
    """Add the adapter of adapter_config.json to a meta-device model; peft resolves targets and patterns."""
    from peft import get_peft_model

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns about its own merge of ties and biases; this one handles both
            return get_peft_model(model, as_peft(config), low_cpu_mem_usage=True).eval()
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise MergeError(f"{CONFIG} does not fit this base; peft says: {first_line(error)}") from error


@contextmanager
def streamed(model: Any, read: Callable[[str], Tensor]) -> Iterator[None]:
    """Within the block, call the model although it has no values: each layer's are filled from `read(name)`, float32,
    before it runs, and dropped after it. So one linear layer, or the head, is in memory at a time.
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
    """Yield the modules to fill as a whole, each with (owner, leaf, name) of its missing values.

    These are modules with their own parameters, and peft's wrappers, which read their parts' weights without calling
    them. The originals that `modules_to_save` has replaced are never used.
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


# Map the names in an adapter's file to the base's names, whatever wrapped the model when it was saved.

# Inserted into names by torch.compile, FSDP and activation checkpointing.
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# peft's own: followed by the adapter's name, which peft drops when it saves.
BEFORE_ADAPTER_NAME = {
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "modules_to_save",
}
ADAPTER = "default"


def place(name: str) -> str:
    """Return where an adapter's tensor belongs, by the base's names: `model.layers.0.mlp.up_proj.lora_A.weight`.

    A tensor that replaces one of the base gets that one's name: `base_layer`, `modules_to_save`, wrappers and the
    adapter's name are dropped. `original_module` stays, since peft uses its replacement.
    """
    words = [word for word in name.split(".") if word not in WRAPPERS]
    while words[:1] == ["module"]:  # DistributedDataParallel's
        del words[0]
    while words[:2] == ["base_model", "model"]:
        del words[:2]
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not (word == ADAPTER and before in BEFORE_ADAPTER_NAME)
    ]
    if kept[-2:] == ["lora_magnitude_vector", "weight"]:
        del kept[-1]  # peft writes it without
    return ".".join(word for word in kept if word not in ("base_layer", "modules_to_save"))


def by_place(path: Path, weights: Weights) -> dict[str, str]:
    """Return the names in the file by place. Raises MergeError if two different tensors belong to one place."""
    found: dict[str, str] = {}
    for name in weights.shapes:
        other = found.setdefault(place(name), name)
        if other != name and not weights.equal(other, name):
            raise MergeError(f"{path}: {other} and {name} belong to the same place but differ; save the adapter again")
    if not found:
        raise MergeError(f"{path}: holds no tensor; was the adapter saved?")
    return found


WEIGHTS = model_folder.ADAPTER


@dataclass(frozen=True)
class Update:
    """What is added to a matrix: `a`, `b` and `magnitude` (DoRA's m) are names in the adapter's file."""

    a: str
    b: str
    rank: int
    scale: float
    transposed: bool
    """Whether the matrix is stored as (in, out)."""
    magnitude: str | None


@dataclass(frozen=True)
class Output:
    """A tensor of the merged model: `source`, its name in the base's or the adapter's files, and what is added to
    it."""

    shape: Shape
    source: str
    from_adapter: bool = False
    update: Update | None = None
    shift: tuple[str, float] | None = None
    """A bias that LoRA learnt (a name in the adapter's file), and its factor."""


@dataclass(frozen=True)
class Adapter:
    """`outputs` are by name, in the order of their sources in the base's files."""

    folder: Path
    config: dict[str, Any]
    outputs: dict[str, Output]
    vocab_size: int | None
    """The merged model's, if the adapter resized it."""
    ties: dict[str, str]
    """Tied tensors of the base: second name → first name."""
    unties: bool
    """Whether embedding and head were tied in the base and are not any more."""
    quantised: frozenset[str]
    """The base's tensors that QLoRA holds in 4 bits: all linear layers but the head."""
    names: dict[str, str]
    """Names in the adapter's file, by place (see `place`)."""

    def open(self) -> Weights:
        return Weights([self.folder / WEIGHTS])


def untrained(folder: Path) -> int:
    """Return the number of B matrices if all are zero, as initialised, and nothing else is changed; otherwise 0.

    Merged, such an adapter would be the base itself.
    """
    with Weights([folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []) as weights:
        added = [name for name in weights.shapes if "lora_B" in name or "lora_embedding_B" in name]
        inputs = ("lora_A", "lora_embedding_A", "lora_magnitude_vector")
        if any(name not in added and not any(kind in name for kind in inputs) for name in weights.shapes):
            return 0
        return 0 if any(block.any() for name in added for block in weights.blocks(name)) else len(added)


def read_adapter(folder: Path, base_folder: Path) -> Adapter:
    """Read the adapter of `folder` and match each of its tensors with the base.

    Raises MergeError on an unsupported adapter, an unused tensor, a target without its tensors, or a wrong shape;
    BaseModelError on a base that cannot be built.
    """
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        found = "adapter_model.bin is a pickle, which can run code and is never read" if pickled else "was it saved?"
        raise MergeError(f"{folder}: no {WEIGHTS} ({found}); save the adapter with safe_serialization=True")
    with Weights.of_model(base_folder) as base, Weights([folder / WEIGHTS]) as weights:
        return _Pairing(folder, config, base_folder, base, weights).adapter()


class _Pairing:
    """The shared state while matching one adapter with one base."""

    def __init__(
        self, folder: Path, config: dict[str, Any], base_folder: Path, base: Weights, weights: Weights
    ) -> None:
        from transformers.quantizers.base import get_keys_to_not_convert
        from transformers.quantizers.quantizers_utils import should_convert_module

        self.folder, self.config, self.base, self.weights = folder, config, base, weights
        self.path = folder / WEIGHTS
        model = meta_model(base_folder)
        self.found = by_place(self.path, weights)
        self.vocab_size = self._resized(model)
        if self.vocab_size is not None:
            model = meta_model(base_folder, self.vocab_size)
        self.shapes: dict[str, Shape] = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self.ties = {  # transformers does not tie weights that differ in the files
            name: home
            for name, home in dict(model.all_tied_weights_keys).items()
            if name not in base.shapes or home not in base.shapes or base.equal(name, home)
        }
        skipped = get_keys_to_not_convert(model)
        self.linear = frozenset(
            f"{name}.weight"
            for name, module in model.named_modules()
            if type(module).__name__ == "Linear" and should_convert_module(name, skipped)
        )
        self._check_base(base_folder)
        self.peft = with_adapter(model, config)
        self.used: set[str] = set()  # places of `found`

    def adapter(self) -> Adapter:
        outputs = {
            name: Output(self.shapes.get(name, shape), name) for name, shape in self.base.shapes.items()
        }  # also copy tensors that the architecture does not use
        copies, updates, shifts = self._wrapped()
        members = {*self.ties, *self.ties.values()}
        untied = False
        for home in [name for name in self.shapes if name not in self.ties]:
            group = [home, *(name for name, source in self.ties.items() if source == home)]
            shared = self._shared(group, copies)
            made = {
                name: Output(
                    self.shapes[name],
                    copies.get(name) or shared or home,
                    name in copies or shared is not None,
                    updates.get(name),
                    shifts.get(name),
                )
                for name in group
            }
            apart = home in members and len(set(made.values())) > 1
            untied |= apart
            outputs.update({name: output for name, output in made.items() if apart or name in outputs})
        self._check_unused()
        for name, output in outputs.items():
            self._check_shapes(name, output)
        return Adapter(
            self.folder,
            self.config,
            outputs,
            self.vocab_size,
            self.ties,
            untied,
            self.linear & outputs.keys(),
            self.found,
        )

    def _wrapped(self) -> tuple[dict[str, str], dict[str, Update], dict[str, tuple[str, float]]]:
        """Return what peft has wrapped, by the base's names: copies of whole modules, updates, and shifts of biases."""
        from peft.tuners.lora.layer import Embedding, Linear
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import ModulesToSaveWrapper

        copies: dict[str, str] = {}
        updates: dict[str, Update] = {}
        shifts: dict[str, tuple[str, float]] = {}
        for name, module in self.peft.base_model.model.named_modules():
            if isinstance(module, ModulesToSaveWrapper):
                for leaf in module.modules_to_save["default"].state_dict():
                    copies[f"{name}.{leaf}"] = self._take(f"{name}.{leaf}")
                    self.used.add(f"{name}.original_module.{leaf}")  # the file may hold the replaced original too
            elif isinstance(module, (Linear, Embedding)):
                updates[f"{name}.weight"] = self._update(name, module, embedding=isinstance(module, Embedding))
                if module.lora_bias["default"]:
                    if f"{name}.bias" not in self.shapes:
                        raise MergeError(f"{self.path}: lora_bias: this base has no {name}.bias to add to")
                    shifts[f"{name}.bias"] = self._take(f"{name}.lora_B.bias"), module.scaling["default"]
            elif isinstance(module, BaseTunerLayer):
                raise MergeError(f"{CONFIG}: {name}: LoRA on a {type(module.get_base_layer()).__name__} is not merged")
        kind = self.config.get("bias", "none")
        for name in self.shapes:
            of_layer = name.removesuffix("bias") + "weight" in updates
            if name.endswith(".bias") and name not in copies and (kind == "all" or (kind == "lora_only" and of_layer)):
                self._require(name)
        return copies, updates, shifts

    def _update(self, name: str, module: Any, *, embedding: bool) -> Update:
        a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        return Update(
            self._take(f"{name}.{a}"),
            self._take(f"{name}.{b}"),
            module.r["default"],
            module.scaling["default"],
            embedding or module.fan_in_fan_out,
            self._take(f"{name}.lora_magnitude_vector") if module.use_dora["default"] else None,
        )

    def _take(self, place: str) -> str:
        """Return the name in the adapter's file of the tensor that belongs there."""
        self._require(place)
        self.used.add(place)
        return self.found[place]

    def _require(self, place: str) -> None:
        if place not in self.found:
            raise MergeError(
                f"{self.path}: {place} is missing, although {CONFIG} needs it; copy the adapter again, or name the "
                "base that it was trained on: --base PATH_OR_REPO"
            )

    def _shared(self, group: list[str], copies: dict[str, str]) -> str | None:
        """Return the adapter's tensor that replaces the tied tensors `group` of the base, if any."""
        shared: str | None = None
        for name in group:
            if name in copies or name not in self.found:
                continue
            if shared is not None and not self.weights.equal(shared, self.found[name]):
                raise MergeError(f"{self.path}: {' and '.join(group)} are one tensor in this base, and differ here")
            shared = shared or self.found[name]
            self.used.add(name)
        return shared

    def _resized(self, model: Any) -> int | None:
        """Return the number of rows of the adapter's embedding or head, if it differs from the base's."""
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            name = next((name for name, found in model.named_modules() if found is module), None)
            held = self.found.get(f"{name}.weight")
            rows = self.weights.shapes[held][0] if held else None
            if rows not in (None, model.config.vocab_size):
                return rows
        return None

    def _check_base(self, folder: Path) -> None:
        """Check that the base's files hold every tensor of the architecture, or one that it is tied to."""
        missing = [name for name in self.shapes if name not in self.base.shapes and name not in self.ties]
        if missing:
            raise MergeError(
                f"{folder}: {len(missing)} tensors of its architecture are not in its files, first {missing[0]}; "
                "download it again, or convert it with this version of transformers (save_pretrained)"
            )

    def _check_unused(self) -> None:
        unused = sorted(self.found.keys() - self.used)
        if unused:
            name = self.found[unused[0]]
            raise MergeError(f"{self.path}: {len(unused)} tensors have no place in this base, first {name}")

    def _check_shapes(self, name: str, output: Output) -> None:
        source = self.weights.shapes if output.from_adapter else self.base.shapes
        needed = [(output.source, source[output.source], output.shape)]
        if output.shift is not None:
            needed.append((output.shift[0], self.weights.shapes[output.shift[0]], output.shape))
        if output.update is not None:
            update = output.update
            outer, inner = output.shape[:: -1 if update.transposed else 1]
            needed.append((update.a, self.weights.shapes[update.a], (update.rank, inner)))
            needed.append((update.b, self.weights.shapes[update.b], (outer, update.rank)))
            if update.magnitude is not None:
                needed.append((update.magnitude, self.weights.shapes[update.magnitude], (outer,)))
        if not output.from_adapter and needed[0][1] != output.shape:
            raise MergeError(
                f"{self.path}: its vocabulary is {self.vocab_size}, and {name} of the base has {needed[0][1][0]} rows; "
                "save it with the adapter (modules_to_save: embed_tokens, lm_head)"
            )
        for held, found, expected in needed:
            if found != expected:
                raise MergeError(
                    f"{name}: {held} is {[*found]}, and {[*expected]} would fit; is it the adapter of another base?"
                )
