"""val.about.jsonl: a line for each line of val.jsonl, true to the conversations, and without a name."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.training.preparation.test_conversations import write_csv
from tests.training.preparation.test_prepare import _alternating, _prepare

FRENCH = ("tu viens ce soir avec nous ?", "je ne sais pas encore, peut-être plus tard")
ENGLISH = ("are you coming with us tonight?", "I do not know yet, maybe a little later")


@pytest.fixture(params=["windows", "conversations"])
def processed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty conversations in two chats, the last four held out: two of each chat."""
    monkeypatch.chdir(tmp_path)
    for path, offset, words in (("whatsapp/Bea.csv", 0, FRENCH), ("telegram/Bea.csv", 12, ENGLISH)):
        rows = [
            (time, sender, words[number % 2])
            for day in range(20)
            for number, (time, sender, _) in enumerate(_alternating(8, timedelta(days=day, hours=offset)))
        ]
        write_csv(tmp_path / "data" / "cleaned" / path, rows)
    assert _prepare("--me", "Ada", "--recipe", request.param) == 0
    return tmp_path / "data" / "processed"


def test_each_held_out_line_is_told_where_it_is_from(processed: Path) -> None:
    told = [json.loads(line) for line in (processed / "val.about.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [json.loads(line)["text"] for line in (processed / "val.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(told) == len(texts) > 0
    assert [one["conversation"] for one in told] == sorted(one["conversation"] for one in told)
    assert {one["conversation"] for one in told} == {36, 37, 38, 39}
    for one, text in zip(told, texts, strict=True):
        assert len(text.split("\n")) == one["last"] - one["first"] + 1
        assert (one["platform"], one["language"]) == (("whatsapp", "fr") if "tu viens" in text else ("telegram", "en"))
    assert "Bea" not in json.dumps(told)
    report = json.loads((processed / "preparation_report.json").read_text(encoding="utf-8"))
    assert sum(report["held_out_lines"]["platform"].values()) == len(told)
    assert set(report["held_out_lines"]["language"]) == {"fr", "en"}
    assert "val.about.jsonl" in json.loads((processed / "ghost.json").read_text(encoding="utf-8"))["files"]
