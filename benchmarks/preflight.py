"""The breakage table of `ghost preflight`: what was done to a build context, which check spoke, what it said.

    python -m benchmarks.preflight

Each breakage of benchmarks/breakages.py is done to a fresh copy of the build context, with weights as the tests make
them. Exit code 1 when one of them is not found by its own check, or by another one as well.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.breakages import BREAKAGES, Breakage, build_context, room_for_docker
from replicate_deployment.checks import Result
from serving.preflight import preflight
from tests.models import write_tiny_base, write_tiny_merged
from training.console import progress

RESULT = Path(__file__).parent / "results" / "preflight.md"
NOTE = """
A whole context first, then one thing broken at a time. *Others*: the checks that stayed well beside it; those that
load the model are not tried after a failure.
"""


def look(context: Path, breakage: Breakage | None) -> list[Result]:
    with ExitStack() as stack:
        stack.enter_context(room_for_docker())
        if breakage is not None:
            breakage.spoil(context)
            stack.enter_context(breakage.during())
        return list(preflight(context))


def row(breakage: Breakage, found: list[Result], context: Path) -> tuple[str, bool]:
    """(the table's line, whether the check that must speak did so alone)."""
    failed = [result for result in found if result.status == "failed"]
    others = sum(result.status == "ok" for result in found)
    said = "; ".join(" → ".join(filter(None, (result.found, result.todo))) for result in failed)
    short = said.replace(f"{context}/", "").replace(f"{context.parent}/", "").replace("|", "\\|")
    right = [result.check for result in failed] == [breakage.check] and breakage.says in said
    skipped = sum(result.status == "skipped" for result in found)
    spoke = ", ".join(result.check for result in failed) or "none"
    line = f"| {breakage.done} | {spoke}{'' if right else ' (WRONG)'} | {short} | {others} ok, {skipped} not tried |"
    return line, right


def rows(scratch: Path) -> Iterator[tuple[str, bool]]:
    merged = write_tiny_merged(scratch / "merged", write_tiny_base(scratch / "base"))
    whole = look(build_context(scratch / "whole" / "replicate_deployment", merged), None)
    well = all(result.status == "ok" for result in whole)
    yield f"| nothing | {'none' if well else 'SOME (WRONG)'} | | {len(whole)} ok |", well
    for number, breakage in enumerate(BREAKAGES):
        context = build_context(scratch / str(number) / "replicate_deployment", merged)
        yield row(breakage, look(context, breakage), context)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, progress("breaking", len(BREAKAGES) + 1) as bar:
        found = []
        for line in rows(Path(scratch)):
            found.append(line)
            bar.advance()
    versions = ", ".join(f"{package} {version(package)}" for package in ("cog", "torch", "transformers", "jsonschema"))
    right = sum(good for _, good in found)
    head = ["# What preflight says when something is broken", "", "```", "python -m benchmarks.preflight", "```", ""]
    head += [f"{date.today()}; {versions}.", NOTE, f"{right} of {len(found)} as they must be.", ""]
    table = ["| done to the context | check that spoke | what it said | others |", "|---|---|---|---|"]
    args.result.write_text("\n".join([*head, *table, *(line for line, _ in found), ""]), encoding="utf-8")
    print(f"{right} of {len(found)} as they must be; {args.result}")
    return 0 if right == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
