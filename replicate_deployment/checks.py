"""What `cog push` would fail on, in the build context. The checks of weights/ are in weights_checks.py.

A check returns what it found, or raises: Problem (what was found, what to type) or one of our own errors. They are
shown in the order of the source. To add one, write a function.
"""

import ast
import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from . import ghost_json
from .errors import GhostError

FILES = (
    "__init__.py",
    "chat_format.py",
    "chat_template.jinja",
    "cog.yaml",
    "engine.py",
    "predict.py",
    "requirements.txt",
)
# From the schema of cog.yaml (1.0). Left out on purpose: `predict`, `train` and `build.python_packages` are deprecated.
COG_KEYS = {"build", "run", "image", "model", "concurrency", "environment", "weights"}
BUILD_KEYS = {"gpu", "cuda", "cudnn", "python_version", "python_requirements", "sdk_version"}
BUILD_KEYS |= {"system_packages", "pre_install", "run"}
# Names that Cog keeps for itself; its schema lets them through, its build does not.
RESERVED = (
    "PATH LD_LIBRARY_PATH PYTHONPATH VIRTUAL_ENV PYTHONUNBUFFERED LIBRARY_PATH HF_ENDPOINT HF_HUB_ENABLE_HF_TRANSFER"
)
RESERVED_PREFIXES = ("R8_", "REPLICATE_", "CUDA_", "NVIDIA_", "NV_", "PGET_", "KUBERNETES_")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# The end of Cog's table of torch and CUDA versions. A torch outside it gets CUDA 11.8, for which it was not built.
TORCH_CUDA = {
    "2.9.0": ("12.6", "12.8", "13.0"),
    "2.9.1": ("12.6", "12.8", "13.0"),
    "2.10.0": ("12.6", "12.8", "13.0"),
    "2.11.0": ("12.6", "12.8", "12.9", "13.0"),
}
LFS_POINTER = b"version https://git-lfs"
Subject = TypeVar("Subject")


class Problem(Exception):
    """A check failed: what was found, and what to type."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo


@dataclass(frozen=True)
class Result:
    check: str
    status: Literal["ok", "failed", "skipped"]
    found: str
    todo: str = ""
    """What to type when it failed."""

    def __str__(self) -> str:
        line = f"{self.status:8}{self.check:28}{self.found}"
        return f"{line}\n{'':36}→ {self.todo}" if self.todo else line


def result(name: str, look: Callable[[Subject], str], subject: Subject) -> Result:
    try:
        return Result(name, "ok", look(subject))
    except Problem as problem:
        return Result(name, "failed", str(problem), problem.todo)
    except GhostError as error:
        return Result(name, "failed", str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # a file that is missing or not what its name says
        return Result(name, "failed", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Context:
    """The build context: a folder laid out as `replicate_deployment/`."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @cached_property
    def cog(self) -> dict[str, Any]:
        document = yaml.safe_load((self.folder / "cog.yaml").read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("build"), dict):
            raise Problem("cog.yaml: no `build:` block", "git checkout replicate_deployment/cog.yaml")
        return document

    @cached_property
    def pins(self) -> dict[str, str]:
        """Requirement → exact version, or "" where it is not pinned so."""
        lines = (self.folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line.partition("#")[0].strip() for line in lines]
        exact = {line: re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.+]*)", line) for line in wanted if line}
        return {pin[1] if pin else line: pin[2] if pin else "" for line, pin in exact.items()}


CHECKS: dict[str, Callable[[Context], str]] = {}


def check(name: str) -> Callable[[Callable[[Context], str]], Callable[[Context], str]]:
    def listed(look: Callable[[Context], str]) -> Callable[[Context], str]:
        CHECKS[name] = look
        return look

    return listed


@check("files")
def files(context: Context) -> str:
    missing = [name for name in FILES if not (context.folder / name).is_file()]
    if missing:
        raise Problem(f"missing: {', '.join(missing)}", f"git checkout {context.folder / missing[0]}")
    return f"{len(FILES)} there"


@check(".dockerignore")
def dockerignore(context: Context) -> str:
    path = context.folder / ".dockerignore"
    if not path.is_file():
        raise Problem("missing, so caches and secrets would be copied into the image", f"git checkout {path}")
    lines = [line.strip().strip("/") for line in path.read_text(encoding="utf-8").splitlines()]
    hiding = [
        line for line in lines if line in {"weights", "weights/*", "weights/**", "*.safetensors", "**/*.safetensors"}
    ]
    if hiding:
        raise Problem(f"{hiding[0]!r} keeps the weights out of the image", f"remove that line from {path}")
    return "there"


@check("cog.yaml keys")
def cog_keys(context: Context) -> str:
    for keys, allowed, where in ((context.cog, COG_KEYS, ""), (context.cog["build"], BUILD_KEYS, "build.")):
        for key in keys:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f"did you mean {where}{near[0]}?" if near else f"there are {', '.join(sorted(allowed))}"
                raise Problem(f"{where}{key}: no such key, or one that Cog has deprecated", hint)
    return f"{len(context.cog) + len(context.cog['build'])} known"


@check("entry point")
def entry_point(context: Context) -> str:
    reference = context.cog.get("run")
    name, colon, class_name = str(reference).partition(":")
    todo = 'write run: "predict.py:Predictor" in cog.yaml'
    if not colon or not (context.folder / name).is_file():
        raise Problem(f"run: {reference!r} names no file here", todo)
    body = ast.parse((context.folder / name).read_text(encoding="utf-8")).body
    found = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    if found is None or not any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in found.body):
        raise Problem(f"{name} has no class {class_name} with a method run", todo)
    return str(reference)


@check("python version")
def python_version(context: Context) -> str:
    version = context.cog["build"].get("python_version")
    # YAML reads an unquoted 3.10 as the number 3.1.
    if not isinstance(version, str) or ".".join(version.split(".")[:2]) not in PYTHONS:
        raise Problem(f"python_version: {version!r}; a quoted string of {', '.join(PYTHONS)} is needed", 'write "3.11"')
    return version


@check("environment")
def environment(context: Context) -> str:
    names = [str(entry).partition("=")[0] for entry in context.cog.get("environment") or []]
    reserved = [name for name in names if name in RESERVED.split() or name.startswith(RESERVED_PREFIXES)]
    if reserved:
        raise Problem(f"{reserved[0]} is reserved for Cog", "remove it from environment: in cog.yaml")
    return ", ".join(names) or "nothing set"


@check("requirements")
def requirements(context: Context) -> str:
    loose = [name for name, version in context.pins.items() if not version]
    if loose:
        raise Problem(f"{loose[0]}: not an exact version, so two builds may differ", "write name==version")
    return ", ".join(f"{name} {version}" for name, version in context.pins.items())


@check("torch and CUDA")
def torch_and_cuda(context: Context) -> str:
    torch = context.pins.get("torch", "").partition("+")[0]
    if torch not in TORCH_CUDA:
        raise Problem(
            f"torch {torch or 'is not pinned'}: Cog knows no CUDA for it", f"pin one of {', '.join(TORCH_CUDA)}"
        )
    cuda = context.cog["build"].get("cuda", TORCH_CUDA[torch][-1])
    if cuda not in TORCH_CUDA[torch]:
        raise Problem(f"cuda: {cuda!r} has no build of torch {torch}", f"write one of {', '.join(TORCH_CUDA[torch])}")
    return f"torch {torch} on CUDA {cuda}"


@check("nothing else in the image")
def nothing_else(context: Context) -> str:
    count = 0
    for path in _walk(context.folder):
        count += 1
        if path.name == ".env" or path.name.startswith(".env.") or path.suffix in {".pem", ".key"}:
            raise Problem(f"{path} may hold secrets", f"mv {path} ..")
        if path.name.startswith("adapter_"):
            raise Problem(f"{path}: an adapter; the image serves the merged model", f"rm {path}")
        if path.suffix in ghost_json.GUARDED_SUFFIXES - {".safetensors"}:
            raise Problem(f"{path}: a pickle or a foreign weight format; only safetensors are served", f"rm {path}")
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise Problem(f"{path}: a Git LFS pointer, not the file", "git lfs pull")
    return f"{count} files"


@check("weights in the image")
def no_link(context: Context) -> str:
    if context.weights.is_symlink():
        found = f"{context.weights} is a link, and Docker follows none out of the build context"
        raise Problem(found, f"copy what it links to: cp -r {context.weights.resolve()}/. {context.weights}/")
    return "no link out of the build context"


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in {"__pycache__", ".cog"})
        yield from (Path(root) / name for name in sorted(names))
