"""`ghost evaluate` on a model trained here, from the command line to its files, and its page in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, Self

import pytest

import ghost.serving.client
from benchmarks.pictures import browser
from ghost import cli
from ghost.errors import BaseModelError, ServerBusy
from ghost.evaluation import authorship, contenders, evaluate, quiz, report_page
from ghost.evaluation.contenders import line_up
from ghost.evaluation.data import Exchange, read_held_out
from ghost.evaluation.likelihood import reply_nats
from ghost.evaluation.report_page import summary
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from tests import models
from tests.ghost.evaluation.test_data import describe, write
from tests.training.conftest import RECIPE_OF_RECORD
from tests.training.finetuning.conftest import quick
from training import config as training_config

ROOT = Path(__file__).parents[3]
ASKED = ["hey tu fais quoi ce soir", "did you see the match?", "on se voit at the café then"]
SAID = ["mdr ok <script>alert(1)</script>", "pas grand chose\nI was about to cook", "c'était dingue 😂"]
TURNS = 12


def talk(number: int) -> list[Turn]:
    asked = [Turn("B:", f"{ASKED[number % 3]} {number}"), Turn("A:", SAID[number % 3])]
    return [*asked, Turn("B:", ASKED[(number + 1) % 3]), Turn("A:", f"{SAID[(number + 1) % 3]} {number}")]


@pytest.fixture(scope="session")
def made(tiny_base: Path) -> Path:
    """`processed`, `adapter` and `merged`, of one short training, and `report`, its evaluation."""
    return models.shared("judged", lambda folder: make(folder, tiny_base))


def make(folder: Path, tiny_base: Path) -> None:
    talks = [talk(number) for number in range(40)]
    val = write(folder / "processed", talks[:28], talks[28:])
    describe(val, [(number // 2, 3 + 4 * (number % 2)) for number in range(28, 40)])
    config = folder / "config.yaml"
    config.write_text(quick(training_config.load(RECIPE_OF_RECORD), num_epochs=1), encoding="utf-8")
    base = ["--base", str(tiny_base)]
    paths = ["--data", str(val.parent), "--out", str(folder / "adapter")]
    assert cli.main(["train", "--config", str(config), *base, *paths]) == 0
    assert cli.main(["merge", str(folder / "adapter"), *base, "--out", str(folder / "merged")]) == 0
    # A model that has learnt nothing ends no reply by itself, and 96 tokens of rubbish take their time.
    ghost = json.loads((folder / "merged" / "ghost.json").read_text(encoding="utf-8"))
    ghost["sampling"]["max_new_tokens"] = 6
    (folder / "merged" / "ghost.json").write_text(json.dumps(ghost), encoding="utf-8")
    assert run(folder, "--out", str(folder / "report")) == 0


def run(folder: Path, *flags: str) -> int:
    val = folder / "processed" / "val.jsonl"
    return cli.main(["evaluate", str(folder / "merged"), "--val", str(val), "--turns", str(TURNS), *flags])


@pytest.fixture(scope="module")
def figures(made: Path) -> Any:
    return json.loads((made / "report" / "evaluation.json").read_text(encoding="utf-8"))


def test_four_contenders_are_judged_on_the_same_replies(figures: Any) -> None:
    assert set(figures["contenders"]) == {"base", "few_shot", "adapter", "merged"}
    assert figures["missing"] == {}
    assert figures["held_out"] == {
        "replies": TURNS, "of": 12, "conversations": 6, "resampled": "conversations", "seed": 0,
    }  # fmt: skip
    for one in figures["contenders"].values():
        assert one["replies"] == TURNS
        assert one["likelihood"]["nats_per_token"]["n"] == TURNS
        assert one["likelihood"]["nats_per_token"]["low"] <= one["likelihood"]["nats_per_token"]["value"]
        shares = [one["stopping"][key]["value"] for key in ("itself", "sequence", "length")]
        assert sum(shares) == pytest.approx(1)
    assert figures["model"]["held_out_from_it"] is True
    assert figures["model"]["learnt_by_it"] is True


def test_the_adapter_beside_its_base_is_the_merged_model(figures: Any) -> None:
    """But for the rounding to FP16; and the base is another."""
    merged, adapter, base = (
        figures["contenders"][kind]["likelihood"]["nats_per_token"]["value"] for kind in ("merged", "adapter", "base")
    )
    assert merged == pytest.approx(adapter, abs=5e-3)
    assert base - merged > 0.1
    gain = figures["contenders"]["merged"]["gain"]
    assert gain["value"] == pytest.approx(base - merged)
    assert gain["low"] <= gain["value"] <= gain["high"]


def test_losses_are_told_apart_by_where_replies_are_from(figures: Any) -> None:
    by = figures["contenders"]["merged"]["likelihood_by"]
    assert list(by["platform"]) == ["whatsapp"]
    assert list(by["context"]) == ["3-6"]
    whole = figures["contenders"]["merged"]["likelihood"]["nats_per_token"]
    assert by["language"]["fr"]["nats_per_token"] == whole


def test_no_message_is_in_the_figures(figures: Any) -> None:
    text = json.dumps(figures, ensure_ascii=False)
    for body in (*ASKED, "pas grand chose", "about to cook", "<script>"):
        assert body not in text


def test_the_likelihood_is_that_of_the_whole_text(made: Path) -> None:
    """-log p of reply and end token, as one forward pass over the line tells it, however the engine prompts."""
    import torch

    from training.finetuning.data import encode_turns

    contender = next(line_up(made / "merged", None, None, (), {}))
    engine = contender.engine
    exchange = read_held_out(made / "processed" / "val.jsonl", 20).exchanges[0]
    for context in (exchange.context, exchange.context[-1:], ()):
        turns = [*context, Turn("A:", exchange.reply)]
        line = encode_turns(engine.tokenizer, turns, engine.labels, recipe="windows", replies_only=True)
        with torch.inference_mode():
            logprobs = engine.model(torch.tensor([line.ids.tolist()])).logits[0].log_softmax(-1)
        each = [-float(logprobs[place - 1, line.ids[place]]) for place in line.reply.nonzero()[0]]
        found = reply_nats(engine, context, exchange.reply)
        assert found.reply == pytest.approx(sum(each[:-1]), rel=1e-5)
        assert found.end == pytest.approx(each[-1], rel=1e-5)
        assert found.tokens == len(each) - 1
        assert found.characters == len(exchange.reply)


def test_what_is_not_there_is_said_and_the_rest_is_judged(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "merged", tmp_path / "merged")
    shutil.copytree(made / "processed", tmp_path / "processed")
    (tmp_path / "processed" / "val.about.jsonl").unlink()
    assert run(tmp_path, "--out", str(tmp_path / "report"), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures["contenders"]) == {"merged"}
    assert set(figures["missing"]) == {"base", "few_shot", "adapter"}
    assert "say where it is: --base PATH" in figures["missing"]["base"]
    assert figures["held_out"]["resampled"] == "replies"
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Not judged: base." in page
    assert "takes replies for independent" in page or "take replies for independent" in page


class Busy:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def answer(self, inputs: object) -> Any:
        raise ServerBusy("is answering somebody else")


def test_what_was_judged_is_not_lost_with_what_fails_after_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> Any:
        raise BaseModelError("the base does not fit into memory")

    monkeypatch.setattr(contenders, "load", load)
    monkeypatch.setattr(ghost.serving.client, "backend", lambda *_: Busy())
    assert run(made, "--out", str(tmp_path / "report"), "--url", "http://127.0.0.1:1") == 0
    figures = json.loads((tmp_path / "report" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(figures["contenders"]) == {"merged"}
    assert figures["missing"] == {
        **dict.fromkeys(("base", "few_shot", "adapter"), "the base does not fit into memory"),
        "served": "is answering somebody else",
    }


def test_a_foreign_adapter_or_base_is_refused_before_anything_is_judged(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "run_contender", lambda *_: pytest.fail("minutes of work before it"))
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    report = ["--out", str(tmp_path / "report")]
    assert run(made, "--adapter", str(tmp_path / "adapter"), *report) == 2
    assert "not the adapter that" in capsys.readouterr().err
    assert run(made, "--adapter", str(tmp_path), *report) == 2
    assert "no adapter_model.safetensors in it" in capsys.readouterr().err
    assert run(made, "--base", str(tmp_path / "nowhere"), *report) == 1
    assert run(made, "--seed", "-1", *report) == 2


def test_another_ghost_is_judged_beside_it_with_what_it_costs(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, report = tmp_path / "smaller", tmp_path / "report"
    shutil.copytree(made / "merged", other)
    facts = json.loads((other / "ghost.json").read_text(encoding="utf-8"))
    facts["data"]["val_sha256"] = "0" * 64
    (other / "ghost.json").write_text(json.dumps(facts), encoding="utf-8")
    assert run(made, "--contender", str(other), "--out", str(report)) == 0
    assert f"{other}: it was trained on other data" in capsys.readouterr().out
    found = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))["contenders"]
    same, ours = found[str(other)], found["merged"]
    assert same["likelihood"] == ours["likelihood"]
    assert same["style"] == ours["style"]
    assert same["cost"]["parameters"] == ours["cost"]["parameters"] == found["base"]["cost"]["parameters"]
    assert same["cost"]["bytes"] == 4 * same["cost"]["parameters"] < found["adapter"]["cost"]["bytes"]
    assert str(other) in (report / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_refused_before_anything_is_judged(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "run_contender", lambda *_: pytest.fail("minutes of work before it"))
    other = tmp_path / "other"
    shutil.copytree(made / "merged", other)
    facts = json.loads((other / "ghost.json").read_text(encoding="utf-8"))
    facts["text"]["labels"]["me"] = "Me:"
    (other / "ghost.json").write_text(json.dumps(facts), encoding="utf-8")
    for folder, why in (
        (other, "its labels are Me: and B:"),
        (made / "merged", "named twice"),
        (made / "adapter", "merge it first"),
        (tmp_path, "no ghost.json"),
        (tmp_path / "nowhere", str(tmp_path / "nowhere")),
    ):
        assert run(made, "--contender", str(folder), "--out", str(tmp_path / "report")) in (1, 2)
        error = capsys.readouterr().err
        assert why in error
        assert error.count("\n") == 1


def test_an_adapter_in_place_of_the_model_is_told_how_to_become_one(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--val", str(made / "processed"), "--out", str(tmp_path / "report")]  # of --val, the folder does
    assert cli.main(["evaluate", str(made / "adapter"), *paths]) == 1
    assert f"an adapter, not a model; merge it first: ghost merge {made / 'adapter'}" in capsys.readouterr().err


def test_the_terminal_says_when_nothing_tells_where_replies_are_from(figures: Any) -> None:
    page = Path("report.html")
    assert "val.about.jsonl" not in summary(figures, page)
    untold = figures | {"held_out": figures["held_out"] | {"conversations": None}}
    assert "val.about.jsonl is missing or damaged" in summary(untold, page)


def test_without_any_model_it_fails_before_it_writes(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "processed", tmp_path / "processed")
    assert run(tmp_path, "--out", str(tmp_path / "report")) == 1
    assert "ghost evaluate:" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "novel.txt").touch()
    assert run(tmp_path, "--out", str(tmp_path / "report")) == 2
    assert "holds other files: novel.txt" in capsys.readouterr().err


def test_each_measure_is_explained_in_one_place() -> None:
    assert (ROOT / "docs" / "measures.md").read_text(encoding="utf-8") == report_page.measures_document()


def test_replies_are_text_on_the_page_and_it_says_what_each_figure_is(made: Path) -> None:
    html = (made / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    shown = unescape(re.sub(r"<[^>]*>", "", html))
    assert "<script>alert(1)</script>" in shown
    for measure in report_page.MEASURES:
        assert measure.formula in shown
    body = html[html.index("<body>") :]
    assert body.index('class="chat"') < min(map(body.index, ('class="tiles"', "<figure", "nats"))), "replies come first"
    assert oct((made / "report" / "report.html").stat().st_mode)[-3:] == "600"


def test_a_quiz_is_written_and_its_answers_are_scored(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(made, "--blind", str(tmp_path / "quiz"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] <= TURNS
    assert told["pairs_wanted"] == 20
    key = json.loads((tmp_path / "quiz" / "key.json").read_text(encoding="utf-8"))
    code = f"{told['quiz']}-{key['right']}"
    assert cli.main(["evaluate", "--key", str(tmp_path / "quiz"), "--score", code, code]) == 0
    first, _, both = capsys.readouterr().out.splitlines()
    assert f"{told['pairs']} of {told['pairs']} right" in first
    assert f"{2 * told['pairs']} of {2 * told['pairs']} right" in both
    monkeypatch.setattr(quiz, "_answers", None)  # it is refused before the model is asked for anything
    assert run(made, "--blind", str(tmp_path / "quiz")) == 2
    assert f"{tmp_path / 'quiz' / 'key.json'}: of an earlier quiz" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "noted"), [(500, True), (6, False)])
def test_a_quiz_of_fewer_pairs_than_asked_for_says_so(
    wanted: int, noted: bool, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, "--blind", str(tmp_path / "quiz"), "--pairs", str(wanted)) == 0
    asked = len(json.loads((tmp_path / "quiz" / "key.json").read_text(encoding="utf-8"))["right"])
    note = f"note: {asked} pairs, fewer than the {wanted} of --pairs: the model answered 12"
    assert (note in " ".join(capsys.readouterr().out.split())) == noted


program = browser.found()
in_a_browser = pytest.mark.skipif(program is None, reason="no Chromium found: install it, or put its path into BROWSER")


@pytest.fixture(scope="module")
def opened() -> Iterator[browser.Browser]:
    assert program is not None
    with browser.browser(program) as page:
        yield page


@in_a_browser
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_a_browser_shows_it_whole_and_asks_nobody(opened: browser.Browser, made: Path, width: int, scheme: str) -> None:
    page = made / "report" / "report.html"
    opened.requested.clear()
    opened.complaints.clear()
    opened.show(page, width=width, scheme=scheme)
    assert opened.requested == [page.as_uri()]
    assert opened.complaints == []
    assert opened.ask("document.documentElement.scrollWidth") <= width
    assert opened.ask("document.querySelectorAll('figure').length") >= 6
    labels = "[...document.querySelectorAll('.axis span, .ticks span')]"
    assert opened.ask(f"Math.min(...{labels}.map(one => parseFloat(getComputedStyle(one).fontSize)))") >= 11


# Which replies are held against which: those that were answered, and partners as the person is.


EXCHANGES = [
    Exchange((Turn("B:", f"tu viens ? {number}"),), f"j'arrive {number}", conversation=number // 4)
    for number in range(40)
]


def test_replies_that_were_never_given_shift_no_other() -> None:
    said = [replace(one, reply=f"i come {one.conversation}", ended="length") for one in EXCHANGES]
    given, answered = [*said[:3], *said[5:]], [*EXCHANGES[:3], *EXCHANGES[5:]]
    groups = [one.conversation for one in answered]
    assert evaluate.answered(EXCHANGES, given) == answered
    assert evaluate.authorship_auc(EXCHANGES, given, seed=0) == authorship.classifier_auc(
        [one.reply for one in answered], [one.reply for one in given], 0, (groups, groups)
    )


def test_the_person_and_those_they_write_with_are_told_apart_by_conversation() -> None:
    """One person that is both sides, and often says the same: neither side's repetitions may give it away."""
    words = ["ok ça marche", "on verra bien", "demain peut-être", "je sais pas trop", "carrément oui", "pas ce soir"]
    same = [
        Exchange(
            (Turn("B:", f"{words[number % 6]} {number % 7}"),), f"{words[number % 6]} {number % 7}", conversation=0
        )
        for number in range(210)
    ]
    spread = [replace(one, conversation=number // 7) for number, one in enumerate(same)]
    found = evaluate.person_figures(spread, DEFAULT_LABELS, seed=0)["authorship"]
    own, talks = [one.reply for one in spread], [one.conversation for one in spread]
    halves = authorship.classifier_auc(own[::2], own[1::2], 0, (talks[::2], talks[1::2]))
    assert found["themselves"] == vars(halves)
    assert found["others"]["value"] < 0.6
    assert found["others"]["n"] == 42
