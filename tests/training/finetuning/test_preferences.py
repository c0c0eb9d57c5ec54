"""What became of drafts, as pairs and labels, as weights of the loss, and as an adapter over a merged ghost."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghost import cli
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer
from telegram_bot import bot
from tests.training.finetuning.conftest import WriteConfig, weights
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning import preferences, train
from training.finetuning.preferences import dpo, kto
from training.lineage import Known

ASKED = ("tu viens ?", "on mange où", "did you see it", "hey", "ça va ?")


def line(number: int, label: str, draft: str, final: str | None) -> dict[str, Any]:
    context = [["other", f"{ASKED[number % len(ASKED)]} {number}"]]
    return {"context": context, "label": label, "draft": draft, "final": final, "time": "2025-01-01T00:00:00+00:00"}


def pairs(count: int) -> list[dict[str, Any]]:
    return [line(number, "edited", f"No {number}!", f"oui {number}") for number in range(count)]


def labelled(sent: int, discarded: int) -> list[dict[str, Any]]:
    good = [line(number, "sent", "oui", "oui") for number in range(sent)]
    return [*good, *(line(number, "discarded", "NO WAY!", None) for number in range(discarded))]


Teach = Callable[..., int]


@pytest.fixture
def teach(tiny_merged: Path, prepared: Path, write_config: WriteConfig, tmp_path: Path) -> Teach:
    """Run `ghost train --preferences` on these lines over the tiny ghost."""

    def run(lines: Sequence[dict[str, Any]], *flags: str, out: str = "adapter", **keys: Any) -> int:
        path = tmp_path / "corrections.jsonl"
        path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")
        keys = {"adapter": "lora", "load_in_4bit": False, "learning_rate": 0.0125, **keys}
        paths = ["--data", str(prepared), "--base", str(tiny_merged), "--out", str(tmp_path / out)]
        config = ["--config", str(write_config(**keys))]
        return cli.main(["train", *config, *paths, "--preferences", str(path), *flags])

    return run


@pytest.fixture
def strong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers with which random weights learn in some steps."""
    (tmp_path / "config").mkdir()
    text = "beta: 0.5\nnum_epochs: 6\nreplies_per_step: 8\n"
    (tmp_path / "config" / "preferences.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)


def gradient(losses: Callable[[Any], Any], ratios: Any) -> Any:
    import torch

    values = torch.tensor(ratios, requires_grad=True)
    losses(values).sum().backward()
    return values.grad.numpy()


def test_the_weights_of_dpo_are_its_gradient() -> None:
    import torch

    ratios, beta = np.random.default_rng(0).normal(0, 8, (20, 2)), 0.3
    losses, found = dpo(ratios, beta)

    def loss(values: Any) -> Any:
        return -torch.nn.functional.logsigmoid(beta * (values[:, 0] - values[:, 1]))

    assert np.allclose(losses, loss(torch.tensor(ratios)))
    assert np.allclose(found, -gradient(loss, ratios))  # of negative log-likelihoods


@pytest.mark.parametrize("shift", [3.0, -3.0])  # the KL estimate is above and below 0
def test_the_weights_of_kto_are_its_gradient(shift: float) -> None:
    import torch

    ratios, beta = np.random.default_rng(0).normal(0, 8, (20, 2)), 0.3
    ratios[:, 1] += shift * 10
    desirable = np.arange(20) % 3 > 0
    losses, found = kto(ratios, beta, desirable)

    def loss(values: Any) -> Any:
        z = values[:, 1].mean().clamp(min=0).detach()
        value = beta * (values[:, 0] - z)
        return 1 - torch.sigmoid(torch.where(torch.tensor(desirable), value, -value))

    assert np.allclose(losses, loss(torch.tensor(ratios)))
    assert np.allclose(found, -gradient(loss, ratios))


@pytest.mark.parametrize(("recipe", "own"), [("windows", 1), ("conversations", 1)])
def test_only_the_reply_and_its_end_are_preferred(
    recipe: str, own: int, tiny_merged: Path, recipe_config: TrainingConfig
) -> None:
    ghost = ghost_json.read(tiny_merged)
    ghost.facts["text"]["recipe"] = recipe
    tokenizer = load_tokenizer(tiny_merged)
    from replicate_deployment.chat_format import Turn

    context = [Turn("B:", "hey"), Turn("A:", "salut"), Turn("B:", "tu viens ?")]
    (one, other), short = preferences._encode(tokenizer, ghost, 1024, context, ("oui", "non merci"))
    for example, text in ((one, "oui"), (other, "non merci")):
        learnt = example.ids[example.learnt].tolist()
        assert learnt[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learnt[:-1]).strip() == text
    assert not short
    start = int(np.flatnonzero(one.learnt)[0])
    assert one.ids[:start].tolist() == other.ids[:start].tolist()
    (few, _), short = preferences._encode(tokenizer, ghost, len(one.ids) - 3, context, ("oui", "x"))
    assert short
    assert len(few.ids) <= len(one.ids) - 3
    assert preferences._encode(tokenizer, ghost, 4, context, ("oui", "x")) == ([], False)


@pytest.fixture
def recipe_config() -> TrainingConfig:
    return training_config.load()


@pytest.mark.usefixtures("strong")
def test_pairs_are_learnt_and_merge_and_serve(
    teach: Teach, tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach(pairs(60)) == 0
    printed = capsys.readouterr().out
    assert "54 to learn, 6 held out" in printed
    assert "60 pairs are few" in printed
    report = json.loads((tmp_path / "adapter" / train.REPORT).read_text())
    margin = report["preferences"]["margin"]
    assert margin["heldout"]["low"] > 0
    assert margin["train"]["n"] == 54
    assert report["log"][0]["loss"] == pytest.approx(np.log(2), abs=1e-4)  # the reference is the ghost itself
    assert report["log"][-1]["loss"] < 0.5
    assert report["evaluations"][0]["margin"] == pytest.approx(0, abs=1e-4)
    assert report["evaluations"][-1]["margin"] == margin["heldout"]["value"]

    facts = ghost_json.read(tmp_path / "adapter").facts
    ghost = ghost_json.read(tiny_merged).facts
    assert facts["data"] == ghost["data"]
    assert facts["before"] == {name: ghost[name] for name in ("base", "training", "merge") if name in ghost}
    assert facts["base"]["repo"] == tiny_merged.name
    assert facts["training"]["config"]["preferences"]["method"] == "dpo"
    merged = str(tmp_path / "merged")
    over = ["--base", str(tiny_merged), "--out", str(tiny_merged)]
    assert cli.main(["merge", str(tmp_path / "adapter"), *over]) == 2  # it would replace its own base
    assert cli.main(["merge", str(tmp_path / "adapter"), "--base", str(tiny_merged), "--out", merged]) == 0
    assert cli.main(["check", merged]) == 0
    assert ghost_json.read(tmp_path / "merged").facts["before"] == facts["before"]
    assert teach(pairs(60), "--resume") == 0
    assert "is trained already" in capsys.readouterr().out


@pytest.mark.usefixtures("strong")
def test_labels_are_learnt_where_pairs_are_too_few(
    teach: Teach, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach(labelled(40, 25)) == 0
    assert "KTO: only 0 pairs" in capsys.readouterr().out
    report = json.loads((tmp_path / "adapter" / train.REPORT).read_text())
    assert report["preferences"]["method"] == "kto"
    assert report["preferences"]["margin"]["train"]["low"] > 0
    assert report["log"][0]["loss"] == pytest.approx(0.5, abs=0.2)  # weighted by kind, so about a half


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (pairs(49), "49 drafts, 49 of them with what you sent instead"),
        (labelled(30, 19), "30 replies were sent and 19 refused"),
        (labelled(80, 0), "80 replies were sent and 0 refused"),
        (pairs(30) * 3, "30 drafts, 30 of them"),  # the same ones again
        ([line(number, "edited", "same", "same") for number in range(60)], "60 drafts, 0 of them"),
    ],
)
def test_too_few_are_refused_with_their_number(
    lines: list[dict[str, Any]], said: str, teach: Teach, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach(lines) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "ghost bot --corrections" in error


def hold_out(folder: Path, *spans: dict[str, Any]) -> None:
    """Record in the ghost.json of `folder` when its held-out conversations were."""
    path = folder / ghost_json.NAME
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["data"]["known"] = {"held_out": spans, "until": spans[-1]["last"]}
    path.write_text(json.dumps(facts), encoding="utf-8")


SPAN = {"first": "2025-03-01T10:00:00+00:00", "last": "2025-03-02T10:00:00+00:00", "cuts": False}
DURING = ("2025-03-01T10:00:00+00:00", "2025-03-01T19:00:00+02:00", "2025-03-02T11:20:00+00:00")
NOT_DURING = ("2025-03-01T09:59:59+00:00", "2025-03-02T11:40:00+00:00")


def test_what_may_be_held_out_is_not_learnt(
    teach: Teach, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the start of the first conversation to half an hour after the last message of the last."""
    hold_out(prepared, {**SPAN, "end": "2025-03-02T11:00:00+00:00"})
    leaking = [one | {"time": DURING[number % 3]} for number, one in enumerate(pairs(60)[-9:])]
    others = [one | {"time": NOT_DURING[number % 2]} for number, one in enumerate(pairs(51))]
    assert teach([*others, *leaking]) == 0
    printed = capsys.readouterr().out
    assert "9 corrections are left out: they fall in the time of held-out conversations" in printed
    assert "repeated" not in printed
    report = json.loads((tmp_path / "adapter" / train.REPORT).read_text())
    assert (report["preferences"]["pairs"], report["preferences"]["held_out"]) == (51, 9)
    assert teach([*others[2:], *leaking], out="few") == 1
    assert "49 drafts, 49 of them with what you sent instead" in (error := capsys.readouterr().err)
    assert "9 more are left out" in error


def test_spans_of_earlier_versions(
    teach: Teach, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They had no `end`; before that there were none, and an adapter of another program has no `data` at all."""
    assert Known.of(ghost_json.Ghost(tmp_path, {})) is None
    late = [one | {"time": "2025-03-02T10:20:00+00:00"} for one in pairs(60)[-9:]]
    assert teach([*pairs(51), *late], out="none") == 0
    assert "which did not record when these were" in capsys.readouterr().out
    hold_out(prepared, SPAN)
    assert teach([*pairs(51), *late]) == 0
    assert "9 corrections are left out" in capsys.readouterr().out
    hold_out(prepared, {**SPAN, "end": "2025-03-02T11:00:00"})
    assert teach(pairs(60), out="damaged") == 1
    assert "data.known is damaged (a time without an offset)" in capsys.readouterr().err


def test_the_bot_knows_how_many_are_enough() -> None:
    assert bot.FEWEST == preferences.LEAST


def test_what_is_no_ghost_is_refused(
    teach: Teach, tiny_base: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corrections.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in pairs(60)))
    flags = ["--data", str(prepared), "--preferences", str(path)]
    assert cli.main(["train", "--base", str(tiny_base), "--out", str(tmp_path / "a"), *flags]) == 1
    assert "name it: --base FOLDER" in capsys.readouterr().err
    assert cli.main(["train", "--out", str(tmp_path / "a"), *flags]) == 2
    assert "models/merged: no such folder; merge first" in capsys.readouterr().err
    path.write_text(path.read_text() + "{}\n")
    assert teach([*pairs(60), {"context": []}]) == 1
    assert "corrections.jsonl, line 61: " in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("strong")
def test_an_interrupted_training_goes_on_to_the_same_adapter(
    teach: Teach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.finetuning.loop import Loop

    assert teach(pairs(60), out="whole") == 0
    step = Loop._step

    def dies(self: Loop, *args: Any) -> None:
        if self.state.step == 20:
            self.save()
            raise OSError("the terminal is gone")
        step(self, *args)

    monkeypatch.setattr(Loop, "_step", dies)
    assert teach(pairs(60), out="parts") == 1
    monkeypatch.setattr(Loop, "_step", step)
    assert teach(pairs(61), "--resume", out="parts") == 1  # other preferences
    assert "belongs to another training" in capsys.readouterr().err
    assert teach(pairs(60), "--resume", out="parts") == 0
    whole, parts = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(tensor.allclose(parts[name], atol=1e-5) for name, tensor in whole.items())


@pytest.mark.usefixtures("strong")
def test_it_is_estimated_before(
    tiny_merged: Path, prepared: Path, write_config: WriteConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corrections.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in pairs(60)))
    flags = ["--data", str(prepared), "--base", str(tiny_merged), "--preferences", str(path)]
    assert cli.main(["estimate", "--config", str(write_config()), *flags, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["steps"] == 6 * 7  # 54 pairs, 8 a step
