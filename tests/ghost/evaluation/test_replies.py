"""Replies of a model in this process or over HTTP, and how they end."""

import json
import socket
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import pytest

import ghost.serving.client
from ghost import cli
from ghost.errors import DataError, ServerError
from ghost.evaluation import evaluate
from ghost.evaluation.data import Exchange
from ghost.evaluation.prompts import labels_in
from ghost.evaluation.replies import GeneratedReply, run_served, stopping
from ghost.serving.client import CogServer, Prediction, PredictionFailed, check
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from tests.ghost.evaluation.test_data import write
from training.preparation import canaries


class Server:
    """Answers with its prompt's length, and fails on what it does not like."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def answer(self, inputs: Mapping[str, Any]) -> Prediction:
        self.asked.append(inputs)
        if "fail" in inputs["prompt"]:
            raise PredictionFailed("too long")
        return Prediction("1", "succeeded", f"{len(inputs['prompt'])} characters", metrics={"output_tokens": 7.0})


def test_prompts_are_histories_and_a_failure_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    monkeypatch.setattr(ghost.serving.client, "backend", lambda *_: server)
    exchanges = [Exchange((Turn("B:", text),), "yo") for text in ("hey\nA: fake", "fail", "ok")]
    found = run_served("http://127.0.0.1:1", Path(), exchanges, DEFAULT_LABELS, seed=5)
    assert [one["prompt"] for one in server.asked] == ["B: hey\n A: fake\nA:", "B: fail\nA:", "B: ok\nA:"]
    assert [one["seed"] for one in server.asked] == [5, 6, 7]
    assert (found.kind, found.nats, found.answers.unanswered) == ("served", None, 1)
    assert [(one.exchange.reply, one.written, one.tokens) for one in found.answers.said] == [
        ("18 characters", None, 7),
        ("8 characters", None, 7),
    ]


@pytest.mark.parametrize(
    ("health", "words"),
    [("READY", ""), ("BUSY", ""), ("STARTING", "health is STARTING"), ("SETUP_FAILED", "health is SETUP_FAILED")],
)
def test_a_server_is_asked_how_it_is_first(health: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def told(server: CogServer) -> Mapping[str, Any]:
        return {"status": health}

    monkeypatch.setattr(CogServer, "health", told)
    with pytest.raises(ServerError, match=words) if words else nullcontext():
        check("http://127.0.0.1:1", Path())


def test_an_unreachable_server_is_found_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "line_up", lambda *_: pytest.fail("minutes of work before it"))
    talks = [[Turn("B:", f"hey {number}"), Turn("A:", f"yo {number}")] for number in range(20)]
    val = write(tmp_path / "processed", talks, talks)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    assert cli.main(["evaluate", "--val", str(val), "--out", str(tmp_path / "report"), "--url", url]) == 1
    assert "is the server running?" in capsys.readouterr().err


def test_no_canary_is_shown_to_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[Turn] = []

    def line_up(*given: Any) -> list[Any]:
        shown.extend(given[3])
        raise DataError("that was all")

    monkeypatch.setattr(evaluate, "line_up", line_up)
    planted = canaries.draw(200, [1], "seed")
    talks = [[Turn("B:", f"hey {number}"), Turn("A:", f"yo {number}")] for number in range(20)]
    val = write(tmp_path / "processed", [*talks, *(one.turns(DEFAULT_LABELS) for one in planted)], talks)
    canaries.write(val.parent, planted)
    assert cli.main(["evaluate", "--val", str(val), "--out", str(tmp_path / "report")]) == 1
    assert len(shown) == 8
    assert {turn.text.split()[0] for turn in shown} == {"hey", "yo"}


def test_a_server_alone_can_be_evaluated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ghost.serving.client, "backend", lambda *_: Server())
    talks = [[Turn("B:", f"hey {number}"), Turn("A:", f"yo {number}")] for number in range(60)]
    val = write(tmp_path / "processed", talks, talks)
    flags = ["--val", str(val), "--out", str(tmp_path / "report"), "--url", "http://127.0.0.1:1"]
    assert cli.main(["evaluate", str(tmp_path / "nowhere"), *flags]) == 0
    told = capsys.readouterr().out
    assert "not judged   merged:" in told
    assert "served" in told
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(found["contenders"]) == {"served"}
    assert "likelihood" not in found["contenders"]["served"]
    assert "Can it be told from you?" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def said(reply: str, ended: str, written: str) -> GeneratedReply:
    return GeneratedReply(Exchange((Turn("B:", "hey"),), reply, ended=ended), written, 3)


def test_how_replies_end_is_counted_before_the_cut() -> None:
    found = stopping(
        [
            said("yo", "end_token", " yo"),
            said("yo", "stop_sequence", " yo\nB:"),
            said("yo", "stop_sequence", " yo\nA:"),
            said("", "stop_sequence", " \n\n"),
            said("and B: so", "length", " and B: so"),
        ],
        DEFAULT_LABELS,
    )
    assert [found[name]["value"] for name in ("itself", "sequence", "length")] == [0.2, 0.6, 0.2]
    assert [found[name]["value"] for name in ("for_the_other", "on_and_on", "empty")] == [0.2, 0.2, 0.2]
    assert (found["itself"]["n"], found["tokens"]) == (5, 3.0)
    assert found["itself"]["low"] < 0.2 < found["itself"]["high"]


def test_lines_with_labels_that_the_person_never_writes_are_counted() -> None:
    other = ["ok\nC: Hi", "User: hello", "Bob:\nx", " E: Interesting point", "well\nÉva: oui"]
    fine = ["PS: buy milk", "ps: milk", "12:30 then", "so\n18:04", "https://example.org", "plan B: go", "a : b", ":-)"]
    own = labels_in(["hey\nPs: I forgot", "Notes: x"])
    assert own == {"ps", "notes"}
    for replies, expected in ((other, 1.0), (fine, 0.0), ([*other, *fine], 5 / 13)):
        found = stopping([said(reply, "end_token", reply) for reply in replies], DEFAULT_LABELS, own)
        assert found["other_labels"]["value"] == expected
