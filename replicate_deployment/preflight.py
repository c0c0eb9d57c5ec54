"""`ghost preflight`: the checks of checks.py and weights_checks.py as a table; one that fails makes the exit code 1."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from . import checks, ghost_json, weights_checks
from .checks import Context, Result

HERE = Path(__file__).parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-weights", action="store_true", help="check all but weights/, which may come later")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False, quiet=args.json)
    results = []
    with console.status("checking"):  # hashing 14.5 GB takes a while
        for result in preflight(HERE, weights=not args.no_weights):
            results.append(result)
            console.print(str(result), soft_wrap=True)
    failed = [result.check for result in results if result.status == "failed"]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(result) for result in results]}, indent=2))
    else:
        console.print(
            f"{len(failed)} of {len(results)} failed" if failed else f"ready: cd {HERE} && cog push r8.im/USER/MODEL"
        )
    return 1 if failed else 0


def preflight(folder: Path, *, weights: bool = True) -> Iterator[Result]:
    """The result of each check of a build context, in the table's order, as soon as it is known."""
    context = Context(folder)
    for name, look in checks.CHECKS.items():
        yield checks.result(name, look, context)
    there = (context.weights / ghost_json.NAME).is_file()
    if weights and not there:
        shards = any(context.weights.glob("*.safetensors"))
        yield Result(
            "weights",
            "failed",
            f"{context.weights} has weights but no {ghost_json.NAME}" if shards else f"no model in {context.weights}",
            f"cp -r models/merged/. {context.weights}/ (or check without: ghost preflight --no-weights)",
        )
    model = weights_checks.Model(context.weights)
    for name, look_at in weights_checks.CHECKS.items():
        if not (weights and there):
            yield Result(name, "skipped", "no weights" if weights else "--no-weights")
            continue
        try:
            yield checks.result(name, look_at, model)
        except ModuleNotFoundError as error:
            yield Result(name, "skipped", f"{error.name} is not installed: pip install -e '.[serve]'")
