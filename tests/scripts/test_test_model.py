"""`ghost try`: its prompts, its figures, and that it notices a reply that goes on past a stop sequence."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.engine import Engine
from scripts import test_model
from scripts.test_model import Answer, conversation, one_turn, read_contexts, spread, summarise
from training import artifact
from training.cli import main
from training.errors import DataError

STOPS = DEFAULT_LABELS.stop_sequences
WINDOW = "B: salut\nA: yo\nB: tu viens ?\nA: oui !</s>"


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "val.jsonl"
    # A line separator and a next-line character in a message, as people paste them: neither ends a line of JSONL.
    texts = [WINDOW, "B: a\u2028b\x85c\nA: d</s>", "B: secret\nA: yes</s>"]
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never end a reply; a short limit keeps the tests fast."""
    load = Engine.load

    def loaded(folder: Path) -> Engine:
        from dataclasses import replace

        engine = load(folder)
        return replace(engine, settings=engine.settings.replace(max_new_tokens=4))

    monkeypatch.setattr(Engine, "load", loaded)


def test_every_prompt_is_answered_and_repeats_with_its_seed(
    merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    runs = []
    for seed in ("3", "3", "4"):
        assert main(["try", str(merged), "--json", "--seed", seed]) == 0
        runs.append(json.loads(capsys.readouterr().out)["replies"])
    assert [reply["name"] for reply in runs[0]] == [*test_model.PROMPTS]
    texts = [[reply["text"] for reply in run] for run in runs]
    assert texts[0] == texts[1] != texts[2]
    assert all(reply["ended"] in test_model.ENDS and 1 <= reply["output_tokens"] <= 4 for reply in runs[0])


def test_a_person_sees_conversation_reply_and_figures(
    merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    assert main(["try", str(merged)]) == 0
    printed = capsys.readouterr().out
    assert "── french: cut at the limit, 4 tokens, " in printed
    assert "\nB: tu fais quoi ce soir ?\nA: " in printed
    assert "\n A: I quit\n B: really?\n" in printed


def test_held_out_prints_figures_and_no_message(
    merged: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    assert main(["try", str(merged), "--held-out", str(held_out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["replies"] == 3
    assert sum(figures["ended"].values()) == 3
    assert figures["leaked"] == 0
    assert main(["try", str(merged), "--held-out", str(held_out), "--limit", "2"]) == 0
    printed = capsys.readouterr().out
    assert "with a stop sequence         0    0.0%" in printed
    assert "secret" not in printed
    assert "salut" not in printed


def test_a_leaking_engine_exits_1(
    merged: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = Engine.reply

    def leaking(engine: Engine, *parts: Any, **named: Any) -> Any:
        reply = honest(engine, *parts, **named)
        "".join(reply)
        reply.written = "hey\nB: and you?"
        reply._pieces = iter([reply.written])
        return reply

    few_tokens(monkeypatch)
    monkeypatch.setattr(Engine, "reply", leaking)
    assert main(["try", str(merged), "--held-out", str(held_out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["leaked"] == 3


@pytest.mark.parametrize(
    ("written", "reply"),
    [
        (" hey", "hey"),
        (" hey\nB: you", "hey"),
        (" hey\n B: quoted\nmore", "hey\nB: quoted\nmore"),
        (" one\n \ntwo\n\nthree", "one\n\ntwo"),
        ("\nB:", ""),
        (" <3\n<s>", "<3"),
    ],
)
def test_one_turn_is_what_comes_before_the_first_stop(written: str, reply: str) -> None:
    assert one_turn(written, STOPS, DEFAULT_LABELS) == reply


def test_summary_counts() -> None:
    def answered(text: str, ended: str, leaked: bool) -> Answer:
        return Answer(text, ended, leaked, prompt_tokens=5, output_tokens=10, seconds=0.5)

    figures = summarise([answered("a", "end_token", False), answered("", "stop_sequence", True)])
    assert figures["ended"] == {"end_token": 1, "stop_sequence": 1, "length": 0}
    assert (figures["empty"], figures["leaked"], figures["tokens_per_second"]) == (1, 1, 20.0)


def test_contexts_end_with_the_other_side(held_out: Path) -> None:
    contexts = read_contexts(held_out, DEFAULT_LABELS)
    assert contexts[0] == [Turn("B:", "salut"), Turn("A:", "yo"), Turn("B:", "tu viens ?")]
    assert contexts[1] == [Turn("B:", "a\u2028b\x85c")]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not json",
        '{"txt": ""}',
        '"B: a"',
        '{"text": "hello"}',
        '{"text": "A: only</s>"}',
        '{"text": "A: a\\nB: b</s>"}',
    ],
)
def test_a_line_that_is_no_window_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps({"text": WINDOW}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"val\.jsonl"):
        read_contexts(path, DEFAULT_LABELS)


def test_whole_conversations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text(json.dumps({"text": "B: a\nA: b</s>\nB: c\nA: d</s>"}) + "\n")
    artifact.write(
        tmp_path, None, text={"labels": {"me": "A:", "other": "B:"}, "recipe": "conversations", "stop_sequences": []}
    )
    with pytest.raises(DataError, match="conversations, no windows; write some: ghost prepare --recipe windows"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ghost prepare"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)
    (tmp_path / "val.jsonl").touch()
    with pytest.raises(DataError, match="empty"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)


def test_a_limit_below_one_is_bad_usage(merged: Path) -> None:
    assert main(["try", str(merged), "--limit", "0"]) == 2


def test_a_limit_is_spread_over_the_file() -> None:
    assert spread([*range(10)], 3) == [0, 3, 6]
    assert spread([*range(3)], 10) == [0, 1, 2]


def test_prompts_end_with_the_other_side() -> None:
    for texts in test_model.PROMPTS.values():
        turns = conversation(texts, DEFAULT_LABELS)
        assert turns[-1].label == "B:"
        assert all(one.label != two.label for one, two in pairwise(turns))
