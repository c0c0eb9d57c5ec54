"""The training config and the known bases: names and types. config/*.yaml hold the values.

The names are Axolotl's (axolotl-ai-cloud/axolotl, src/axolotl/utils/schemas), so Axolotl can train from the same file.
No field has a default: a missing key, an unknown key or a wrong type is an error.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from ghost import config
from ghost.errors import BaseModelError, ConfigError

DEFAULT_PATH = Path("config/training_config.yaml")
BASES = "bases.yaml"
PREFERENCES = "preferences.yaml"
BASE_HELP = "a folder, a Hub repo, or a name that `ghost bases` lists"  # for the help of --base
DEFAULT = f"default: {DEFAULT_PATH}, or ghost's own where there is none"  # for the help of --config


Positive = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]


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
    adapter: Literal["qlora", "lora"]
    lora_r: Positive
    lora_alpha: Positive
    lora_dropout: Share
    lora_target_modules: Annotated[tuple[str, ...], Meta(min_length=1)]
    datasets: tuple[Dataset]
    test_datasets: tuple[Dataset]
    sequence_len: Annotated[int, Meta(ge=16)]
    train_on_inputs: bool
    goldfish_k: Annotated[int, Meta(ge=2)] | None
    micro_batch_size: Positive
    gradient_accumulation_steps: Positive
    micro_batch_tokens: Positive | Literal["auto"]
    collapse_nested_windows: bool
    num_epochs: Positive
    evals_per_epoch: Positive
    load_best_model_at_end: bool
    early_stopping_patience: Positive | None
    optimizer: Literal["adamw_torch", "adamw_torch_fused"]
    learning_rate: PositiveFloat
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"]
    warmup_ratio: Share
    weight_decay: Annotated[float, Meta(ge=0)]
    max_grad_norm: PositiveFloat
    gradient_checkpointing: bool | None
    checkpoint_minutes: PositiveFloat
    sample_replies: Annotated[int, Meta(ge=0)]
    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    logging_steps: Positive
    output_dir: str

    def __post_init__(self) -> None:
        if self.load_in_4bit != (self.adapter == "qlora"):
            found = str(self.load_in_4bit).lower()
            raise ConfigError(f"load_in_4bit: {found} conflicts with adapter: {self.adapter}; qlora is lora on 4 bits")
        if Path(self.datasets[0].path).parent != Path(self.test_datasets[0].path).parent:
            raise ConfigError(
                "test_datasets: must be in the same folder as the file in datasets: one ghost.json describes both"
            )

    @property
    def windows_per_step(self) -> int:
        return self.micro_batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True)
class PreferenceConfig:
    """The comments in config/preferences.yaml explain each field."""

    beta: PositiveFloat
    num_epochs: Positive
    replies_per_step: Positive


def load_preferences() -> PreferenceConfig:
    """Load config/preferences.yaml of the current folder, or else ghost's own. Raises ConfigError."""
    return config.load(PreferenceConfig, PREFERENCES)


def load(path: Path | None = None) -> TrainingConfig:
    """Load `path`; by default the config of the current folder, or the shipped one if there is none."""
    return config.load(TrainingConfig, DEFAULT_PATH.name, path)


def dump(config: TrainingConfig) -> str:
    """The YAML that `load` reads back as an equal config."""
    plain: str = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
    return plain


def as_dict(config: TrainingConfig) -> dict[str, Any]:
    """As JSON reads it: lists instead of tuples."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return plain


@dataclass(frozen=True)
class KnownBase:
    """An entry of config/bases.yaml, whose head explains the fields."""

    repo: str
    revision: str | None
    billions: PositiveFloat
    license: str
    languages: str
    tokenizer: Literal["SentencePiece with byte fallback", "byte-level BPE"]
    tried: str
    config: dict[str, Any]
    source: str
    read: date


@dataclass(frozen=True)
class KnownBases:
    bases: dict[str, KnownBase]


def load_bases() -> dict[str, KnownBase]:
    """Load config/bases.yaml of the current folder, or else ghost's own. Raises ConfigError."""
    return config.load(KnownBases, BASES).bases


def base_named(name: str) -> tuple[str, str | None]:
    """Return what --base NAME means: a folder or a Hub repo, and the commit if one is pinned.

    `name` is a folder, a Hub repo (OWNER/NAME) or a name in config/bases.yaml. Raises BaseModelError if it is none.
    """
    if "/" in name or Path(name).expanduser().exists():
        return name, None
    bases = load_bases()
    if name not in bases:
        raise BaseModelError(
            f"{name}: no such folder, not the name of a Hub repo (OWNER/NAME), and not in {BASES}; "
            f"{config.nearest(name, bases)}"
        )
    return bases[name].repo, bases[name].revision
