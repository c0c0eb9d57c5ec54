import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost import cli
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine
from replicate_deployment.tokenization import load_tokenizer
from tests import models
from tests.training.finetuning.conftest import LINES, WriteConfig, quick, weights, write_prepared
from training.config import TrainingConfig
from training.finetuning import distill, loop
from training.finetuning.base import resolve_base
from training.finetuning.checkpoint import Checkpoint
from training.finetuning.report import decode

Distill = Callable[..., int]


@pytest.fixture
def taught(tiny_base: Path, recipe: TrainingConfig) -> Path:
    """`processed`, and `merged`, a ghost trained on it."""

    def make(folder: Path) -> None:
        data = write_prepared(folder / "processed", LINES * 4, LINES[:2])
        config = folder / "config.yaml"
        config.write_text(quick(recipe), encoding="utf-8")
        base = ["--base", str(tiny_base)]
        paths = ["--data", str(data), "--out", str(folder / "adapter")]
        assert cli.main(["train", "--config", str(config), *base, *paths]) == 0
        assert cli.main(["merge", str(folder / "adapter"), *base, "--out", str(folder / "merged")]) == 0

    return models.shared("taught", make)


@pytest.fixture
def ghost_distill(taught: Path, write_config: WriteConfig, tmp_path: Path) -> Distill:
    def run(*arguments: str, teacher: Path = taught / "merged", data: Path = taught / "processed", **keys: Any) -> int:
        config = write_config(**{"load_in_4bit": False, "adapter": "lora", **keys})
        paths = ["--config", str(config), "--data", str(data), "--out", str(tmp_path / "student")]
        return cli.main(["distill", str(teacher), *paths, *arguments])

    return run


def other_ids(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> None:
    """No two tokenizers are alike, and every reply that ends is worth learning."""
    kind = type(load_tokenizer(tiny_base))
    vocabulary = kind.get_vocab
    monkeypatch.setattr(kind, "get_vocab", lambda one: {**vocabulary(one), str(id(one)): 0})
    monkeypatch.setattr(distill, "fault", lambda text, said: "" if text else "dropped")


def test_layers_of_the_teacher_learn_to_write_like_it_and_merge(
    ghost_distill: Distill, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = json.loads((taught / "merged" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    assert ghost_distill("--layers", str(layers - 1)) == 0
    out, base = tmp_path / "student", tmp_path / "student.base"
    told = capsys.readouterr().out
    assert "same token ids" in told
    assert f"ghost merge {out} --out {out}-merged" in told  # not to the default, where the teacher may be
    facts, teacher = ghost_json.read(out), resolve_base(str(taught / "merged"), None)
    block = facts.block("training")["config"]["distillation"]
    assert (block["teacher_sha256"], block["way"]) == (teacher.weights_sha256, "logits")
    assert facts.block("data") == ghost_json.read(taught / "merged").block("data")
    assert facts.block("base")["weights_sha256"] == resolve_base(str(base), None).weights_sha256
    assert cli.main(["merge", str(out), "--base", str(base), "--out", str(tmp_path / "merged")]) == 0
    assert ghost_json.read(tmp_path / "merged").block("training")["config"]["distillation"] == block


def test_an_interrupted_distillation_goes_on_as_it_would_have(
    ghost_distill: Distill, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = ["--student", str(tiny_base)]
    assert ghost_distill(*student) == 0
    whole = weights(tmp_path / "student")
    found = json.loads((tmp_path / "student" / "training_report.json").read_text(encoding="utf-8"))
    assert found["heldout"]["after"]["reply_loss"] < found["heldout"]["before"]["reply_loss"]
    step = loop.Loop._step

    def failing(self: Any, *arguments: Any) -> None:
        if self.state.step == 3:
            raise OSError(5, "the terminal is gone")
        step(self, *arguments)

    monkeypatch.setattr(loop.Loop, "_step", failing)
    assert ghost_distill(*student, "--overwrite") == 1
    assert Checkpoint(tmp_path / "student").exists()
    monkeypatch.setattr(loop.Loop, "_step", step)
    assert ghost_distill(*student, "--resume") == 0
    for name, tensor in weights(tmp_path / "student").items():
        assert tensor.equal(whole[name]), name


def test_other_ids_are_taught_by_replies(
    ghost_distill: Distill,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other_ids(monkeypatch, tiny_base)
    assert ghost_distill("--student", str(tiny_base), num_epochs=1) == 0
    assert "other token ids" in capsys.readouterr().out
    block = ghost_json.read(tmp_path / "student").block("training")["config"]["distillation"]
    assert block["way"] == "replies"
    # One of the sample's four lines ends in a reply to nobody but the person.
    asked = sum(block["teacher_replies"].values())
    assert asked in (distill.ANSWERS * 4 * 4, distill.ANSWERS * 4 * 3)
    found = json.loads((tmp_path / "student" / "training_report.json").read_text(encoding="utf-8"))
    assert found["windows"]["train"]["used"] == 4 * len(LINES) + block["teacher_replies"]["kept"]
    assert not distill.replies_of(tmp_path / "student").exists()


def test_what_cannot_teach_is_refused_in_one_line(
    ghost_distill: Distill, taught: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = ["--student", str(tiny_base)]
    others = write_prepared(tmp_path / "others", LINES[:3], LINES[:1])
    cases: list[tuple[list[str], dict[str, Path], str]] = [
        (student, {"teacher": tiny_base}, "no ghost.json"),
        (student, {"teacher": tmp_path / "nowhere"}, "nowhere"),
        (student, {"teacher": taught / "adapter"}, "merge it first"),
        (student, {"data": others}, "is not what"),
        (["--layers", "1"], {"data": others}, "is not what"),
        (["--student", str(taught / "merged")], {}, "the teacher's own weights"),
        (["--layers", "99"], {}, "--layers 99: the teacher has"),
    ]
    for arguments, folders, why in cases:
        capsys.readouterr()
        assert ghost_distill(*arguments, **folders) in (1, 2)
        error = capsys.readouterr().err
        assert why in error
        assert error.count("\n") == 1
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("student")]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("see you there", True),
        ("", False),
        ("did you see?", False),
        ("no no no no no no no no", False),
    ],
)
def test_replies_that_teach_nothing_are_dropped(text: str, kept: bool) -> None:
    assert (not distill.fault(text, "did you see?")) is kept


def test_replies_of_a_batch_are_those_of_the_engine_one_by_one(tiny_merged: Path) -> None:
    engine = Engine.load(tiny_merged, device="cpu")
    contexts = [[Turn("B:", "hey")], [Turn("B:", "are you there?"), Turn("A:", "yes"), Turn("B:", "come over then")]]
    end = decode(engine.model, [engine.prompt_ids(contexts[0], 96)], -1, 6)[0][-1]  # so that the first reply ends
    engine.tokenizer.eos_token_id = end
    greedy = engine.settings.replace(temperature=0.0, repetition_penalty=1.0)
    engine = dataclasses.replace(engine, settings=greedy, end_ids=frozenset([end]))
    one_by_one = []
    for turns in contexts:
        reply = engine.reply(turns, greedy)
        text = "".join(reply)
        one_by_one.append((text, "" if reply.finish_reason == "end_token" else "dropped because they run on"))
    assert distill.replies(engine, contexts) == one_by_one
    assert one_by_one[0][0]
    assert not one_by_one[0][1]


def test_an_interrupted_teacher_is_not_asked_again(
    ghost_distill: Distill,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other_ids(monkeypatch, tiny_base)
    student = ["--student", str(tiny_base)]
    assert ghost_distill(*student, num_epochs=1) == 0
    whole = ghost_json.read(tmp_path / "student").block("training")["config"]["distillation"]
    learnt = weights(tmp_path / "student")
    ask, batches = distill.replies, 0

    def failing(*arguments: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise OSError(28, "No space left on device")
        return ask(*arguments)

    monkeypatch.setattr(distill, "replies", failing)
    assert ghost_distill(*student, "--overwrite", num_epochs=1) == 1
    with distill.replies_of(tmp_path / "student").open("a", encoding="utf-8") as stream:
        stream.write('["a torn li')
    assert ghost_distill(*student, "--overwrite", num_epochs=1) == 0
    assert batches == 1 + -(-sum(whole["teacher_replies"].values()) // distill.BATCH)
    assert ghost_json.read(tmp_path / "student").block("training")["config"]["distillation"] == whole
    for name, tensor in weights(tmp_path / "student").items():
        assert tensor.equal(learnt[name]), name


def test_a_finished_student_is_not_taught_again(
    ghost_distill: Distill,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other_ids(monkeypatch, tiny_base)
    student = ["--student", str(tiny_base)]
    assert ghost_distill(*student, num_epochs=1) == 0
    monkeypatch.setattr(distill, "replies", None)  # a teacher that is asked fails
    assert ghost_distill(*student, "--resume", num_epochs=1) == 0
    assert "is trained already" in capsys.readouterr().out
    assert ghost_distill(*student, "--resume", num_epochs=2) == 1
    assert "another training" in capsys.readouterr().err


def test_the_divergence_is_the_textbook_one() -> None:
    import torch

    from training.finetuning.loss import jensen_shannon

    p, q = torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[0.2, 0.2, 0.6]])
    middle = (p + q) / 2
    expected = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    assert torch.allclose(jensen_shannon(p.log(), q.log()), expected[None])
    assert torch.allclose(jensen_shannon(p.log(), p.log()), torch.zeros(1), atol=1e-6)


def test_a_student_that_is_its_teacher_learns_nothing_from_its_own_replies(
    tiny_base: Path, taught: Path, recipe: TrainingConfig
) -> None:
    from training.finetuning.loss import DistillationLoss
    from training.finetuning.model import trainable
    from training.finetuning.packing import flatten, segment

    config = dataclasses.replace(recipe, load_in_4bit=False, adapter="lora", bf16=False, lora_dropout=0.0)
    base = resolve_base(str(tiny_base), None)
    teacher = distill.Teacher(taught / "merged")
    teacher.base, teacher._config = base, config
    loss = teacher.loss(trainable(base, config, load_tokenizer(tiny_base)))
    assert isinstance(loss, DistillationLoss)
    for own in (True, False):
        loss.own_replies = own
        loss.zero_grad()
        loss(**flatten([segment([distill.own_reply(range(5, 12), range(20, 30))])], "cpu")).backward()
        largest = max(float(one.grad.abs().max()) for one in loss.parameters() if one.grad is not None)
        assert (largest < 1e-5) is own  # on the person's lines, the hard targets still pull
