"""`ghost preflight`: check on this machine what could make `cog push` fail. The exit code is 1 if a check fails.

The checks inspect the files that go into the image and the weights; if all pass, they start Cog's server once, as in
the image, and ask it for a reply. They do not check cog.yaml, requirements.txt and .dockerignore: users do not edit
them, and tests cover them (tests/replicate_deployment/test_build_context.py).
"""

import argparse
import gc
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import replicate_deployment
from ghost.console import console, progress
from ghost.installed import CLONE, install_command
from ghost.serving import checks
from ghost.serving.checks import Problem, Result
from replicate_deployment import ghost_json

PACKAGE = Path(replicate_deployment.__file__).parent
COPY = Path("models/replicate_deployment")
YOURS = "cog.yaml"  # may be edited in a copy
SERVER = "server"
FILES = {"cog.yaml", "requirements.txt", ".dockerignore"}  # of the folder itself, with its *.py and *.jinja
# Created by Python, Cog, torch's compiler, macOS and git (for an empty folder); .dockerignore lists them.
CACHES, TRACES = {"__pycache__", ".cog", ".weights.inductor"}, {".gitkeep", ".DS_Store"}
# By their issuers' prefixes. Scanners that guess by entropy also report the hashes of ghost.json.
TOKENS = re.compile(
    rb"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{36}"
    rb"|github_pat_\w{40,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|xox[abeoprs]-[\w-]{10,}|[0-9]{8,10}:[\w-]{35}(?![\w-]))"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Image size without this folder's files: CUDA's development image, which Cog builds on, about 10 GB, and torch with its
# CUDA libraries and triton, 6.6 GB in images that others have taken apart. Not measured by us.
SYSTEM_BYTES = 17e9
DOCKER = Path("/var/lib/docker")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-weights", action="store_true", help="check everything but weights/, which may come later")
    parser.add_argument("--json", action="store_true", help="print the results as JSON only")


def locate(clone: Path | None = CLONE) -> Path:
    """The build context: the clone's; with a wheel, a copy in the current folder, brought up to date."""
    if clone is not None:
        return PACKAGE
    (COPY / "weights").mkdir(parents=True, exist_ok=True)
    for path in PACKAGE.iterdir():
        if path.is_file() and not (path.name == YOURS and (COPY / YOURS).exists()):
            shutil.copyfile(path, COPY / path.name)
    return COPY


def run(args: argparse.Namespace) -> int:
    results, folder = [], locate()
    with progress("checking"):  # takes a while: hash 14.5 GB, then load them twice
        for result in preflight(folder, weights=not args.no_weights):
            results.append(result)
            if not args.json:
                console.print(str(result), soft_wrap=True)
    failed = [result.check for result in results if result.status == "failed"]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(result) for result in results]}, indent=2))
    else:
        push = f"cd {folder} && cog push r8.im/USER/MODEL"
        ready = "ready, but the weights were not checked" if args.no_weights else f"ready: {push}"
        console.print(f"{len(failed)} of {len(results)} failed" if failed else ready, soft_wrap=True)
    return 1 if failed else 0


def preflight(folder: Path, *, weights: bool = True) -> Iterator[Result]:
    """Yield the result of each check of the build context in `folder`, in the table's order, as soon as it is known.

    The two that load the model are skipped after a failure: they take minutes and would fail for the same reason.
    """
    failed = False
    for name, look in CHECKS.items():
        result = checks.result(name, look, folder)
        failed |= result.status == "failed"
        yield result
    place = folder / "weights"
    there = (place / ghost_json.NAME).is_file()
    if weights and not there:
        failed = True
        shards = any(place.glob("*.safetensors"))
        yield Result(
            "weights",
            "failed",
            f"{place} has weights but no {ghost_json.NAME}" if shards else f"no model in {place}",
            f"cp -r models/merged/. {place}/ (or check without: ghost preflight --no-weights)",
        )
    model = checks.Model(place)
    for name, look_at in checks.CHECKS.items():
        if not (weights and there):
            yield Result(name, "skipped", "no weights" if weights else "--no-weights")
            continue
        if failed and look_at is checks.golden_prompt:
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
    del model  # frees its engine: a GPU may not have room for two
    gc.collect()
    try:
        yield checks.result(SERVER, predicts, folder)
    except ModuleNotFoundError as error:
        yield _not_installed(SERVER, error)


def contents(folder: Path) -> Iterator[Path]:
    """What would be sent to Docker, in order: files, and links, which are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - CACHES)
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from (Path(root) / name for name in sorted({*names, *links} - TRACES))


def bytes_sent(folder: Path) -> int:
    return sum(path.stat().st_size for path in contents(folder) if path.is_file())


def foreign_files(folder: Path) -> str:
    """Refuse files that are neither ours nor listed by the model (an adapter, a pickle, chats, a .env)."""
    listed = {ghost_json.NAME}
    if there := (folder / "weights" / ghost_json.NAME).is_file():
        listed |= ghost_json.read(folder / "weights").block("files").keys()
    count = 0
    for path in contents(folder):
        name = path.relative_to(folder)
        in_weights, root = name.parts[0] == "weights", folder.resolve()
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            copy = f"cp -rL {path} {path}.copy && rm {path} && mv {path}.copy {path}"
            raise Problem(f"{path} is a link out of the build context, which Docker does not follow", copy)
        if in_weights and there and name.relative_to("weights").as_posix() not in listed:
            raise Problem(
                f"{path} is not a file of the model in weights/, but would go into the image", f"mv {path} .."
            )
        if not in_weights and not (len(name.parts) == 1 and (name.suffix in (".py", ".jinja") or path.name in FILES)):
            raise Problem(f"{path} does not belong here, but would go into the image", f"mv {path} ..")
        count += 1
    return f"{count}, and no others"


def secrets(folder: Path) -> str:
    """Report file and line, never the content."""
    count = 0
    for path in contents(folder):
        # Shards hold hashed tensors only, and reading 14.5 GB takes a minute.
        if path.suffix == ".safetensors" or not path.is_file():
            continue
        count += 1
        content = path.read_bytes()
        if found := TOKENS.search(content):
            line = content[: found.start()].count(b"\n") + 1
            what = f"{path}, line {line}: looks like a token or a private key"
            raise Problem(what, "remove it, and revoke it where it was issued")
    return f"none in {count} files"


def size_and_disk(folder: Path) -> str:
    sent = bytes_sent(folder)
    image = f"about {_gigabytes(SYSTEM_BYTES + sent)}, {_gigabytes(sent)} of it from here"
    if shutil.which("docker") is None:
        return f"{image}; no Docker here, so its disk was not checked"
    where = DOCKER if DOCKER.is_dir() else folder
    free, needed = shutil.disk_usage(where).free, SYSTEM_BYTES + 2 * sent  # Docker's builder keeps its own copy
    if free < needed:
        found = f"{image}; building it takes {_gigabytes(needed)}, and {where} has {_gigabytes(free)} free"
        raise Problem(found, "docker system prune, or build on a larger disk")
    return f"{image}; {_gigabytes(free)} free for Docker"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


CHECKS: dict[str, Callable[[Path], str]] = {
    "files": foreign_files,
    "secrets": secrets,
    "size and disk": size_and_disk,
}


def predicts(folder: Path) -> str:
    """Start Cog's server on the folder's predict.py and weights; wait for READY and request one reply."""
    import cog  # noqa: F401  (fail here if it is not installed)

    from ghost.serving.client import predict
    from ghost.serving.serve import running_server

    with running_server(folder / "weights", context=folder) as url:
        reply = predict(url, "hey", max_new_tokens=16, seed=0)
    return f"Cog's server became ready and replied with {len(reply)} characters"


def _not_installed(name: str, error: ModuleNotFoundError) -> Result:
    return Result(name, "skipped", f"{error.name} is not installed: {install_command('serve')}")
