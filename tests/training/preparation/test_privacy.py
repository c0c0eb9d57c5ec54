"""Who said no leaves no text behind, and nothing is left out, or kept, because of a typo."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.cli import main
from ghost.errors import ConfigError, DataError
from replicate_deployment.chat_format import DEFAULT_LABELS
from tests.training.preparation.test_checks import pairs, prepared
from tests.training.preparation.test_dataset import NOON, write_csv
from tests.training.preparation.test_prepare import _alternating, _prepare
from training.extraction.speakers import UserConfig
from training.preparation import dataset as chats
from training.preparation.dataset import Prepared
from training.preparation.privacy import PATTERNS, Kept, candidate_counts, groups, keep, pii_candidates, shape

MINE = {"whatsapp": {"Ada", "ADA"}, "telegram": {"ada_l"}}
CONFIG = Path("config/user_config.json")

RECIPE = Path(__file__).parents[3] / "config" / "training_config.yaml"


def _write(folder: Path, chat: str, *messages: tuple[int, str, str]) -> None:
    """(minute, sender, text)"""
    rows = [((NOON + timedelta(minutes=minute)).isoformat(), sender, text) for minute, sender, text in messages]
    write_csv(folder / chat, rows)


def _keep(folder: Path, **config: Any) -> Kept:
    settings = UserConfig(("Ada", "ada_l"), **config)
    return keep(settings, chats.read(folder, settings.zone).table, MINE, folder)


def _talks(kept: Kept) -> list[list[str]]:
    talks = chats.conversations(chats.arrange(kept.table, MINE, kept.borders), DEFAULT_LABELS)
    return [[f"{label} {text}" for label, text in talk.turns] for talk in talks]


@pytest.fixture
def cleaned(tmp_path: Path) -> Path:
    folder = tmp_path / "cleaned"
    _write(folder, "whatsapp/Bob.csv", (0, "Bob", "b0"), (1, "Ada", "a1"), (2, "Bob", "b2"))
    _write(
        folder,
        "whatsapp/Club.csv",
        *[(0, "Eve", "e0"), (1, "Ada", "a1"), (2, "BOB", "b2"), (3, "Ada", "a3"), (4, "Eve", "e4"), (5, "Eve", "e5")],
    )
    _write(folder, "telegram/Eve.csv", (0, "Eve", "t0"), (1, "ada_l", "t1"))
    return folder


def test_nothing_is_left_out_unless_it_is_said(cleaned: Path) -> None:
    kept = _keep(cleaned)
    assert (len(kept.table), kept.borders.any()) == (11, False)
    assert [figures["messages"] for figures in kept.left_out.values()] == [0] * 5
    assert kept.sizes == {"telegram/Eve.csv": 2, "whatsapp/Bob.csv": 2, "whatsapp/Club.csv": 3}


def test_a_person_left_out_leaves_no_text_and_joins_nothing(cleaned: Path) -> None:
    kept = _keep(cleaned, exclude_people=("bob",))
    assert _talks(kept) == [["B: t0", "A: t1"], ["B: e0", "A: a1"], ["A: a1"], ["A: a3", "B: e4\ne5"]]
    assert kept.left_out["people"] == {"messages": 3, "people": 1}


@given(st.lists(st.tuples(st.sampled_from([0, 1, 4, 29, 30]), st.sampled_from("ABX")), min_size=1, max_size=20))
def test_what_stands_around_somebody_left_out_is_as_if_a_silence_lay_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    folder, minute, messages, expected = tmp_path_factory.mktemp("cleaned"), 0, [(0, "B", "first")], [["first"]]
    begins = False
    for number, (step, sender) in enumerate(steps):
        minute += step
        messages.append((minute, sender, str(number)))
        begins = begins or step >= 30 or sender == "X"
        if sender != "X":
            if begins:
                expected.append([])
            expected[-1].append(str(number))
            begins = False
    _write(folder, "chat.csv", *messages)
    if all(sender != "X" for _, sender in steps):
        return
    settings = UserConfig(("A",), exclude_people=("X",))
    kept = keep(settings, chats.read(folder, settings.zone).table, {"": {"A"}}, folder)
    talks = chats.conversations(chats.arrange(kept.table, {"A"}, kept.borders), DEFAULT_LABELS)
    assert ["\n".join(turn.text for turn in talk.turns).split("\n") for talk in talks] == expected


@pytest.mark.parametrize("name", ["whatsapp/Club.csv", "whatsapp/club", "Club", "club.csv", "Der Club: 2024/25"])
def test_a_chat_is_left_out_by_its_file_or_title(cleaned: Path, name: str) -> None:
    titles = [{"file": "whatsapp/Club.csv", "title": "Der Club: 2024/25"}]
    (cleaned / "extraction_report.json").write_text(json.dumps({"conversations": titles}), encoding="utf-8")
    kept = _keep(cleaned, exclude_conversations=(name,))
    assert set(kept.table["path"]) == {"telegram/Eve.csv", "whatsapp/Bob.csv"}
    assert kept.left_out["conversations"] == {"messages": 6, "chats": 1}


def test_groups_above_a_size_are_left_out_you_counted_once(cleaned: Path) -> None:
    _write(cleaned, "whatsapp/Two.csv", (0, "Eve", "x"), (1, "Ada", "x"), (2, "ADA", "x"), (3, "EVE", "x"))
    kept = _keep(cleaned, max_group_size=2)
    assert set(kept.table["path"]) == {"telegram/Eve.csv", "whatsapp/Bob.csv", "whatsapp/Two.csv"}
    assert kept.left_out["groups"] == {"messages": 6, "chats": 1}
    assert kept.sizes["whatsapp/Club.csv"] == 3


def test_leaving_somebody_out_makes_no_group_smaller(cleaned: Path) -> None:
    kept = _keep(cleaned, exclude_people=("Bob",), max_group_size=2)
    assert set(kept.table["path"]) == {"telegram/Eve.csv", "whatsapp/Bob.csv"}


def test_days_are_those_of_the_time_zone_and_both_are_included(tmp_path: Path) -> None:
    # In Paris, summer time begins on the 31st: the day has 23 hours, and the next one starts at 22:00 UTC.
    times = [datetime(2024, 3, 30, 22, 59, tzinfo=UTC), datetime(2024, 3, 30, 23, 0, tzinfo=UTC)]
    times += [datetime(2024, 3, 31, 21, 59, 59, tzinfo=UTC), datetime(2024, 3, 31, 22, 0, tzinfo=UTC)]
    write_csv(tmp_path / "whatsapp/Bob.csv", [(time.isoformat(), "Bob", str(n)) for n, time in enumerate(times)])
    day = date(2024, 3, 31)
    for since, until, expected in ((day, day, "12"), (day, None, "123"), (None, day, "012")):
        kept = _keep(tmp_path, since=since, until=until, timezone="Europe/Paris")
        assert "".join(kept.table["text"]) == expected
        assert kept.left_out["dates"] == {"messages": 4 - len(expected)}


def test_a_clock_put_forward_at_midnight_has_a_first_moment_of_the_day_all_the_same(tmp_path: Path) -> None:
    times = [datetime(2018, 11, 4, 2, 59, tzinfo=UTC), datetime(2018, 11, 4, 3, 0, tzinfo=UTC)]
    write_csv(tmp_path / "whatsapp/Bob.csv", [(time.isoformat(), "Bob", str(n)) for n, time in enumerate(times)])
    kept = _keep(tmp_path, since=date(2018, 11, 4), timezone="America/Sao_Paulo")
    assert list(kept.table["text"]) == ["1"]


def test_each_message_is_left_out_for_one_reason(cleaned: Path) -> None:
    kept = _keep(cleaned, exclude_people=("Eve", "Bob"), exclude_conversations=("Club", "Bob"))
    assert kept.left_out == {
        "conversations": {"messages": 9, "chats": 2},
        "groups": {"messages": 0, "chats": 0},
        "dates": {"messages": 0},
        "people": {"messages": 1, "people": 2},
        "patterns": {"messages": 0},
    }


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"exclude_people": ("Bobb",)}, "exclude_people: 'Bobb' wrote none of these messages.* Near it: 'BOB', 'Eve'$"),
        ({"exclude_people": ("Bob", "Evé")}, "exclude_people: 'Evé' wrote none"),
        ({"exclude_people": ("ada",)}, "exclude_people: 'ada' is you"),
        ({"exclude_people": ("ADA_L",)}, "exclude_people: 'ADA_L' is you"),
        (
            {"exclude_conversations": ("Clubb",)},
            "exclude_conversations: no chat is called 'Clubb'.*'whatsapp/Club.csv'",
        ),
        ({"exclude_conversations": ("telegram/Bob",)}, "exclude_conversations: no chat is called 'telegram/Bob'"),
    ],
)
def test_a_name_that_leaves_nobody_out_is_refused(cleaned: Path, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        _keep(cleaned, **config)
    assert str(caught.value).startswith(f"{CONFIG}: ")


def test_when_nothing_is_left_the_reasons_are_counted(cleaned: Path) -> None:
    with pytest.raises(DataError, match=r"leaves out all of the 11 messages \(conversations 0, groups 0, dates 11, p"):
        _keep(cleaned, since=date(2025, 1, 1))


def test_how_much_is_from_groups(cleaned: Path) -> None:
    settings = UserConfig(("Ada", "ada_l"), exclude_people=("Bob",))
    messages = chats.read(cleaned, settings.zone)
    kept = keep(settings, messages.table, MINE, cleaned)
    prepared = Prepared.of(settings, "windows", messages, kept.table, MINE, kept.borders)
    assert groups(prepared, kept.sizes) == {
        "chats": {"count": 1, "share": 0.3333},
        "messages": {"count": 5, "share": 0.625},
        "own_turns": {"count": 2, "share": 0.5},
        "lines": {"count": 1, "share": 0.5},
    }


def test_no_file_that_is_written_holds_a_word_of_somebody_left_out(
    cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    turns = [(n * 4, ["Ada", "Eve", "Mallory"][n % 3], f"{['mine', 'theirs', 'sesame'][n % 3]} {n}") for n in range(60)]
    _write(cleaned, "whatsapp/Party.csv", *turns)
    CONFIG.parent.mkdir()
    config = {"user_identifiers": {"whatsapp": ["Ada"], "telegram": ["ada_l"]}, "exclude_people": ["mallory"]}
    CONFIG.write_text(json.dumps(config), encoding="utf-8")
    assert (
        main(["prepare", "--cleaned", str(cleaned), "--recipe", "conversations", "--config", str(RECIPE), "--force"])
        == 0
    )
    told = capsys.readouterr().out
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "data/processed").iterdir())
    assert "theirs" in written
    assert "sesame" not in written + told
    assert "allory" not in written + told
    report = json.loads((tmp_path / "data/processed/preparation_report.json").read_text(encoding="utf-8"))
    assert report["left_out"]["people"] == {"messages": 20, "people": 1}


def test_the_page_does_not_name_a_chat_by_somebody_left_out(
    cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Mallory", "Eve"):
        turns = [(n * 4, ["Ada", name][n % 2], f"word {n}") for n in range(60)]
        _write(cleaned, f"whatsapp/{name}.csv", *turns)
    (tmp_path / "mine.json").write_text(json.dumps({"user_identifiers": ["Ada"], "exclude_people": ["Mallory"]}))
    flags = ["--user-config", "mine.json", "--config", str(RECIPE), "--force"]
    assert main(["prepare", "--cleaned", str(cleaned), *flags]) == 0
    page = (tmp_path / "data/processed/report.html").read_text(encoding="utf-8")
    assert "Eve" in page
    assert "Mallory" not in page
    assert "you alone" in page


# What may still be personal: found by its look, shown on the private page alone, with the line where it is.


SECRETS = {
    "addresses": ["ada@home.internal", "a.b+c@example.org"],
    "handles": ["@ada_l", "@Ève99"],
    "numbers": ["07700 900023", "1234567", "12-34-56-78"],
    "codes": ["AB12CD34", "x9-kk4_tt", "dQw4w9WgXcQ"],
    "names": ["Marie Dupont", "Zoé Ørsted", "Иван Петров"],
}
HARMLESS = [
    "see you at 18:30 on 2024-03-04", "3.5.2024, or 03/05/24", "it costs 12345", "Hello there", "OK", "@ noon", "a@b",
    "[phone] and [email]", "something-without-digits", "I do", "plan B", "haha2", "100.000",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, some in SECRETS.items() for text in some])
@pytest.mark.parametrize("sentence", ["{}", "it is {}, ok?", "({}) and {}", "so\n{}\nok"])
def test_what_looks_personal_is_found(kind: str, text: str, sentence: str) -> None:
    found = pii_candidates(prepared(pairs(["nothing here", sentence.replace("{}", text), "nor here"])))
    assert {one: [left.text for left in some] for one, some in found.items()} == {
        **{one: [] for one in PATTERNS},
        kind: [text],
    }
    assert found[kind][0].times == sentence.count("{}")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert not any(pii_candidates(prepared(pairs(["nothing here", text]))).values())


def test_who_writes_is_no_leftover_and_who_does_not_is_one() -> None:
    rows = [
        (path, time, {"Bea": "Bea Vos"}.get(who, who), text) for path, time, who, text in pairs(["ask BEA VOS"] * 3)
    ]
    assert pii_candidates(prepared(rows))["names"] == []
    rows[1] = (*rows[1][:3], "ask Bea Vos and Carl Vos")
    assert [one.text for one in pii_candidates(prepared(rows))["names"]] == ["Carl Vos"]


def test_the_report_counts_shapes_and_quotes_nothing() -> None:
    found = candidate_counts(pii_candidates(prepared(pairs(["@ada_l", "@bob_m", "@ada_l", "AB12CD34"]))))
    assert found["handles"] == {"count": 3, "different": 2, "shapes": {"@aaa_a": 3}}
    assert found["codes"] == {"count": 1, "different": 1, "shapes": {"AA99AA99": 1}}
    assert shape("Zoé Ørsted, 12") == "Aaa Aaaaaa, 99"


def test_the_page_has_the_line_and_nothing_else_the_string(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = _alternating(40)
    rows[3] = (rows[3][0], rows[3][1], "two\nlines")
    rows[20] = (rows[20][0], rows[20][1], "the door:\nAB12CD34")
    path = tmp_path / "data/cleaned/whatsapp/Bea.csv"
    write_csv(path, rows)
    assert _prepare("--me", "Ada") == 0
    told = capsys.readouterr().out
    assert "note: what may still be personal is listed in data/processed/report.html: codes 1" in told
    out = tmp_path / "data/processed"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<bdi>AB12CD34</bdi> <small>whatsapp/Bea.csv:23</small>" in page
    assert path.read_text(encoding="utf-8").splitlines()[23 - 1].endswith('"the door:')
    assert "AB12CD34" not in told + (out / "preparation_report.json").read_text(encoding="utf-8")


def test_a_chat_whose_other_side_is_left_out_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(time, who, "AB12CD34" if who == "Ada" else text) for time, who, text in _alternating(8, timedelta(days=1))]
    write_csv(tmp_path / "data/cleaned/whatsapp/Carl.csv", [(t, {"Bea": "Carl"}.get(w, w), x) for t, w, x in rows])
    write_csv(tmp_path / "data/cleaned/whatsapp/Bea.csv", _alternating(40))
    (tmp_path / "me.json").write_text(json.dumps({"user_identifiers": ["Ada"], "exclude_people": ["Carl"]}))
    assert _prepare("--user-config", "me.json") == 0
    page = (tmp_path / "data/processed/report.html").read_text(encoding="utf-8")
    assert "<bdi>AB12CD34</bdi> <small>a chat in which nobody else is left</small>" in page
    assert "Carl" not in page


def test_messages_that_a_pattern_matches_are_left_out_here_too(tmp_path: Path) -> None:
    rows = [(datetime(2020, 1, 1, hour, tzinfo=UTC), "Bob", text) for hour, text in enumerate(("hi", "My DIARY", "yo"))]
    write_csv(tmp_path / "whatsapp/Bob.csv", [(time.isoformat(), sender, text) for time, sender, text in rows])
    kept = _keep(tmp_path, exclude_messages=("d[iy]ary",))
    assert list(kept.table["text"]) == ["hi", "yo"]
    assert list(kept.borders) == [False, True]
    assert kept.left_out["patterns"] == {"messages": 1}
