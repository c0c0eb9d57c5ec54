"""`ghost merge`: merge adapter and base into FP16 safetensors that need neither peft nor bitsandbytes, with a proof.

Merges never onto 4-bit weights, but onto the base's original weights, or onto the same rounded to nf4 and back. The
folder is renamed into place only after the proof.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from ghost import artifact
from ghost.atomic import refuse_foreign_files
from ghost.console import console, progress
from ghost.errors import MergeError, UsageError
from replicate_deployment import chat_format, golden
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, template_for
from training.finetuning.base import Base
from training.merging import adapter as adapters
from training.merging import proof as parity
from training.merging import provenance
from training.merging.adapter import Adapter, read_adapter
from training.merging.merge import BaseWeights, Sources, unfinished_folder, write_shards
from training.merging.proof import check_arithmetic
from training.merging.provenance import write_configs
from training.merging.weights import SHARD_BYTES, give_back_large_blocks, plan_shards, write_index

SEED = 0  # selects the rows that the proof recomputes
MEMORY = (
    "Memory: about 1.5 GB for a 7B model, proof included. Disk: 2 bytes per parameter, besides any "
    "earlier merge. After an interruption or a full disk, run the same command to continue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEMORY
    parser.add_argument(
        "adapter",
        type=Path,
        nargs="?",
        default=Path("models/adapter"),
        help="adapter folder from `ghost train`, peft, Axolotl or Unsloth; or the .checkpoint of an interrupted "
        "`ghost train`, to merge its best so far (default: %(default)s)",
    )
    parser.add_argument(
        "--base", metavar="PATH_OR_REPO", help="folder or Hub repo of the base (default: the one it was trained on)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("models/merged"), help="the merged model (default: %(default)s)"
    )
    parser.add_argument(
        "--base-weights",
        choices=get_args(BaseWeights),
        help="merge onto the published base, or onto its weights rounded to 4 bits as in training (default: what "
        "ghost.json records; original for an adapter made elsewhere)",
    )
    parser.add_argument(
        "--shard-size",
        type=float,
        default=SHARD_BYTES / 1e9,
        metavar="GB",
        help="largest weight file, in 10⁹ bytes (default: %(default)s)",
    )
    elsewhere = parser.add_argument_group("for an adapter made elsewhere, without ghost.json")
    elsewhere.add_argument(
        "--recipe",
        choices=chat_format.RECIPES,
        help=f"format of its training text: where end tokens stand (default: {provenance.RECIPE_OF_RECORD})",
    )
    elsewhere.add_argument(
        "--labels",
        nargs=2,
        metavar=("ME", "OTHER"),
        help=f"tags in its training text (default: {chat_format.DEFAULT_LABELS.me} {chat_format.DEFAULT_LABELS.other})",
    )
    parser.add_argument(
        "--keep-adapter",
        type=Path,
        metavar="FOLDER",
        help="also write the adapter for engines that serve many over one original base, such as vLLM: "
        "see docs/scaling.md",
    )
    parser.add_argument("--json", action="store_true", help="print the proof's figures as JSON")


def run(args: argparse.Namespace) -> int:
    if not args.shard_size > 0:
        raise UsageError(f"--shard-size {args.shard_size:g}: must be above 0")
    give_back_large_blocks()
    with provenance.adapter_folder(args.adapter) as folder:
        return merge_folder(args, folder)


def merge_folder(args: argparse.Namespace, folder: Path) -> int:
    """Merge the adapter in `folder`."""
    ghost = provenance.read_facts(folder, args.recipe, provenance.read_labels(args.labels))
    if count := adapters.untrained(folder):
        raise MergeError(
            f"{args.adapter}: all {count} B matrices are 0, so it was never trained, and merging would give the "
            "base itself; train it: ghost train"
        )
    if args.keep_adapter:
        provenance.check_keepable(folder)  # before the work
    clock = Clock()
    with clock("identity"):
        base = provenance.find_base(ghost, args.base)
    choices = Choices(args.base_weights, int(args.shard_size * 1e9))
    replaces = args.out.exists()
    block = merge(ghost, base, args.out, choices, clock)
    if args.keep_adapter:
        tokenizer = provenance.tokenizer_of(ghost, base)
        provenance.keep(ghost, args.keep_adapter, template_for(tokenizer, ghost.labels, ghost.recipe))
    if args.json:
        print(json.dumps({"model": str(args.out), "merge": block, "seconds": clock.seconds}, indent=2))
    else:
        if "interrupted" in (training := ghost.facts.get("training") or {}):
            console.print(f"adapter     {best_so_far(training)}", soft_wrap=True)
        report(args.out, base, block, ghost.stop_sequences, replaces=replaces)
    return 0


@dataclass(frozen=True)
class Choices:
    """The options of a merge."""

    base_weights: BaseWeights | None = None
    """None: those that the adapter was trained against, if known."""
    shard_bytes: int = SHARD_BYTES


@dataclass
class Clock:
    """Seconds per part. Not written to ghost.json, so that repeated merges give the same bytes."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - started, 2)


def merge(
    ghost: Ghost, base: Base, out: Path, choices: Choices | None = None, clock: Clock | None = None
) -> dict[str, Any]:
    """Write the merged model to `out`, prove it, and return the `merge` block of its ghost.json.

    Raises MergeError if the adapter does not fit the base, a value does not fit FP16, or the proof fails; UsageError if
    `out` holds other files. `out` is then unchanged.
    """
    choices, clock = choices or Choices(), clock or Clock()
    refuse_foreign_files(out, artifact.own_files(out, "merge"))
    adapter = read_adapter(ghost.folder, base.folder)
    tokenizer = provenance.tokenizer_of(ghost, base)
    tokenizer.chat_template = template_for(tokenizer, ghost.labels, ghost.recipe)
    onto = choices.base_weights or ("dequantized" if provenance.trained_in_4_bits(ghost) else "original")
    sources = Sources(base, adapter, provenance.precision(ghost), onto)
    shapes = {name: output.shape for name, output in adapter.outputs.items()}
    shards = plan_shards(shapes, choices.shard_bytes)
    adapter_sha256 = provenance.weights_sha256(ghost, adapters.WEIGHTS)
    plan = asdict(choices) | asdict(sources.precision) | {"base_weights": onto}
    plan |= {"base": base.weights_sha256, "adapter": adapter_sha256}
    plan |= {"config": adapter.config, "versions": _versions()}
    with unfinished_folder(out, plan) as unfinished:
        with clock("kept"), progress("checking finished shards"):
            unfinished.keep(set(shards))
        with clock("merge"):
            write_configs(unfinished.folder, base, tokenizer, adapter)
            write_shards(unfinished, sources, shards)
            write_index(unfinished.folder, shapes, shards)
        # The proof reads only the written files.
        with clock("arithmetic"), sources.open() as (source, _):
            arithmetic = check_arithmetic(source, adapter, unfinished.folder, seed=SEED)
        with clock("parity"):
            proof = prove(ghost, unfinished.folder, tokenizer, sources)
        block = {
            "dtype": "F16",
            "base_weights": onto,
            "base_identity": "as recorded" if provenance.made_here(ghost) else "as named, not on record",
            "adapter_sha256": adapter_sha256,
            **_changes(adapter),
            "arithmetic": asdict(arithmetic),
            "parity": {"limit": parity.LIMIT} | proof.same._asdict(),
            "nf4": proof.nf4._asdict(),
            "versions": _versions(),
        }
        blocks = {"merge": block, "sampling": asdict(Settings()), "golden": proof.golden}
        if not provenance.made_here(ghost):
            blocks["base"] = {"repo": base.repo, "revision": base.revision, "weights_sha256": base.weights_sha256}
        artifact.write(unfinished.folder, ghost.facts, unfinished.seal(), **blocks)
    return block


@dataclass(frozen=True)
class Proof:
    same: parity.Difference
    nf4: parity.Difference
    golden: dict[str, Any]


def prove(ghost: Ghost, folder: Path, tokenizer: Tokenizer, sources: Sources) -> Proof:
    """Compare the written files with base + adapter.

    Raises MergeError if the mean |Δ log-probability| against the same base + adapter is above the limit.
    """
    prompt, ids = golden.prompt(tokenizer, ghost.labels)
    probes = parity.probes(tokenizer, ghost.labels)
    *merged, after_prompt = parity.score_merged(folder, [*probes, ids])

    def trained(base_weights: BaseWeights, label: str) -> parity.Difference:
        with sources.open(base_weights) as (source, _):
            scores = parity.score_trained(sources.base.folder, source, sources.adapter, probes, label)
        return parity.difference(merged, scores)

    same = trained(sources.base_weights, "base + adapter")
    if not same.mean_abs_logprob <= parity.LIMIT:  # not `>`: a NaN must fail too
        raise MergeError(
            f"the merged model is not the trained one: mean |Δlogp| {same.mean_abs_logprob:.2g} nats on "
            f"{same.tokens} tokens, {parity.LIMIT:g} allowed; nothing was written"
        )
    nf4 = same if sources.base_weights == "dequantized" else trained("dequantized", "base in 4 bits + adapter")
    return Proof(same, nf4, golden.block(prompt, ids, after_prompt.following))


def _changes(adapter: Adapter) -> dict[str, Any]:
    """Count the adapter's changes to the base."""
    outputs = adapter.outputs.values()
    updates = Counter((o.update.rank, o.update.scale, o.update.magnitude is not None) for o in outputs if o.update)
    changes: dict[str, Any] = {
        "updates": [
            {"rank": rank, "scale": scale, "dora": dora, "tensors": count}
            for (rank, scale, dora), count in sorted(updates.items())
        ],
        "replaced": sum(output.from_adapter for output in outputs),
        "shifted": sum(output.shift is not None for output in outputs),
        "untied": adapter.unties,
    }
    return changes | ({} if adapter.vocab_size is None else {"vocab_size": adapter.vocab_size})


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}


def best_so_far(training: dict[str, Any]) -> str:
    loss = (training["heldout"]["after"] or {}).get("reply_loss")
    measured = "" if loss is None else f", its held-out replies at {loss:.3f} nats a token"
    return (
        f"step {training['kept_step']:,} of a training that was interrupted after step {training['steps']:,}{measured}"
    )


def report(out: Path, base: Base, block: dict[str, Any], stops: list[str], *, replaces: bool) -> None:
    arithmetic, same, nf4 = block["arithmetic"], block["parity"], block["nf4"]
    share = arithmetic["values_checked"] / arithmetic["values"]
    scales = ", ".join(sorted({f"{update['scale']:g}" for update in block["updates"]}))
    lines = [
        f"base        {base.repo} ({base.revision}), {block['base_identity']}; its {block['base_weights']} weights",
        f"merged      {arithmetic['merged']} of {arithmetic['tensors']} tensors, scale {scales}, all F16",
        f"arithmetic  fp16(W + s·B·A), recomputed for {share:.0%} of {arithmetic['values']:,} values, in every tensor",
        f"parity      {_compared(same)}; limit of the mean {same['limit']:g}",
        "nf4         as above: the base in 4 bits"
        if block["base_weights"] == "dequantized"
        else f"nf4         {_compared(nf4)}; no limit: it only shows what 4 bits changed",
        # Our engine stops there by itself. Servers that only have the chat template must be told.
        f'elsewhere   other servers (vLLM, transformers serve) must be sent "stop": {json.dumps(stops)}',
        f"written     {out}{', in place of the model that was there' if replaces else ''}; next: ghost check {out}",
    ]
    console.print("\n".join(lines), soft_wrap=True)


def _compared(figures: dict[str, float]) -> str:
    return (
        f"mean |Δlogp| {figures['mean_abs_logprob']:.2g}, max {figures['max_abs_logprob']:.2g}, "
        f"same greedy token {figures['greedy_agreement']:.1%} of {figures['tokens']}"
    )


if __name__ == "__main__":
    from ghost.cli import main

    sys.exit(main(["merge", *sys.argv[1:]]))
