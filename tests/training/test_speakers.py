"""Whose voice: names matched whole, settings refused early."""

import json
from pathlib import Path
from typing import Any

import pytest

from training import speakers
from training.errors import ConfigError
from training.speakers import UserConfig, fold, load, matching, recognise

SHIPPED = Path(__file__).parents[2] / "config" / "user_config.example.json"


def _config(folder: Path, **values: Any) -> Path:
    path = folder / "user_config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("identifier", "sender"),
    [
        ("zoé", "ZOÉ"),
        ("Zoe\u0301", "Zo\u00e9"),
        ("STRASSE", "straße"),
        ("+33 6 12 34", "\u202a+33\u00a06\u00a012\u00a034\u202c"),
        ("ada  lovelace ", "Ada Lovelace"),
        ("ａｄａ", "Ada"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_spellings_of_one_name(identifier: str, sender: str) -> None:
    assert matching([identifier], [sender, "somebody else"]) == {sender}
    assert fold(fold(sender)) == fold(sender)


@pytest.mark.parametrize(("identifier", "sender"), [("Anto", "Antoine"), ("Zoe", "Zoé"), ("Ada", "Ada Lovelace")])
def test_different_names(identifier: str, sender: str) -> None:
    assert matching([identifier], [sender]) == set()


def test_the_shipped_config_names_nobody_and_holds_the_defaults() -> None:
    assert load(SHIPPED) == UserConfig()


def test_a_config_is_read_into_typed_fields(tmp_path: Path) -> None:
    path = _config(tmp_path, user_identifiers=["Ada"], user_label="Moi:", other_label="Toi:", timezone="Europe/Paris")
    config = load(path)
    assert (config.user_identifiers, config.labels.me, config.labels.other) == (("Ada",), "Moi:", "Toi:")
    assert config.zone.key == "Europe/Paris"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"user_identifier": ["Ada"]}, "unknown key 'user_identifier'; the nearest valid name is 'user_identifiers'"),
        ({"user_identifiers": "Ada"}, "user_identifiers: a list of names"),
        ({"user_identifiers": ["Ada", " "]}, "user_identifiers: a list of names"),
        ({"user_identifiers": [7]}, "user_identifiers: a list of names"),
        ({"timezone": "Europe/Pariss"}, "no IANA time zone; a valid one is 'Europe/Paris'"),
        ({"timezone": 2}, "no IANA time zone"),
        ({"user_label": "A"}, "label 'A': one word that ends in its only colon"),
        ({"user_label": "B:"}, "both labels are 'B:'"),
        ({"user_label": 1}, "user_label"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, values: dict[str, Any], complaint: str) -> None:
    path = _config(tmp_path, **values)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_config_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    path = tmp_path / "user_config.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError, match="JSON"):
        load(path)


def test_a_named_config_must_exist_but_the_standard_one_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(speakers.CONFIG) == UserConfig()
    with pytest.raises(ConfigError, match=r"mine\.json: cannot be read"):
        load(Path("mine.json"))


COUNTS = {"Ada": 120, "ADA": 3, "Charles": 1400, **{f"guest {n:02}": 1 for n in range(12)}}


def test_the_config_names_the_person() -> None:
    assert recognise(UserConfig(("ada", "not in these chats")), [], COUNTS) == {"Ada", "ADA"}


def test_me_stands_in_for_the_config() -> None:
    assert recognise(UserConfig(("ada",)), ["Charles"], COUNTS) == {"Charles"}


@pytest.mark.parametrize(
    ("identifiers", "me", "complaint"),
    [
        ((), [], "nobody is A: yet"),
        (("Bob",), [], r"none of user_identifiers \(Bob\) sent a message"),
        (("Ada",), ["Charles", "Bob"], "--me 'Bob' sent none of these messages"),
    ],
)
def test_when_nobody_matches_the_senders_are_listed(
    identifiers: tuple[str, ...], me: list[str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        recognise(UserConfig(identifiers), me, COUNTS)
    message = str(caught.value)
    listed = [line.split()[-1] for line in message.splitlines() if line.startswith("   ")]
    assert listed[:4] == ["Charles", "Ada", "ADA", "00"]
    assert "and 5 more" in message
    assert '"user_identifiers": ["Charles"]' in message
    assert 'ghost prepare --me "Charles"' in message
