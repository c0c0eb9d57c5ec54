"""Load config/training_config.yaml into a frozen dataclass. The file holds the values, this module names and types.

The names are Axolotl's (axolotl-ai-cloud/axolotl, src/axolotl/utils/schemas), so Axolotl can train from the same file.
No field has a default: a missing key, an unknown key or a wrong type is an error.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ghost.errors import ConfigError
from ghost.installed import SHIPPED, config_file

DEFAULT_PATH = Path("config/training_config.yaml")
DEFAULT = f"default: {DEFAULT_PATH}, or ghost's own where there is none"  # for the help of --config


@dataclass(frozen=True)
class Dataset:
    path: str
    split: Literal["train"]
    type: Literal["completion"]


@dataclass(frozen=True)
class Quantization:
    bnb_4bit_quant_type: Literal["nf4"]
    bnb_4bit_use_double_quant: bool


@dataclass(frozen=True)
class TrainingConfig:
    """The comments in config/training_config.yaml explain each field."""

    base_model: str
    revision_of_model: str | None
    load_in_4bit: bool
    bnb_config_kwargs: Quantization
    bf16: bool
    adapter: Literal["qlora"]
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: tuple[str, ...]
    datasets: tuple[Dataset, ...]
    test_datasets: tuple[Dataset, ...]
    sequence_len: int
    train_on_inputs: bool
    micro_batch_size: int
    gradient_accumulation_steps: int
    micro_batch_tokens: int | Literal["auto"]
    collapse_nested_windows: bool
    num_epochs: int
    evals_per_epoch: int
    load_best_model_at_end: bool
    early_stopping_patience: int | None
    optimizer: Literal["adamw_torch", "adamw_torch_fused"]
    learning_rate: float
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    gradient_checkpointing: bool | None
    checkpoint_minutes: float
    sample_replies: int
    use_tensorboard: bool
    seed: int
    logging_steps: int
    output_dir: str

    @property
    def windows_per_step(self) -> int:
        return self.micro_batch_size * self.gradient_accumulation_steps


def load(path: Path | None = None) -> TrainingConfig:
    """Load `path`; by default the config of the current folder, or the shipped one if there is none.

    Raises ConfigError with the file, the key, the value found and the nearest valid name.
    """
    path = path or config_file(DEFAULT_PATH.name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `ghost init` writes {DEFAULT_PATH} to edit") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line}: not YAML ({getattr(error, 'problem', None) or error})") from error
    config: TrainingConfig = _build(TrainingConfig, document, "", path)
    for key, complaint in _impossible(config):
        raise ConfigError(f"{path}: {key}: {complaint}")
    return config


def dump(config: TrainingConfig) -> str:
    """The YAML that `load` reads back as an equal config."""
    plain: str = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
    return plain


def as_dict(config: TrainingConfig) -> dict[str, Any]:
    def lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: [*value] if isinstance(value, tuple) else value for key, value in pairs}

    return dataclasses.asdict(config, dict_factory=lists)


def _build(cls: type, document: Any, prefix: str, path: Path) -> Any:
    """Build a dataclass from a mapping whose keys are exactly its fields."""
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: {prefix.rstrip('.') or 'the file'}: expected keys, found {_kind(document)}")
    hints = get_type_hints(cls)
    for key in document:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(hints)}"
            raise ConfigError(f"{path}: unknown key {prefix}{key}; {hint}")
    missing = [key for key in hints if key not in document]
    if missing:
        raise ConfigError(f"{path}: missing key {prefix}{missing[0]}; {SHIPPED / DEFAULT_PATH.name} has every key")
    return cls(**{key: _value(hint, document[key], prefix + key, path) for key, hint in hints.items()})


def _value(hint: Any, value: Any, key: str, path: Path) -> Any:
    """`value` converted to the type `hint`. Raises ConfigError."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, key + ".", path)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{path}: {key}: expected a list with at least one entry, found {_kind(value)}")
        return tuple(_value(get_args(hint)[0], item, f"{key}[{place}]", path) for place, item in enumerate(value))
    if get_origin(hint) in (UnionType, Union):  # a type, or one fixed value: None or "auto"
        kind, word = get_args(hint)
        words = get_args(word) or (None,)
        return value if value in words else _value(kind, value, key, path)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{path}: {key}: {value!r} is not one of {', '.join(get_args(hint))}")
        return value
    if hint is float:
        # YAML 1.1 reads 5e-5, without a point, as a string.
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif type(value) is hint:  # not isinstance: a bool is not accepted as an int
        return value
    raise ConfigError(f"{path}: {key}: expected {_NAMES[hint]}, found {_kind(value)}")


def _impossible(config: TrainingConfig) -> Iterator[tuple[str, str]]:
    """(key, complaint) for each value or combination that training cannot use."""
    if not config.load_in_4bit:
        yield "load_in_4bit", "false conflicts with adapter: qlora, which needs a 4-bit base"
    positive = ("lora_r", "lora_alpha", "micro_batch_size", "gradient_accumulation_steps", "micro_batch_tokens")
    more = ("num_epochs", "evals_per_epoch", "early_stopping_patience", "learning_rate", "max_grad_norm")
    for key in (*positive, *more, "checkpoint_minutes", "logging_steps"):
        value = getattr(config, key)
        if isinstance(value, (int, float)) and value <= 0:
            yield key, f"must be above 0, found {value}"
    for key in ("lora_dropout", "warmup_ratio"):
        if not 0 <= getattr(config, key) < 1:
            yield key, f"must be from 0 to below 1, found {getattr(config, key)}"
    if config.sequence_len < 16:
        yield "sequence_len", f"must be at least 16 tokens, a short turn and its reply; found {config.sequence_len}"
    if config.sample_replies < 0:
        yield "sample_replies", f"must not be negative, found {config.sample_replies}"
    if config.weight_decay < 0:
        yield "weight_decay", f"must not be negative, found {config.weight_decay}"
    if not 0 <= config.seed < 2**32:
        yield "seed", f"must be from 0 to 2**32 - 1, found {config.seed}"
    for key in ("datasets", "test_datasets"):
        if len(getattr(config, key)) != 1:
            yield key, f"expected one file, as `ghost prepare` writes it; found {len(getattr(config, key))}"
    if Path(config.datasets[0].path).parent != Path(config.test_datasets[0].path).parent:
        yield "test_datasets", "must be in the same folder as the file in datasets: one ghost.json describes both"


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(value: Any) -> str:
    """Describe a parsed YAML value."""
    if value is None:
        return "nothing"
    return f"{value!r}" if isinstance(value, (str, int, float)) else "a list" if isinstance(value, list) else "keys"
