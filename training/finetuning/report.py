"""training_report.json: what a training was, in figures."""

from importlib.metadata import version
from typing import Any

from training.finetuning import summary
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split
from training.finetuning.plan import Plan
from training.finetuning.state import State


def facts(
    config: TrainingConfig, train: Split, val: Split, plan: Plan, state: State, device: str, price: float | None
) -> dict[str, Any]:
    """`tokens.computed` went through the model; `tokens.windows` is what that would have been one window at a time.
    `config` says what was decided of `gradient_checkpointing`; `price` is in dollars an hour."""
    seconds = state.seconds["training"]
    share = plan.tokens / plan.window_tokens
    found = {
        "windows": {"train": _counts(train), "val": _counts(val)},
        "tokens": {
            "epoch": train.tokens,
            "epoch_predicted": train.learnt,
            "computed": state.tokens,
            "windows": round(state.tokens / share),
            "saved": round(1 - share, 4),
        },
        "micro_batch_tokens": state.budget,
        "gradient_checkpointing": config.gradient_checkpointing,
        "out_of_memory": state.halved,
        **outcome(state),
        "planned_steps": len(plan),
        "steps_per_epoch": plan.epochs,
        "evaluations": state.evaluations,
        "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
        "resumed_at": state.resumed,
        "tokens_per_second": round(state.tokens / seconds, 1) if seconds else None,
        "device": device,
        "dollars_per_hour": price,
        "log": state.log,
    }
    return {**found, "notes": summary.notes(found, config)}


def outcome(state: State) -> dict[str, Any]:
    """What ghost.json says of it too."""
    return {
        "steps": state.step,
        "kept_step": kept_step(state),
        "heldout": {"before": _heldout(state, 0), "after": _heldout(state, kept_step(state))},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }


def kept_step(state: State) -> int:
    """Whose weights the adapter has."""
    return state.step if state.best is None else state.selection.best_step or state.step


def _heldout(state: State, step: int) -> dict[str, float] | None:
    """What was measured after `step` steps."""
    found = [entry for entry in state.evaluations if entry["step"] == step]
    return {key: value for key, value in found[-1].items() if key != "step"} if found else None


def _counts(split: Split) -> dict[str, int]:
    return {"read": split.read, "used": len(split.examples), "shortened": split.shortened, "skipped": split.skipped}
