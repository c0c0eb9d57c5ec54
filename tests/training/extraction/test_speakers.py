"""Whose voice: names matched whole, settings refused early."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ConfigError
from training.extraction import speakers
from training.extraction.speakers import UserConfig, fold, load, matching, owners, recognise

SHIPPED = Path(__file__).parents[3] / "config" / "user_config.example.json"


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


def test_what_is_left_out_is_read_into_typed_fields(tmp_path: Path) -> None:
    config = load(
        _config(
            tmp_path,
            user_identifiers={"telegram": ["ada_l"], "whatsapp": ["Ada", "ada_l"]},
            exclude_people=["Bob"],
            exclude_conversations=["whatsapp/Mum"],
            since="2024-02-29",
            until="2024-02-29",
            max_group_size=2,
        )
    )
    assert (config.names, config.names_on("whatsapp"), config.names_on("sms")) == (
        ("ada_l", "Ada"),
        ("Ada", "ada_l"),
        (),
    )
    assert (config.exclude_people, config.exclude_conversations) == (("Bob",), ("whatsapp/Mum",))
    assert (config.since, config.until, config.max_group_size) == (date(2024, 2, 29), date(2024, 2, 29), 2)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"user_identifier": ["Ada"]}, "unknown key user_identifier; did you mean user_identifiers"),
        ({"user_identifiers": "Ada"}, r'user_identifiers: expected keys or a list, found \'Ada\'; write \["Ada"\]'),
        ({"exclude_people": "Bob"}, r'exclude_people: expected a list, found \'Bob\'; write \["Bob"\]'),
        ({"user_identifiers": ["Ada", " "]}, "user_identifiers: a name is blank"),
        ({"user_identifiers": [7]}, r"user_identifiers\[0\]: expected text, found 7"),
        ({"timezone": "Europe/Pariss"}, "not an IANA time zone; a valid one is 'Europe/Paris'"),
        ({"timezone": 2}, "timezone: expected text, found 2"),
        ({"user_label": "A"}, "label 'A': one word that ends in its only colon"),
        ({"user_label": "B:"}, "both labels are 'B:'"),
        ({"user_label": 1}, "user_label"),
        ({"user_identifiers": {"telegram": "Ada"}}, r"user_identifiers\[...\]: expected a list"),
        ({"user_identifiers": {"telegram": ["Ada", ""]}}, "user_identifiers: a name is blank"),
        ({"exclude_people": "Bob"}, "exclude_people: expected a list, found 'Bob'"),
        ({"exclude_conversations": [""]}, "exclude_conversations: a name is blank"),
        ({"exclude_person": ["Bob"]}, "unknown key exclude_person; did you mean exclude_people"),
        ({"since": "1.2.2024"}, "since: expected a date such as 2024-02-29, found '1.2.2024'"),
        ({"since": "2024-W10-1"}, "since: expected a date such as"),
        ({"until": "2023-02-29"}, "until: expected a date such as"),
        ({"until": 2023}, "until: expected a date such as"),
        ({"since": "2024-03-02", "until": "2024-03-01"}, "2024-03-02 is after 2024-03-01, so no day is left"),
        ({"max_group_size": 1}, "max_group_size: expected a whole number >= 2, found 1"),
        ({"max_group_size": True}, "max_group_size: expected a whole number or null, found True"),
        ({"max_group_size": "5"}, "max_group_size: expected a whole number or null, found '5'"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, values: dict[str, Any], complaint: str) -> None:
    path = _config(tmp_path, **values)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "expected keys"),
        ("\udcff", "not UTF-8 at byte 0; save it as UTF-8"),
        ("x: !!bool 5", "not YAML"),
    ],
)
def test_a_config_that_is_no_json_object(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "user_config.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError, match=complaint):
        load(path)


def test_a_named_config_must_exist_but_the_standard_one_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load() == UserConfig()
    for name in ("mine.json", str(speakers.CONFIG)):
        with pytest.raises(ConfigError, match=rf"{name}: no such file"):
            load(Path(name))
    speakers.CONFIG.parent.mkdir()
    _config(speakers.CONFIG.parent, exclude_people=["Bob"])
    assert load().exclude_people == ("Bob",)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("config/user_config.jsn", True),
        ("config/user-config.json", True),
        ("config/User_Config.json.txt", True),
        ("user_config.json", True),
        ("config/user_config.example.json", False),
        ("config/training_config.yaml", False),
        ("config.json", False),
    ],
)
def test_a_config_of_nearly_the_standard_name_is_asked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path(name).touch()
    assert (f"--user-config {name}" in speakers.not_there()) == meant


SENDERS = {"Ada": 120, "ADA": 3, "Charles": 1400, **{f"guest {n:02}": 1 for n in range(12)}}
CHATS = {"whatsapp/club.csv": SENDERS}
FAMILY = {"whatsapp/Mum.csv": {"Ada": 10, "Mum": 90}, "whatsapp/Dad.csv": {"Ada": 5, "Dad": 7}}
TELEGRAM = {"telegram/Bob.csv": {"ada_l": 40, "Bob": 50}}


def test_the_config_names_the_person() -> None:
    assert recognise(UserConfig(("ada", "not in these chats")), [], CHATS) == {"whatsapp": {"Ada", "ADA"}}


def test_me_stands_in_for_the_config() -> None:
    assert recognise(UserConfig({"telegram": ("ada",)}), ["Charles"], CHATS) == {"whatsapp": {"Charles"}}


def test_names_of_one_platform_claim_nobody_on_another() -> None:
    chats = {**FAMILY, "telegram/Ada.csv": {"ada_l": 4, "Ada": 8}}
    config = UserConfig({"whatsapp": ("Ada",), "telegram": ("ada_l",), "slack": ("never exported",)})
    assert recognise(config, [], chats) == {"whatsapp": {"Ada"}, "telegram": {"ada_l"}}
    assert recognise(UserConfig(("Ada", "ada_l")), [], chats)["telegram"] == {"Ada", "ada_l"}


def test_a_chat_outside_of_all_folders_is_of_no_platform() -> None:
    chats = {"Mum.csv": {"Ada": 1, "Mum": 1}}
    assert recognise(UserConfig(("Ada",)), [], chats) == {"": {"Ada"}}
    with pytest.raises(ConfigError, match="none of user_identifiers"):
        recognise(UserConfig({"whatsapp": ("Ada",)}), [], chats)


@pytest.mark.parametrize(
    ("identifiers", "me", "complaint"),
    [
        ((), [], "None of the senders is marked as you"),
        ({"whatsapp": ()}, [], "None of the senders is marked as you"),
        (("Bob",), [], r"none of user_identifiers \(Bob\) sent a message\."),
        ({"telegram": ("Ada",)}, [], r"none of user_identifiers \(Ada\) sent a message\."),
        ({"whatsapp": ("Bob",), "telegram": ("Ada",)}, [], r"\(Bob\) sent a message on whatsapp\."),
        (("Ada",), ["Charles", "Bob"], "--me 'Bob' sent none of these messages"),
        ((), ["charls"], r"--me 'charls' sent none of these messages\. Did you mean 'Charles'\?"),
    ],
)
def test_when_nobody_matches_the_senders_are_listed(
    identifiers: tuple[str, ...] | dict[str, tuple[str, ...]], me: list[str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        recognise(UserConfig(identifiers), me, CHATS)
    message = str(caught.value)
    listed = [line.split()[-1] for line in message.splitlines() if line.startswith("   ")]
    assert listed[:4] == ["Charles", "Ada", "ADA", "00"]
    assert "and 5 more" in message
    assert "whatsapp: 15 people are each in 1 of 1 chats: only you know which is you" in message
    assert '"user_identifiers": ["YOUR NAME"]' in message
    assert '--me "YOUR NAME"' in message


def _proposal(chats: dict[str, dict[str, int]], **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        recognise(UserConfig(), [], chats, **arguments)
    return str(caught.value)


def test_who_is_in_the_most_chats_is_proposed_even_if_others_wrote_more() -> None:
    told = _proposal(FAMILY)
    assert "whatsapp: Ada is in 2 of 2 chats, more than anyone else" in told
    assert '{"user_identifiers": ["Ada"]}' in told
    assert told.endswith('--me "Ada"')


def test_two_people_of_one_chat_are_both_possible() -> None:
    told = _proposal(TELEGRAM)
    assert "telegram: Bob, ada_l are each in 1 of 1 chats: only you know which is you" in told
    assert "If you are" not in told
    assert told.endswith('--me "YOUR NAME"')
    assert '{"telegram": ["YOUR NAME"], "whatsapp": ["Ada"]}' in _proposal({**FAMILY, **TELEGRAM})


def test_the_account_that_an_export_is_of_is_proposed_if_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "extraction_report.json").write_text(
        json.dumps({"files": [{"platform": "telegram", "owner": "ADA_L"}, {"platform": "whatsapp", "owner": None}]})
    )
    told = _proposal({**FAMILY, **TELEGRAM}, owners=owners(tmp_path))
    assert "telegram: the export is the account of ada_l" in told
    assert 'user_identifiers": {"telegram": ["ada_l"], "whatsapp": ["Ada"]}' in told
    assert told.endswith('--me "ada_l" --me "Ada"')
    assert "Bob, ada_l are each" in _proposal(TELEGRAM, owners={"telegram": ["Nobody Here"]})


@pytest.mark.parametrize("content", ["{", "[]", '{"files": [7]}', '{"files": {}}', '{"files": [{"owner": "Ada"}]}'])
def test_a_report_of_another_shape_names_no_owner(tmp_path: Path, content: str) -> None:
    assert owners(tmp_path) == {}
    (tmp_path / "extraction_report.json").write_text(content)
    assert owners(tmp_path) == {}


def test_the_line_that_is_proposed_is_a_config_that_works(tmp_path: Path) -> None:
    path = tmp_path / "user_config.json"
    for chats in (FAMILY, {**FAMILY, **TELEGRAM}):
        told = _proposal(chats, path=path, owners={"telegram": ["ada_l"]})
        line = next(line for line in told.splitlines() if line.startswith("If you are"))
        path.write_text(line.split("with this line:  ")[1])
        assert recognise(load(path), [], chats)["whatsapp"] == {"Ada"}
        path.unlink()


def test_a_platform_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown platform 'whatsap'; the nearest valid name is 'whatsapp'"):
        recognise(UserConfig({"whatsap": ("Ada",)}), [], CHATS)
    assert recognise(UserConfig({"mine": ("Ada",)}), [], {"mine/Mum.csv": {"Ada": 1}}) == {"mine": {"Ada"}}


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """JSON's last one wins: somebody who said no would be learnt from."""
    path = tmp_path / "config.json"
    path.write_text('{"user_identifiers": ["Noa"], "exclude_people": ["Malo"], "exclude_people": []}')
    with pytest.raises(ConfigError, match="duplicate key exclude_people"):
        load(path)
    with pytest.raises(ConfigError, match="no such file; `ghost init` writes"):
        load(tmp_path / "absent.json")
