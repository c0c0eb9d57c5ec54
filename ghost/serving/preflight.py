"""`ghost preflight`: check on this machine what could make `cog push` fail. The exit code is 1 if a check fails.

The checks inspect the files that go into the image, which torch and CUDA it will have, and the weights. If all pass,
they start Cog's server once, as in the image, and ask it for a reply. Tests cover .dockerignore and the rest of
cog.yaml and requirements.txt (tests/replicate_deployment/test_build_context.py).
"""

import argparse
import gc
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

import replicate_deployment
from ghost.console import console, progress
from ghost.installed import CLONE, install_command
from ghost.serving import checks
from ghost.serving.checks import Problem, Result, Subject
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
# What torch's newest releases were built for, and the image that Cog builds on for each CUDA: torch_compatibility.json
# and cuda_compatibility.json in pkg/config/ of github.com/replicate/cog (Apache-2.0), May 2026. Cog only warns of a
# torch or a CUDA that is not there; pip then takes torch's default build, which needs a newer driver.
CUDA_OF_TORCH = {
    "2.8.0": ("12.6", "12.8", "12.9"),
    "2.9.0": ("12.6", "12.8", "13.0"),
    "2.9.1": ("12.6", "12.8", "13.0"),
    "2.10.0": ("12.6", "12.8", "13.0"),
    "2.11.0": ("12.6", "12.8", "12.9", "13.0"),
}
RELEASE_OF_CUDA = {"12.6": "12.6.3", "12.8": "12.8.1", "12.9": "12.9.1", "13.0": "13.0.3"}
# Of a CUDA series, on Linux: docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {"12": "525", "13": "580"}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")  # for which Cog's SDK and all of these are built
# Keys of `build` that must be text, with an example.
TEXTS = {"python_version": "3.11", "python_requirements": "requirements.txt", "sdk_version": "0.23.1", "cuda": "12.8"}
# Sizes of the image to build on and of the packages. Measured: what pip installed from PyPI for requirements.txt in
# November 2026 took 0.4 GB, and torch with its libraries 4.7 GB more, for CUDA 13.0. Not measured: for CUDA 12.8 these
# take 6.6 GB in images that others have taken apart; CUDA's development image is about 10 GB; and both for a CPU.
WITH_CUDA, FOR_CPU = (10e9, 7e9), (0.2e9, 1.3e9)
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
                console.print(str(result))
    failed = [result.check for result in results if result.status == "failed"]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(result) for result in results]}, indent=2))
    else:
        if failed:
            verdict = f"{len(failed)} of {len(results)} failed"
        elif args.no_weights:
            verdict = "ready, but the weights were not checked"
        else:
            verdict = f"ready: cd {shlex.quote(str(folder))} && {shlex.join(push_line(folder, 'USER/MODEL'))}"
        console.print(verdict)
    return 1 if failed else 0


def preflight(folder: Path, *, weights: bool = True) -> Iterator[Result]:
    """Yield the result of each check of the build context in `folder`, in the table's order, as soon as it is known.

    The two that load the model are skipped after a failure: they take minutes and would fail for the same reason.
    """
    failed = False
    for name, look in CHECKS.items():
        result = looked_at(name, look, folder)
        failed |= result.status == "failed"
        yield result
    place = folder / "weights"
    there = (place / ghost_json.NAME).exists()  # a pipe or a device is refused when it is read
    if weights and not there:
        failed = True
        shards = any(place.glob("*.safetensors"))
        yield Result(
            "weights",
            "failed",
            f"{place} has weights but no {ghost_json.NAME}" if shards else f"no model in {place}",
            f"cp -r models/merged/. {place}/ (or check without: ghost preflight --no-weights)",
        )
    skip = ("" if there else "no weights") if weights else "--no-weights"
    model = checks.Model(place)
    for name, look_at in checks.CHECKS.items():
        if skip or (failed and look_at is checks.golden_prompt):
            yield Result(name, "skipped", skip or "after a failure")
            continue
        result = looked_at(name, look_at, model)
        failed |= result.status == "failed"
        yield result
    if skip or failed:
        yield Result(SERVER, "skipped", "after a failure" if failed else skip)
        return
    del model  # frees its engine: a GPU may not have room for two
    gc.collect()
    yield looked_at(SERVER, predicts, folder)


def looked_at(name: str, look: Callable[[Subject], str], subject: Subject) -> Result:
    """As `checks.result`; a check whose package is not installed is skipped."""
    try:
        return checks.result(name, look, subject)
    except ModuleNotFoundError as error:
        return Result(name, "skipped", f"{error.name} is not installed: {install_command('serve')}")


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
    count, private = 0, 0
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
        private += not path.lstat().st_mode & 0o004
    if private and os.name != "nt":
        todo = f"if the image runs as another user: chmod -R a+rX {shlex.quote(str(folder))}"
        return f"{count}, and no others; {private} of them only root could read; {todo}"
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


def torch_and_cuda(folder: Path) -> str:
    """What Cog will install by cog.yaml and the pin of torch, and which driver runs it."""
    build, cog = read_build(folder), folder / "cog.yaml"
    for key, example in TEXTS.items():
        value = build.get(key)
        if not isinstance(value, str) and (key != "cuda" or value is not None):
            found = "is missing" if value is None else f"is {value!r}, not text"
            raise Problem(f"{cog}: build.{key} {found}", f'write it in quotes: {key}: "{example}"')
    if _minor(build["python_version"]) not in PYTHONS:
        raise Problem(f"{cog}: Cog does not run on Python {build['python_version']}", f"choose {_or(PYTHONS)}")
    requirements = folder / build["python_requirements"]
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pins = [pin[0].strip() for line in lines if (pin := re.match(r"\s*torch(?![\w.-])[^#@;]*", line))]
    torch = pins[0].removeprefix("torch==") if len(pins) == 1 else ""
    if torch not in CUDA_OF_TORCH:
        found = f"{requirements}: {' and '.join(pins) or 'no torch'}, which is not in Cog's table of torch and CUDA"
        raise Problem(found, f"write torch== and one of {_or(CUDA_OF_TORCH)}")
    python_and_cog = f"Python {build['python_version']}, Cog {build['sdk_version']}"
    if build.get("gpu") is not True:
        return f"torch {torch} for a CPU, since gpu: true is not set; {python_and_cog}"
    builds = CUDA_OF_TORCH[torch]
    cuda = _minor(build.get("cuda") or builds[-1])  # Cog chooses the newest
    if cuda not in builds:
        raise Problem(f"{cog}: torch {torch} was not built for CUDA {cuda}", f"write cuda: {_or(builds)}, in quotes")
    driver = OLDEST_DRIVER[cuda.partition(".")[0]]
    build_of_torch = f"torch {torch}+cu{cuda.replace('.', '')} on CUDA {RELEASE_OF_CUDA[cuda]}"
    return f"{build_of_torch}, which needs NVIDIA driver {driver} or newer; {python_and_cog}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _or(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}"


def read_build(folder: Path) -> dict[str, Any]:
    """The `build` block of cog.yaml. Raises Problem if it cannot be read."""
    path, todo = folder / "cog.yaml", "write it as https://cog.run/yaml says"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the message itself quotes the line, which may hold a token
        raise Problem(f"{path} is not YAML{f', line {mark.line + 1}' if mark else ''}", todo) from error
    build = document.get("build") if isinstance(document, dict) else None
    if not isinstance(build, dict):
        raise Problem(f"{path} has no block `build`", todo)
    return build


def push_line(folder: Path, model: str) -> list[str]:
    """`cog push`, with its server pinned: `sdk_version` pins the SDK, which depends on any later build of coglet."""
    version = read_build(folder).get("sdk_version")
    return [*(["env", f"COGLET_WHEEL=pypi:{version}"] if version else []), "cog", "push", f"r8.im/{model}"]


def size_and_disk(folder: Path) -> str:
    sent = bytes_sent(folder)
    base, packages = WITH_CUDA if read_build(folder).get("gpu") else FOR_CPU
    whole = base + packages + sent
    image = f"about {_gigabytes(whole)}: {_gigabytes(base)} to build on, {_gigabytes(packages)} of packages, "
    image += f"{_gigabytes(sent)} from here"
    if shutil.which("docker") is None:
        return f"{image}; no Docker here, so its disk was not checked"
    where = DOCKER if DOCKER.is_dir() else folder
    free, needed = shutil.disk_usage(where).free, whole + sent  # Docker's builder keeps its own copy
    if free < needed:
        found = f"{image}; building it takes {_gigabytes(needed)}, and {where} has {_gigabytes(free)} free"
        raise Problem(found, "docker system prune, or build on a larger disk")
    return f"{image}; {_gigabytes(free)} free for Docker"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


CHECKS: dict[str, Callable[[Path], str]] = {
    "files": foreign_files,
    "secrets": secrets,
    "torch and CUDA": torch_and_cuda,
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
