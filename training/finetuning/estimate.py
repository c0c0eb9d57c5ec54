"""`ghost estimate`: compute what training will need and cost, before renting or downloading anything. Needs no
torch."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ghost.console import console
from ghost.errors import ConfigError, TrainingError
from training.config import TrainingConfig
from training.finetuning import hardware, preferences
from training.finetuning.base import Shapes, shapes_of
from training.finetuning.data import Split, read_facts, read_split
from training.finetuning.hardware import Budget, Device, Load, Memory, Range, load_of, needed
from training.finetuning.packing import Plan
from training.finetuning.train import add_source_arguments, config_of, make_plan
from training.tokens import CountingTokenizer, EstimatingTokenizer, try_load_tokenizer

# Tokenise a sample of a longer file. For 38,000 windows with a mean of 141 or of 646 tokens, the sample came within 3%
# of the tokens that go through the model, in an eighth of the time.
CHARACTERS = 2_000_000
# Recommend the cheapest GPU that needs at most this many hours at worst. Cheaper ones that take all day save cents.
MOST_HOURS = 3
SET_UP = 0.25  # paid hours before training begins: fetching code, packages and base


@dataclass(frozen=True)
class Choice:
    """A device, and what training takes on it, or why it does not fit."""

    device: Device
    budget: Budget | None
    seconds: Range | None
    refusal: str = ""

    @property
    def dollars(self) -> Range | None:
        price = self.device.price
        return self.seconds.scaled(price / 3600) if self.seconds and price is not None else None

    @property
    def untested(self) -> bool:
        return self.device.gpu is not None and not self.device.gpu.tested

    @property
    def name(self) -> str:
        """As torch names it."""
        return self.device.gpu.device if self.device.gpu else self.device.name

    @property
    def bill(self) -> float:
        """Dollars at worst, with set-up; infinite if it does not fit."""
        return self.dollars.high + SET_UP * (self.device.price or 0) if self.dollars else float("inf")

    @property
    def hours(self) -> float:
        """Hours at worst; infinite if unknown."""
        return self.seconds.high / 3600 if self.seconds else float("inf")


@dataclass(frozen=True)
class Estimate:
    """What training will need. `counted_by`: "tokenizer" or "estimate", as in preparation's report."""

    config: TrainingConfig
    shapes: Shapes
    counted_by: str
    train: Split
    val: Split
    plan: Plan
    load: Load
    choices: list[Choice]
    cpu: Choice
    as_of: str

    @property
    def steps(self) -> int:
        whole = self.train.count / len(self.train.examples)
        return sum(-(-round(whole * count) // self.config.windows_per_step) for count in self.plan.examples)

    @property
    def example_tokens(self) -> int:
        """Tokens of an epoch, one example at a time."""
        return round(self.train.tokens / self.train.share)

    @property
    def best(self) -> Choice:
        """The device to recommend: this computer if it is fast enough, else the cheapest GPU that is, else the fastest
        GPU. Untested machines come last."""
        if self.cpu.hours <= MOST_HOURS:
            return self.cpu
        tested = [choice for choice in self.choices if choice.budget and not choice.untested] or self.choices
        fast = [choice for choice in tested if choice.hours <= MOST_HOURS]
        return min(fast, key=lambda choice: choice.bill) if fast else min(tested, key=lambda choice: choice.hours)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print only the figures, as JSON")


def run(args: argparse.Namespace) -> int:
    found = make(config_of(args, None), args.preferences)
    if args.json:
        print(json.dumps(figures(found), indent=2))
    else:
        console.print(summary(found))
    return 0


def make(config: TrainingConfig, corrections: Path | None = None) -> Estimate:
    """Raises what `ghost train` would raise about data, config and base, and TrainingError if no known GPU suffices."""
    shapes = shapes_of(config.base_model, config.revision_of_model)
    if 0 < shapes.positions < config.sequence_len:
        raise ConfigError(
            f"sequence_len: {config.sequence_len}, but {config.base_model} has {shapes.positions} positions"
        )
    train_path, val_path = Path(config.datasets[0].path), Path(config.test_datasets[0].path)
    ghost = read_facts(train_path, val_path)
    found = try_load_tokenizer(config.base_model, config.revision_of_model)
    tokenizer = EstimatingTokenizer() if found is None else CountingTokenizer(found)
    val = read_split(val_path, tokenizer, ghost, config, at_most=CHARACTERS)
    if corrections:
        merged = preferences.lineage(Path(config.base_model), ghost)
        wanted = preferences.read(corrections, tokenizer, merged, ghost, config)
        train = wanted.split
        plan: Plan = preferences.PreferencePlan(wanted, config)
        load = load_of(plan, wanted.measured_with(val), config)
    else:
        train = read_split(train_path, tokenizer, ghost, config, at_most=CHARACTERS)
        plan = make_plan(train, train_path, config)
        load = load_of(plan, val, config)
    return estimate(config, shapes, plan, train, val, load, "estimate" if found is None else "tokenizer")


def estimate(
    config: TrainingConfig, shapes: Shapes, plan: Plan, train: Split, val: Split, load: Load, counted_by: str
) -> Estimate:
    """Raises TrainingError if no known GPU suffices."""
    table = hardware.load_prices()
    rented = [Device(gpu.gpu, gpu.bytes, True, gpu) for gpu in table.gpus]
    choices = [choose(device, shapes, config, plan, load) for device in rented]
    if not any(choice.budget for choice in choices):
        largest = max(choices, key=lambda choice: choice.device.free)
        raise TrainingError(f"{largest.device.name}, the largest GPU of {hardware.NAME}: {largest.refusal}")
    choices.sort(key=lambda choice: (choice.untested, choice.dollars.low if choice.dollars else float("inf")))
    cpu = choose(hardware.cpu("this CPU"), shapes, config, plan, load)
    return Estimate(config, shapes, counted_by, train, val, plan, load, choices, cpu, f"{table.as_of}")


def choose(device: Device, shapes: Shapes, config: TrainingConfig, plan: Plan, load: Load) -> Choice:
    try:
        budget = device.budget(shapes, config, load, longest=plan.longest)
    except TrainingError as error:
        return Choice(device, None, None, str(error))
    return Choice(device, budget, device.seconds(load, shapes, config, budget))


def disk(shapes: Shapes, config: TrainingConfig) -> dict[str, int]:
    """Bytes on disk: the base from the Hub at two bytes per weight (0 for a local folder); the adapter with at most two
    checkpoints (adapter, AdamW's moments, best adapter); and what the merge will write."""
    adapter = 4 * shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    here = Path(config.base_model).expanduser().is_dir()
    return {"base": 0 if here else 2 * shapes.parameters, "adapter": 9 * adapter, "merge": 2 * shapes.parameters}


def figures(estimate: Estimate) -> dict[str, Any]:
    """For --json. Seconds and dollars are [best, worst]; memory and disk in bytes."""
    config, shapes, train, load = estimate.config, estimate.shapes, estimate.train, estimate.load
    return {
        "base": {
            "name": config.base_model,
            "parameters": shapes.parameters,
            "trained": shapes.lora_parameters(config.lora_target_modules, config.lora_r),
        },
        "recipe": train.recipe,
        "examples": {"train": train.count, "val": estimate.val.count},
        "tokens_per_epoch": {"computed": load.tokens, "one_example_at_a_time": estimate.example_tokens},
        "counted_by": estimate.counted_by,
        "sampled": round(train.share, 4),
        "longest": estimate.plan.longest,
        "epochs": config.num_epochs,
        "steps": estimate.steps,
        "disk": disk(shapes, config),
        "prices_as_of": estimate.as_of,
        "take": estimate.best.name,
        "devices": [_row_figures(choice) for choice in [*estimate.choices, estimate.cpu]],
    }


def _row_figures(choice: Choice) -> dict[str, Any]:
    budget = choice.budget
    return {
        "device": choice.name,
        "fits": budget is not None,
        "refusal": choice.refusal or None,
        "micro_batch_tokens": budget and budget.tokens,
        "gradient_checkpointing": budget and budget.checkpointing,
        "memory": budget and {**asdict(budget.memory), "total": budget.memory.total},
        "seconds": choice.seconds,
        "dollars": choice.dollars,
        "dollars_per_hour": choice.device.price,
    }


def summary(estimate: Estimate) -> str:
    config, shapes, load = estimate.config, estimate.shapes, estimate.load
    what = "replies" if isinstance(estimate.plan, preferences.PreferencePlan) else estimate.train.recipe
    epochs = "1 epoch" if config.num_epochs == 1 else f"{config.num_epochs} epochs"
    by = "" if estimate.counted_by == "tokenizer" else ", by estimate"
    nested = f"; {load.tokens:,} go through the model, since windows that begin alike share a pass"
    about = "about " if estimate.train.share < 1 else ""
    shared = what == "windows" and config.collapse_nested_windows
    trained = shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    space, fixed = disk(shapes, config), needed(shapes, config, 0, checkpointing=True)
    each = (needed(shapes, config, 1000, checkpointing=kind).total - fixed.total for kind in (False, True))
    download = f"{_gb(space['base'])} for the base, " if space["base"] else ""
    lines = [
        f"base      {config.base_model}: {_count(shapes.parameters)} weights, {_count(trained)} trained",
        f"{what:<9} {estimate.train.count:,} to train on, {estimate.val.count:,} held out",
        f"tokens    {about}{estimate.example_tokens:,} an epoch{by}{nested if shared else ''}",
        f"steps     {estimate.steps:,}: {epochs}, {config.windows_per_step} {what} a step",
        f"disk      {download}{_gb(space['adapter'])} for adapter and checkpoints; {_gb(space['merge'])} more to merge",
        f"memory    {_gb(fixed.total)}: {_components(fixed)};",
        "          for each 1,000 tokens at a time {} more, with gradient checkpointing {}".format(*map(_gb, each)),
        "",
        *_table(estimate),
        "",
        f"take      {_advice(estimate.best)}",
        f"note      computed, not measured: assumes that each GPU reaches {hardware.GPU_SHARE.high:.0%} to "
        f"{hardware.GPU_SHARE.low:.0%} of its peak; excludes the time to fetch and load the base",
        f"note      prices of {estimate.as_of} (config/gpu_prices.yaml): on demand, without disk and tax",
    ]
    lines += [
        f"note      {choice.device.name}: its processor is {choice.device.gpu.host}, on which ghost is untested"
        for choice in estimate.choices
        if choice.untested and choice.device.gpu
    ]
    if estimate.train.share < 1:
        lines.append(f"note      from a sample, {estimate.train.share:.0%} of train.jsonl: about 3% off")
    if estimate.counted_by == "estimate":
        lines.append("note      tokens are estimated, about 10% off: the base's tokenizer is not on this disk")
    return "\n".join(lines)


def _advice(choice: Choice) -> str:
    device, gpu = choice.device, choice.device.gpu
    within = f"{MOST_HOURS} hours"
    if gpu is None:
        return f"{device.name}, {hardware.expectation(device, choice.seconds)}; nothing needs to be rented"
    why = (
        f"the cheapest that finishes within {within}, with {60 * SET_UP:.0f} minutes to set up"
        if choice.hours <= MOST_HOURS
        else f"the fastest, since none finishes within {within}"
    )
    if choice.seconds is None or choice.dollars is None:  # does not fit
        return f"{gpu.gpu} at {gpu.provider}: {why}"
    return (
        f"{gpu.gpu} at {gpu.provider}: {why}; training takes {hardware.spell_duration(choice.seconds)} and "
        f"{hardware.spell_dollars(choice.dollars)}"
    )


def _table(estimate: Estimate) -> list[str]:
    """One row per device: GPUs by their cost at best, then untested GPUs, then this CPU."""
    rows = [("GPU", "GB", "used", "tokens at a time", "checkpointing", "training", "dollars", "an hour")]
    for choice in [*estimate.choices, estimate.cpu]:
        device, budget = choice.device, choice.budget
        size = f"{device.gpu.sold:.0f}" if device.gpu else f"{device.free / 2**30:.0f}"
        if budget is None:
            rows.append((device.name, size, "does not fit", "", "", "", "", ""))
            continue
        rows.append(
            (
                device.name,
                size,
                f"{budget.memory.total / device.free:.0%}",
                f"{budget.tokens:,}",
                "yes" if budget.checkpointing else "no",
                hardware.spell_duration(choice.seconds) if choice.seconds else "",
                hardware.spell_dollars(choice.dollars) if choice.dollars else "",
                f"${device.gpu.price:.2f}, {device.gpu.provider}" if device.gpu else "",
            )
        )
    return hardware.align(rows, left=(0, 7))


def _components(memory: Memory) -> str:
    words = {
        "base": "base",
        "rest": "embeddings and head",
        "adapter": "adapter",
        "gradients": "gradients",
        "optimizer": "AdamW",
        "loss": "loss",
        "context": "CUDA",
    }
    size, digits = (1e9, 1) if memory.total >= 1e9 else (1e6, 0)  # the unit of the sum printed before them
    return ", ".join(f"{words[name]} {getattr(memory, name) / size:,.{digits}f}" for name in words)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:,.1f} million"
