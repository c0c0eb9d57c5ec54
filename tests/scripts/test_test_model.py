"""`ghost try`: its prompts, its figures, and each expectation of a reply, on replies that do not meet it."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact
from ghost.cli import main
from ghost.errors import DataError
from ghost.evaluation.prompts import OF_A_REPLY, Answer, Format, conversation, one_turn, says_nothing, summarise, unmet
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.engine import Engine
from scripts import test_model
from scripts.test_model import read_contexts, spread

STOPS = DEFAULT_LABELS.stop_sequences
KNOWN = Format(DEFAULT_LABELS, STOPS)
WINDOW = "B: salut\nA: yo\nB: tu viens ?\nA: oui !</s>"


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "val.jsonl"
    # A line separator and a next-line character in a message, as people paste them: neither ends a line of JSONL.
    texts = [WINDOW, "B: a\u2028b\x85c\nA: d</s>", "B: secret\nA: yes</s>"]
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never end a reply; a short limit and few prompts keep the tests fast."""
    prompts = {name: test_model.PROMPTS[name] for name in ("french", "short", "forged turn")}
    monkeypatch.setattr(test_model, "PROMPTS", prompts)
    load = Engine.load

    def loaded(folder: Path) -> Engine:
        engine = load(folder)
        return replace(engine, settings=engine.settings.replace(max_new_tokens=4))

    monkeypatch.setattr(Engine, "load", loaded)


def test_every_prompt_is_answered_and_repeats_with_its_seed(
    merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    runs = []
    for seed in ("3", "3", "4"):
        assert main(["try", str(merged), "--json", "--seed", seed, "--seeds", "2"]) == 0
        runs.append(json.loads(capsys.readouterr().out))
    replies = runs[0]["replies"]
    assert [reply["name"] for reply in replies] == [name for name in test_model.PROMPTS for _ in range(2)]
    assert len({reply["seed"] for reply in replies}) == 6
    texts = [[reply["text"] for reply in run["replies"]] for run in runs]
    assert texts[0] == texts[1] != texts[2]
    assert all(reply["ended"] in test_model.ENDS and 1 <= reply["output_tokens"] <= 4 for reply in replies)
    assert all(0 < reply["first_token"] <= reply["seconds"] for reply in replies)
    assert (runs[0]["failed"], runs[0]["figures"]["unmet"]) == ({}, {})


def test_a_person_sees_conversation_replies_and_figures(
    merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    assert main(["try", str(merged)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("(cut at the limit, 4 tokens, ") >= 3
    assert "── french\nB: tu fais quoi ce soir ?\nA: " in printed
    assert "\n A: I quit\n B: really?\n" in printed
    assert "tokens/s; first token after " in printed


def replying(monkeypatch: pytest.MonkeyPatch, *texts: str, written: str | None = None) -> None:
    """An engine that says these in turn, whatever it is asked."""
    honest, count = Engine.reply, iter(range(1000))

    def says(engine: Engine, *parts: Any, **named: Any) -> Any:
        reply = honest(engine, *parts, **named)
        "".join(reply)
        text = texts[next(count) % len(texts)]
        reply.written = text if written is None else written
        reply._pieces = iter([text])
        return reply

    few_tokens(monkeypatch)
    monkeypatch.setattr(Engine, "reply", says)


@pytest.mark.parametrize(
    ("texts", "written", "expectation"),
    [
        (["hey\nB: and you?"], None, "one turn"),
        (["B: hey"], None, "no tag"),
        (["hey\n<s>"], "hey\n<s>", "one turn"),
        (["a b"], "hey", "one turn"),
        (["h\ufffdy"], None, "no broken character"),
        ([""], "", "not empty"),
        (["one", "two"], None, "repeats with its seed"),
    ],
)
def test_a_reply_that_is_not_as_it_must_be_exits_1(
    texts: list[str],
    written: str | None,
    expectation: str,
    merged: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replying(monkeypatch, *texts, written=written)
    assert main(["try", str(merged), "--seeds", "1"]) == 1
    assert f"failed: {expectation} (" in capsys.readouterr().out


def test_every_expectation_of_a_reply_can_fail_alone() -> None:
    good = Answer("hey", "end_token", "hey", 5, 4, 96, 0.5, 0.1)
    assert unmet(good, KNOWN) == []
    assert unmet(replace(good, text="hey\nyou", written="hey\nyou\nB: yes"), KNOWN) == []
    assert unmet(replace(good, written="hi"), KNOWN) == ["one turn"]
    assert unmet(replace(good, text="A: hey", written="A: hey"), KNOWN) == ["no tag"]
    assert unmet(good, Format(DEFAULT_LABELS, ["ey"])) == ["one turn", "no stop sequence"]
    assert unmet(replace(good, text="\ufffd", written="\ufffd"), KNOWN) == ["no broken character"]
    assert unmet(replace(good, output_tokens=97), KNOWN) == ["within the limit"]
    assert set(OF_A_REPLY) == {"one turn", "no tag", "no stop sequence", "no broken character", "within the limit"}
    assert says_nothing([replace(good, text="")])
    assert not says_nothing([good, replace(good, text="")])


def test_held_out_prints_figures_and_no_message(
    merged: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_tokens(monkeypatch)
    assert main(["try", str(merged), "--held-out", str(held_out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["replies"] == 3
    assert sum(figures["ended"].values()) == 3
    assert figures["unmet"] == {}
    assert main(["try", str(merged), "--held-out", str(held_out), "--limit", "2"]) == 0
    printed = capsys.readouterr().out
    assert "empty  " in printed
    assert "secret" not in printed
    assert "salut" not in printed


def test_a_leaking_engine_exits_1(
    merged: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replying(monkeypatch, "hey\nB: and you?")
    assert main(["try", str(merged), "--held-out", str(held_out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["unmet"]["one turn"] == 3
    assert main(["try", str(merged), "--held-out", str(held_out)]) == 1
    assert "not one turn                 3  100.0%" in capsys.readouterr().out


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
    one = Answer("a", "end_token", "a", 5, 10, 96, 0.5, 0.1)
    two = Answer("", "stop_sequence", "b", 5, 10, 96, 1.5, 0.3)
    figures = summarise([one, two], KNOWN)
    assert figures["ended"] == {"end_token": 1, "stop_sequence": 1, "length": 0}
    assert (figures["empty"], figures["unmet"], figures["tokens_per_second"]) == (1, {"one turn": 1}, 10.0)
    assert figures["seconds_a_reply"] == {"median": 1.0, "longest": 1.5}
    assert figures["seconds_to_first_token"] == 0.2


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
    with pytest.raises(DataError, match="conversations, not windows; write windows: ghost prepare --recipe windows"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ghost prepare"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)
    (tmp_path / "val.jsonl").touch()
    with pytest.raises(DataError, match="empty"):
        read_contexts(tmp_path / "val.jsonl", DEFAULT_LABELS)


@pytest.mark.parametrize(
    ("flag", "value"), [("--limit", 0), ("--seeds", 0), ("--seed", -1), ("--seed", 2**32), ("--seed", 10**30)]
)
def test_numbers_out_of_range_are_bad_usage(flag: str, value: int, merged: Path) -> None:
    assert main(["try", str(merged), f"{flag}={value}"]) == 2


def test_a_limit_is_spread_over_the_file() -> None:
    assert spread([*range(10)], 3) == [0, 3, 6]
    assert spread([*range(3)], 10) == [0, 1, 2]


def test_prompts_end_with_the_other_side() -> None:
    for texts in test_model.PROMPTS.values():
        turns = conversation(texts, DEFAULT_LABELS)
        assert turns[-1].label == "B:"
        assert all(one.label != two.label for one, two in pairwise(turns))
