"""`ghost train`: train.jsonl → LoRA adapter, by QLoRA. Every number comes from the config."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from replicate_deployment.ghost_json import Ghost
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training import artifact
from training.aside import refuse_foreign_files, replace_folder
from training.console import console
from training.errors import DataError, TrainingError
from training.finetuning import config as training_config
from training.finetuning.base import Base, resolve_base
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split, read_facts, read_split
from training.finetuning.heldout import HeldoutLoss, heldout_loss
from training.finetuning.model import save_adapter, trainable

REPORT = "training_report.json"
CONFIG = "training_config.yaml"
# Where files lay on this machine is nobody's business: ghost.json travels to the Hub and into the container.
LOCAL_KEYS = {"base_model", "revision_of_model", "datasets", "test_datasets", "output_dir"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=training_config.DEFAULT_PATH,
        help="every number of training (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, help="what `ghost prepare` wrote, instead of the config's datasets")
    parser.add_argument("--base", metavar="PATH_OR_REPO", help="instead of the config's base_model")
    parser.add_argument("--out", type=Path, help="folder of the adapter, instead of the config's output_dir")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    import torch
    from transformers import set_seed

    from training.finetuning import loop

    started = time.monotonic()
    config = with_arguments(training_config.load(args.config), args.data, args.base, args.out)
    out = Path(config.output_dir)
    refuse_foreign_files(out, artifact.own_files(out, "training"))
    train_path, val_path = Path(config.datasets[0].path), Path(config.test_datasets[0].path)
    ghost = read_facts(train_path, val_path)
    base = resolve_base(config.base_model, config.revision_of_model)
    config = dataclasses.replace(config, revision_of_model=None if base.revision == "local" else base.revision)

    tokenizer = load_tokenizer(base.folder)
    train = read_split(train_path, tokenizer, ghost.labels, config)
    val = read_split(val_path, tokenizer, ghost.labels, config)
    if not train.examples:
        why = f"all {train.skipped:,} are longer than sequence_len" if train.read else "it is empty"
        raise DataError(f"{train_path}: no window to train on ({why}); raise sequence_len, or run ghost prepare again")
    steps = loop.count_steps(len(train.examples), config)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    if not args.json:
        console.print(_plan(config, base, train, val, steps, device), soft_wrap=True)

    set_seed(config.seed)
    model = trainable(base, config, tokenizer)
    before = heldout_loss(model, val.examples, config)
    training_started = time.monotonic()
    log = loop.train(model, train.examples, config, steps)
    training_seconds = time.monotonic() - training_started

    report: dict[str, Any] = {
        "windows": {"train": _counts(train), "val": _counts(val)},
        "tokens": {"epoch": train.tokens, "epoch_predicted": train.predicted, "all": train.tokens * config.num_epochs},
        "steps": steps,
        "heldout": {"before": before and dataclasses.asdict(before), "after": None},
        "seconds": {"training": round(training_seconds, 3), "total": round(time.monotonic() - started, 3)},
        "tokens_per_second": round(train.tokens * config.num_epochs / training_seconds, 1),
        "device": device,
        "versions": _versions(),
        "log": log,
    }
    # Written before the second evaluation and again after it: what took hours is safe before anything else can fail.
    write_adapter(out, model, tokenizer, base, config, ghost, report)
    after = None
    try:
        after = heldout_loss(model, val.examples, config)
    except KeyboardInterrupt as stop:
        raise TrainingError(f"stopped; {out} holds the trained adapter, its held-out loss not measured") from stop
    except (TrainingError, RuntimeError) as error:  # PyTorch's own: a kernel, the device
        why = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"ghost train: {out} is whole, but its held-out loss was not measured: {why}", file=sys.stderr)
    if after:
        report["heldout"]["after"] = dataclasses.asdict(after)
        report["seconds"]["total"] = round(time.monotonic() - started, 3)
        write_adapter(out, model, tokenizer, base, config, ghost, report)
    if args.json:
        print(json.dumps({**report, "out": str(out)}, indent=2))
    else:
        console.print(summary(before, after, training_seconds, report["tokens_per_second"], out), soft_wrap=True)
    return 0


def write_adapter(
    out: Path,
    model: Any,
    tokenizer: Tokenizer,
    base: Base,
    config: TrainingConfig,
    ghost: Ghost,
    report: dict[str, Any],
) -> None:
    """The whole artifact in place of what `out` held: weights, tokenizer, config, report, ghost.json.

    Raises TrainingError when a weight is not finite; `out` is then as it was.
    """
    settings = {key: value for key, value in training_config.as_dict(config).items() if key not in LOCAL_KEYS}
    with replace_folder(out) as folder:
        save_adapter(model, base, folder)
        tokenizer.save_pretrained(folder)
        (folder / CONFIG).write_text(training_config.dump(config), encoding="utf-8")
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        artifact.write(
            folder,
            ghost.facts,
            base={"repo": base.repo, "revision": base.revision, "weights_sha256": base.weights_sha256},
            training={"config": settings, **{key: report[key] for key in ("steps", "heldout", "versions")}},
        )


def with_arguments(config: TrainingConfig, data: Path | None, base: str | None, out: Path | None) -> TrainingConfig:
    """The config with what the command line replaces. A pinned revision belongs to the base it was written beside."""
    if data is not None:
        config = dataclasses.replace(
            config,
            datasets=tuple(dataclasses.replace(d, path=str(data / Path(d.path).name)) for d in config.datasets),
            test_datasets=tuple(
                dataclasses.replace(d, path=str(data / Path(d.path).name)) for d in config.test_datasets
            ),
        )
    if base is not None and base != config.base_model:
        config = dataclasses.replace(config, base_model=base, revision_of_model=None)
    return config if out is None else dataclasses.replace(config, output_dir=str(out))


def _plan(config: TrainingConfig, base: Base, train: Split, val: Split, steps: int, device: str) -> str:
    lines = [
        f"base      {base.repo} ({base.revision})",
        f"windows   {len(train.examples):,} to train on, {len(val.examples):,} held out",
        f"tokens    {train.tokens:,} an epoch, {train.predicted:,} of them in the loss",
        f"steps     {steps:,}: {config.num_epochs} epochs, {config.windows_per_step} windows a step",
        f"device    {device}, computing in {'bfloat16' if config.bf16 else 'float32'}",
    ]
    for name, split in (("training", train), ("held-out", val)):
        if split.shortened or split.skipped:
            lines.append(
                f"note      longer than {config.sequence_len:,} tokens: {split.shortened:,} {name} windows lost turns "
                f"at the front, {split.skipped:,} were left out (their last two turns alone are too long)"
            )
    if not val.examples:
        lines.append("note      no held-out windows, so nothing will tell learning from memorising: export more chats")
    return "\n".join(lines)


def summary(before: HeldoutLoss | None, after: HeldoutLoss | None, seconds: float, rate: float, out: Path) -> str:
    lines = [f"trained   in {seconds:,.0f} s, {rate:,.0f} tokens/s"]
    if before and after:
        lines.append(f"held out  loss {before.loss:.3f} → {after.loss:.3f}")
        lines.append(f"          of replies alone {before.reply_loss:.3f} → {after.reply_loss:.3f}")
        if after.loss > before.loss:
            lines.append("note      the held-out loss rose: it memorises the training windows; take fewer num_epochs")
    return "\n".join([*lines, f"adapter   {out}", f"next      ghost merge {out}"])


def _counts(split: Split) -> dict[str, int]:
    return {"read": split.read, "used": len(split.examples), "shortened": split.shortened, "skipped": split.skipped}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "accelerate")}
