"""The mathematics of packing and nesting: equal, to rounding, to one window at a time through plain transformers."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer
from tests.training.finetuning.conftest import write_prepared
from training.config import TrainingConfig
from training.finetuning import loss as objectives
from training.finetuning.base import load_base, resolve_base
from training.finetuning.data import Split, read_split
from training.finetuning.loss import SegmentLoss
from training.finetuning.packing import Plan, flatten, pack

# A conversation whose windows are nested, and lengths from four tokens to dozens.
TALK = [
    "B: tu fais quoi",
    "A: mdr ok",
    "B: did you see the match?\nthen?",
    "A: c'était dingue 😂",
    "B: ok",
    "A: see you",
]
LINES = ["\n".join(TALK[start:end]) + "</s>" for start in (0, 2, 4) for end in (2, 4, 6) if end > start] * 2
LINES += ["B: a\nA: b</s>", "B: on se voit at the café then\nA: ok see you there " + "mdr " * 30 + "</s>"]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    return adapted(tiny_base)


def adapted(tiny_base: Path, dropout: float = 0.0) -> Any:
    """The tiny base in float32 with an adapter whose B is not zero, so that A has a gradient too."""
    from peft import LoraConfig, get_peft_model

    from training.finetuning import attention

    torch.manual_seed(0)
    base = load_base(resolve_base(str(tiny_base), None), nf4=False, bf16=False)
    attention.use(base)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=dropout, target_modules=names)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's affair
        wrapped = get_peft_model(base, lora)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped


@pytest.fixture
def split(tiny_base: Path, tmp_path: Path, recipe: TrainingConfig, request: Any) -> Split:
    folder = write_prepared(tmp_path / "p", LINES, LINES[:1])
    config = dataclasses.replace(recipe, train_on_inputs=getattr(request, "param", True))
    ghost = ghost_json.read(folder)
    return read_split(folder / "train.jsonl", load_tokenizer(tiny_base), ghost, config)


def quick(recipe: TrainingConfig, **changes: Any) -> TrainingConfig:
    return dataclasses.replace(
        recipe, **{"gradient_accumulation_steps": 8, "num_epochs": 2, "max_grad_norm": 1e9} | changes
    )


def trained(model: Any, plan: Plan, budget: int) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Losses and gradients of all steps of plain SGD, computed packed; the model is left as it was."""
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    losses, gradients = [], []
    for step in plan.steps():
        total = torch.zeros(())
        for batch in pack(step.segments, budget):
            loss = SegmentLoss(model)(**flatten(batch, "cpu")) / step.labels
            loss.backward()
            total += loss.detach()
        losses.append(total.item())
        gradients.append(descend(parameters))
    model.load_state_dict(start)
    return losses, gradients


def one_by_one(model: Any, split: Split, plan: Plan) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """The same by transformers alone: a window, unpadded, by itself; its loss by transformers' own cross-entropy."""
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    causal = model.get_base_model()
    causal.set_attn_implementation("sdpa")
    windows = {tuple(example.ids[:-1].tolist()): example for example in split.examples}
    losses, gradients = [], []
    for step in plan.steps():
        total = 0.0
        examples = [windows[tuple(run.ids.tolist())] for run in step.segments]
        labels = [torch.tensor(one.ids).long().masked_fill(~torch.tensor(one.learnt), -100)[None] for one in examples]
        count = sum(int((label[:, 1:] != -100).sum()) for label in labels)
        for one, label in zip(examples, labels, strict=True):
            ids = torch.tensor(one.ids).long()[None]
            loss = model(input_ids=ids, labels=label, num_items_in_batch=count).loss
            loss.backward()
            total += loss.item()
        losses.append(total)
        gradients.append(descend(parameters))
    causal.set_attn_implementation("segments")
    model.load_state_dict(start)
    return losses, gradients


def descend(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
        parameter.data -= 0.05 * parameter.grad
        parameter.grad = None
    return found


@pytest.mark.parametrize("split", [True, False], indirect=True, ids=["whole", "replies"])
@pytest.mark.parametrize(("collapsed", "budget"), [(False, 1), (False, 150), (True, 1), (True, 100_000)])
def test_losses_gradients_and_steps_are_those_of_one_window_at_a_time(
    model: Any, split: Split, recipe: TrainingConfig, collapsed: bool, budget: int
) -> None:
    apart = Plan(split, quick(recipe, collapse_nested_windows=False))
    plan = Plan(split, quick(recipe, collapse_nested_windows=collapsed))
    assert len({len(one.ids) for one in split.examples}) > 6
    assert plan.tokens < 0.8 * apart.tokens if collapsed else plan.tokens == apart.tokens
    losses, gradients = trained(model, plan, budget)
    expected, expected_gradients = one_by_one(model, split, apart)
    assert len(losses) == len(expected) == 4
    torch.testing.assert_close(losses, expected, rtol=2e-6, atol=0)
    for found, right in zip(gradients, expected_gradients, strict=True):
        for name in right:
            distance = (found[name] - right[name]).norm() / right[name].norm()
            assert distance < 1e-5, (name, distance)


def test_the_comparison_would_notice_attention_across_a_border(
    model: Any, split: Split, recipe: TrainingConfig
) -> None:
    (step, *_) = Plan(split, quick(recipe)).steps()
    (batch,) = pack(step.segments, 100_000)
    row = flatten(batch, "cpu")
    apart = torch.cat([SegmentLoss(model).losses(**flatten([run], "cpu")) for run in batch])
    torch.testing.assert_close(SegmentLoss(model).losses(**row), apart, rtol=1e-5, atol=1e-5)
    across = row | {"lengths": [sum(row["lengths"])]}
    assert (SegmentLoss(model).losses(**across) - apart).abs().max() > 1e-2


def test_chunks_change_nothing(
    model: Any, split: Split, recipe: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step, *_) = Plan(split, quick(recipe)).steps()
    row = flatten(step.segments, "cpu")
    whole = SegmentLoss(model)(**row)
    monkeypatch.setattr(objectives, "CHUNK", 3 * model.config.vocab_size)
    chunked = SegmentLoss(model)(**row)
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    assert len(SegmentLoss(model).losses(**row)) == len(row["labels"])


def test_autocast_does_not_round_the_sum(model: Any, split: Split, recipe: TrainingConfig) -> None:
    (step, *_) = Plan(split, quick(recipe)).steps()
    row = flatten(step.segments, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses = SegmentLoss(model)(**row), SegmentLoss(model).losses(**row)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, row["weights"] @ losses, rtol=1e-6, atol=0)


def test_with_dropout_the_expected_loss_is_the_same(tiny_base: Path, split: Split, recipe: TrainingConfig) -> None:
    model = adapted(tiny_base, dropout=0.5)
    model.train()

    def draws(collapsed: bool) -> torch.Tensor:
        (step, *_) = Plan(split, quick(recipe, collapse_nested_windows=collapsed)).steps()
        torch.manual_seed(1)
        with torch.no_grad():
            losses = [SegmentLoss(model)(**flatten(step.segments, "cpu")) / step.labels for _ in range(100)]
        return torch.stack(losses)

    nested, apart = draws(True), draws(False)
    error = ((nested.var() + apart.var()) / 100).sqrt()
    assert error > 0
    assert (nested.mean() - apart.mean()).abs() < 3 * error
