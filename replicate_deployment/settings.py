"""Sampling settings: their defaults and ranges.

The merge writes `asdict(Settings())` into ghost.json, from which the server and all other readers take the defaults.
Standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from .errors import SettingsError


class Range(NamedTuple):
    """The allowed values of a setting, both ends included."""

    low: float
    high: float


RANGES = {
    "max_new_tokens": Range(1, 1024),
    "temperature": Range(0.0, 2.0),
    "top_p": Range(0.0, 1.0),
    "top_k": Range(0, 1000),
    "repetition_penalty": Range(1.0, 2.0),
}


@dataclass(frozen=True)
class Settings:
    """Raises SettingsError, naming the setting, its range and the value found, when a value is out of range."""

    max_new_tokens: int = 96
    """Cut a reply after this many tokens."""
    temperature: float = 0.7
    """0 always takes the likeliest token; higher values vary more."""
    top_p: float = 1.0
    """Sample from the likeliest tokens with this total probability; 1 is off."""
    top_k: int = 0
    """Sample from this many likeliest tokens; 0 is off."""
    repetition_penalty: float = 1.2
    """Divide the scores of tokens already seen by this; 1 is off."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), RANGES[field.name]
            whole = isinstance(field.default, int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or math.isnan(value) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise SettingsError(f"{field.name}: {value!r} is not {kind} from {low} to {high}")

    def replace(self, **changes: Any) -> "Settings":
        """Return a copy with these changes. Raises SettingsError on an unknown name or a value out of range."""
        return from_facts(asdict(self) | changes)


def from_facts(block: Mapping[str, Any]) -> Settings:
    """Return the settings of ghost.json's `sampling` block. Raises SettingsError naming the first unknown key."""
    unknown = sorted(set(block) - set(RANGES))
    if unknown:
        raise SettingsError(f"{unknown[0]}: no such setting; choose from {', '.join(RANGES)}")
    return Settings(**block)
