"""The loader of config files: what every file can have wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from ghost.config import load
from ghost.errors import ConfigError


class Inner(Struct, frozen=True):
    word: Literal["red", "green"] = "red"


@dataclass(frozen=True)
class Settings:
    name: str
    rate: float = 0.5
    count: Annotated[int, Meta(ge=1)] = 1
    several: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    names: tuple[str, ...] | dict[str, tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.name == "impossible" and self.count > 1:
            raise ConfigError("count: more than one of what is impossible")


def settings(folder: Path, text: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return load(Settings, "training_config.yaml", path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nrate: 1e-4", Settings("a", rate=1e-4)),
        ("name: a\nrate: -2E+3", Settings("a", rate=-2000.0)),
        ("name: a\nrate: 3", Settings("a", rate=3.0)),
        ("name: '1e-4'", Settings("1e-4")),
        ('\ufeff{"name": "\\ud83d\\ude42"}', Settings("🙂")),
        ('{"name":\t"a", "names": {"x": ["y"]}}', Settings("a", names={"x": ("y",)})),
        (
            "name: a\nseveral: [{word: green}]\nnamed: {b: {}}",
            Settings("a", several=(Inner("green"),), named={"b": Inner()}),
        ),
    ],
)
def test_yaml_and_json_give_the_same(tmp_path: Path, text: str, expected: Settings) -> None:
    assert settings(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate: 1", "missing key name; "),
        ("name: a\nnmae: b", "unknown key nmae; did you mean name?"),
        ("name: a\nseveral: [{}, {wrod: red}]", "unknown key several[1].wrod; did you mean several[1].word?"),
        ("name: a\nnamed: {b: {wrod: red}}", "unknown key named.b.wrod; did you mean named.b.word?"),
        ("name: a\nnamed: {b: {word: blue}}", "named.b.word: 'blue' is not one of red, green"),
        ("name: a\nnamed: {no: {}}", "named: expected text as a key, found False"),
        ("name: a\nnamed: {b: 5}", "named[...]: expected keys"),
        ("name: yes", "name: expected text, found True"),
        ("name: a\nrate: .inf", "rate: expected a number, found inf"),
        ("name: a\nrate: yes", "rate: expected a number, found True"),
        ("name: a\ncount: 0", "count: expected a whole number >= 1, found 0"),
        ("name: a\nname: b", ", line 2: not YAML (duplicate key name)"),
        ("name: a\nnamed:\n  b: {}\n  b: {}", ", line 4: not YAML (duplicate key b)"),
        ('{"name": "a", "name": "b"}', "not JSON (duplicate key name)"),
        ("name: a\nrate: 2024-02-30", "not YAML (day"),
        ("name: \x00", "not YAML"),
        ("name: [" + "[" * 5000, "not YAML"),
        ("name: impossible\ncount: 2", "count: more than one of what is impossible"),
        ("just text", "the file: expected keys, found 'just text'"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings(tmp_path, text)
    told = str(refusal.value)
    assert told.startswith(str(tmp_path / "settings.yaml"))
    assert complaint in told
    assert "\n" not in told


def test_a_long_text_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found text of 40 characters") as refusal:
        settings(tmp_path, f"name: a\ncount: {'s' * 40}")
    assert "sss" not in str(refusal.value)
