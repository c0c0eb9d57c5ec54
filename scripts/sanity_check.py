"""`ghost check`: check that a model folder is complete, is the one that was merged and trained, and can end a reply; or
that a GGUF file computes what the folder does.

Exit with code 0 if no check failed. A check that lacks its input is skipped and says why.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ghost.console import console, echo, progress, tracked
from ghost.errors import UsageError
from ghost.evaluation import gguf_checks, trained_checks
from ghost.evaluation.gguf_checks import GgufFile
from ghost.evaluation.prompts import ENDS, PROMPTS, Format, answer, conversation, summarise
from ghost.evaluation.trained_checks import Trained
from ghost.serving import checks
from ghost.serving.checks import Model, Result
from replicate_deployment.chat_format import Turn
from replicate_deployment.errors import WeightsError
from replicate_deployment.tokenization import encode_prompt
from training.config import BASE_HELP
from training.finetuning.data import encode_turns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        default=Path("models/merged"),
        help="a merged model, or a GGUF file that ghost export wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--adapter", type=Path, help="the adapter that it was merged from (default: `adapter` beside it)"
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help=f"{BASE_HELP} (default: the one that it was trained on, if it is on this disk); of an adapter's GGUF "
        "file: the base's GGUF file",
    )
    parser.add_argument(
        "--merged",
        type=Path,
        help="of a GGUF file: the merged model to compare it with (default: `merged` beside its folder)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    results = []
    if args.merged is not None and not args.model.is_file():
        raise UsageError(f"--merged goes with a GGUF file, and {args.model} is none")
    if args.model.is_file():
        found = inspect(GgufFile(args.model, args.merged, args.adapter, args.base))
    else:
        found = inspect(Trained(args.model, args.adapter, args.base))
    for result in found:
        results.append(result)
        if not args.json:
            console.print(str(result))
    ok = all(result.status != "failed" for result in results)
    if args.json:
        document = {"model": str(args.model), "ok": ok, "checks": [asdict(result) for result in results]}
        echo(json.dumps(document, ensure_ascii=False, indent=2))
    return 0 if ok else 1


def inspect(model: Trained | GgufFile) -> Iterator[Result]:
    """Yield one result per check. Continue after a failure, unless the others need what failed."""
    table: dict[str, Callable[[Any], str]] = gguf_checks.CHECKS if isinstance(model, GgufFile) else CHECKS
    for name, check in table.items():
        result = checks.result(name, check, model)
        yield result
        if result.status == "failed" and check in NEEDED:
            return


def files(model: Model) -> str:
    with progress("hashing"):
        return checks.hashes(model)


def prefix(model: Model) -> str:
    """Check that a prompt has the ids that it had in training."""
    labels, recipe = model.ghost.labels, model.ghost.recipe
    for name, texts in PROMPTS.items():
        turns = conversation(texts, labels)
        asked = encode_prompt(model.tokenizer, turns, labels, recipe)
        whole = [*turns, Turn(labels.me, "ok 😂")]
        trained = encode_turns(model.tokenizer, whole, labels, recipe=recipe, replies_only=True).ids.tolist()
        if trained[: len(asked)] != asked:
            raise WeightsError(f"prompt '{name}': its ids are not the first ids of prompt + reply")
    return f"the ids of {len(PROMPTS)} prompts begin those of prompt + reply"


def logits(model: Model) -> str:
    import torch

    engine, positions = model.engine, 0
    for name, texts in PROMPTS.items():
        ids = encode_prompt(engine.tokenizer, conversation(texts, engine.labels), engine.labels, engine.recipe)
        with torch.inference_mode():
            scores = engine.model(input_ids=torch.tensor([ids], device=engine.model.device), use_cache=False).logits
        if not torch.isfinite(scores).all():
            raise WeightsError(f"prompt '{name}': NaN or infinite logits")
        positions += len(ids)
    return f"finite at {positions} positions"


def endings(model: Model) -> str:
    """Check every reply's format, and count how many end by themselves."""
    engine = model.engine
    details = []
    for mode, settings in (("greedy", engine.settings.replace(temperature=0.0)), ("sampled", engine.settings)):
        answers = [
            answer(engine, conversation(texts, engine.labels), settings, seed)
            for seed, texts in enumerate(tracked(PROMPTS.values(), f"{mode} replies"))
        ]
        figures = summarise(answers, Format(engine.labels, engine.ghost.stop_sequences))
        for expectation, count in figures["unmet"].items():
            raise WeightsError(f"{count} of {len(answers)} {mode} replies: not {expectation}")
        ended = ", ".join(f"{count} {ENDS[reason]}" for reason, count in figures["ended"].items() if count)
        details.append(f"{mode}: {ended}")
    return "; ".join(details)


# The checks of `ghost preflight` on weights/, and those that need prompts or the adapter.
CHECKS: dict[str, Callable[[Trained], str]] = {
    "ghost.json and hashes": files,
    "shards": checks.shards,
    "values": trained_checks.values,
    "end token": checks.end_token,
    "sampling": checks.sampling,
    "tokenizer": checks.tokenizer,
    "chat template": checks.template,
    "held-out loss": trained_checks.loss,
    "adapter": trained_checks.adapter,
    "prompt prefix": prefix,
    "golden prompt": checks.golden_prompt,
    "logits": logits,
    "parity": trained_checks.same,
    "endings": endings,
}
# Without these a model is incomplete, does not load or cannot be sampled, and a file has no facts.
NEEDED = (files, checks.golden_prompt, logits, gguf_checks.whole, gguf_checks.fits)


if __name__ == "__main__":
    from ghost.cli import main

    sys.exit(main(["check", *sys.argv[1:]]))
