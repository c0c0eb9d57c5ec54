"""`ghost merge`: adapter + base → FP16 safetensors that need neither peft nor bitsandbytes, with a proof.

Never onto 4-bit weights: onto the base's original ones, or onto what 4 bits left of them in the base's own format. The
folder takes its place only after the proof.
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
from replicate_deployment.tokenization import Tokenizer
from training.finetuning.base import Base
from training.merging import adapter as adapters
from training.merging import proof as parity
from training.merging import provenance
from training.merging.adapter import Adapter, read_adapter
from training.merging.merge import BaseWeights, Sources, unfinished_folder, write_shards
from training.merging.proof import check_arithmetic
from training.merging.provenance import write_configs
from training.merging.weights import SHARD_BYTES, give_back_large_blocks, plan_shards, write_index

SEED = 0  # of the rows that the proof recomputes
MEMORY = (
    "Memory: about 1 GB for a 7B model, however large its files; the proof takes a little more. Disk: 2 bytes a "
    "parameter, beside any earlier merge. What a stop or a full disk interrupts goes on with the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEMORY
    parser.add_argument(
        "adapter",
        type=Path,
        nargs="?",
        default=Path("models/adapter"),
        help="what `ghost train`, peft, Axolotl or Unsloth wrote; or the .checkpoint of a `ghost train` that was "
        "interrupted: its best so far (default: %(default)s)",
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
        help="onto the base as it was published, or onto what 4 bits left of it in training (default: what ghost.json "
        "says that it was trained against; original for an adapter made elsewhere)",
    )
    parser.add_argument(
        "--shard-size",
        type=float,
        default=SHARD_BYTES / 1e9,
        metavar="GB",
        help="largest file of weights, 10⁹ bytes (default: %(default)s)",
    )
    elsewhere = parser.add_argument_group("an adapter made elsewhere, whose folder has no ghost.json")
    elsewhere.add_argument(
        "--recipe",
        choices=chat_format.RECIPES,
        help=f"where its training text has end tokens (default: {provenance.RECIPE_OF_RECORD})",
    )
    elsewhere.add_argument(
        "--labels",
        nargs=2,
        metavar=("ME", "OTHER"),
        help=f"the tags of its training text (default: {chat_format.DEFAULT_LABELS.me} "
        f"{chat_format.DEFAULT_LABELS.other})",
    )
    parser.add_argument(
        "--keep-adapter",
        type=Path,
        metavar="FOLDER",
        help="also write the adapter as engines read it that serve many over one base, which is the "
        "original one: see docs/scaling.md",
    )
    parser.add_argument("--json", action="store_true", help="print the proof's figures as JSON")


def run(args: argparse.Namespace) -> int:
    if not args.shard_size > 0:
        raise UsageError(f"--shard-size {args.shard_size:g}: must be above 0")
    give_back_large_blocks()
    with provenance.adapter_folder(args.adapter) as folder:
        return merge_folder(args, folder)


def merge_folder(args: argparse.Namespace, folder: Path) -> int:
    """The verb, once it is known where the adapter lies."""
    ghost = provenance.read_facts(folder, args.recipe, provenance.read_labels(args.labels))
    if count := adapters.untrained(folder):
        raise MergeError(
            f"{args.adapter}: all {count} B matrices are 0: it was never trained, and merged it would be the base "
            "itself; train it: ghost train"
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
        provenance.keep(ghost, args.keep_adapter)
    if args.json:
        print(json.dumps({"model": str(args.out), "merge": block, "seconds": clock.seconds}, indent=2))
    else:
        if "interrupted" in (training := ghost.facts.get("training") or {}):
            console.print(f"adapter     {best_so_far(training)}", soft_wrap=True)
        report(args.out, base, block, ghost.stop_sequences, replaces=replaces)
    return 0


@dataclass(frozen=True)
class Choices:
    """What a person may choose of a merge."""

    base_weights: BaseWeights | None = None
    """None: those that the adapter was trained against, as far as that is known."""
    shard_bytes: int = SHARD_BYTES


@dataclass
class Clock:
    """How long each part took, in seconds. Not in ghost.json: the same merge twice gives the same bytes."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - started, 2)


def merge(
    ghost: Ghost, base: Base, out: Path, choices: Choices | None = None, clock: Clock | None = None
) -> dict[str, Any]:
    """Write the merged model folder `out`, proven, and return the `merge` block of its ghost.json.

    Raises MergeError when the adapter does not fit the base, a value does not fit FP16, or the proof fails; UsageError
    when `out` holds something else. `out` is then as it was.
    """
    choices, clock = choices or Choices(), clock or Clock()
    refuse_foreign_files(out, artifact.own_files(out, "merge"))
    adapter = read_adapter(ghost.folder, base.folder)
    tokenizer = provenance.tokenizer_of(ghost, base)
    tokenizer.chat_template = chat_format.chat_template(ghost.labels, recipe=ghost.recipe)
    onto = choices.base_weights or ("dequantized" if provenance.trained_in_4_bits(ghost) else "original")
    sources = Sources(base, adapter, provenance.precision(ghost), onto)
    shapes = {name: output.shape for name, output in adapter.outputs.items()}
    shards = plan_shards(shapes, choices.shard_bytes)
    adapter_sha256 = provenance.weights_sha256(ghost, adapters.WEIGHTS)
    plan = asdict(choices) | asdict(sources.precision) | {"base_weights": onto}
    plan |= {"base": base.weights_sha256, "adapter": adapter_sha256}
    plan |= {"config": adapter.config, "versions": _versions()}
    with unfinished_folder(out, plan) as aside:
        with clock("kept"), progress("looking at what is finished already"):
            aside.keep(set(shards))
        with clock("merge"):
            write_configs(aside.folder, base, tokenizer, adapter)
            write_shards(aside, sources, shards)
            write_index(aside.folder, shapes, shards)
        # From here on from the files alone: the proof trusts nothing that the merge has held.
        with clock("arithmetic"), sources.open() as (source, _):
            arithmetic = check_arithmetic(source, adapter, aside.folder, seed=SEED)
        with clock("parity"):
            proof = prove(ghost, aside.folder, tokenizer, sources)
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
        artifact.write(aside.folder, ghost.facts, aside.seal(), **blocks)
    return block


@dataclass(frozen=True)
class Proof:
    same: parity.Difference
    nf4: parity.Difference
    golden: dict[str, Any]


def prove(ghost: Ghost, folder: Path, tokenizer: Tokenizer, sources: Sources) -> Proof:
    """Compare the written files with what was trained.

    Raises MergeError when the mean |Δ log-probability| against the same base + adapter is above the limit.
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
    """What the adapter did to the base, in numbers."""
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
        "nf4         as above: this is the base in 4 bits"
        if block["base_weights"] == "dequantized"
        else f"nf4         {_compared(nf4)}; no limit: it only tells what 4 bits changed",
        # Our engine cuts there by itself. A server that has only the chat template goes on until it is told.
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
