"""config/gpu_prices.yaml: the GPUs that can be rented, what they can do and what an hour costs."""

import dataclasses
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from training.errors import ConfigError
from training.installed import config_file

NAME = "gpu_prices.yaml"


@dataclass(frozen=True)
class Gpu:
    """What each field means stands at the top of config/gpu_prices.yaml."""

    gpu: str
    device: str
    sold: float
    memory: float
    tflops: float
    bandwidth: float
    price: float
    provider: str
    read: date
    host: str = "x86-64"

    @property
    def bytes(self) -> int:
        return int(self.memory * 2**30)


@dataclass(frozen=True)
class Prices:
    as_of: date
    gpus: list[Gpu]


def load(path: Path | None = None) -> Prices:
    """Those of the current folder, or else ghost's own, unless another file is named.

    Raises ConfigError naming the file and the entry that is not what its head describes.
    """
    path = path or config_file(NAME)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({type(error).__name__})") from error
    if not isinstance(document, dict) or not isinstance(document.get("gpus"), list) or not document["gpus"]:
        raise ConfigError(f"{path}: expected a list of GPUs under the key gpus")
    if not isinstance(document.get("as_of"), date):
        raise ConfigError(f"{path}: as_of: expected a day such as 2026-11-22, found {document.get('as_of')!r}")
    return Prices(document["as_of"], [_gpu(entry, number, path) for number, entry in enumerate(document["gpus"], 1)])


def gpu_of(device: str, path: Path | None = None) -> Gpu | None:
    """The GPU that torch calls `device`; None when the file knows none. A part of one (MIG) has a name of its own."""
    return next((gpu for gpu in load(path).gpus if gpu.device.casefold() == device.casefold()), None)


def _gpu(entry: Any, number: int, path: Path) -> Gpu:
    where = f"{path}: GPU {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected keys, found {entry!r}")
    fields = {field.name: field for field in dataclasses.fields(Gpu)}
    entry = {name: field.default for name, field in fields.items() if field.default is not dataclasses.MISSING} | entry
    names = {name: field.type for name, field in fields.items()}
    if odd := sorted(map(str, names.keys() ^ entry.keys())):
        raise ConfigError(f"{where}: {odd[0]} is {'missing' if odd[0] in names else 'no known key'}")
    for name, kind in names.items():
        value = entry[name]
        if kind is float and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ConfigError(f"{where}: {name}: expected a number above 0, found {value!r}")
        if kind is not float and not isinstance(value, kind):  # type: ignore[arg-type]
            raise ConfigError(f"{where}: {name}: expected {_WORDS[kind]}, found {value!r}")
    values: dict[str, Any] = {name: float(entry[name]) if names[name] is float else entry[name] for name in names}
    return Gpu(**values)


_WORDS: dict[Any, str] = {str: "text", date: "a day such as 2026-11-22"}
