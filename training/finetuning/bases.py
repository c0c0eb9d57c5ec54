"""`ghost bases`: the bases of config/bases.yaml, what each needs, and whether that fits this machine."""

import argparse
import importlib.util
import json
from dataclasses import dataclass
from typing import Any

from ghost.console import console
from ghost.errors import TrainingError
from training import config as training_config
from training.config import KnownBase, TrainingConfig
from training.finetuning import hardware
from training.finetuning.base import Shapes, read_shapes
from training.finetuning.hardware import HEADROOM, Device, Prices, Range, Work

# llama.cpp's Q4_0: blocks of 32 weights, 16 bytes and a scale of 2; embeddings and head in Q6_K, 210 bytes for 256.
BITS, BITS_OF_EMBEDDINGS = 4.5, 6.5625
PRICED = 1_000_000  # tokens whose training is priced
USES = {"train": "train", "fp16": "serve", "bits4": "serve in 4 bits"}
CONTEXT = 100  # mean number of tokens that a token attends to, in windows of some 200


@dataclass(frozen=True)
class Needs:
    """Bytes of memory, and dollars for the training of PRICED tokens on the `gpu` that does it cheapest.

    train  at the least: nf4, gradient checkpointing, as many tokens at once as a whole example may have
    fp16   to serve: weights and the cache of a whole example, FP16
    bits4  the same with weights in llama.cpp's Q4_0
    """

    parameters: int
    train: int
    fp16: int
    bits4: int
    dollars: Range | None
    gpu: str | None


def needs(shapes: Shapes, config: TrainingConfig, prices: Prices) -> Needs:
    cache = 2 * 2 * shapes.layers * shapes.keys * config.sequence_len
    bits = BITS * shapes.linear_parameters + BITS_OF_EMBEDDINGS * shapes.other_parameters
    dollars, gpu = _cheapest(shapes, config, prices)
    return Needs(
        parameters=shapes.parameters,
        train=_to_train(shapes, config, cuda=True),
        fp16=2 * shapes.parameters + cache,
        bits4=round(bits / 8) + cache,
        dollars=dollars,
        gpu=gpu,
    )


def _to_train(shapes: Shapes, config: TrainingConfig, *, cuda: bool) -> int:
    memory = hardware.needed(shapes, config, config.sequence_len, checkpointing=True, cuda=cuda)
    return round(memory.total / HEADROOM)


def _cheapest(shapes: Shapes, config: TrainingConfig, prices: Prices) -> tuple[Range | None, str | None]:
    offers: list[tuple[Range, str]] = []
    for gpu in (gpu for gpu in prices.gpus if gpu.tested):
        try:
            budget = hardware.resolve_budget(shapes, config, gpu.bytes, longest=config.sequence_len)
        except TrainingError:
            continue
        work = Work(PRICED, -(-PRICED // budget.tokens), 0, 0, CONTEXT)
        seconds = hardware.on_gpu(gpu, work, shapes, config, checkpointing=budget.checkpointing)
        offers.append((seconds.scaled(gpu.price / 3600), gpu.gpu))
    return min(offers, key=lambda offer: offer[0].high, default=(None, None))


def fits(needs: Needs, shapes: Shapes, config: TrainingConfig, device: Device) -> dict[str, bool]:
    """Whether the memory of `device` suffices for each of USES."""
    train = _to_train(shapes, config, cuda=device.cuda)
    sizes = {"train": train, "fp16": needs.fp16, "bits4": needs.bits4}
    return {key: size <= device.free for key, size in sizes.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print only the figures, as JSON")
    parser.epilog = "Take one with --base NAME. Memory and dollars are computed, not measured."


def run(args: argparse.Namespace) -> int:
    config, prices = training_config.load(), hardware.load_prices()
    device = _device()
    rows = []
    for name, base in training_config.load_bases().items():
        shapes = read_shapes(base.config, name)
        needed = needs(shapes, config, prices)
        rows.append((name, base, needed, fits(needed, shapes, config, device)))
    if args.json:
        print(json.dumps(_figures(rows, device), indent=2))
    else:
        console.print(_summary(rows, device, config, prices))
    return 0


def _device() -> Device:
    if importlib.util.find_spec("torch") is not None:
        return hardware.device_at_hand()
    return hardware.cpu("CPU")


Rows = list[tuple[str, KnownBase, Needs, dict[str, bool]]]


FACTS = ("repo", "revision", "license", "languages", "tokenizer", "tried", "source")  # of config/bases.yaml


def _figures(rows: Rows, device: Device) -> dict[str, Any]:
    return {
        "device": {"name": device.name, "free": device.free, "cuda": device.cuda},
        "bases": {
            name: {
                **{key: getattr(base, key) for key in FACTS},
                "read": f"{base.read}",
                "parameters": need.parameters,
                "memory": {key: getattr(need, key) for key in USES},
                "dollars_per_million_tokens": need.dollars,
                "gpu": need.gpu,
                "fits": fit,
            }
            for name, base, need, fit in rows
        },
    }


def _summary(rows: Rows, device: Device, config: TrainingConfig, prices: Prices) -> str:
    table = [["base", "weights", "to train", "to serve", "in 4 bits", "a million tokens", "fits here"]]
    for name, base, need, fit in rows:
        price = f"{hardware.spell_dollars(need.dollars)}, {need.gpu}" if need.dollars else "no GPU is large enough"
        memory = [f"{getattr(need, key) / 1e9:.1f} GB" for key in USES]
        default = " *" if base.repo == config.base_model else ""
        here = ", ".join(words for key, words in USES.items() if fit[key]) or "no"
        table.append([name + default, f"{need.parameters / 1e9:.2f} billion", *memory, price, here])
    where = f"{device.name}, {device.free / 1e9:.1f} GB free"
    return "\n".join(
        [
            *hardware.align(table, left=(0, 5, 6)),
            "",
            *(
                f"{name}: {base.repo}, {base.license}. {base.tokenizer}. Languages: {base.languages}. "
                f"Tried: {base.tried}."
                for name, base, *_ in rows
            ),
            "",
            f"note      * the default; fits here: in the memory of {where}",
            "note      how long and how much for your chats: ghost estimate --base NAME",
            "note      a million tokens: trained once, on the cheapest GPU of config/gpu_prices.yaml, prices of "
            f"{prices.as_of}",
            "note      computed, not measured: from the shapes in config/bases.yaml",
        ]
    )
