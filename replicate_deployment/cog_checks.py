"""The checks of cog.yaml and of the requirements: by Cog's schema, then for what its schema lets through."""

import ast
import difflib
import importlib.metadata
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .checks import REQUIREMENTS, Context, Problem
from .cog_schema import SCHEMA

if TYPE_CHECKING:
    from jsonschema import ValidationError

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
# Key → what to write instead.
DEPRECATED = {
    "predict": 'write run: "predict.py:Predictor"',
    "train": "remove it: training is not done on Replicate",
    "concurrency": "remove it: the engine answers one at a time",
    "build.python_packages": f"write them into {REQUIREMENTS}",
}


def against_schema(context: Context) -> str:
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft7Validator(SCHEMA).iter_errors(context.cog))
    if error is not None:
        raise _schema_problem(error)
    return f"{len(context.cog) + len(context.cog['build'])} keys"


def _schema_problem(error: "ValidationError") -> Problem:
    where, found = ".".join(map(str, error.absolute_path)), cast("dict[str, Any]", error.instance)
    if where.startswith("environment"):  # the schema's words would repeat the value, which may be a token
        return Problem(f"{where}: it is a list of texts NAME=value", "correct it in cog.yaml")
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        allowed = sorted(error.schema["properties"])
        key = next(str(key) for key in found if key not in allowed)
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed)}"
        return Problem(f"{where}.{key}: no such key".lstrip("."), hint)
    if error.validator == "not":
        return Problem("run and predict are both there", "remove predict: from cog.yaml")
    return Problem(f"{where or 'cog.yaml'}: {error.message}", "correct it in cog.yaml")


def deprecated_keys(context: Context) -> str:
    there = [*context.cog, *(f"build.{key}" for key in context.cog["build"])]
    for key in there:
        if key in DEPRECATED:
            raise Problem(f"{key}: deprecated by Cog", DEPRECATED[key])
    return "none"


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


def python_version(context: Context) -> str:
    version = context.cog["build"].get("python_version")
    # YAML reads an unquoted 3.10 as the number 3.1.
    if not isinstance(version, str) or ".".join(version.split(".")[:2]) not in PYTHONS:
        raise Problem(f"python_version: {version!r}; a quoted string of {', '.join(PYTHONS)} is needed", 'write "3.11"')
    return version


def sdk_version(context: Context) -> str:
    """Its own check because the tests and `ghost serve` prove the server of one version."""
    version = context.cog["build"].get("sdk_version")
    if not version:
        raise Problem("sdk_version is not there, so each build takes the newest", "write sdk_version: under build:")
    try:
        here = importlib.metadata.version("cog")
    except importlib.metadata.PackageNotFoundError:
        return f"{version}; cog is not installed here"
    if here != version:
        raise Problem(f"sdk_version: {version!r}, and what runs here is {here}", f'write sdk_version: "{here}"')
    return f"{version}, which is what runs here"


def environment(context: Context) -> str:
    entries = context.cog.get("environment")
    texts = [entry for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, str)]
    names = [text.partition("=")[0] for text in texts if "=" in text]  # the schema speaks of others
    reserved = [name for name in names if name in RESERVED.split() or name.startswith(RESERVED_PREFIXES)]
    if reserved:
        raise Problem(f"{reserved[0]} is reserved for Cog", "remove it from environment: in cog.yaml")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise Problem(f"{twice[0]} is set twice", "keep one of them under environment: in cog.yaml")
    if "GHOST_REPO" in names and "GHOST_REVISION" not in names:
        raise Problem("GHOST_REPO without GHOST_REVISION", "name a tag or a commit of it beside it, in cog.yaml")
    return ", ".join(names) or "nothing set"


def requirements(context: Context) -> str:
    loose = [name for name, version in context.pins.items() if not version]
    if loose:
        name = re.sub("//[^/@]*@", "//…@", loose[0])  # a token, in an address
        raise Problem(f"{name}: not an exact version, so two builds may differ", "write name==version")
    return ", ".join(f"{name} {version}" for name, version in context.pins.items())


def torch_and_cuda(context: Context) -> str:
    build, torch = context.cog["build"], context.pins.get("torch", "").partition("+")[0]
    if build.get("gpu") is not True:
        raise Problem("gpu: is not true, so the model would be served on a CPU", "write gpu: true under build:")
    if torch not in TORCH_CUDA:
        raise Problem(
            f"torch {torch or 'is not pinned'}: Cog knows no CUDA for it", f"pin one of {', '.join(TORCH_CUDA)}"
        )
    cuda = str(build.get("cuda", TORCH_CUDA[torch][-1]))
    if cuda not in TORCH_CUDA[torch]:
        raise Problem(f"cuda: {cuda!r} has no build of torch {torch}", f"write one of {', '.join(TORCH_CUDA[torch])}")
    return f"torch {torch} on CUDA {cuda}"


CHECKS: dict[str, Callable[[Context], str]] = {
    "cog.yaml": against_schema,
    "deprecated keys": deprecated_keys,
    "entry point": entry_point,
    "python version": python_version,
    "SDK version": sdk_version,
    "environment": environment,
    "requirements": requirements,
    "torch and CUDA": torch_and_cuda,
}
