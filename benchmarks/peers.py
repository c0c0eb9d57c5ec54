"""`ghost train` beside TRL's SFTTrainer, and the engine beside transformers' `generate`, on a CPU, in one run.

    python -m venv PEER
    PEER/bin/pip install trl==1.16.0 transformers==… torch==… peft==… accelerate==… bitsandbytes==…   # as here
    python -m benchmarks.peers --scratch DIR --peer-python PEER/bin/python

Base: SmolLM2-135M-Instruct. Person: the writer with the most messages in the Chit Chat Challenge dataset. Both come
from the package index (ghost.demo.real). Both sides train one epoch on the same windows, given to TRL as the token ids
that `ghost train` makes of them, each packing them its own way: nf4 base, everything else in float32, LoRA of the same
shape, no dropout, no warm-up, no gradient checkpointing. They take turns, each a process of its own. Then our code
measures the loss of held-out replies with the adapter of each. `generate` and the engine write greedily with the same
loaded model, in turns.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import real_person
from benchmarks.extraction import machine
from benchmarks.trainings import ghost
from ghost.demo import demo, real
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS
from replicate_deployment.tokenization import load_tokenizer
from training import config as training_config
from training.finetuning.base import resolve_base
from training.finetuning.data import Split, read_split

RESULT = Path(__file__).parent / "results" / "peers.md"
MESSAGES = 40  # of the person, to train on, and the rest of the conversation in which that many are reached
HELD_OUT = 100  # messages of the person, likewise
LONGEST = 60  # messages of a conversation: one of 400 would be half of the slice
WINDOWS_A_STEP = 4
PROMPTS = 3
SIDES = ("ghost train", "TRL")

# `ghost train`, and the processor time of its steps alone.
OURS = """
import sys, time
from pathlib import Path
from ghost.cli import main
from training.finetuning.loop import Loop
step, spent = Loop._step, 0.0
def timed(*given):
    global spent
    started = time.process_time()
    step(*given)
    spent += time.process_time() - started
Loop._step = timed
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(str(spent))
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="some 2 GB; kept")
    parser.add_argument("--peer-python", type=Path, required=True, help="of an environment with TRL")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="to train on (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each side (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    scratch = args.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    base, dataset = real.fetch(real_person.ROOT / demo.REAL_CACHE)
    person = prepare(scratch, base, dataset, args.messages)
    shipped = training_config.load(real_person.ROOT / demo.CONFIG)
    train, held_out = (
        read_split(scratch / path, load_tokenizer(base), ghost_json.read((scratch / path).parent), shipped)
        for path in ("train/train.jsonl", "held_out/val.jsonl")
    )
    lengths = [len(one.ids) for one in train.examples]
    row = max(round(WINDOWS_A_STEP * statistics.fmean(lengths)), *lengths)
    config = dataclasses.replace(
        shipped,
        **real_person.TRAINING | {"micro_batch_size": WINDOWS_A_STEP, "micro_batch_tokens": row},
        warmup_ratio=0.0,
        gradient_checkpointing=False,
    )
    (scratch / "config.yaml").write_text(training_config.dump(config), encoding="utf-8")
    trained: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            out = scratch / f"{side.replace(' ', '-')}-{number}"
            found = (
                train_ours(out, scratch, base)
                if side == SIDES[0]
                else train_peer(out, args.peer_python, base, train, row)
            )
            trained[side].append(found)
            print(f"{side}: {json.dumps(found)}", flush=True)
    losses = held_out_losses(base, config, held_out, {side: scratch / f"{side.replace(' ', '-')}-0" for side in SIDES})
    merged = scratch / "merged"
    if not merged.exists():
        ghost("merge", scratch / "ghost-train-0", "--base", base, "--out", merged)
    written = generate(merged, scratch / "held_out", args.tokens, rounds=3)
    lines = [*head(person, args, train, held_out, row), *training_table(trained, losses), *written]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def prepare(scratch: Path, base: Path, dataset: Path, messages: int) -> str:
    """Write the folders `train`, windows of earlier conversations, and `held_out`, later conversations, if they are not
    there. Return the person."""
    conversations = real.chats(dataset)
    person = real.busiest(conversations)[0]
    theirs = [talk for talk in conversations if len(talk) <= LONGEST and any(one.sender == person for one in talk)]
    theirs.sort(key=lambda talk: talk[0].timestamp)
    border = round(len(theirs) * (1 - real_person.HELD_OUT))
    config = real_person.config_of(scratch, real_person.WAYS["windows, all"], 0, 1)
    for name, talks, recipe, least in (
        ("train", theirs[:border], "windows", messages),
        ("held_out", theirs[border:], "conversations", HELD_OUT),
    ):
        if (scratch / name).exists():
            continue
        shutil.rmtree(scratch / f"{name}-raw", ignore_errors=True)
        real.write_exports(real_person.some(talks, person, least), person, scratch / f"{name}-raw")
        ghost("extract", scratch / f"{name}-raw", "--out", scratch / f"{name}-cleaned")
        ghost(
            *("prepare", "--cleaned", scratch / f"{name}-cleaned", "--me", person, "--recipe", recipe),
            *("--config", config, "--base", base, "--out", scratch / name, "--force"),
        )
        if name == "held_out":
            real_person.hold_out_everything(scratch / name)
    return person


def peak_mib(command: Sequence[Any], environment: dict[str, str]) -> float:
    """Run it to its end; return the most memory that it had."""
    child = subprocess.Popen([*map(str, command)], env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} ended with {child.returncode}")
    return usage.ru_maxrss / 1024


def train_ours(out: Path, scratch: Path, base: Path) -> dict[str, float]:
    spent = out.with_suffix(".cpu")
    flags = ("--config", scratch / "config.yaml", "--data", scratch / "train", "--base", base, "--out", out)
    path = os.pathsep.join([str(real_person.ROOT), os.environ.get("PYTHONPATH", "")])
    memory = peak_mib([sys.executable, "-c", OURS, spent, "train", *flags, "--overwrite"], {"PYTHONPATH": path})
    report = json.loads((out / "training_report.json").read_text(encoding="utf-8"))
    return {
        "seconds": report["seconds"]["training"],
        "cpu_seconds": float(spent.read_text()),
        "tokens": report["tokens"]["computed"],
        "steps": report["steps"],
        "peak_mib": memory,
    }


def train_peer(out: Path, python: Path, base: Path, train: Split, row: int) -> dict[str, float]:
    out.mkdir(exist_ok=True)
    asked = {
        "base": str(base),
        "out": str(out),
        "config": training_config.as_dict(training_config.load(out.with_name("config.yaml"))),
        "row_tokens": row,
        "examples": [one.ids.tolist() for one in train.examples],
    }
    path = out / "asked.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "datasets"), "PYTHONPATH": ""}
    memory = peak_mib([python, Path(__file__).with_name("trl_peer.py"), path], offline)
    measured = json.loads((out / "measured.json").read_text(encoding="utf-8"))
    return {**{key: measured[key] for key in ("seconds", "cpu_seconds", "tokens", "steps")}, "peak_mib": memory}


def held_out_losses(
    base: Path, config: training_config.TrainingConfig, held_out: Split, adapters: dict[str, Path]
) -> dict[str, float]:
    """Nats a token of held-out replies: by the base, and by the base with each adapter."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    from training.finetuning.curve import heldout_loss
    from training.finetuning.loss import SegmentLoss
    from training.finetuning.model import trainable

    model = trainable(resolve_base(str(base), None), config, load_tokenizer(base))
    wanted = sum(parameter.requires_grad for parameter in model.parameters())
    losses = {}
    for name, folder in {"base": None, **adapters}.items():
        if folder is not None:
            tensors = load_file(folder / "adapter_model.safetensors")
            unknown = set_peft_model_state_dict(model, tensors).unexpected_keys
            if unknown or len(tensors) != wanted:
                raise SystemExit(f"{folder}: {len(tensors)} tensors, {len(unknown)} of them unknown; expected {wanted}")
        found = heldout_loss(SegmentLoss(model), held_out.examples, config.sequence_len, config)
        if found is None:
            raise SystemExit("nothing is held out")
        losses[name] = found.reply_loss
    return losses


def generate(merged: Path, held_out: Path, tokens: int, rounds: int) -> Iterator[str]:
    """Write greedily after held-out contexts by each side, in turns, ends ignored; yield the page's lines."""
    import torch

    from ghost.evaluation.data import read_held_out
    from replicate_deployment.engine import Engine

    engine = Engine.load(merged, device="cpu")
    engine.model.generation_config.eos_token_id = None  # write on: equally many tokens each
    settings = engine.settings.replace(max_new_tokens=tokens, temperature=0.0, repetition_penalty=1.0)
    exchanges = read_held_out(held_out / "val.jsonl", CONTEXT_TURNS).exchanges
    prompts = [engine.prompt_ids(one.context, tokens) for one in Random(0).sample(exchanges, PROMPTS)]

    def ours(ids: list[int]) -> list[int]:
        return list(engine._draw(ids, settings, seed=0))

    def transformers(ids: list[int]) -> list[int]:
        row = torch.tensor([ids])
        with torch.inference_mode():
            asked = {"max_new_tokens": tokens, "do_sample": False, "repetition_penalty": 1.0}
            mask, end = torch.ones_like(row), engine.tokenizer.eos_token_id
            found = engine.model.generate(row, attention_mask=mask, pad_token_id=end, **asked)
        written: list[int] = found[0, len(ids) :].tolist()
        return written

    ways = {"the engine": ours, "transformers' generate": transformers}
    same = sum(ours(ids) == transformers(ids) for ids in prompts)  # also warms both up
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for ids in prompts:
            for name in list(ways)[:: -1 if number % 2 else 1]:
                wall, cpu = time.monotonic(), time.process_time()
                if len(ways[name](ids)) != tokens:
                    raise SystemExit(f"{name} did not write {tokens} tokens")
                taken[name].append((time.monotonic() - wall, time.process_time() - cpu))
    lengths = ", ".join(f"{len(ids):,}" for ids in prompts)
    yield from ("", "## Writing", "")
    yield (
        f"Greedy, {tokens} tokens after each of {len(prompts)} held-out contexts of {lengths} tokens, {rounds} rounds, "
        f"reading included, in float32 and one process. Same tokens: {same} of {len(prompts)}."
    )
    yield from (
        "",
        "| | tokens a second (median) | slowest, fastest | CPU seconds for 100 tokens |",
        "|---|---:|---:|---:|",
    )
    for name, times in taken.items():
        rates = [tokens / wall for wall, _ in times]
        cpu = 100 * statistics.median(spent for _, spent in times) / tokens
        yield f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f}, {max(rates):.1f} | {cpu:.1f} |"


def head(person: str, args: argparse.Namespace, train: Split, held_out: Split, row: int) -> Iterator[str]:
    names = ("trl", "torch", "transformers", "peft", "bitsandbytes")
    asking = f"from importlib.metadata import version; print(*map(version, {names}))"
    found = subprocess.run([args.peer_python, "-c", asking], capture_output=True, text=True, check=True).stdout.split()
    theirs = ", ".join(f"{name} {number}" for name, number in zip(names, found, strict=True))
    lengths = [len(one.ids) for one in train.examples]
    yield from (
        "# Beside TRL and transformers",
        "",
        "```",
        "python -m benchmarks.peers --scratch DIR --peer-python PEER/bin/python",
        "```",
        "",
    )
    here = machine().replace(" (one used)", "")
    yield f"{datetime.now(UTC):%Y-%m-%d}; {here}. TRL's side: {theirs};"
    yield f"ours: {', '.join(f'{name} {version(name)}' for name in names[1:])}."
    yield from ("", "## Training", "")
    yield f"SmolLM2-135M-Instruct in nf4, adapters and arithmetic in float32, LoRA on all matrices; {person}'s chats."
    yield (
        f"{len(lengths)} windows of {sum(lengths):,} tokens: mean {statistics.fmean(lengths):.0f}, quartiles "
        f"{', '.join(f'{one:.0f}' for one in statistics.quantiles(lengths, n=4))}, longest {max(lengths)}. One epoch: "
        f"ours of {WINDOWS_A_STEP} windows a step, TRL's of a row of up to {row:,} tokens, about as many. "
        f"{args.rounds} rounds, the sides in turns; medians. TRL's adapters are float32 by a change of ours: it makes "
        "them bfloat16. Neither side lets windows of a row attend to each other. Held out: "
        f"{held_out.read} later conversations, "
        f"{sum(int(one.reply.sum()) for one in held_out.examples):,} tokens of replies, measured by our code."
    )


def training_table(trained: dict[str, list[dict[str, float]]], losses: dict[str, float]) -> Iterator[str]:
    columns = {
        "steps": "steps",
        "tokens": "tokens computed",
        "seconds": "seconds an epoch",
        "cpu_seconds": "CPU seconds",
        "peak_mib": "peak MiB",
    }
    yield from ("", f"| | {' | '.join(columns.values())} | tokens a second | loss of held-out replies |")
    yield f"|---|{'---:|' * (len(columns) + 2)}"
    yield f"| base | {'| ' * len(columns)}| {losses['base']:.3f} |"
    middle = {
        side: {key: statistics.median(run[key] for run in runs) for key in columns} for side, runs in trained.items()
    }
    for side, run in middle.items():
        cells = " | ".join(f"{run[key]:,.0f}" for key in columns)
        yield f"| {side} | {cells} | {run['tokens'] / run['seconds']:.0f} | {losses[side]:.3f} |"
    ours, theirs = (middle[side] for side in SIDES)
    walls, cpus, tokens = (theirs[key] / ours[key] for key in ("seconds", "cpu_seconds", "tokens"))
    yield ""
    yield (
        f"An epoch of TRL's takes {walls:.2f} times our seconds ({cpus:.2f} times the CPU seconds) and computes "
        f"{tokens:.2f} times the tokens: windows that begin alike go through `ghost train` once."
    )


if __name__ == "__main__":
    main()
