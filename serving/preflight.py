"""`ghost preflight`: all that can be known to fail before `cog push`, as a table; one failure makes the exit code 1.

The checks look at the build context and its weights; when they have found nothing, Cog's server is started on them
once, as in the image, and asked for a reply. That server is why the verb lives here and not beside the checks, which
may be copied into an image and import nothing from outside their folder.
"""

import argparse
import gc
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from replicate_deployment import checks, cog_checks, ghost_json, image_checks, weights_checks
from replicate_deployment.checks import Context, Result
from training.console import console, progress

HERE = Path(checks.__file__).parent
SERVER = "server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-weights", action="store_true", help="check all but weights/, which may come later")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    results = []
    with progress("checking"):  # hashing 14.5 GB takes a while, loading them twice too
        for result in preflight(HERE, weights=not args.no_weights):
            results.append(result)
            if not args.json:
                console.print(str(result), soft_wrap=True)
    failed = [result.check for result in results if result.status == "failed"]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(result) for result in results]}, indent=2))
    else:
        push = f"cd {HERE} && cog push r8.im/USER/MODEL"
        ready = "ready but for the weights, at which nothing has looked" if args.no_weights else f"ready: {push}"
        console.print(f"{len(failed)} of {len(results)} failed" if failed else ready, soft_wrap=True)
    return 1 if failed else 0


def preflight(folder: Path, *, weights: bool = True) -> Iterator[Result]:
    """The result of each check of a build context, in the table's order, as soon as it is known.

    The two that load the model are skipped after a failure: they would fail of the same cause, and take minutes.
    """
    context, failed = Context(folder), False
    for name, look in {**cog_checks.CHECKS, **image_checks.CHECKS}.items():
        result = checks.result(name, look, context)
        failed |= result.status == "failed"
        yield result
    there = (context.weights / ghost_json.NAME).is_file()
    if weights and not there:
        failed = True
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
        if failed and look_at is weights_checks.golden_prompt:
            yield Result(name, "skipped", "after a failure")
            continue
        try:
            result = checks.result(name, look_at, model)
        except ModuleNotFoundError as error:
            result = _not_installed(name, error)
        failed |= result.status == "failed"
        yield result
    if not (weights and there) or failed:
        reason = "after a failure" if failed else "--no-weights"
        yield Result(SERVER, "skipped", reason)
        return
    del model  # the engine it holds: a GPU may not have room for two
    gc.collect()
    try:
        yield checks.result(SERVER, predicts, context)
    except ModuleNotFoundError as error:
        yield _not_installed(SERVER, error)


def predicts(context: Context) -> str:
    """Cog's server on the folder's own predict.py and weights: READY, then one reply to one message."""
    import cog  # noqa: F401  (said in one line where it is not installed)

    from serving.client import predict
    from serving.serve import running_server

    with running_server(context.weights, context=context.folder) as url:
        reply = predict(url, "hey", max_new_tokens=16, seed=0)
    return f"Cog's own became ready and replied, {len(reply)} characters"


def _not_installed(name: str, error: ModuleNotFoundError) -> Result:
    return Result(name, "skipped", f"{error.name} is not installed: pip install -e '.[serve]'")
