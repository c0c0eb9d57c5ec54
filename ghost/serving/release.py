"""`ghost release`: release a model to Replicate. Dry run by default; with --go it pushes, then runs a trial prediction.

The trial is one greedy prediction of the golden prompt, to check that the reply begins as recorded at the merge. Its
inputs are always the same, and Replicate lists a prediction's inputs for an hour. So after a stop or a lost connection,
the same command finds that prediction again and nothing is paid for twice.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ghost.atomic import KEEP, replace_folder
from ghost.console import console, echo, progress
from ghost.errors import PredictionLost, ServerError, UsageError
from ghost.hub import leaking
from ghost.serving.client import Prediction, Replicate
from ghost.serving.client.prediction import PredictionFailed, reason
from ghost.serving.client.replicate import PAUSES, TOKEN, Model, account
from ghost.serving.preflight import bytes_sent, locate, preflight, push_line
from ghost.signals import Stopped
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer

WEIGHTS = Path("models/merged")
LATEST = "latest"
KEPT = timedelta(hours=1)  # how long Replicate keeps inputs and replies
# Replicate fails a set-up after 10 minutes; before that it fetches an image of tens of GB.
TRIAL_SECONDS = 1800
# Dollars per second of hardware that fits a 7B model, from replicate.com/pricing in 2026.
PRICES = {"gpu-l40s": 0.000975, "gpu-a100-large": 0.0014, "gpu-h100": 0.001525, "gpu-t4": 0.000225, "cpu": 0.0001}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="USER/MODEL", help="private model on Replicate")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", default=WEIGHTS, help="default: %(default)s")
    parser.add_argument("--go", action="store_true", help="push and run a trial; without it nothing is sent")
    parser.add_argument("--create", action="store_true", help="with --go: create the model, private, if it is missing")
    parser.add_argument(
        "--hardware", metavar="SKU", default="gpu-l40s", help="for --create and the price (default: %(default)s)"
    )
    parser.add_argument(
        "--trial",
        nargs="?",
        const=LATEST,
        metavar="VERSION",
        help="only run a trial of a pushed version (default: the latest), or resume an interrupted trial",
    )
    parser.add_argument("--json", action="store_true", help="print the trial's results as JSON only")


def run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.model):
        raise UsageError(f"{args.model!r} is not the name of a model on Replicate; it must be USER/MODEL")
    if args.trial not in (None, LATEST) and not re.fullmatch("[0-9a-f]{64}", args.trial):
        raise UsageError(f"--trial {args.trial}: a version is 64 hexadecimal digits")
    if args.trial and (args.go or args.create):
        raise UsageError("--trial only tests what was pushed; drop --go and --create")
    if args.json and not (args.go or args.trial):
        raise UsageError("--json prints a trial's results; add --go or --trial")
    if args.trial:
        return tried(args, args.trial)
    if args.go and shutil.which("cog") is None:
        raise ServerError(
            "the `cog` program is not installed (https://cog.run; it needs Docker too): push where it is, "
            f"then: {command(args, '--trial')}"
        )
    found = asyncio.run(look(args)) if args.go or os.environ.get(TOKEN) else None
    if args.go and not found and not args.create:
        raise ServerError(
            f"replicate.com/{args.model} does not exist; to create it: {command(args, '--go', '--create')}"
        )
    folder = locate()
    with progress("copying"):
        put_weights(args.weights, folder / "weights")
    if not checked(args, folder):
        return 1
    say(args, *plan(args, folder, found))
    if not args.go:
        say(args, f"nothing was sent. To release: {command(args, '--go', *(['--create'] if args.create else []))}")
        return 0
    return tried(args, asyncio.run(push(args, folder, found)))


def say(args: argparse.Namespace, *lines: str) -> None:
    for line in () if args.json else lines:
        console.print(line)


def command(args: argparse.Namespace, *flags: str) -> str:
    """The next command to type."""
    weights = [] if args.weights == WEIGHTS else ["--weights", str(args.weights)]
    return shlex.join(["ghost", "release", args.model, *weights, *flags])


async def look(args: argparse.Namespace) -> Model | None:
    """The model on Replicate, if it exists. Raises ServerError when it is public."""
    async with Replicate(args.model, *account()) as replicate:
        return only_private(args, await replicate.find_model())


def only_private(args: argparse.Namespace, found: Model | None) -> Model | None:
    if found and found.visibility != "private":
        raise ServerError(
            f"replicate.com/{args.model} is {found.visibility}: everybody could talk to this ghost and download its "
            "weights; make it private in its settings, or name another model"
        )
    return found


def put_weights(source: Path, target: Path) -> None:
    """Put the merged folder `source` into the build context's weights/, by hard links where possible: Docker follows no
    other links. All users of this machine can read them there, since the one that the image runs as need not be root.

    Raises WeightsError when a file is missing or its size differs from ghost.json (preflight checks hashes), and
    UsageError when `target` holds files of another origin that have no other hard link, so that removing them loses
    them.
    """
    ghost = ghost_json.read_merged(source)
    ghost_json.verify(ghost, hashes=False)
    names = [ghost_json.NAME, *ghost.block("files")]
    if all(_same(source / name, target / name) for name in names):
        _let_all_read(target)
        return
    mark = target / ghost_json.NAME
    same_model = mark.is_file() and mark.read_bytes() == (source / ghost_json.NAME).read_bytes()
    kept = {KEEP, *(names if same_model else ())}
    files = [path for path in sorted(target.rglob("*")) if path.is_file() and not path.is_symlink()]
    single = [path.relative_to(target).as_posix() for path in files if path.stat().st_nlink == 1]
    if last := [name for name in single if name not in kept]:
        raise UsageError(
            f"{target} would be replaced, but holds the only copy of {', '.join(last[:3])}"
            f"{', …' if len(last) > 3 else ''}: move it elsewhere, or delete it: rm -r {shlex.quote(str(target))}/*"
        )
    with replace_folder(target) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, part / name)
            except OSError:  # another disk, or a file system without hard links
                shutil.copy2(source / name, part / name)
    _let_all_read(target)


def _let_all_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        if (wanted := mode | (0o555 if path.is_dir() else 0o444)) != mode:
            path.chmod(wanted)


def _same(one: Path, other: Path) -> bool:
    """The same file under another name, or a copy with the same size and time."""
    if not other.is_file():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def checked(args: argparse.Namespace, folder: Path) -> bool:
    failed = 0
    with progress("preflight"):  # takes minutes: hash the weights, load them and start the server
        for result in preflight(folder):
            failed += result.status == "failed"
            say(args, str(result))
    if failed:
        echo(f"ghost release: preflight found {failed} to fix; nothing was sent", error=True)
    return not failed


def plan(args: argparse.Namespace, folder: Path, found: Model | None) -> list[str]:
    """What is sent where, who can see it, and what it costs."""
    if found:
        there = "private, confirmed by Replicate just now" + ("" if found.version else "; it has no version yet")
    elif os.environ.get(TOKEN):
        there = "does not exist; " + ("it will be created, private" if args.create else "--create creates it, private")
    else:
        there = f"not checked, because {TOKEN} is not set"
    price = PRICES.get(args.hardware)
    cost = f"${price:g} a second, ${price * 3600:.2f} an hour" if price else "see replicate.com/pricing"
    return [
        "",
        f"line     cd {shlex.quote(str(folder))} && {shlex.join(push_line(folder, args.model))}",
        f"sends    {bytes_sent(folder) / 1e9:.2f} GB of {folder}, with the weights of {args.weights},",
        "         which all users of this machine can read there: the image need not run as root",
        f"model    replicate.com/{args.model}: {there}",
        "private  the model's page, its versions and the image with the weights. Replicate keeps inputs and replies:",
        "         for an hour from the API, until you delete them from the web page",
        f"leaks    {leaks(args.weights)}",
        f"cost     {args.hardware}: {cost}. A private model is billed while it sets up, answers and idles until",
        "         it is switched off. The trial costs one such period",
    ]


def leaks(weights: Path) -> str:
    """Leaks that `ghost evaluate` found in this model."""
    found = leaking.above_limit(leaking.EVALUATION, ghost_json.read(weights))
    if found is None:
        return f"not checked; to check first: {shlex.join(['ghost', 'evaluate', str(weights)])}"
    return " ".join(found) if found else f"none above its limit ({leaking.EVALUATION})"


async def push(args: argparse.Namespace, folder: Path, before: Model | None) -> str:
    """Run `cog push` and return the new version. Raises ServerError when it fails, or if the model is not private."""
    async with Replicate(args.model, *account()) as replicate:
        if not before:
            before = await create_private(args, replicate)
            say(args, f"created replicate.com/{args.model}, private, on {args.hardware}")
        pushed = subprocess.run(push_line(folder, args.model), cwd=folder, stdout=2 if args.json else None)
        if pushed.returncode:
            raise ServerError(f"cog push ended with code {pushed.returncode}; before the first push: cog login")
        for pause in (0, *PAUSES):  # a new version appears almost at once
            await asyncio.sleep(pause)
            model = only_private(args, await replicate.find_model())
            if model and model.version not in (None, before.version):
                say(args, f"pushed {args.model}:{model.version}, a new version")
                return str(model.version)
    if not model or not model.version:
        raise ServerError(f"Replicate shows no version of {args.model} yet; try later: {command(args, '--trial')}")
    say(
        args,
        f"pushed, but the latest version is still {args.model}:{model.version}: either the image did not change, or "
        f"Replicate does not show the new version yet; to test it later: {command(args, '--trial')}",
    )
    return model.version


async def create_private(args: argparse.Namespace, replicate: Replicate) -> Model:
    """Create a private model on --hardware. The answer may be lost although the model was created, so look it up
    afterwards."""
    skus = re.findall(r'"sku": *"([^"]+)"', (await replicate.request("GET", "/v1/hardware")).text)
    if args.hardware not in skus:
        raise ServerError(f"Replicate has no hardware {args.hardware!r}; choose from {', '.join(skus)}")
    owner, _, short = args.model.partition("/")
    body = {"owner": owner, "name": short, "visibility": "private", "hardware": args.hardware}
    with suppress(PredictionLost):
        await replicate.request("POST", "/v1/models", sent="whether the model was made is looked up", json=body)
    model = only_private(args, await replicate.find_model())
    if model is None:
        raise ServerError(
            f"Replicate did not create {args.model}; create it yourself, private, at replicate.com/create"
        )
    return model


def tried(args: argparse.Namespace, version: str) -> int:
    try:
        return asyncio.run(try_out(args, version))
    except Stopped as stop:  # raised anywhere in the event loop, so caught outside it
        again = command(args, "--trial", *([] if version == LATEST else [version]))
        raise Stopped(stop.number, f"stopped; a trial already sent runs on. Continue with: {again}") from None


async def try_out(args: argparse.Namespace, version: str) -> int:
    """Run one prediction. Return exit code 1 when the reply does not begin as recorded at the merge."""
    if version == LATEST:
        found = await look(args)
        if not found or not found.version:
            raise ServerError(f"replicate.com/{args.model} has no version yet; to push one: {command(args, '--go')}")
        version = found.version
    # Greedy, without repetition penalty, so that the reply begins with the golden prompt's likeliest token.
    golden = ghost_json.read(args.weights).block("golden")
    inputs = {"prompt": golden["prompt"], "temperature": 0, "repetition_penalty": 1, "max_new_tokens": 48, "seed": 0}
    async with Replicate(f"{args.model}:{version}", *account()) as replicate:
        prediction = await replicate.find(inputs, datetime.now(UTC) - KEPT)
        if prediction and prediction.status not in ("failed", "canceled", "aborted"):
            say(args, f"continuing with prediction {prediction.id} of {prediction.created_at[:16]}")
        else:
            prediction = await replicate.create(inputs, seconds=TRIAL_SECONDS)
            say(args, f"prediction {prediction.id}: replicate.com/p/{prediction.id}")
        with progress("trial: takes minutes while the model boots"):
            prediction = await replicate.wait(prediction, seconds=TRIAL_SECONDS)
    figures = {"prediction": prediction.id, "version": version, **outcome(prediction, args.weights, args.hardware)}
    if args.json:
        echo(json.dumps(figures, ensure_ascii=False, indent=2))
    say(args, *trial_lines(figures, args.hardware))
    return 1 if figures["differs"] else 0


def outcome(prediction: Prediction, weights: Path, hardware: str) -> dict[str, Any]:
    """The reply and its figures; None for what Replicate does not report. Raises PredictionFailed when it did not
    succeed."""
    if prediction.status != "succeeded":
        why = {"aborted": "it timed out before it started", "canceled": "canceled, or timed out"}
        why_not = reason(prediction.error) if prediction.error else why.get(prediction.status, prediction.status)
        raise PredictionFailed(
            f"the trial {prediction.status}: {why_not}; logs: replicate.com/p/{prediction.id}", prediction
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
    """Whether the reply begins with the golden prompt's likeliest token, or one of equal probability.

    Compared as text. None if such a token is not a whole character, or ends the reply: it cannot be compared then.
    """
    block, tokenizer = ghost_json.read(weights).block("golden"), load_tokenizer(weights)
    best = block["next_top5_logprobs"][0][1]
    level = [token for token, logprob in block["next_top5_logprobs"] if best - logprob <= 2 * block["tolerance"]]
    texts = [tokenizer.decode([token], skip_special_tokens=True).strip() for token in level]
    if not all(texts) or any("\ufffd" in text for text in texts):
        return None
    return reply.strip().startswith(tuple(texts))


def trial_lines(figures: dict[str, Any], hardware: str) -> list[str]:
    """Return the reply and the figures of the trial as lines to print."""

    def figure(name: str, unit: str, digits: int = 1) -> str:
        return "not reported" if figures[name] is None else f"{figures[name]:,.{digits}f}{unit}"

    golden = "as recorded at the merge"
    if figures["differs"]:
        golden = "DIFFERENT: the reply does not begin as recorded at the merge; is this the right model?"
    elif not figures["compared"]:
        golden = "not compared: the recorded token is not a whole character"
    return [
        f"reply          {figures['reply']}",
        f"golden prompt  {golden}",
        f"cold start     {figure('cold_start_seconds', ' s')} from created to started",
        f"prediction     {figure('predict_seconds', ' s', 2)}, first token after "
        f"{figure('time_to_first_token', ' s', 3)}, {figure('tokens_per_second', ' tokens/s')}",
        f"cost           at most {figure('dollars', ' dollars', 4)} on {hardware}, from created to completed; idle "
        "time until it is switched off is extra",
    ]


def _between(start: str, end: str) -> float | None:
    """Seconds between two ISO 8601 instants."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return None
