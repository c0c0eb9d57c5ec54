"""`ghost merge`: merge adapter and base into FP16 safetensors that need neither peft nor bitsandbytes, with a proof.

Merges never onto 4-bit weights, but onto the base's original weights, or onto the same rounded to nf4 and back. The
folder is renamed into place only after the proof.
"""

import argparse
import json
import shlex
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
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console
from ghost.errors import MergeError, UsageError
from replicate_deployment import chat_format, golden
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import template_for
from training.config import BASE_HELP
from training.finetuning.base import Base
from training.merging import adapter as adapters
from training.merging import proof, provenance
from training.merging.adapter import Adapter, read_adapter
from training.merging.merge import BaseWeights, Sources, write_shards
from training.merging.provenance import write_configs
from training.merging.weights import SHARD_BYTES, plan_shards, write_index

SEED = 0  # selects the rows that the proof recomputes
MEMORY = "Memory: about 1.5 GB for a 7B model, proof included. Disk: 2 bytes per parameter, besides any earlier merge."


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
    parser.add_argument("--base", metavar="BASE", help=f"{BASE_HELP} (default: the one it was trained on)")
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
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="recompute every row instead of a sample, and compare more text: several times slower",
    )
    parser.add_argument("--json", action="store_true", help="print the proof's figures as JSON")


def run(args: argparse.Namespace) -> int:
    if not args.shard_size > 0:
        raise UsageError(f"--shard-size {args.shard_size:g}: must be above 0")
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
    if args.out.resolve() == base.folder.resolve():
        raise UsageError(f"--out {args.out}: the base that the adapter was trained on; name another folder, to keep it")
    choices = Choices(args.base_weights, int(args.shard_size * 1e9), args.thorough)
    replaces = args.out.exists()
    block = merge(ghost, base, args.out, choices, clock)
    if args.keep_adapter:
        tokenizer = provenance.adapter_tokenizer(ghost, base)
        provenance.keep(ghost, base, args.keep_adapter, template_for(tokenizer, ghost.labels, ghost.recipe))
    if args.json:
        print(json.dumps({"model": str(args.out), "merge": block, "seconds": clock.seconds}, indent=2))
    else:
        if "interrupted" in (training := ghost.facts.get("training") or {}):
            console.print(f"adapter     {best_so_far(training)}")
        report(args.out, base, block, ghost.stop_sequences, replaces=replaces)
        if args.keep_adapter:
            console.print(f"adapter     {args.keep_adapter}, over {base.repo} in FP16: docs/scaling.md")
    return 0


@dataclass(frozen=True)
class Choices:
    """The options of a merge."""

    base_weights: BaseWeights | None = None
    """None: those that the adapter was trained against, if known."""
    shard_bytes: int = SHARD_BYTES
    thorough: bool = False


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
    tokenizer = provenance.adapter_tokenizer(ghost, base)
    tokenizer.chat_template = template_for(tokenizer, ghost.labels, ghost.recipe)
    onto = choices.base_weights or ("dequantized" if provenance.trained_in_4_bits(ghost) else "original")
    sources = Sources(base, adapter, provenance.precision(ghost), onto)
    shapes = {name: output.shape for name, output in adapter.outputs.items()}
    shards = plan_shards(shapes, choices.shard_bytes)
    with replace_folder(out) as folder:
        with clock("merge"):
            write_configs(folder, base, tokenizer, adapter)
            sha256 = write_shards(folder, sources, shards)
            write_index(folder, shapes, shards)
        # The proof reads only the written files.
        with sources.open() as (source, _):
            with clock("arithmetic"):
                arithmetic = proof.check_arithmetic(source, adapter, folder, seed=SEED, whole=choices.thorough)
            with clock("parity"):
                probes = proof.probes(tokenizer, ghost.labels, whole=choices.thorough)
                parity, following = proof.compare(folder, base.folder, source, adapter, probes)
        if not parity.holds:
            raise MergeError(f"the merged model is not base + adapter: {parity}; nothing was written")
        block = {
            "dtype": "F16",
            "base_weights": onto,
            "base_identity": "as recorded" if provenance.made_here(ghost) else "as named, not on record",
            "adapter_sha256": provenance.weights_sha256(ghost, adapters.WEIGHTS),
            **_changes(adapter),
            "arithmetic": asdict(arithmetic),
            "parity": asdict(parity),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
        }
        prompt, ids = golden.prompt(tokenizer, ghost.labels)
        blocks = {"merge": block, "sampling": asdict(Settings()), "golden": golden.block(prompt, ids, following)}
        if not provenance.made_here(ghost):
            blocks["base"] = base.block
        artifact.write(folder, ghost.facts, sha256, **blocks)
    return block


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


def best_so_far(training: dict[str, Any]) -> str:
    loss = (training["heldout"]["after"] or {}).get("reply_loss")
    measured = "" if loss is None else f", its held-out replies at {loss:.3f} nats a token"
    return (
        f"step {training['kept_step']:,} of a training that was interrupted after step {training['steps']:,}{measured}"
    )


def report(out: Path, base: Base, block: dict[str, Any], stops: list[str], *, replaces: bool) -> None:
    arithmetic, parity = block["arithmetic"], proof.Parity(**block["parity"])
    share = arithmetic["values_checked"] / arithmetic["values"]
    scales = ", ".join(sorted({f"{update['scale']:g}" for update in block["updates"]}))
    lines = [
        f"base        {base.repo} ({base.revision}), {block['base_identity']}; its {block['base_weights']} weights",
        f"merged      {arithmetic['merged']} of {arithmetic['tensors']} tensors, scale {scales}, all F16",
        f"arithmetic  fp16(W + s·B·A), recomputed for {share:.0%} of {arithmetic['values']:,} values, in every tensor",
        f"parity      {parity}",
        # Our engine stops there by itself. Servers that only have the chat template must be told.
        f'elsewhere   other servers (vLLM, transformers serve) must be sent "stop": {json.dumps(stops)}',
        f"written     {out}{', in place of the model that was there' if replaces else ''}; next: "
        f"ghost check {shlex.quote(str(out))}",
    ]
    console.print("\n".join(lines))


if __name__ == "__main__":
    from ghost.cli import main

    sys.exit(main(["merge", *sys.argv[1:]]))
