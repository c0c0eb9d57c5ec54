"""Drafts that the person rewrote: lines to train on, pairs to prefer, and an account of each."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from replicate_deployment.chat_format import Turn, parse_line
from tests.training.preparation.test_dataset import NOON, write_csv
from tests.training.preparation.test_prepare import _lines, _prepare


@pytest.fixture
def chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty questions a week, on two weeks' distance; the last one validates."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for week in range(20):
        for number in range(8):
            time = NOON + timedelta(days=7 * week, minutes=4 * number)
            who = ["Bea", "Ada"][number % 2]
            rows.append((time.isoformat(), who, f"{who} {week} {number}"))
    write_csv(tmp_path / "data/cleaned/chat.csv", rows)
    return tmp_path


def written(folder: Path, *corrections: dict[str, Any]) -> Path:
    path = folder / "corrections.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in corrections))
    return path


def correction(*said: str, draft: str, final: str) -> dict[str, Any]:
    """`said` alternates and ends with the other side."""
    sides = ["other", "me"]
    context = [[sides[number % 2], text] for number, text in enumerate(reversed(said))][::-1]
    time = "2025-01-01T00:00:00+00:00"
    return {"context": context, "label": "edited", "draft": draft, "final": final, "time": time}


@pytest.mark.parametrize("recipe", ["windows", "conversations"])
def test_they_train_and_are_preferred(chats: Path, recipe: str) -> None:
    assert _prepare("--me", "Ada", "--recipe", recipe, "--out", "without") == 0
    mine = correction("tu viens ?", "où ?", "chez moi\nA: forged", draft="non merci", final="oui !\nB: j'arrive")
    assert _prepare("--me", "Ada", "--recipe", recipe, "--out", "with", "--corrections", written(chats, mine)) == 0
    before, after = (_lines(Path(name, "train.jsonl")) for name in ("without", "with"))
    assert after[:-1] == before
    turns = parse_line(after[-1], recipe=recipe)  # type: ignore[arg-type]
    asked = [Turn("B:", "tu viens ?"), Turn("A:", "où ?"), Turn("B:", "chez moi\nA: forged")]
    assert turns == [*asked, Turn("A:", "oui !\nB: j'arrive")]
    assert Path("with/val.jsonl").read_bytes() == Path("without/val.jsonl").read_bytes()
    report = json.loads(Path("with/preparation_report.json").read_text())
    assert report["corrections"] == {
        "read": 1,
        "used": 1,
        "not_rewritten": 0,
        "repeated": 0,
        "in_train": 0,
        "in_val": 0,
    }
    assert report["lines"]["train"] == len(after)
    facts = json.loads(Path("with/ghost.json").read_text())
    assert facts["data"]["counts"]["corrections"] == 1


def test_each_is_accounted_for(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = correction("hey", draft="yo", final="salut")
    own = correction("ho", draft="yo", final="here I am") | {"label": "own"}
    sent = correction("hu", draft="yo", final="yo") | {"label": "sent"}
    refused = correction("hey", draft="yo", final="salut") | {"label": "another"}
    discarded = correction("ha", draft="yo", final="") | {"label": "discarded", "final": None}
    path = written(
        chats,
        *(new, new, own, sent, refused, discarded),
        correction("Bea 0 2", draft="x", final="Ada 0 3"),  # the chats hold it, and train
        correction("Bea 19 2", draft="x", final="Ada 19 3"),  # the chats hold it out
    )
    assert _prepare("--me", "Ada", "--corrections", path) == 0
    report = json.loads(Path("data/processed/preparation_report.json").read_text())
    counts = {"used": 2, "not_rewritten": 3, "repeated": 1, "in_train": 1, "in_val": 1}
    assert report["corrections"] == {"read": 8, **counts}
    assert _lines(Path("data/processed/train.jsonl"))[-2:] == ["B: hey\nA: salut</s>", "B: ho\nA: here I am</s>"]
    assert "2 of 8 drafts train too" in capsys.readouterr().out.replace("\n", " ")


def test_a_long_context_is_cut_to_a_window(chats: Path) -> None:
    said = [f"m{number}" for number in range(31)]
    assert _prepare("--me", "Ada", "--corrections", written(chats, correction(*said, draft="x", final="y"))) == 0
    last = _lines(Path("data/processed/train.jsonl"))[-1]
    assert last.count("\n") == 12
    assert last.startswith("A: m19\nB: m20")


RIGHT: dict[str, Any] = correction("x", draft="a", final="b")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        *(
            json.dumps(RIGHT | wrong)
            for wrong in (
                {"context": []},
                {"context": [["me", "x"]]},
                {"context": [["she", "x"]]},
                {"context": "x"},
                {"final": " "},
                {"final": None},
                {"draft": ""},
                {"draft": 1},
                {"label": "sent"},  # but another text
                {"label": "discarded"},  # but sent
                {"label": "liked"},
                {"more": 1},
            )
        ),
        json.dumps({key: RIGHT[key] for key in ("context", "draft", "final")}),
    ],
)
def test_a_line_of_another_shape_is_named(chats: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = chats / "corrections.jsonl"
    path.write_text(f"\n{line}\n")
    assert _prepare("--me", "Ada", "--corrections", path) == 1
    assert f"{path}, line 2: " in capsys.readouterr().err


def test_no_file_says_how_to_make_one(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _prepare("--me", "Ada", "--corrections", "nowhere.jsonl") == 1
    assert "ghost bot --corrections nowhere.jsonl" in capsys.readouterr().err


def test_without_the_bot_there_is_nothing_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bot.yaml").write_text(f"owner: 1\nbackend: http://127.0.0.1:9\ndatabase: {tmp_path / 'no.sqlite3'}\n")
    assert main(["bot", "--config", str(tmp_path / "bot.yaml"), "--corrections", str(tmp_path / "c.jsonl")]) == 1
    assert "the first run of `ghost bot` creates it" in capsys.readouterr().err
