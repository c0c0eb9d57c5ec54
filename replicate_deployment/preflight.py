"""`ghost preflight`: the checks of checks.py and weights_checks.py as a table; one that fails makes the exit code 1."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from . import ghost_json, weights_checks  # noqa: F401  (adds its checks to CHECKS)
from .checks import CHECKS, Check, Context, Problem, Unable
from .errors import GhostError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    check: str
    status: Literal["ok", "failed", "skipped"]
    found: str
    todo: str = ""
    """What to type when it failed."""


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
            console.print(f"{result.status:8}{result.check:28}{result.found}", soft_wrap=True)
            if result.todo:
                console.print(f"{'':8}{'':28}→ {result.todo}", soft_wrap=True)
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
    there = (context.weights / ghost_json.NAME).is_file()
    if weights and not there:
        yield Result(
            "weights",
            "failed",
            f"no model in {context.weights}",
            f"cp -r models/merged/. {context.weights}/ (or check without: ghost preflight --no-weights)",
        )
    for check in CHECKS:
        if check.of_weights and not (weights and there):
            yield Result(check.name, "skipped", "no weights" if weights else "--no-weights")
        else:
            yield _result(check, context)


def _result(check: Check, context: Context) -> Result:
    try:
        return Result(check.name, "ok", check.look(context))
    except Problem as problem:
        return Result(check.name, "failed", str(problem), problem.todo)
    except Unable as reason:
        return Result(check.name, "skipped", str(reason))
    except GhostError as error:
        return Result(check.name, "failed", str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # a file that is missing or not what its name says
        return Result(check.name, "failed", f"{type(error).__name__}: {error}")
