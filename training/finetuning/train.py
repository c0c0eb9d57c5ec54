"""`ghost train`: train a LoRA adapter on train.jsonl, by QLoRA, or on preferences. The config holds every number."""

import argparse
import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import PlainConsole, console
from ghost.errors import DataError, TrainingError, UsageError
from ghost.signals import Stopped
from replicate_deployment.errors import WeightsError, first_line
from replicate_deployment.ghost_json import Ghost, verify
from replicate_deployment.ghost_json import read as read_ghost
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training import config as training_config
from training import lineage
from training.config import TrainingConfig
from training.finetuning import curve, hardware, preferences, report
from training.finetuning.base import Base, Outline, Shapes, find_base, resolve_base, shapes_of
from training.finetuning.checkpoint import (
    CONFIG,
    Checkpoint,
    Interruption,
    Origin,
    State,
    Tensors,
    fingerprint,
    training_block,
)
from training.finetuning.curve import Watch
from training.finetuning.data import Split, read_facts, read_split
from training.finetuning.hardware import Budget, Device, Load, load_of
from training.finetuning.model import load_adapter, save_adapter
from training.finetuning.packing import Plan
from training.finetuning.processes import Alone, Follower, Leader, ProcessLost, joined, leave
from training.finetuning.report import Samples

if TYPE_CHECKING:
    from training.finetuning.distill import Teacher

REPORT = "training_report.json"
# `--private`: the config's numbers, or these where they memorise less. Chosen by benchmarks/results/memorising.md.
PRIVATE = {"goldfish_k": 8, "num_epochs": 2, "early_stopping_patience": 1}
MERGED = "models/merged"  # what --preferences teaches
DAYS_ON_CPU = 3  # at best; if it takes longer, torch has most likely missed a GPU, so ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--out", type=Path, help="write the adapter to this folder instead of the config's output_dir")
    parser.add_argument(
        "--continue",
        dest="parent",
        type=Path,
        metavar="ADAPTER",
        help="start from this finished adapter: for more epochs, or on new chats (ghost prepare --continue ADAPTER)",
    )
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="finish an interrupted training, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the finished adapter in --out")
    parser.add_argument(
        "--allow-cpu",
        action="store_true",
        help=f"train without a GPU even if that is expected to take more than {DAYS_ON_CPU} days",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON; everything else goes to stderr")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for config, data and base; `with_arguments` applies them to the config."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the training config ({training_config.DEFAULT})")
    parser.add_argument("--data", type=Path, help="folder that `ghost prepare` wrote, instead of the config's datasets")
    parser.add_argument(
        "--base", metavar="BASE", help=f"instead of the config's base_model: {training_config.BASE_HELP}"
    )
    least = ", ".join(f"{key} {value}" for key, value in PRIVATE.items())
    parser.add_argument(
        "--private",
        action="store_true",
        help=f"memorise less: {least}, or less where the config says so, and load_best_model_at_end",
    )
    parser.add_argument(
        "--preferences",
        type=Path,
        metavar="FILE",
        help="learn from what became of the bot's drafts, as `ghost bot --corrections FILE` writes it, on a new "
        f"adapter over the merged ghost in --base ({MERGED}); --out is output_dir with {preferences.SUFFIX} then",
    )


def run(args: argparse.Namespace, teacher: "Teacher | None" = None) -> int:
    with joined() as processes:
        if isinstance(processes, Follower):
            processes.follow()
            code = 0
        else:
            if args.preferences and args.parent:
                raise UsageError("--preferences trains a new adapter over a merged ghost; leave out --continue")
            config = config_of(args, args.out)
            out = Path(config.output_dir)
            if out.name in ("", ".."):
                raise UsageError(f"--out {out}: name a folder; the checkpoint is written beside it")
            with Checkpoint(out).alone():
                code = lead(args, config, processes, teacher)
    if processes.sharded:
        leave(code)
    return code


@dataclass(frozen=True)
class Lesson:
    """What is learnt, in which order, on which base."""

    config: TrainingConfig
    outline: Outline
    shapes: Shapes
    tokenizer: Tokenizer
    ghost: Ghost
    """Whose ghost.json the adapter's continues."""
    settings: dict[str, Any]
    """For ghost.json: the config, and what it does not say of preferences or a teacher."""
    train: Split
    val: Split
    plan: Plan
    load: Load
    wanted: preferences.Preferences | None
    parent: lineage.Parent | None


def lead(args: argparse.Namespace, config: TrainingConfig, processes: Alone, teacher: "Teacher | None" = None) -> int:
    """Run the training, in the first or only process; with a teacher, the distillation."""
    from transformers import set_seed

    from training.finetuning.loop import Loop

    output = PlainConsole(stderr=True) if args.json else console
    out = Path(config.output_dir)
    started_by = processes.command if teacher is None else teacher.command
    checkpoint, resume = Checkpoint(out), command(args, started_by, "--resume")
    finished = artifact.own_files(out, "training")
    refuse_foreign_files(out, finished)
    if checkpoint.exists() and not args.resume:
        raise TrainingError(f"{checkpoint.describe()}. Continue: {resume}; or start over: {checkpoint.remove_command}")
    overwrite = f"train to another folder: --out FOLDER; or replace it: {command(args, started_by, '--overwrite')}"
    if finished and not (args.resume or args.overwrite):
        raise TrainingError(
            f"{out} holds a finished adapter. Merge it: ghost merge {shlex.quote(str(out))}; {overwrite}"
        )
    kept = bool(finished) and not checkpoint.exists() and not args.overwrite  # nothing will be trained

    lesson = read_lesson(args, config, processes.count, teacher, ask=not kept, output=output)
    config, ghost, plan, wanted = lesson.config, lesson.ghost, lesson.plan, lesson.wanted
    device, budget = expect(args, lesson, processes.count, started_by, teacher, output)
    base = resolve_base(config.base_model, config.revision_of_model)  # gigabytes, now that they are known to fit
    if lesson.parent:
        lesson.parent.check_base(base.repo, base.weights_sha256)
    if teacher is not None:
        teacher.refuse(base)
    continues = lesson.parent.lineage if lesson.parent else None
    identity = fingerprint(lesson.settings, ghost.block("data"), base.weights_sha256, continues)
    if args.resume and not checkpoint.exists() and is_trained(out, identity):
        facts = json.loads((out / REPORT).read_text(encoding="utf-8"))
        print(json.dumps({**facts, "out": str(out)}, indent=2) if args.json else f"{out} is trained already")
        return 0
    if kept:
        raise TrainingError(
            f"{out} holds the adapter of another training and there is no checkpoint to resume; {overwrite}"
        )
    checkpoint.origin = Origin(training_config.dump(config), ghost.facts, base.block, continues)
    state, tensors = begin(config, budget.tokens, checkpoint, identity)
    if args.resume:
        found = f"after step {state.step:,}, from {checkpoint.folder}" if tensors else "no checkpoint: from the start"
        output.print(f"resume    {found}")

    set_seed(config.seed)
    checkpointed = dataclasses.replace(config, gradient_checkpointing=budget.checkpointing)
    model = processes.model(base, checkpointed, lesson.tokenizer)
    if lesson.parent:
        load_adapter(model, lesson.parent.ghost.folder / lineage.WEIGHTS)
    interruption, heldout = Interruption(), lesson.val.examples
    # A sharded layer computes only for all processes at once, and only this one would sample.
    count = 0 if isinstance(processes, Leader) and processes.sharded else config.sample_replies
    samples = Samples(heldout, lesson.tokenizer, ghost.labels, count=count, out=out, start=state.step)
    loop = Loop(model, plan, heldout, config, state, checkpoint, identity, interruption, processes, samples, teacher)
    if wanted:
        beta = lesson.settings["preferences"]["beta"]
        loop.objective = preferences.Objective(wanted, beta, loop.segment_loss, state.budget, bf16=config.bf16)
    if tensors:
        loop.resume(tensors)
    with interruption.deferred():
        learn(loop, Watch(plan, state.step, device.price, spent=state.seconds["total"], output=output), resume)
        loop.finish()
        facts = report.facts(checkpointed, lesson.train, lesson.val, plan, state, device.name, device.price, continues)
        if wanted and loop.objective:
            facts |= preferences.facts(wanted, loop.objective, state.budget)
        try:
            write_adapter(out, model, base, lesson, facts)
        except OSError as error:
            why = error.strerror or error
            raise TrainingError(f"{out}: not written ({why}); {where_it_stands(loop, resume)}") from error
        checkpoint.remove()
        if teacher is not None:
            teacher.forget(out)
    try:
        interruption.check()
    except Stopped as stop:
        raise Stopped(stop.number, f"stopped, but {out} was already written. Next: ghost merge {out}") from stop
    if args.json:
        print(json.dumps({**facts, "out": str(out)}, indent=2))
    else:
        distilled = teacher is not None
        console.print(
            preferences.after(facts, base.folder, out)
            if wanted
            else report.after(facts, config, out, distilled=distilled)
        )
    return 0


def read_lesson(
    args: argparse.Namespace,
    config: TrainingConfig,
    processes: int,
    teacher: "Teacher | None",
    *,
    ask: bool,
    output: PlainConsole,
) -> Lesson:
    """Read the data, the base's tokenizer and what is to be continued or taught, without the base's weights.

    `ask`: whether a teacher may be asked for replies.
    """
    train_path, val_path = Path(config.datasets[0].path), Path(config.test_datasets[0].path)
    parent = None if args.parent is None else lineage.Parent.read(args.parent)
    data = ghost = read_facts(train_path, val_path)
    if parent:
        parent.check_data(data)
        parent.check_lora(config)
    outline = find_base(config.base_model, config.revision_of_model)
    config = dataclasses.replace(config, revision_of_model=None if outline.revision == "local" else outline.revision)
    shapes, tokenizer = shapes_of(str(outline.folder)), load_tokenizer(outline.folder)
    settings = training_config.as_dict(config)
    val = read_split(val_path, tokenizer, data, dataclasses.replace(config, goldfish_k=None))  # measure every token
    if processes > 1 and (args.preferences or teacher):
        what = "--preferences" if args.preferences else "ghost distill"
        raise UsageError(
            f"{what}: {processes} processes, but it trains in one; start it without accelerate launch or torchrun"
        )
    wanted = None
    if args.preferences:
        ghost = preferences.lineage(outline.folder, data)
        wanted = preferences.read(args.preferences, tokenizer, ghost, data, config)
        settings["preferences"] = preferences.block(wanted, args.preferences, val_path)
        train = wanted.split
        plan: Plan = preferences.PreferencePlan(wanted, config)
        load = load_of(plan, wanted.measured_with(val), config)
    else:
        train = read_split(train_path, tokenizer, data, config)
        if teacher is not None:
            out = Path(config.output_dir)
            train = teacher.teach(train, train_path, tokenizer, data, config, out, output, ask=ask)
            settings["distillation"] = teacher.block
        plan = make_plan(train, train_path, config, parent.epochs if parent else 0)
        load = load_of(plan, val, config)
    return Lesson(config, outline, shapes, tokenizer, ghost, settings, train, val, plan, load, wanted, parent)


def expect(
    args: argparse.Namespace,
    lesson: Lesson,
    processes: int,
    started_by: str,
    teacher: "Teacher | None",
    output: PlainConsole,
) -> tuple[Device, Budget]:
    """Print what will be trained, and what that should take. Raises TrainingError if it does not fit this machine, or
    takes days on its CPU."""
    config, plan, shapes = lesson.config, lesson.plan, lesson.shapes
    device = hardware.device_at_hand(processes)
    if teacher is not None:
        device = dataclasses.replace(device, free=device.free - teacher.memory(config))
    budget = device.budget(shapes, config, lesson.load, longest=plan.longest)
    output.print(
        preferences.before(lesson.wanted, config, lesson.outline, plan, device.name)
        if lesson.wanted
        else report.before(config, lesson.outline, lesson.train, lesson.val, plan, budget.tokens, device.name)
    )
    if lesson.parent:
        output.print(f"continues {args.parent}")
    seconds = device.seconds(lesson.load, shapes, config, budget)
    if teacher is not None and seconds is not None:
        seconds = seconds.scaled(1 + teacher.work(shapes, config))
    output.print(f"expected  {hardware.expectation(device, seconds)}")
    if not device.cuda and seconds and seconds.low > DAYS_ON_CPU * 86400 and not args.allow_cpu:
        raise TrainingError(
            f"torch finds no GPU here, and on this CPU it would take {hardware.spell_duration(seconds)}. "
            "Run `ghost estimate` to see which GPU to rent, or choose a smaller --base. "
            f"To train here anyway, type: {command(args, started_by, '--allow-cpu')}"
        )
    return device, budget


def learn(loop: Any, watch: Watch, resume: str) -> None:
    """Run the loop. Whatever ends it early is raised with what was saved, and the command that continues: `resume`."""
    import torch

    try:
        with watch:
            loop.run(watch)
    except Stopped as stop:
        loop.save()
        raise Stopped(stop.number, f"stopped; {where_it_stands(loop, resume)}") from stop
    except OSError:  # the progress bar's terminal is gone, for example
        loop.save()
        raise
    except ProcessLost as error:
        loop.save()
        raise TrainingError(f"step {loop.state.step + 1:,}: {error}; {where_it_stands(loop, resume)}") from error
    except torch.AcceleratorError as error:
        failed = f"step {loop.state.step + 1:,}: {first_line(error)}"
        raise TrainingError(f"{failed}; {where_it_stands(loop, resume)}") from error


def command(args: argparse.Namespace, program: str, flag: str) -> str:
    """Return this command with `flag`, ready to type."""
    flags = {
        "--config": args.config,
        "--data": args.data,
        "--student" if "distill" in program else "--base": args.base,
        "--out": args.out,
        "--continue": args.parent,
        "--preferences": args.preferences,
    }
    given = [str(word) for flag, value in flags.items() if value is not None for word in (flag, value)]
    switches = {
        "--private": args.private,
        "--json": args.json,
        "--overwrite": args.overwrite,
        "--allow-cpu": args.allow_cpu,
    }
    given += [name for name, is_on in switches.items() if is_on and name != flag]
    return f"{program} {shlex.join([*given, flag])}"


def make_plan(train: Split, path: Path, config: TrainingConfig, done: int = 0) -> Plan:
    """Raises DataError if there is nothing to train on, or more than half of the data is too long."""
    if not train.examples:
        why = f"all {train.skipped:,} are longer than sequence_len" if train.read else "it is empty"
        raise DataError(f"{path}: no window to train on ({why}); raise sequence_len, or run ghost prepare again")
    if train.skipped > train.read / 2:
        raise DataError(
            f"{path}: {train.skipped:,} of {train.read:,} {train.recipe} hold a turn too long for sequence_len: "
            f"{config.sequence_len}; raise it"
        )
    return Plan(train, config, done)


def begin(
    config: TrainingConfig, budget: int, checkpoint: Checkpoint, identity: dict[str, Any]
) -> tuple[State, Tensors | None]:
    """Start from the checkpoint, if there is one. Keep its budget, unless the config now asks for another."""
    if not checkpoint.exists():
        return State(config.micro_batch_tokens, budget), None
    state, tensors = checkpoint.read(identity)
    if state.asked != config.micro_batch_tokens:
        state.asked, state.budget = config.micro_batch_tokens, budget
    return state, tensors


def is_trained(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds the complete result of this training, so that a spot machine lost after the last step does
    not train again."""
    try:
        ghost = read_ghost(out)
        verify(ghost)
        data, base, training = (ghost.block(name) for name in ("data", "base", "training"))
        found = fingerprint(training["config"], data, base["weights_sha256"], training.get("continues"))
        return found == identity
    except (WeightsError, KeyError):
        return False


def where_it_stands(loop: Any, resume: str) -> str:
    """Describe what an interrupted training has left, and how to continue."""
    if loop.saved is None:
        return "there is no checkpoint, so the training is lost"
    return f"{loop.checkpoint.folder} holds step {loop.saved:,} of {len(loop.plan):,}. Continue: {resume}"


def write_adapter(out: Path, model: Any, base: Base, lesson: Lesson, facts: dict[str, Any]) -> None:
    """Replace `out` with the whole artifact: weights, tokenizer, config, report, and ghost.json with the settings.

    Raises TrainingError if a weight is not finite; `out` is then unchanged.
    """
    with replace_folder(out) as folder:
        save_adapter(model, base, folder)
        lesson.tokenizer.save_pretrained(folder)
        epochs, kept = facts["steps_per_epoch"], facts["kept_step"]
        page = curve.curve_page(facts["log"], facts["evaluations"], epochs=epochs, kept=kept)
        (folder / curve.CURVE).write_text(page, encoding="utf-8")
        (folder / CONFIG).write_text(training_config.dump(lesson.config), encoding="utf-8")
        (folder / REPORT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        artifact.write(folder, lesson.ghost.facts, base=base.block, training=training_block(lesson.settings, facts))


def config_of(args: argparse.Namespace, out: Path | None) -> TrainingConfig:
    """Load the config and apply the command line. Raises UsageError if flags exclude each other."""
    config = training_config.load(args.config)
    if args.preferences is None:
        return with_arguments(config, args.data, args.base, out, args.private)
    if args.private:
        raise UsageError("--preferences has epochs of its own (config/preferences.yaml); leave out --private")
    if args.base is None and not Path(MERGED).exists():
        raise UsageError(
            f"--preferences teaches a merged ghost, and {MERGED}: no such folder; merge first: ghost merge ADAPTER, or "
            "name one: --base FOLDER"
        )
    out = out or Path(f"{config.output_dir}{preferences.SUFFIX}")
    config = with_arguments(config, args.data, args.base or MERGED, out)
    return preferences.configured(config, training_config.load_preferences())


def with_arguments(
    config: TrainingConfig, data: Path | None, base: str | None, out: Path | None, private: bool = False
) -> TrainingConfig:
    """Apply the command line to the config. Another base drops the config's pinned revision."""
    if private:
        least: dict[str, Any] = {key: min(value, getattr(config, key) or value) for key, value in PRIVATE.items()}
        config = dataclasses.replace(config, **least, load_best_model_at_end=True)
    if data is not None:
        files = (config.datasets[0], config.test_datasets[0])
        train, val = (dataclasses.replace(file, path=str(data / Path(file.path).name)) for file in files)
        config = dataclasses.replace(config, datasets=(train,), test_datasets=(val,))
    if base is not None:
        repo, revision = training_config.base_named(base)
        if repo != config.base_model:
            config = dataclasses.replace(config, base_model=repo, revision_of_model=revision)
    return config if out is None else dataclasses.replace(config, output_dir=str(out))
