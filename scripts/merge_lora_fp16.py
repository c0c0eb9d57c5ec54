"""`ghost merge`: adapter + base → FP16 safetensors that need neither peft nor bitsandbytes, with a proof.

Merged onto the base's original weights, never onto 4-bit ones. The folder takes its place only after the proof.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from replicate_deployment import chat_format, ghost_json, golden
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from scripts import adapter as adapters
from scripts import parity
from scripts.adapter import Adapter, open_adapter
from scripts.weights import SHARD_BYTES, Tensor, Weights, fp16_bytes, write_shards
from training import artifact
from training.aside import refuse_foreign_files, replace_folder
from training.console import console, progress
from training.errors import MergeError, UsageError
from training.finetuning import config as training_config
from training.finetuning.base import Base, load_base, resolve_base

SEED = 0  # of the rows that the proof recomputes
MEMORY = (
    "Merging needs the memory of a few tensors. The proof then loads the model in float32, first base + adapter, then "
    "the merged one: 4 bytes a parameter, 29 GB for a 7B model. Disk: 2 bytes a parameter, beside any earlier merge."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEMORY
    parser.add_argument(
        "adapter", type=Path, nargs="?", default=Path("models/adapter"), help="what `ghost train` wrote"
    )
    parser.add_argument("--base", help="folder or Hub repo of the base (default: the one it was trained on)")
    parser.add_argument(
        "--out", type=Path, default=Path("models/merged"), help="the merged model (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the proof's figures as JSON")


def run(args: argparse.Namespace) -> int:
    ghost = ghost_json.read(args.adapter)
    ghost_json.verify(ghost)
    base = find_base(ghost, args.base)
    block = merge(ghost, base, args.out)
    if args.json:
        print(json.dumps({"model": str(args.out), "merge": block}, indent=2))
    else:
        report(args.out, block)
    return 0


def find_base(ghost: Ghost, name: str | None) -> Base:
    """The base that the adapter was trained on. Raises MergeError when its weights are not the recorded ones."""
    recorded = ghost.block("base")
    local = recorded["revision"] == "local"
    if name is None:
        name = _local_base(ghost) if local else recorded["repo"]
    with progress("hashing the base"):  # a commit means something in its own repo only
        base = resolve_base(name, recorded["revision"] if name == recorded["repo"] and not local else None)
    if base.weights_sha256 != recorded["weights_sha256"]:
        raise MergeError(
            f"adapter of another base: {ghost.folder} was trained on {recorded['repo']} ({recorded['revision']}), "
            f"weights {recorded['weights_sha256'][:12]}…; this is {base.repo} ({base.revision}), "
            f"weights {base.weights_sha256[:12]}…. Name the right one: --base PATH_OR_REPO"
        )
    return base


def _local_base(ghost: Ghost) -> str:
    """Where the base lay at the time of training. ghost.json does not say: it travels, and paths are private."""
    path = ghost.folder / "training_config.yaml"
    name = training_config.load(path).base_model if path.is_file() else None
    if name is None or not Path(name).is_dir():
        base = ghost.block("base")["repo"]
        raise UsageError(f"{ghost.folder}: trained on a local folder named {base!r}; say where it is: --base PATH")
    return name


def merge(ghost: Ghost, base: Base, out: Path, *, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Write the merged model folder `out`, proven, and return the `merge` block of its ghost.json.

    Raises MergeError when the adapter does not fit the base, a value does not fit FP16, or the proof fails; UsageError
    when `out` holds something else. `out` is then as it was.
    """
    refuse_foreign_files(out, artifact.own_files(out, "merge"))
    tokenizer = load_tokenizer(ghost.folder)
    tokenizer.chat_template = chat_format.chat_template(ghost.labels, recipe=ghost.recipe)
    with replace_folder(out) as aside:
        with Weights.of_model(base.folder) as weights, open_adapter(ghost.folder, weights) as adapter:
            _check_disk(aside, weights)
            with progress("merging", total=len(weights.shapes)) as bar:
                write_shards(aside, weights.shapes, _merged(weights, adapter, bar.advance), shard_bytes)
            facts = {"rank": adapter.rank, "scale": adapter.scale, "dtype": "F16"}
        _write_configs(aside, base, tokenizer)
        # Opened again, for the proof trusts nothing that the merge has held.
        with Weights.of_model(base.folder) as weights, open_adapter(ghost.folder, weights) as adapter:
            arithmetic = parity.check_arithmetic(weights, adapter, aside, seed=SEED)
        proof = prove(ghost, replace(base, folder=aside), base)
        block = facts | {
            "adapter_sha256": ghost.block("files")[adapters.WEIGHTS]["sha256"],
            "arithmetic": asdict(arithmetic),
            "parity": {"limit": parity.LIMIT} | proof.against_float32._asdict(),
            "nf4": proof.against_nf4._asdict(),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
        }
        artifact.write(aside, ghost.facts, merge=block, sampling=asdict(Settings()), golden=proof.golden)
    return block


def _merged(base: Weights, adapter: Adapter, done: Callable[[], None]) -> Callable[[str], Tensor]:
    import torch

    def fp16(name: str) -> Tensor:
        weight = base.tensor(name).float()
        factors = adapter.factors(name)
        if factors is not None:
            a, b = factors
            # Peft's own order of operations, so that bits can be compared. Not `+=`: a float32 tensor is a view of the
            # mapped file, and whoever reads it again would find it merged.
            weight = weight + (b @ a) * adapter.scale
        half = weight.half()
        wrong = int((~torch.isfinite(half)).sum())
        if wrong:
            kind = "NaN or infinite" if not torch.isfinite(weight).all() else "beyond FP16's largest value, 65504"
            raise MergeError(f"{name}: {wrong:,} of {half.numel():,} values are {kind}; nothing was written")
        done()
        return half

    return fp16


@dataclass(frozen=True)
class Proof:
    against_float32: parity.Difference
    against_nf4: parity.Difference
    golden: dict[str, Any]


def prove(ghost: Ghost, merged: Base, base: Base) -> Proof:
    """Compare the written files, loaded back, with what was trained. One model is in memory at a time.

    Raises MergeError when the mean |Δ log-probability| against the float32 base + adapter is above the limit.
    """
    tokenizer = load_tokenizer(merged.folder)
    texts = parity.probes(tokenizer, ghost.labels)
    trained = parity.score_with_adapter(base, ghost.folder, texts, "base + adapter", nf4=False)
    model = load_base(merged, nf4=False)
    scores = parity.score(model, texts, "merged")
    block = golden.record(model, tokenizer, ghost.labels)
    del model
    against_float32 = parity.difference(scores, trained)
    if not against_float32.mean_abs_logprob <= parity.LIMIT:  # not `>`: a NaN must fail too
        raise MergeError(
            f"the merged model is not the trained one: mean |Δlogp| {against_float32.mean_abs_logprob:.2g} nats on "
            f"{against_float32.tokens} tokens, {parity.LIMIT:g} allowed; nothing was written"
        )
    config = ghost.block("training")["config"]
    double_quant = config["bnb_config_kwargs"]["bnb_4bit_use_double_quant"]
    nf4 = parity.score_with_adapter(
        base, ghost.folder, texts, "nf4 base + adapter", nf4=True, double_quant=double_quant, bf16=config["bf16"]
    )
    return Proof(against_float32, parity.difference(scores, nf4), block)


def _write_configs(folder: Path, base: Base, tokenizer: Tokenizer) -> None:
    """config.json, generation_config.json and the tokenizer; the end token is the tokenizer's in all three."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    for key in ("dtype", "_name_or_path"):
        config.pop(key, None)
    # `torch_dtype`: the name that transformers before 4.56 knows; later ones read it too.
    _write_json(folder / "config.json", config | ids | {"torch_dtype": "float16"})
    # No stop_strings: plain generate() then fails without a tokenizer. Stops are the engine's, from ghost.json.
    _write_json(folder / "generation_config.json", ids | asdict(Settings()) | {"do_sample": True})
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_disk(folder: Path, weights: Weights) -> None:
    needed, free = sum(map(fp16_bytes, weights.shapes.values())), shutil.disk_usage(folder).free
    if needed > free:
        raise MergeError(f"{folder.parent}: {free / 1e9:.1f} GB free, the merged model needs {needed / 1e9:.1f} GB")


def report(out: Path, block: dict[str, Any]) -> None:
    arithmetic, float32, nf4 = block["arithmetic"], block["parity"], block["nf4"]
    share = arithmetic["values_checked"] / arithmetic["values"]
    lines = [
        f"merged      {arithmetic['merged']} of {arithmetic['tensors']} tensors, scale {block['scale']:g}, all F16",
        f"arithmetic  fp16(W + s·B·A), recomputed for {share:.0%} of {arithmetic['values']:,} values, in every tensor",
        f"float32     {_compared(float32)}; limit of the mean {float32['limit']:g}",
        f"nf4         {_compared(nf4)}; no limit: it only tells what 4 bits changed",
        f"written     {out}; next: ghost check {out}",
    ]
    console.print("\n".join(lines), soft_wrap=True)


def _compared(figures: dict[str, float]) -> str:
    return (
        f"mean |Δlogp| {figures['mean_abs_logprob']:.2g}, max {figures['max_abs_logprob']:.2g}, "
        f"same greedy token {figures['greedy_agreement']:.1%} of {figures['tokens']}"
    )


if __name__ == "__main__":
    from training.cli import main

    sys.exit(main(["merge", *sys.argv[1:]]))
