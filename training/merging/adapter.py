"""A LoRA adapter folder and its base: how each tensor of the merged model comes about, with nothing left over.

Plain LoRA and rsLoRA: W' = W + s·B·A, with s = alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2106.09685, 2312.03732).
DoRA: W' = m · (W + s·B·A) / ‖W + s·B·A‖, a norm for each output (arXiv:2402.09353). W is (out, in), A is (r, in), B is
(out, r), m is (out,); an embedding and a Conv1D lie the other way round, as (in, out). Every number is the adapter's,
and which layer has which is decided by peft itself, on a model without values.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lora_config import CONFIG, read_config
from scripts.names import by_place
from scripts.skeleton import skeleton, with_adapter
from scripts.weights import Weights
from training.errors import MergeError

WEIGHTS = "adapter_model.safetensors"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Update:
    """What is added to a matrix. `a`, `b` and `magnitude` (DoRA's m) are names in the adapter's file."""

    a: str
    b: str
    rank: int
    scale: float
    transposed: bool
    """The matrix lies as (in, out)."""
    magnitude: str | None


@dataclass(frozen=True)
class Output:
    """A tensor of the merged model: `source` in the base's files, or in the adapter's, and what is added to it."""

    shape: Shape
    source: str
    from_adapter: bool = False
    update: Update | None = None
    shift: tuple[str, float] | None = None
    """A bias that LoRA learnt (a name in the adapter's file), and its factor."""


@dataclass(frozen=True)
class Adapter:
    """`outputs` are by name, in the order in which the base's files hold their sources."""

    folder: Path
    config: dict[str, Any]
    outputs: dict[str, Output]
    vocab_size: int | None
    """Of the merged model, where the adapter resized it."""
    ties: dict[str, str]
    """Tensors that are another one under a second name, in the base."""
    unties: bool
    """Whether embedding and head were one tensor and are two now."""
    quantised: frozenset[str]
    """The base's tensors that QLoRA holds in 4 bits: its linear layers', but for the head's."""
    names: dict[str, str]
    """Of the tensors in the adapter's file, by place (scripts/names.py)."""

    def open(self) -> Weights:
        return Weights([self.folder / WEIGHTS])


def untrained(folder: Path) -> int:
    """How many matrices B there are, if all are zero as they begin and nothing else is changed; otherwise 0.

    Merged, such an adapter is the base itself.
    """
    with Weights([folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []) as weights:
        added = [name for name in weights.shapes if "lora_B" in name or "lora_embedding_B" in name]
        inputs = ("lora_A", "lora_embedding_A", "lora_magnitude_vector")
        if any(name not in added and not any(kind in name for kind in inputs) for name in weights.shapes):
            return 0
        return 0 if any(block.any() for name in added for block in weights.blocks(name)) else len(added)


def read_adapter(folder: Path, base_folder: Path) -> Adapter:
    """The adapter of `folder`, if every one of its tensors has its place in the base, and every place its tensor.

    Raises MergeError on a form of adapter that is not merged, a tensor that would not be used, a target without its
    tensors, a shape that does not fit; BaseModelError on a base that cannot be built.
    """
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        found = "adapter_model.bin is a pickle, which can run code and is never read" if pickled else "was it saved?"
        raise MergeError(f"{folder}: no {WEIGHTS} ({found}); save the adapter with safe_serialization=True")
    with Weights.of_model(base_folder) as base, Weights([folder / WEIGHTS]) as weights:
        return _Pairing(folder, config, base_folder, base, weights).adapter()


class _Pairing:
    """Built once for an adapter and a base, to hold what the steps share."""

    def __init__(
        self, folder: Path, config: dict[str, Any], base_folder: Path, base: Weights, weights: Weights
    ) -> None:
        from transformers.quantizers.base import get_keys_to_not_convert
        from transformers.quantizers.quantizers_utils import should_convert_module

        self.folder, self.config, self.base, self.weights = folder, config, base, weights
        self.path = folder / WEIGHTS
        model = skeleton(base_folder)
        self.found = by_place(self.path, weights)
        self.vocab_size = self._resized(model)
        if self.vocab_size is not None:
            model = skeleton(base_folder, self.vocab_size)
        self.shapes: dict[str, Shape] = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self.ties = {  # transformers ties no weights that the files hold twice and differently
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
        }  # what the architecture does not know, it does not read: it is copied all the same
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
        """What peft has wrapped: own copies of whole modules, updates and shifts, each by the base's tensor name."""
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
                    self.used.add(f"{name}.original_module.{leaf}")  # what the copy has replaced may lie beside it
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
        """The name in the adapter's file of the tensor that belongs there."""
        self._require(place)
        self.used.add(place)
        return self.found[place]

    def _require(self, place: str) -> None:
        if place not in self.found:
            raise MergeError(
                f"{self.path}: {CONFIG} promises {place}, and it is missing; copy the adapter again, or name the base "
                "that it was trained on: --base PATH_OR_REPO"
            )

    def _shared(self, group: list[str], copies: dict[str, str]) -> str | None:
        """The tensor of the adapter that takes the place of what the tied tensors `group` hold in the base."""
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
        """The rows of the adapter's embedding or head, where they are others than the base's."""
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            name = next((name for name, found in model.named_modules() if found is module), None)
            held = self.found.get(f"{name}.weight")
            rows = self.weights.shapes[held][0] if held else None
            if rows not in (None, model.config.vocab_size):
                return rows
        return None

    def _check_base(self, folder: Path) -> None:
        """Every tensor of the architecture is in the base's files, but for those tied to one that is."""
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
