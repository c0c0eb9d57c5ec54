import math
from dataclasses import asdict, fields
from typing import Any

import pytest

from replicate_deployment.errors import SettingsError
from replicate_deployment.settings import RANGES, Settings, from_facts


def test_every_setting_has_a_range_that_holds_its_default() -> None:
    assert [field.name for field in fields(Settings)] == list(RANGES)
    assert from_facts(asdict(Settings())) == Settings()


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_are_allowed_and_nothing_beyond(name: str) -> None:
    low, high = RANGES[name]
    Settings(**{name: low})
    Settings(**{name: high})
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match=rf"^{name}: {value} is not .* from {low} to {high}$"):
            Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", math.nan), ("temperature", "0.7"), ("top_k", 1.5), ("top_k", True), ("max_new_tokens", None)],
)
def test_what_is_no_number_of_its_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings(**{name: value})


def test_a_whole_number_is_a_number() -> None:
    assert Settings(temperature=1).temperature == 1


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(SettingsError, match="temprature: no such setting"):
        from_facts({"temprature": 1})
    with pytest.raises(SettingsError, match="beams"):
        Settings().replace(beams=4)
