"""What `ghost train` says in words: before it trains, what it is about to do; after it, what came of it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from training.console import duration
from training.finetuning import curve, samples
from training.finetuning.base import Outline
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split
from training.finetuning.plan import Plan
from training.finetuning.watching import epochs_done

Facts = Mapping[str, Any]
"""training_report.json, as report.facts makes it."""

# The held-out loss is said to rise when it does by more than this share. On the sample it goes up and down by 0.6% from
# one measurement to the next while it still falls.
RISE = 0.01


def before(
    config: TrainingConfig, base: Outline, train: Split, val: Split, plan: Plan, budget: int, device: str
) -> str:
    """The plan, in lines."""
    what, epochs = train.recipe, "1 epoch" if config.num_epochs == 1 else f"{config.num_epochs} epochs"
    nested = ""
    if what == "windows" and config.collapse_nested_windows:
        nested = f", {plan.tokens:,} of them computed: windows that begin alike share a run"
    all_of_it = "" if config.num_epochs == 1 else f" in {epochs}"
    lines = [
        f"base      {base.repo} ({base.revision})",
        f"{what:<9} {len(train.examples):,} to train on, {len(val.examples):,} held out",
        f"tokens    {plan.window_tokens:,}{all_of_it}{nested}",
        f"steps     {len(plan):,}: {epochs}, {config.windows_per_step} {what} a step, {budget:,} tokens at a time",
        f"device    {device}, computing in {'bfloat16' if config.bf16 else 'float32'}",
    ]
    for name, split in (("training", train), ("held-out", val)):
        if split.shortened or split.skipped:
            lines.append(f"note      longer than {config.sequence_len:,} tokens: {_too_long(name, split)}")
    if not val.examples:
        lines.append(f"note      no held-out {what}, so nothing will tell learning from memorising: export more chats")
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


def after(facts: Facts, config: TrainingConfig, out: Path) -> str:
    """What came of it, in lines. `out` is where the adapter lies."""
    first, last = facts["heldout"]["before"], facts["heldout"]["after"]
    lines = [f"trained   {_price_and_speed(facts)}"]
    if first and last:
        lines.append(f"held out  loss of replies {first['reply_loss']:.3f} → {last['reply_loss']:.3f} nats a token")
        if last["tokens"] != last["reply_tokens"]:
            lines.append(f"          of all tokens   {first['loss']:.3f} → {last['loss']:.3f}")
    lines.append(f"kept      {_kept(facts, config)}")
    if facts["steps"] < facts["planned_steps"]:
        epochs = f"epoch {_epoch(facts, facts['steps'])} of {config.num_epochs}"
        why = f"{config.early_stopping_patience} measurements in a row were no better (early_stopping_patience)"
        if samples.collapsed(facts["evaluations"]):
            why = "twice, no sampled reply ended, all said the same again and again, and the base was better"
        lines.append(f"stopped   after step {facts['steps']:,}, {epochs}: {why}")
    lines += [f"note      {note}" for note in facts["notes"]]
    if (out / curve.NAME).exists():
        lines.append(f"curve     {out / curve.NAME}")
    if config.use_tensorboard:
        lines.append(f"curves    tensorboard --logdir {out}.tensorboard")
    return "\n".join([*lines, f"adapter   {out}", f"next      ghost merge {out}"])


def notes(facts: Facts, config: TrainingConfig) -> list[str]:
    """What the losses give reason to say, with the numbers that say it. `facts` need no `notes` yet."""
    return [*_learnt_nothing(facts), *_memorised(facts, config), *_kept_a_worse(facts, config)]


def _price_and_speed(facts: Facts) -> str:
    seconds, speed = facts["seconds"]["total"], facts["tokens_per_second"] or 0
    words = f"in {duration(seconds)}, {speed:,.0f} tokens/s"
    if facts["tokens"]["saved"]:
        words += f" (worth {speed / (1 - facts['tokens']['saved']):,.0f} one window at a time)"
    price = facts["dollars_per_hour"]
    return words if price is None else f"{words}, ${price * seconds / 3600:,.2f} at ${price:,.2f} an hour"


def _kept(facts: Facts, config: TrainingConfig) -> str:
    step, trained = facts["kept_step"], _trained(facts)
    which = f"step {step:,} of {facts['steps']:,}" if step < facts["steps"] else f"the last step, {step:,}"
    if not config.load_best_model_at_end:
        return f"{which} (load_best_model_at_end: false)"
    if len(trained) < 2 or step != _best(trained)["step"]:
        return which
    loss = f"{_best(trained)['reply_loss']:.3f}"
    return (
        f"{which}, epoch {_epoch(facts, step)}: of {len(trained)} measurements the lowest on held-out replies, {loss}"
    )


def _learnt_nothing(facts: Facts) -> Iterator[str]:
    first, trained = facts["heldout"]["before"], _trained(facts)
    if first and trained and _best(trained)["reply_loss"] >= first["reply_loss"]:
        losses = f"{first['reply_loss']:.3f} before, {_best(trained)['reply_loss']:.3f} at best"
        yield (
            f"no step was better on held-out replies than the base itself ({losses}): learning_rate is too high, or "
            "there is too little to learn from"
        )


def _memorised(facts: Facts, config: TrainingConfig) -> Iterator[str]:
    """The held-out loss has risen since its lowest, while that of training has fallen."""
    trained = _trained(facts)
    if len(trained) < 2:
        return
    best, last = _best(trained), trained[-1]
    then, now = _training_loss(facts, best["step"]), _training_loss(facts, last["step"])
    if then is None or now is None or now >= then or last["reply_loss"] <= best["reply_loss"] * (1 + RISE):
        return
    epochs = math.ceil(epochs_done(best["step"], facts["steps_per_epoch"]))
    advice = f"; fewer epochs would do (num_epochs: {epochs})" if epochs < config.num_epochs else ""
    yield (
        f"from epoch {_epoch(facts, best['step'])} on the loss of held-out replies rises ({best['reply_loss']:.3f} → "
        f"{last['reply_loss']:.3f}) while that of training falls ({then:.3f} → {now:.3f}): it memorises{advice}"
    )


def _kept_a_worse(facts: Facts, config: TrainingConfig) -> Iterator[str]:
    trained = _trained(facts)
    if trained and not config.load_best_model_at_end and _best(trained)["reply_loss"] < trained[-1]["reply_loss"]:
        yield (
            f"step {_best(trained)['step']:,} was better on held-out replies than what is kept "
            f"({_best(trained)['reply_loss']:.3f}, and {trained[-1]['reply_loss']:.3f} at the end): "
            "load_best_model_at_end: true would have kept it"
        )


def _trained(facts: Facts) -> list[dict[str, Any]]:
    """The measurements that are numbers, without that of the base."""
    return [entry for entry in facts["evaluations"] if entry["step"] and math.isfinite(entry["reply_loss"])]


def _best(trained: list[dict[str, Any]]) -> dict[str, Any]:
    return min(trained, key=lambda entry: float(entry["reply_loss"]))


def _training_loss(facts: Facts, step: int) -> float | None:
    """The mean between the measurement before the one at `step` and that."""
    start = max((entry["step"] for entry in facts["evaluations"] if entry["step"] < step), default=0)
    losses = [entry["loss"] for entry in facts["log"] if start < entry["step"] <= step]
    return fmean(losses) if losses else None


def _epoch(facts: Facts, step: int) -> str:
    """`3`, or `2.5`."""
    return f"{epochs_done(step, facts['steps_per_epoch']):.1f}".removesuffix(".0")
