import dataclasses
import errno
import json
import shlex
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ghost import artifact, cli
from ghost.errors import BaseModelError, TrainingError
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import LINES, Ghost, WriteConfig, contents, weights, write_prepared
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning import curve, hardware, loop, train
from training.finetuning.base import resolve_base
from training.finetuning.checkpoint import Checkpoint, State, write_best
from training.finetuning.data import read_split
from training.finetuning.hardware import Device
from training.finetuning.model import refuse_other_heads, trainable
from training.finetuning.packing import flatten, pack, segment


def test_the_whole_verb(
    ghost_train: Ghost, tiny_base: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train() == 0
    printed, out = capsys.readouterr().out, tmp_path / "adapter"
    assert "16 to train on, 2 held out" in printed
    assert "6: 3 epochs, 8 windows a step" in printed
    assert f"ghost merge {out}" in printed

    report = json.loads((out / train.REPORT).read_text(encoding="utf-8"))
    assert [entry["step"] for entry in report["log"]] == [1, 2, 3, 4, 5, 6]
    assert report["log"][-1]["loss"] < report["log"][0]["loss"]
    assert report["seconds"]["total"] > report["seconds"]["training"] + report["seconds"]["evaluating"] > 0
    assert report["tokens"]["computed"] < report["tokens"]["windows"] == 3 * report["tokens"]["epoch"]
    before, after = report["heldout"]["before"], report["heldout"]["after"]
    assert after["loss"] < before["loss"]
    assert after["reply_loss"] < before["reply_loss"]
    assert before["reply_tokens"] < before["tokens"]

    ghost = ghost_json.read(out)
    ghost_json.verify(ghost)
    base = resolve_base(str(tiny_base), None)
    assert ghost.facts["text"] == ghost_json.read(prepared).facts["text"]
    assert ghost.block("data") == ghost_json.read(prepared).block("data")
    assert ghost.block("base") == {"repo": "tiny-base", "revision": "local", "weights_sha256": base.weights_sha256}
    assert ghost.block("training")["heldout"] == report["heldout"]
    assert str(tmp_path) not in (out / ghost_json.NAME).read_text(encoding="utf-8")

    config = training_config.load(out / train.CONFIG)
    assert (config.base_model, config.output_dir) == (str(tiny_base), str(out))
    adapter = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("tiny-base", None)
    assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)
    assert load_tokenizer(out).eos_token_id == load_tokenizer(tiny_base).eos_token_id
    assert {str(tensor.dtype) for tensor in weights(out).values()} == {"torch.float32"}


def test_a_training_of_one_step_learns(ghost_train: Ghost, capsys: pytest.CaptureFixture[str]) -> None:
    """A warm-up starts at a rate of 0, and one that lasts the whole training would change nothing."""
    assert ghost_train("--json", num_epochs=1, gradient_accumulation_steps=4, warmup_ratio=0.9) == 0
    report = json.loads(capsys.readouterr().out)
    assert [entry["learning_rate"] for entry in report["log"]] == [1e-2]
    assert report["heldout"]["after"]["loss"] < report["heldout"]["before"]["loss"]


def test_the_same_seed_gives_the_same_adapter(ghost_train: Ghost, tmp_path: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert ghost_train(out=out, seed=seed, num_epochs=1, lora_dropout=0.1) == 0
    first, again, other = ((tmp_path / out / "adapter_model.safetensors").read_bytes() for out in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "keys", [{"micro_batch_tokens": 16}, {"collapse_nested_windows": False}, {"gradient_checkpointing": True}]
)
def test_how_a_step_is_computed_does_not_change_it(ghost_train: Ghost, tmp_path: Path, keys: dict[str, Any]) -> None:
    # Windows differ in length: a mean of means instead of a mean over tokens would show.
    common = {"micro_batch_tokens": 512, "num_epochs": 1, "learning_rate": 1e-3, "goldfish_k": 3}
    assert ghost_train(out="a", **common) == 0
    assert ghost_train(out="b", **{**common, **keys}) == 0
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(tensor.allclose(other[name], atol=1e-5) for name, tensor in one.items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 calls it
@pytest.mark.parametrize("adapter", ["qlora", "lora"])
def test_the_adapter_loads_in_peft_and_gives_the_reported_loss(
    adapter: str,
    ghost_train: Ghost,
    tiny_base: Path,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from peft import PeftModel

    from training.finetuning import attention
    from training.finetuning.base import load_base
    from training.finetuning.loss import SegmentLoss

    nf4 = adapter == "qlora"
    assert ghost_train("--json", train_on_inputs=False, adapter=adapter, load_in_4bit=nf4) == 0
    report = json.loads(capsys.readouterr().out)
    base = resolve_base(str(tiny_base), None)
    model = PeftModel.from_pretrained(load_base(base, nf4=nf4, double_quant=True, bf16=False), tmp_path / "adapter")
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # that kernel rounds to bfloat16
    attention.use(model.get_base_model())
    config = training_config.load(tmp_path / "adapter" / train.CONFIG)
    val = read_split(prepared / "val.jsonl", load_tokenizer(tiny_base), ghost_json.read(prepared), config)
    for budget in (1, 1024):
        found = curve.heldout_loss(SegmentLoss(model), val.examples, budget, config)
        assert found is not None
        assert found.loss == pytest.approx(report["heldout"]["after"]["loss"], abs=1e-5)
        assert (found.loss, found.tokens) == (found.reply_loss, found.reply_tokens)


def test_evaluating_does_not_cut_the_gradients(tiny_base: Path, prepared: Path, write_config: WriteConfig) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    from training.finetuning.loss import SegmentLoss

    config, tokenizer = training_config.load(write_config()), load_tokenizer(tiny_base)
    model = trainable(resolve_base(str(tiny_base), None), config, tokenizer)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 2 * 7
    # Not every CPU has the kernel that would cut them, so the switch is looked at as well.
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * 7
    assert all("lora_" in name for name in trained)

    examples = read_split(prepared / "val.jsonl", tokenizer, ghost_json.read(prepared), config).examples
    segment_loss = SegmentLoss(model)
    assert curve.heldout_loss(segment_loss, examples, 1024, config) is not None
    for name, parameter in trained.items():
        if "lora_B" in name:  # while B is zero, A has no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    (everything,) = pack([segment([example]) for example in examples], 1024)
    segment_loss(**flatten(everything, "cpu")).backward()
    # The first layer's gradients pass through every other matrix of the base.
    first = [parameter for name, parameter in trained.items() if ".layers.0." in name]
    assert len(first) == 2 * 7
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in first)


def test_an_empty_held_out_file_is_said_not_refused(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train(data=write_prepared(tmp_path / "p", LINES, []), num_epochs=1) == 0
    assert "no held-out windows" in capsys.readouterr().out
    report = json.loads((tmp_path / "adapter" / train.REPORT).read_text(encoding="utf-8"))
    assert report["heldout"] == {"before": None, "after": None}


@pytest.mark.parametrize(
    ("failing", "words"), [("run", "Lower learning_rate"), ("write", "holds step 2 of 2. Continue: ghost train")]
)
def test_a_failed_training_leaves_the_old_adapter(
    ghost_train: Ghost,
    old_adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: str,
    words: str,
) -> None:
    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(old_adapter)
    if failing == "write":
        monkeypatch.setattr(artifact, "write", full)
    assert ghost_train(out="models/adapter", num_epochs=1, learning_rate=1e30 if failing == "run" else 1e-3) == 1
    assert words in capsys.readouterr().err
    assert contents(old_adapter) == before
    left = {path.name for path in old_adapter.parent.iterdir()} - {"adapter"}
    assert left == ({"adapter.checkpoint"} if failing == "write" else set())


@pytest.mark.parametrize(
    "failure", [RuntimeError("CUDA error: launch failure\nCompile with"), TrainingError("too long")]
)
def test_a_failing_last_evaluation_does_not_cost_the_adapter(
    ghost_train: Ghost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
) -> None:
    calls = iter([curve.heldout_loss])

    def once(*arguments: Any) -> Any:
        for honest in calls:
            return honest(*arguments)
        raise failure

    monkeypatch.setattr(loop, "heldout_loss", once)
    assert ghost_train(num_epochs=1) == 0
    why = str(failure).splitlines()[0]
    assert capsys.readouterr().err == f"ghost train: step 2: held-out loss not measured: {why}\n"
    ghost = ghost_json.read(tmp_path / "adapter")
    ghost_json.verify(ghost)
    assert ghost.block("training")["heldout"]["before"]["loss"] > 0
    assert ghost.block("training")["heldout"]["after"] is None
    assert any(tensor.any() for name, tensor in weights(tmp_path / "adapter").items() if "lora_B" in name)


def test_a_finished_adapter_is_replaced_only_when_that_is_said(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"num_epochs": 1, "sample_replies": 0}
    assert ghost_train(overwrite=False, **keys) == 0
    out = tmp_path / "adapter"
    before = contents(out)
    capsys.readouterr()
    assert ghost_train(overwrite=False, **{**keys, "seed": 3}) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{out} holds a finished adapter. Merge it: ghost merge {out}; train to another folder: --out " in line
    assert ghost_train("--resume", overwrite=False, **keys) == 0  # the same training: there is nothing to do
    assert f"{out} is trained already" in capsys.readouterr().out
    assert ghost_train("--resume", overwrite=False, **{**keys, "seed": 3}) == 1
    assert (
        f"{out} holds the adapter of another training and there is no checkpoint to resume;" in capsys.readouterr().err
    )
    assert contents(out) == before
    command = line.rpartition("or replace it: ghost ")[2]
    assert command.endswith(" --overwrite")
    assert cli.main(shlex.split(command)) == 0
    assert contents(out) != before


def test_a_training_of_years_is_stopped_before_the_weights_are_fetched(
    ghost_train: Ghost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, revision: str | None) -> None:
        raise BaseModelError("fetched")

    monkeypatch.setattr(train, "resolve_base", fetch)
    monkeypatch.setattr(
        hardware, "device_at_hand", lambda count: Device("CPU, 2 threads", 10**11, False, None, count, cores=2)
    )
    monkeypatch.setattr(hardware, "measure_core", lambda: 1.0)
    assert ghost_train(overwrite=False) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch finds no GPU here, and on this CPU it would take" in line
    assert "days" in line
    command = line.rpartition("type: ghost ")[2]
    assert cli.main(shlex.split(command)) == 1
    assert capsys.readouterr().err == "ghost train: fetched\n"


def test_an_interrupted_training_can_be_merged_as_far_as_it_came(
    ghost_train: Ghost,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out, merged = tmp_path / "adapter", tmp_path / "merged"
    with monkeypatch.context() as patched:  # after the last step: so the adapter to come is known
        patched.setattr(artifact, "write", full)
        assert ghost_train(load_best_model_at_end=False) == 1
    capsys.readouterr()
    assert cli.main(["merge", str(out), "--out", str(merged)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no adapter yet" in line
    assert line.endswith(f"or merge its best so far: ghost merge {out}.checkpoint")
    assert cli.main(["merge", f"{out}.checkpoint", "--out", str(merged)]) == 0
    assert "adapter     step 6 of a training that was interrupted after step 6\n" in capsys.readouterr().out
    before = ghost_json.read(merged)
    assert ghost_train("--resume", load_best_model_at_end=False) == 0
    assert cli.main(["merge", str(out), "--out", str(merged)]) == 0
    after = ghost_json.read(merged)
    unmeasured = {**after.block("training")["heldout"], "after": None}  # that of the last step comes after it
    assert before.block("training") == {**after.block("training"), "heldout": unmeasured, "interrupted": True}
    same = ["text", "data", "base", "merge", "golden"]
    assert [before.facts[name] for name in same] == [after.facts[name] for name in same]
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_of_an_interrupted_training_the_best_is_taken_not_the_last(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    with monkeypatch.context() as patched:
        patched.setattr(artifact, "write", lambda *arguments, **keywords: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ghost_train()
    checkpoint = Checkpoint(tmp_path / "adapter")
    (tmp_path / "best").mkdir()
    block = write_best(checkpoint, tmp_path / "best")
    assert (block["kept_step"], block["steps"]) == (4, 6)  # that of the sixth was measured after the checkpoint
    best = load_file(checkpoint.folder / "best.safetensors")
    found = weights(tmp_path / "best")
    assert len(found) == len(best) == 2 * 2 * 7
    assert all(tensor.equal(best[name.replace(".weight", ".default.weight")]) for name, tensor in found.items())


def test_of_a_checkpoint_without_an_origin_nothing_is_merged(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    checkpoint = Checkpoint(tmp_path / "adapter")
    checkpoint.write(State("auto", 8, step=3), {}, {})
    with pytest.raises(TrainingError, match="earlier version of ghost; continue with ghost train --resume"):
        write_best(checkpoint, tmp_path)


def truncate_embeddings(base: Path, tmp_path: Path) -> Path:
    """A base whose model has fewer ids than its tokenizer."""
    from transformers import MistralForCausalLM

    copy = tmp_path / "small-base"
    shutil.copytree(base, copy)
    model = MistralForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(300)
    model.save_pretrained(copy)
    return copy


def test_a_length_that_leaves_out_most_of_the_data_is_refused(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_prepared(tmp_path / "long", [LINES[0], LINES[0], LINES[2]], [])
    assert ghost_train(data=data, sequence_len=16) == 1
    assert "2 of 3 windows hold a turn too long for sequence_len: 16; raise it" in capsys.readouterr().err
    assert ghost_train(data=data, sequence_len=64, num_epochs=1) == 0


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"learning_rate": 1e30}, "Lower learning_rate"),
        ({"lora_target_modules": ("q_proj", "w_pack")}, "no layer w_pack; there are down_proj, gate_proj"),
        ({"sequence_len": 4096}, "sequence_len: 4096, but tiny-base has 2048 positions"),
        ({"sequence_len": 16}, "no window to train on (all 1 are longer than sequence_len)"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], complaint: str
) -> None:
    data = write_prepared(tmp_path / "long", [LINES[0]], []) if "sequence_len" in keys else None
    assert ghost_train(**keys, **({"data": data} if data else {})) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "adapter").exists()


def test_wrong_folders_are_refused(
    ghost_train: Ghost, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train(data=tmp_path / "none") == 1
    assert "no such file; write it with: ghost prepare" in capsys.readouterr().err
    assert ghost_train(data=write_prepared(tmp_path / "empty", [], [])) == 1
    assert "no window to train on (it is empty)" in capsys.readouterr().err
    assert ghost_train(base=tmp_path / "none") == 1
    assert "no such folder" in capsys.readouterr().err
    assert ghost_train(base=truncate_embeddings(tiny_base, tmp_path)) == 1
    assert "they belong to different models" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    assert ghost_train(out="..") == 2
    assert "name a folder; the checkpoint" in capsys.readouterr().err
    assert ghost_train(out="photos") == 2
    assert "holds other files: cat.jpg" in capsys.readouterr().err
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize(
    ("settings", "bias", "found"),
    [
        ({"final_logit_softcapping": 30.0}, None, "final_logit_softcapping"),
        ({"logits_scaling": 8.0}, None, "logits_scaling"),
        ({}, 0.5, "a bias in its head"),
        ({"final_logit_softcapping": None, "logit_scale": 1.0}, None, ""),
    ],
)
def test_a_base_with_another_loss_is_refused(settings: dict[str, Any], bias: float | None, found: str) -> None:
    head = SimpleNamespace(bias=bias)
    model = SimpleNamespace(config=SimpleNamespace(**settings), get_output_embeddings=lambda: head)
    with pytest.raises(BaseModelError, match=f"OWNER/BASE has {found}, which") if found else nullcontext():
        refuse_other_heads(model, "OWNER/BASE")


def test_another_base_drops_the_pinned_revision(recipe: TrainingConfig) -> None:
    assert train.with_arguments(recipe, None, "other/base", None).revision_of_model is None
    assert train.with_arguments(recipe, None, recipe.base_model, None) == recipe
    moved = train.with_arguments(recipe, Path("elsewhere"), None, Path("out"))
    assert (moved.datasets[0].path, moved.test_datasets[0].path) == ("elsewhere/train.jsonl", "elsewhere/val.jsonl")
    assert moved.output_dir == "out"


def test_private_takes_of_each_number_the_one_that_memorises_less(recipe: TrainingConfig) -> None:
    def taken(**changes: Any) -> dict[str, Any]:
        config = train.with_arguments(dataclasses.replace(recipe, **changes), None, None, None, private=True)
        assert config.load_best_model_at_end
        return {key: getattr(config, key) for key in train.PRIVATE}

    assert taken(load_best_model_at_end=False) == train.PRIVATE
    assert taken(goldfish_k=2, num_epochs=1) == {**train.PRIVATE, "goldfish_k": 2, "num_epochs": 1}
    assert taken(early_stopping_patience=9) == train.PRIVATE


@pytest.mark.parametrize(
    ("epochs", "times", "steps"),
    [([2, 2], 1, {0, 2, 4}), ([3, 5], 2, {0, 2, 3, 6, 8}), ([1, 1], 4, {0, 1, 2}), ([813], 1, {0, 813})],
)
def test_when_the_held_out_loss_is_measured(epochs: list[int], times: int, steps: set[int]) -> None:
    assert loop.evaluation_steps(epochs, times) == steps


@pytest.mark.parametrize(("name", "half"), [("cosine", 0.5), ("linear", 0.5), ("constant_with_warmup", 1.0)])
def test_the_learning_rate_follows_the_step(recipe: TrainingConfig, name: str, half: float) -> None:
    import torch

    config = dataclasses.replace(recipe, lr_scheduler=name, learning_rate=2.0, warmup_ratio=0.1)  # type: ignore[arg-type]
    rate = loop.learning_rate(torch.optim.AdamW([torch.zeros(1)]), 110, config)
    assert [rate(0), rate(1), rate(11)] == pytest.approx([0.0, 2 / 11, 2.0])
    assert (rate(60) + rate(61)) / 2 == pytest.approx(2 * half)


def test_a_finished_adapter_is_continued(
    ghost_train: Ghost, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its weights, with a schedule of its own; ghost.json names its ancestors."""
    assert ghost_train(load_best_model_at_end=False) == 0
    parent = tmp_path / "adapter"
    capsys.readouterr()
    keys = {"num_epochs": 2, "warmup_ratio": 0.5, "learning_rate": 1e-3, "load_best_model_at_end": False}
    assert ghost_train("--continue", str(parent), "--json", out="second", **keys) == 0
    report = json.loads(capsys.readouterr().out)
    first = json.loads((parent / train.REPORT).read_text(encoding="utf-8"))
    assert report["heldout"]["before"]["loss"] == pytest.approx(first["heldout"]["after"]["loss"], abs=1e-4)
    assert report["heldout"]["after"]["loss"] < report["heldout"]["before"]["loss"]
    assert [entry["learning_rate"] for entry in report["log"]][:2] == [0, 5e-4]
    facts = [ghost_json.read(tmp_path / name).facts for name in ("adapter", "second")]
    data = ghost_json.read(prepared).block("data")
    assert facts[1]["training"]["continues"] == {
        "adapter_sha256": facts[0]["files"]["adapter_model.safetensors"]["sha256"],
        "train_sha256": data["train_sha256"],
        "val_sha256": data["val_sha256"],
        "steps": 6,
        "epochs": 3,
    }
    assert ghost_train("--continue", str(tmp_path / "second"), out="third", **keys) == 0
    continues = ghost_json.read(tmp_path / "third").block("training")["continues"]
    assert continues["continues"] == facts[1]["training"]["continues"]
    assert continues["epochs"] == 3 + 2


@pytest.mark.parametrize("text_recipe", ["windows", "conversations"])
def test_more_epochs_come_in_an_order_of_their_own(
    ghost_train: Ghost, tmp_path: Path, text_recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With next to no learning rate, the loss of each step is that of what it shows."""
    lines = [f"B: tu fais quoi {day}\nA: something</s>\nB: ok {day}\nA: mdr {day}</s>" for day in range(20)]
    data = write_prepared(tmp_path / "chats", lines, lines[:2])
    facts = json.loads((data / "ghost.json").read_text(encoding="utf-8"))
    facts["text"]["recipe"] = text_recipe
    (data / "ghost.json").write_text(json.dumps(facts), encoding="utf-8")
    keys: dict[str, Any] = {"data": data, "learning_rate": 1e-12, "sequence_len": 64, "load_best_model_at_end": False}

    def losses(*flags: str, epochs: int, out: str) -> list[float]:
        capsys.readouterr()
        assert ghost_train(*flags, "--json", out=out, num_epochs=epochs, **keys) == 0
        return [entry["loss"] for entry in json.loads(capsys.readouterr().out)["log"]]

    longer, first = losses(epochs=4, out="longer"), losses(epochs=2, out="first")
    more = losses("--continue", str(tmp_path / "first"), epochs=2, out="more")
    assert first + more == pytest.approx(longer, abs=1e-5)
    assert first != pytest.approx(more, abs=1e-5)


def test_a_continued_training_resumes_as_itself(
    ghost_train: Ghost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ghost_train(num_epochs=1) == 0
    parent = str(tmp_path / "adapter")
    assert ghost_train("--continue", parent, out="whole", num_epochs=2) == 0

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(artifact, "write", full)
        assert ghost_train("--continue", parent, out="halves", num_epochs=2) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f" --continue {parent} " in line.rpartition("ghost train ")[2]
    assert ghost_train("--resume", out="halves", num_epochs=2) == 1
    assert "continued adapter was " in capsys.readouterr().err
    assert cli.main(shlex.split(line.rpartition("Continue: ghost ")[2])) == 0
    whole, halves = (tmp_path / name / "adapter_model.safetensors" for name in ("whole", "halves"))
    assert whole.read_bytes() == halves.read_bytes()
    assert ghost_train("--continue", parent, "--resume", out="halves", overwrite=False, num_epochs=2) == 0
    assert "is trained already" in capsys.readouterr().out


def test_what_a_training_cannot_continue_is_refused(
    ghost_train: Ghost, tiny_base: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    assert ghost_train(num_epochs=1) == 0
    parent, other = tmp_path / "adapter", tmp_path / "other-base"
    shutil.copytree(tiny_base, other)
    model = AutoModelForCausalLM.from_pretrained(other)
    model.lm_head.weight.data.mul_(2)
    model.save_pretrained(other)
    newer = write_prepared(tmp_path / "newer", LINES * 5, LINES[:2])
    capsys.readouterr()
    for keywords, complaint in (
        ({"lora_r": 8}, "its lora_r is 16, that of the config 8; take its own config: --config "),
        ({"lora_target_modules": ("q_proj",)}, "its lora_target_modules is q_proj, k_proj"),
        ({"data": newer}, f"was held out; type: ghost prepare --continue {parent}"),
        ({"base": other}, "trained on tiny-base, and other-base has other weights; name its own base"),
    ):  # fmt: skip
        assert ghost_train("--continue", str(parent), out="second", **keywords) == 1  # type: ignore[arg-type]
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ghost train: --continue {parent}: ")
        assert complaint in line
    assert not (tmp_path / "second").exists()
    ghost = newer / "ghost.json"
    facts = json.loads(ghost.read_text(encoding="utf-8"))
    data = ghost_json.read(prepared).block("data")
    facts["data"]["continues"] = {key: data[key] for key in ("train_sha256", "val_sha256")}
    ghost.write_text(json.dumps(facts), encoding="utf-8")
    assert ghost_train("--continue", str(parent), out="second", data=newer, num_epochs=1) == 0


def test_goldfish_leaves_tokens_out_of_training_and_none_out_of_measuring(
    ghost_train: Ghost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for k in (None, 2):
        assert ghost_train("--json", out=f"k{k}", num_epochs=1, goldfish_k=k) == 0
        printed = capsys.readouterr()
        reports.append(json.loads(printed.out))
        assert ("tokens of the loss are left out (goldfish_k: 2)" in printed.err) == (k == 2)
    whole, some = reports
    assert some["tokens"]["epoch_predicted"] < whole["tokens"]["epoch_predicted"]
    assert some["heldout"]["before"] == whole["heldout"]["before"]
    assert some["log"][0]["loss"] != whole["log"][0]["loss"]
