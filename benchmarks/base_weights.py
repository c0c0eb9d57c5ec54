"""Which of the base's weights should an adapter be merged onto: the original ones, or what 4 bits left of them?

    python -m benchmarks.base_weights --scratch FOLDER

The adapter was trained on a base in 4 bits. Merged onto the dequantised weights it is the model that was trained, with
nf4's rounding for good; merged onto the original ones it is a little another model, on a better base. Trained on the
demo's sample with three seeds, each model is asked for its held-out loss, and how often its likeliest token is that of
base + adapter in 4 bits. The rule, set before the run: the default is what makes the held-out replies likelier with two
seeds at least. Toy weights decide here.
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import trainings
from benchmarks.extraction import machine
from benchmarks.trainings import ROOT, ghost
from ghost.demo import demo
from ghost.demo.people import NOA
from ghost.demo.starter import starter_base
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning.base import Base, load_base, resolve_base
from training.finetuning.data import Split, read_split

RESULT = Path(__file__).parent / "results" / "base_weights.md"
SEEDS = (42, 43, 44)
TRAINED = "base + adapter in 4 bits, as trained"
MERGED = {"original": "merged onto the original weights", "dequantized": "merged onto the dequantised weights"}


class Heard(NamedTuple):
    """A model on the held-out windows: nats of each token that is predicted, the likeliest token there instead, and
    whether it belongs to a reply."""

    nats: list[float]
    likeliest: list[int]
    reply: list[bool]

    @property
    def loss(self) -> float:
        return statistics.fmean(self.nats)

    @property
    def reply_loss(self) -> float:
        return statistics.fmean(nats for nats, reply in zip(self.nats, self.reply, strict=True) if reply)

    def agreement(self, other: "Heard") -> float:
        return statistics.fmean(a == b for a, b in zip(self.likeliest, other.likeliest, strict=True))


def hear(model: Any, split: Split) -> Heard:
    import torch

    heard = Heard([], [], [])
    with torch.inference_mode():
        for example in split.examples:
            ids = torch.from_numpy(example.ids).long()
            logprobs = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
            heard.nats.extend((-logprobs.gather(1, ids[1:, None])[:, 0]).tolist())
            heard.likeliest.extend(logprobs.argmax(-1).tolist())
            heard.reply.extend(example.reply[1:].tolist())
    return heard


def trained(adapter: Path, base: Base, config: TrainingConfig) -> Any:
    """The adapter on the base in 4 bits: what training held."""
    import warnings

    from peft import PeftModel

    double_quant = config.bnb_config_kwargs.bnb_4bit_use_double_quant
    model = load_base(base, nf4=True, double_quant=double_quant, bf16=config.bf16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(model, adapter).eval()


def run(scratch: Path, base: Base, seed: int) -> dict[str, Heard]:
    """Trained with this seed, and heard in three forms."""
    import torch
    from transformers import AutoModelForCausalLM

    data, work = scratch / "sample", scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    adapter = trainings.train(work, data, base.folder, seed=seed)
    config = training_config.load(work / "config.yaml")
    split = read_split(data / "val.jsonl", load_tokenizer(base.folder), ghost_json.read(data), config)
    heard = {TRAINED: hear(trained(adapter, base, config), split)}
    for weights, name in MERGED.items():
        out = work / weights
        ghost("merge", adapter, "--base", base.folder, "--out", out, "--base-weights", weights)
        heard[name] = hear(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32), split)
    return heard


def report(runs: dict[int, dict[str, Heard]]) -> Iterator[str]:
    first = next(iter(runs.values()))[TRAINED]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    yield "# Which weights to merge onto"
    yield ""
    yield "```\npython -m benchmarks.base_weights --scratch FOLDER\n```"
    yield ""
    yield f"{date.today()}; {machine()}; {versions}."
    yield ""
    yield (
        f"The starter base and the demo's sample, one epoch of config/demo_config.yaml, {len(runs)} seeds; "
        f"{len(first.nats):,} held-out tokens, {sum(first.reply):,} of them in replies. FP16 files, float32 arithmetic."
    )
    for title, figure in (
        ("Loss of the held-out replies, nats a token", lambda heard, _: f"{heard.reply_loss:.4f}"),
        ("Loss of the held-out windows, nats a token", lambda heard, _: f"{heard.loss:.4f}"),
        (
            "Same likeliest token as base + adapter in 4 bits",
            lambda heard, all_: f"{heard.agreement(all_[TRAINED]):.2%}",
        ),
    ):
        yield ""
        yield f"| {title} | {' | '.join(f'seed {seed}' for seed in runs)} |"
        yield "|---|" + "---:|" * len(runs)
        for name in (TRAINED, *MERGED.values()):
            yield f"| {name} | {' | '.join(figure(heard[name], heard) for heard in runs.values())} |"
    yield ""
    original, dequantized = ([heard[name].reply_loss for heard in runs.values()] for name in MERGED.values())
    better = sum(a < b for a, b in zip(original, dequantized, strict=True))
    mean = statistics.fmean(a - b for a, b in zip(original, dequantized, strict=True))
    yield (
        f"The replies are likelier on the original weights with {better} of {len(runs)} seeds; the mean difference is "
        f"{mean:+.4f} nats a token."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the sample, adapters and models")
    parser.add_argument("--out", type=Path, default=RESULT, help="(default: benchmarks/results/base_weights.md)")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    base = resolve_base(str(starter_base(ROOT / demo.CACHE)), None)
    trainings.prepare(args.scratch / "sample", NOA, base.folder)
    runs = {seed: run(args.scratch, base, seed) for seed in SEEDS}
    lines = list(report(runs))
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
