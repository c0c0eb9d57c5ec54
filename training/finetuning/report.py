"""What `ghost train` says before it trains, after it, and in training_report.json."""

from importlib.metadata import version
from typing import Any

from training.finetuning.base import Base
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split
from training.finetuning.plan import Plan
from training.finetuning.state import State


def intention(
    config: TrainingConfig, base: Base, train: Split, val: Split, plan: Plan, budget: int, device: str
) -> str:
    """The plan, in lines."""
    what = train.recipe
    nested = f", {plan.tokens:,} of them computed: windows that begin alike share a run"
    lines = [
        f"base      {base.repo} ({base.revision})",
        f"{what:<9} {len(train.examples):,} to train on, {len(val.examples):,} held out",
        f"tokens    {plan.window_tokens:,}{nested if plan.tokens < plan.window_tokens else ''}",
        f"steps     {len(plan):,}: {config.num_epochs} epochs, {config.windows_per_step} {what} a step, "
        f"{budget:,} tokens at a time",
        f"device    {device}, computing in {'bfloat16' if config.bf16 else 'float32'}",
    ]
    for name, split in (("training", train), ("held-out", val)):
        if split.shortened or split.skipped:
            lines.append(f"note      longer than {config.sequence_len:,} tokens: {_too_long(name, split)}")
    if not val.examples:
        lines.append("note      no held-out windows, so nothing will tell learning from memorising: export more chats")
    return "\n".join(lines)


def _too_long(name: str, split: Split) -> str:
    if split.recipe == "windows":
        return (
            f"{split.shortened:,} {name} windows lost turns at the front, {split.skipped:,} were left out "
            "(their last two turns alone are too long)"
        )
    return (
        f"{split.shortened + split.skipped:,} {name} conversations are cut into pieces, "
        f"{split.skipped:,} of them without turns that alone are too long"
    )


def facts(train: Split, val: Split, plan: Plan, state: State, device: str) -> dict[str, Any]:
    """training_report.json. `tokens.computed` went through the model; `tokens.windows` is what that would have been
    one window at a time."""
    seconds = state.seconds["training"]
    share = plan.tokens / plan.window_tokens
    before, after = _heldout(state, 0), _heldout(state, kept_step(state))
    return {
        "windows": {"train": _counts(train), "val": _counts(val)},
        "tokens": {
            "epoch": train.tokens,
            "epoch_predicted": train.learnt,
            "computed": state.tokens,
            "windows": round(state.tokens / share),
            "saved": round(1 - share, 4),
        },
        "micro_batch_tokens": state.budget,
        "out_of_memory": state.halved,
        "steps": state.step,
        "planned_steps": len(plan),
        "kept_step": kept_step(state),
        "heldout": {"before": before, "after": after},
        "evaluations": state.evaluations,
        "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
        "resumed_at": state.resumed,
        "tokens_per_second": round(state.tokens / seconds, 1) if seconds else None,
        "device": device,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
        "log": state.log,
    }


def kept_step(state: State) -> int:
    """Whose weights the adapter has."""
    return state.step if state.best is None else state.selection.best_step or state.step


def summary(report: dict[str, Any], out: object) -> str:
    before, after = report["heldout"]["before"], report["heldout"]["after"]
    lines = [f"trained   in {report['seconds']['training']:,.0f} s, {report['tokens_per_second'] or 0:,.0f} tokens/s"]
    if before and after:
        lines.append(f"held out  loss {before['loss']:.3f} → {after['loss']:.3f}")
        lines.append(f"          of replies alone {before['reply_loss']:.3f} → {after['reply_loss']:.3f}")
        if after["loss"] > before["loss"]:
            lines.append("note      the held-out loss rose: it memorises the training windows; take fewer num_epochs")
    if report["kept_step"] != report["steps"]:
        lines.append(f"kept      the weights of step {report['kept_step']:,}, the best on held-out replies")
    return "\n".join([*lines, f"adapter   {out}", f"next      ghost merge {out}"])


def _heldout(state: State, step: int) -> dict[str, float] | None:
    """What was measured after `step` steps."""
    found = [entry for entry in state.evaluations if entry["step"] == step]
    return {key: value for key, value in found[-1].items() if key != "step"} if found else None


def _counts(split: Split) -> dict[str, int]:
    return {"read": split.read, "used": len(split.examples), "shortened": split.shortened, "skipped": split.skipped}
