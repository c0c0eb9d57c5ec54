"""`ghost release`: the way to Replicate. It says what it would do; with --go it does it, and tries what lies there.

The trial is one greedy prediction of the golden prompt: does what lies there begin its reply as the model did at its
merge? It always sends the same inputs, and Replicate lists a prediction with its inputs for an hour. So whoever was
stopped, or lost the connection, types the command again and gets that prediction: it is not paid for twice.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ghost.atomic import KEEP, replace_folder
from ghost.console import console, progress
from ghost.errors import PredictionLost, ServerError, UsageError
from ghost.hub import leaking
from ghost.serving.client import Prediction, Replicate
from ghost.serving.client.prediction import PredictionFailed, reason
from ghost.serving.client.replicate import PAUSES, TOKEN, Model, account
from ghost.serving.preflight import bytes_sent, locate, preflight
from ghost.signals import Stopped
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer

WEIGHTS = Path("models/merged")
LATEST = "latest"
KEPT = timedelta(hours=1)  # inputs and replies on Replicate
# Replicate fails a set-up after 10 minutes; before it, an image of tens of GB is fetched.
TRIAL_SECONDS = 1800
# Dollars a second of hardware that a 7B model fits, as listed on replicate.com/pricing in 2026.
PRICES = {"gpu-l40s": 0.000975, "gpu-a100-large": 0.0014, "gpu-h100": 0.001525, "gpu-t4": 0.000225, "cpu": 0.0001}


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
    parser.add_argument("--json", action="store_true", help="print the trial as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.model):
        raise UsageError(f"{args.model!r} is no model on Replicate; it is called USER/MODEL")
    if args.trial not in (None, LATEST) and not re.fullmatch("[0-9a-f]{64}", args.trial):
        raise UsageError(f"--trial {args.trial}: a version is 64 hexadecimal digits")
    if args.trial and (args.go or args.create):
        raise UsageError("--trial only tries what was pushed; leave --go and --create out")
    if args.json and not (args.go or args.trial):
        raise UsageError("--json prints a trial, and without --go or --trial there is none")
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
    folder = locate()
    with progress("copying"):
        put_weights(args.weights, folder / "weights")
    if not checked(args, folder):
        return 1
    say(args, *plan(args, folder, found))
    if not args.go:
        say(args, f"nothing was sent. To do it: {command(args, '--go', *(['--create'] if args.create else []))}")
        return 0
    return tried(args, asyncio.run(push(args, folder, found)))


def say(args: argparse.Namespace, *lines: str) -> None:
    for line in () if args.json else lines:
        console.print(line, soft_wrap=True)


def command(args: argparse.Namespace, *flags: str) -> str:
    """What to type next."""
    weights = [] if args.weights == WEIGHTS else ["--weights", str(args.weights)]
    return shlex.join(["ghost", "release", args.model, *weights, *flags])


async def look(args: argparse.Namespace) -> Model | None:
    """The model, if it is there. Raises ServerError when everybody would see what is pushed."""
    async with Replicate(args.model, *account()) as replicate:
        return only_private(args, await replicate.find_model())


def only_private(args: argparse.Namespace, found: Model | None) -> Model | None:
    if found and found.visibility != "private":
        raise ServerError(
            f"replicate.com/{args.model} is {found.visibility}: everybody could talk to this ghost and fetch its "
            "weights; make it private in its settings, or name another model"
        )
    return found


def put_weights(source: Path, target: Path) -> None:
    """The merged folder `source` as the build context's weights/, by hard links where the disk allows them: Docker
    follows no other links.

    Raises WeightsError when a file is missing or has another size than ghost.json says (hashes are for preflight), and
    UsageError when `target` holds the only copy of something else: a file that has no other name on its disk.
    """
    ghost = ghost_json.read(source)
    ghost_json.verify(ghost, hashes=False)
    names = [ghost_json.NAME, *ghost.block("files")]
    if all(_same(source / name, target / name) for name in names):
        return
    mark = target / ghost_json.NAME
    same_model = mark.is_file() and mark.read_bytes() == (source / ghost_json.NAME).read_bytes()
    kept = {KEEP, *(names if same_model else ())}
    files = [path for path in sorted(target.rglob("*")) if path.is_file() and not path.is_symlink()]
    single = [path.relative_to(target).as_posix() for path in files if path.stat().st_nlink == 1]
    if last := [name for name in single if name not in kept]:
        raise UsageError(
            f"{target} would be replaced, and holds the only copy here of {', '.join(last[:3])}"
            f"{', …' if len(last) > 3 else ''}: move it out of there, or remove it: rm -r {shlex.quote(str(target))}/*"
        )
    with replace_folder(target) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, part / name)
            except OSError:  # another disk, or a file system without them
                shutil.copy2(source / name, part / name)


def _same(one: Path, other: Path) -> bool:
    """The same file by another name, or a copy that kept its time."""
    if not other.is_file():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def checked(args: argparse.Namespace, folder: Path) -> bool:
    failed = 0
    with progress("preflight"):  # minutes: it hashes the weights, loads them and starts the server
        for result in preflight(folder):
            failed += result.status == "failed"
            say(args, str(result))
    if failed:
        print(f"ghost release: preflight found {failed} to mend; nothing was sent", file=sys.stderr)
    return not failed


def plan(args: argparse.Namespace, folder: Path, found: Model | None) -> list[str]:
    """What is sent where, who sees it, and what it costs."""
    if found:
        there = "private, as Replicate said just now" + ("" if found.version else "; it has no version yet")
    elif os.environ.get(TOKEN):
        there = "not there; " + ("it will be made, private" if args.create else "--create makes it, private")
    else:
        there = f"not looked at, for {TOKEN} is not set"
    price = PRICES.get(args.hardware)
    cost = f"${price:g} a second, ${price * 3600:.2f} an hour" if price else "see replicate.com/pricing"
    return [
        "",
        f"line     cd {shlex.quote(str(folder))} && {shlex.join(push_line(args))}",
        f"sends    {bytes_sent(folder) / 1e9:.2f} GB of {folder}, with the weights of {args.weights}",
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


async def push(args: argparse.Namespace, folder: Path, before: Model | None) -> str:
    """The version that `cog push` made. Raises ServerError when it fails, or the model is then not private."""
    async with Replicate(args.model, *account()) as replicate:
        if not before:
            before = await create_private(args, replicate)
            say(args, f"made replicate.com/{args.model}, private, on {args.hardware}")
        pushed = subprocess.run(push_line(args), cwd=folder, stdout=2 if args.json else None)
        if pushed.returncode:
            raise ServerError(f"cog push ended with code {pushed.returncode}; before a first push: cog login")
        for pause in (0, *PAUSES):  # a new version shows at once, or nearly
            await asyncio.sleep(pause)
            model = only_private(args, await replicate.find_model())
            if model and model.version not in (None, before.version):
                say(args, f"pushed {args.model}:{model.version}, a new version")
                return str(model.version)
    if not model or not model.version:
        raise ServerError(f"Replicate shows no version of {args.model}; when it does: {command(args, '--trial')}")
    say(
        args,
        f"pushed, and the latest is {args.model}:{model.version} as before: the image is the same, or Replicate "
        f"does not show the new one yet; to try that one later: {command(args, '--trial')}",
    )
    return model.version


async def create_private(args: argparse.Namespace, replicate: Replicate) -> Model:
    """A new private model on --hardware. What counts is what is seen afterwards: the answer may be lost, and the model
    be there all the same."""
    skus = re.findall(r'"sku": *"([^"]+)"', (await replicate.request("GET", "/v1/hardware")).text)
    if args.hardware not in skus:
        raise ServerError(f"Replicate has no hardware {args.hardware!r}; there are {', '.join(skus)}")
    owner, _, short = args.model.partition("/")
    body = {"owner": owner, "name": short, "visibility": "private", "hardware": args.hardware}
    with suppress(PredictionLost):
        await replicate.request("POST", "/v1/models", sent="whether the model was made is looked up", json=body)
    model = only_private(args, await replicate.find_model())
    if model is None:
        raise ServerError(f"Replicate did not make {args.model}; make it by hand, private, at replicate.com/create")
    return model


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
    # Greedy, without the penalty: the reply then begins with the golden prompt's likeliest token.
    golden = ghost_json.read(args.weights).block("golden")
    inputs = {"prompt": golden["prompt"], "temperature": 0, "repetition_penalty": 1, "max_new_tokens": 48, "seed": 0}
    async with Replicate(f"{args.model}:{version}", *account()) as replicate:
        prediction = await replicate.find(inputs, datetime.now(UTC) - KEPT)
        if prediction and prediction.status not in ("failed", "canceled", "aborted"):
            say(args, f"going on with prediction {prediction.id} of {prediction.created_at[:16]}")
        else:
            prediction = await replicate.create(inputs, seconds=TRIAL_SECONDS)
            say(args, f"prediction {prediction.id}: replicate.com/p/{prediction.id}")
        with progress("a trial: minutes, while the model boots"):
            prediction = await replicate.wait(prediction, seconds=TRIAL_SECONDS)
    figures = {"prediction": prediction.id, "version": version, **outcome(prediction, args.weights, args.hardware)}
    if args.json:
        print(json.dumps(figures, ensure_ascii=False, indent=2))
    say(args, *told(figures, args.hardware))
    return 1 if figures["differs"] else 0


def outcome(prediction: Prediction, weights: Path, hardware: str) -> dict[str, Any]:
    """The reply and its figures; None for what Replicate does not tell. Raises PredictionFailed when it did not
    succeed."""
    if prediction.status != "succeeded":
        why = {"aborted": "its time was over before it started", "canceled": "canceled, or its time was over"}
        told = reason(prediction.error) if prediction.error else why.get(prediction.status, prediction.status)
        raise PredictionFailed(
            f"the trial {prediction.status}: {told}; logs: replicate.com/p/{prediction.id}", prediction
        )
    seconds, tokens = (prediction.metrics.get(name) for name in ("predict_time", "output_tokens"))
    online, price = _between(prediction.created_at, prediction.completed_at), PRICES.get(hardware)
    same = begins_as_recorded(prediction.output, weights)
    return {
        "reply": prediction.output,
        "cold_start_seconds": _between(prediction.created_at, prediction.started_at),
        "predict_seconds": seconds,
        "time_to_first_token": prediction.metrics.get("time_to_first_token"),
        "output_tokens": tokens,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "dollars": online * price if online is not None and price else None,
        "compared": same is not None,
        "differs": same is False,
    }


def begins_as_recorded(reply: str, weights: Path) -> bool | None:
    """Whether the reply begins as the merge recorded: the golden prompt's likeliest token, or one level with it.

    Compared as text, since a reply is text: a token that is no whole character, or that ends the reply, says nothing,
    and the answer is None.
    """
    block, tokenizer = ghost_json.read(weights).block("golden"), load_tokenizer(weights)
    best = block["next_top5_logprobs"][0][1]
    level = [token for token, logprob in block["next_top5_logprobs"] if best - logprob <= 2 * block["tolerance"]]
    texts = [tokenizer.decode([token], skip_special_tokens=True).strip() for token in level]
    if not all(texts) or any("\ufffd" in text for text in texts):
        return None
    return reply.strip().startswith(tuple(texts))


def told(figures: dict[str, Any], hardware: str) -> list[str]:
    """Lines for a person: the reply, which is what a trial is for, and its figures."""

    def figure(name: str, unit: str, digits: int = 1) -> str:
        return "not told" if figures[name] is None else f"{figures[name]:,.{digits}f}{unit}"

    golden = "as recorded at the merge"
    if figures["differs"]:
        golden = "DIFFERENT: the reply does not begin as the merge recorded; was this model pushed?"
    elif not figures["compared"]:
        golden = "not compared: the recorded token is no text of its own"
    return [
        f"reply          {figures['reply']}",
        f"golden prompt  {golden}",
        f"cold start     {figure('cold_start_seconds', ' s')} from created to started",
        f"prediction     {figure('predict_seconds', ' s', 2)}, first token after "
        f"{figure('time_to_first_token', ' s', 3)}, {figure('tokens_per_second', ' tokens/s')}",
        f"cost           {figure('dollars', ' dollars', 4)} at most on {hardware}, from created to completed; idling "
        "until it is switched off comes on top",
    ]


def _between(start: str, end: str) -> float | None:
    """Seconds between two ISO 8601 instants."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return None
