"""`ghost release`: the way to Replicate. It says what it would do; with --go it does it, and tries what lies there."""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from replicate_deployment import ghost_json
from replicate_deployment.checks import Context
from serving import build_context, trial
from serving.client import Prediction, Replicate
from serving.client.replicate_api import TOKEN, Pauses, ReplicateApi, account
from serving.client.replicate_models import Model, create_private, find_model
from serving.client.webhooks import Receiver, webhook_secret
from serving.preflight import HERE, preflight
from training.console import console, progress
from training.errors import ServerError, UsageError
from training.hub import leaking
from training.signals import Stopped

WEIGHTS = Path("models/merged")
LATEST = "latest"
WEBHOOK_PORT = 8080
LOOKS = 6  # for the version that a push made, which shows at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="USER/MODEL", help="on Replicate, where only you see it")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", default=WEIGHTS, help="default: %(default)s")
    parser.add_argument("--go", action="store_true", help="push, and try what was pushed; without it nothing is sent")
    parser.add_argument("--create", action="store_true", help="with --go: make the model, private, if it is not there")
    parser.add_argument(
        "--hardware", metavar="SKU", default="gpu-l40s", help="for --create and the cost (default: %(default)s)"
    )
    parser.add_argument(
        "--trial",
        nargs="?",
        const=LATEST,
        metavar="VERSION",
        help="only try a version that was pushed (default: the latest), or go on with a trial that was interrupted",
    )
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="have the trial's end told there rather than look for it: a tunnel to this machine",
    )
    parser.add_argument(
        "--webhook-port", type=int, metavar="PORT", help=f"where the tunnel ends (default: {WEBHOOK_PORT})"
    )
    parser.add_argument("--json", action="store_true", help="print the trial as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.model):
        raise UsageError(f"{args.model!r} is no model on Replicate; it is called USER/MODEL")
    if args.trial not in (None, LATEST) and not re.fullmatch("[0-9a-f]{64}", args.trial):
        raise UsageError(f"--trial {args.trial}: a version is 64 hexadecimal digits")
    refuse_flags_without_effect(args)
    if args.trial:
        return tried(args, args.trial)
    if args.go and shutil.which("cog") is None:
        raise ServerError(
            "there is no `cog` program here (https://cog.run; it needs Docker too): push on a machine that has them, "
            f"then: {command(args, '--trial')}"
        )
    found = asyncio.run(look(args)) if args.go or os.environ.get(TOKEN) else None
    if args.go and not found and not args.create:
        raise ServerError(
            f"replicate.com/{args.model} is not there; this makes it: {command(args, '--go', '--create')}"
        )
    context = Context(HERE)
    with progress("copying"):
        build_context.put_weights(args.weights, context)
    if not checked(args, context):
        return 1
    say(args, *plan(args, context, found))
    if not args.go:
        say(args, f"nothing was sent. To do it: {command(args, '--go', *(['--create'] if args.create else []))}")
        return 0
    return tried(args, asyncio.run(push(args, context, found)))


def refuse_flags_without_effect(args: argparse.Namespace) -> None:
    if not (args.go or args.trial):
        if args.json:
            raise UsageError("--json prints a trial, and without --go or --trial there is none")
        if args.webhook:
            raise UsageError("--webhook is told of a trial's end, and without --go or --trial there is none")
    if args.webhook_port is not None and not args.webhook:
        raise UsageError("--webhook-port is where the tunnel of --webhook URL ends; name that too")
    if args.trial and (args.go or args.create):
        flag = "--go" if args.go else "--create"
        raise UsageError(f"{flag} pushes, and --trial only tries what was pushed; leave one of them out")


def say(args: argparse.Namespace, *lines: str) -> None:
    for line in () if args.json else lines:
        console.print(line, soft_wrap=True)


def command(args: argparse.Namespace, *flags: str) -> str:
    """What to type next."""
    weights = [] if args.weights == WEIGHTS else ["--weights", str(args.weights)]
    return shlex.join(["ghost", "release", args.model, *weights, *flags])


async def look(args: argparse.Namespace) -> Model | None:
    """The model, if it is there. Raises ServerError when everybody would see what is pushed."""
    async with ReplicateApi(*account()) as api:
        found = await find_model(api, args.model)
    if found and not found.private:
        raise ServerError(
            f"replicate.com/{args.model} is {found.visibility}: everybody could talk to this ghost and fetch its "
            "weights; make it private in its settings, or name another model"
        )
    return found


def checked(args: argparse.Namespace, context: Context) -> bool:
    failed = 0
    with progress("preflight"):  # minutes: it hashes the weights, loads them and starts the server
        for result in preflight(context.folder):
            failed += result.status == "failed"
            say(args, str(result))
    if failed:
        print(f"ghost release: preflight found {failed} to mend; nothing was sent", file=sys.stderr)
    return not failed


def plan(args: argparse.Namespace, context: Context, found: Model | None) -> list[str]:
    """What is sent where, who sees it, and what it costs."""
    if found:
        there = "private, as Replicate said just now" + ("" if found.version else "; it has no version yet")
    elif os.environ.get(TOKEN):
        there = "not there; " + ("it will be made, private" if args.create else "--create makes it, private")
    else:
        there = f"not looked at, for {TOKEN} is not set"
    price = trial.PRICES.get(args.hardware)
    cost = f"${price:g} a second, ${price * 3600:.2f} an hour" if price else "see replicate.com/pricing"
    return [
        "",
        f"line     cd {shlex.quote(str(context.folder))} && {shlex.join(push_line(args))}",
        f"sends    {context.size() / 1e9:.2f} GB of {context.folder}, with the weights of {args.weights}",
        f"model    replicate.com/{args.model}: {there}",
        "private  the model's page, its versions and the image with the weights. Inputs and replies are kept there:",
        "         the API's for an hour, the web page's until you delete them",
        f"leaks    {leaks(args.weights)}",
        f"cost     {args.hardware}: {cost}. A private model is paid for while it sets up, answers, and",
        "         waits for more before it is switched off. The trial costs one such time",
    ]


def leaks(weights: Path) -> str:
    """What `ghost evaluate` found that this model gives away."""
    found = leaking.above_limit(leaking.EVALUATION, ghost_json.read(weights))
    if found is None:
        return f"not looked for; to do so first: {shlex.join(['ghost', 'evaluate', str(weights)])}"
    return " ".join(found) if found else f"none above its limit, says {leaking.EVALUATION}"


def push_line(args: argparse.Namespace) -> list[str]:
    return ["cog", "push", f"r8.im/{args.model}"]


async def push(args: argparse.Namespace, context: Context, found: Model | None) -> str:
    """The version that `cog push` made. Raises ServerError when it fails, or the model is then not private."""
    async with ReplicateApi(*account()) as api:
        if not found:
            found = await create_private(api, args.model, args.hardware)
            say(args, f"made replicate.com/{args.model}, private, on {args.hardware}")
        pushed = subprocess.run(push_line(args), cwd=context.folder, stdout=2 if args.json else None)
        if pushed.returncode:
            raise ServerError(f"cog push ended with code {pushed.returncode}; before a first push: cog login")
        pauses = Pauses()
        while not (model := await find_model(api, args.model)) or model.version in (None, found.version):
            if pauses.count == LOOKS:
                break
            await pauses.next()
    if not model or not model.version:
        raise ServerError(f"Replicate shows no version of {args.model}; when it does: {command(args, '--trial')}")
    if not model.private:
        raise ServerError(f"replicate.com/{args.model} has become {model.visibility}; make it private in its settings")
    if model.version != found.version:
        say(args, f"pushed {args.model}:{model.version}, a new version")
    else:
        say(
            args,
            f"pushed, and the latest is {args.model}:{model.version} as before: the image is the same, or Replicate "
            f"does not show the new one yet; to try that one later: {command(args, '--trial')}",
        )
    return model.version


def tried(args: argparse.Namespace, version: str) -> int:
    try:
        return asyncio.run(try_out(args, version))
    except Stopped as stop:  # raised where the event loop is just then, so out here it is caught
        again = command(args, "--trial", *([] if version == LATEST else [version]))
        raise Stopped(stop.number, f"stopped; a trial that was sent runs on. Go on with: {again}") from None


async def try_out(args: argparse.Namespace, version: str) -> int:
    """One prediction. Exit code 1 when the reply is not the one of the model that was merged."""
    if version == LATEST:
        found = await look(args)
        if not found or not found.version:
            raise ServerError(f"replicate.com/{args.model} has no version yet; to push one: {command(args, '--go')}")
        version = found.version
    note = Path("models") / f"trial-{args.model.replace('/', '-')}.json"
    async with Replicate(f"{args.model}:{version}", *account()) as replicate:
        steps = trial.Trial(replicate, version, args.weights, note, lambda line: say(args, line))
        with progress("a trial: minutes, while the model boots"):
            prediction = await awaited(args, steps)
    result = trial.outcome(prediction, version, args.weights, args.hardware)
    if args.json:
        print(json.dumps(asdict(result), ensure_ascii=False, indent=2))
    say(args, *trial.told(result, args.hardware))
    return 1 if result.differs else 0


async def awaited(args: argparse.Namespace, steps: trial.Trial) -> Prediction:
    """The trial's prediction at its end, told by webhook where one was asked for."""
    if not args.webhook:
        return await steps.run()
    port = WEBHOOK_PORT if args.webhook_port is None else args.webhook_port
    async with Receiver(await webhook_secret(steps.replicate.api), port) as receiver:
        return await steps.run(args.webhook, receiver)
