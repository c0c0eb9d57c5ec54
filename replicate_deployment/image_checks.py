"""The checks of what an image would hold: all that it needs, nothing that it must not, and room for it."""

import ast
import json
import mmap
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from . import ghost_json
from .checks import REQUIREMENTS, Context, Problem

FILES = ("__init__.py", "chat_template.jinja", "cog.yaml", "predict.py", REQUIREMENTS)  # and what predict.py imports
# One of each kind that .dockerignore must know.
UNWANTED = (
    ".env",
    ".env.local",
    ".git/config",
    "__pycache__/engine.cpython-311.pyc",
    ".weights.inductor/fxgraph/compiled",  # what `ghost preflight` leaves on a machine with a GPU
    "weights/pytorch_model.bin",
)
LFS_POINTER = b"version https://git-lfs"
# Our own list: scanners that also guess by entropy call the hashes of ghost.json secrets.
TOKENS = re.compile(
    rb"(?<![A-Za-z0-9])(?:"
    rb"(?P<Hugging_Face>hf_[A-Za-z0-9]{30,})|(?P<Replicate>r8_[A-Za-z0-9]{30,})|(?P<OpenAI_or_Anthropic>sk-[\w-]{20,})"
    rb"|(?P<GitHub>gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,})|(?P<AWS>AKIA[0-9A-Z]{16})|(?P<Google>AIza[\w-]{35})"
    rb"|(?P<Slack>xox[abeoprs]-[\w-]{10,})|(?P<Telegram>[0-9]{8,10}:[\w-]{35})(?![\w-])"
    rb")|(?P<private_key>-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
SECRET_NAMES = re.compile(r"\.env(\..+)?|\.netrc|\.pypirc|id_(rsa|ecdsa|ed25519)|.+\.(pem|key|p12|pfx)")
DATA_SUFFIXES = {".jsonl", ".csv", ".tsv", ".zip", ".parquet", ".db", ".sqlite", ".sqlite3"}
# Beside this folder's files: CUDA's development image, which Cog builds on, about 10 GB, and torch with its CUDA
# libraries and triton, 6.6 GB in images that others have taken apart. Not measured by us.
SYSTEM_BYTES = 17e9
DOCKER = Path("/var/lib/docker")


def files(context: Context) -> str:
    needed = [*FILES, *sorted(_imported(context.folder, "predict.py", set()))]
    missing = [name for name in needed if not (context.folder / name).is_file()]
    if missing:
        raise Problem(f"missing: {', '.join(missing)}", f"git checkout {context.folder / missing[0]}")
    return f"{len(needed)} there"


def _imported(folder: Path, name: str, seen: set[str]) -> set[str]:
    """The modules of the folder that `name` imports, and those that they import; read, not run."""
    if (folder / name).is_file():
        for node in ast.walk(ast.parse((folder / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                package, _, module = (node.module or "").partition(".")
                if node.level == 1 or package == "replicate_deployment":
                    inner = node.module if node.level == 1 else module
                    new = {f"{part}.py" for part in ([inner] if inner else [a.name for a in node.names])} - seen
                    seen |= new
                    for found in new:
                        _imported(folder, found, seen)
    return seen


def dockerignore(context: Context) -> str:
    path = context.folder / ".dockerignore"
    if not path.is_file():
        raise Problem("missing, so caches and secrets would be copied into the image", f"git checkout {path}")
    for name in (*FILES, *_imported(context.folder, "predict.py", set()), *_weights(context)):
        line = context.dockerignore.leaves_out(name)
        if line is not None:
            raise Problem(f"{line!r} keeps {name} out of the image", f"remove that line from {path}")
    for name in UNWANTED:
        if context.dockerignore.leaves_out(name) is None:
            raise Problem(f"a file such as {name} would be copied into the image", f"git checkout {path}")
    return "lets in what is needed"


def _weights(context: Context) -> list[str]:
    """Those that are there; before they are copied, what their names will be like."""
    try:
        listed = json.loads((context.weights / ghost_json.NAME).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        listed = ["config.json", "tokenizer.json", "model-00001-of-00002.safetensors"]
    return [f"weights/{name}" for name in (ghost_json.NAME, *listed)]


def secrets(context: Context) -> str:
    """Names the file and the kind, never what it says."""
    count = 0
    for path in context.files():
        count += 1
        if SECRET_NAMES.fullmatch(path.name):
            raise Problem(f"{path} is a file of secrets by its name", f"mv {path} ..")
        # A shard is its hashed tensors; reading 14.5 GB for a token that nobody hides there takes a minute.
        if path.suffix == ".safetensors" or not path.stat().st_size:
            continue
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = TOKENS.search(content)
            if found:
                line = content[: found.start()].count(b"\n") + 1
                kind = str(found.lastgroup).replace("_", " ")
                what = "a private key" if kind == "private key" else f"a token of {kind}"
                raise Problem(f"{path}, line {line}: looks like {what}", "remove it, and revoke it where it was issued")
    return f"none in {count} files"


def adapters(context: Context) -> str:
    for path in context.files():
        if path.name.startswith("adapter_"):
            raise Problem(f"{path}: an adapter; the image serves the merged model", f"rm {path}")
    return "none"


def only_safetensors(context: Context) -> str:
    for path in context.files():
        if path.suffix in ghost_json.GUARDED_SUFFIXES - {".safetensors"}:
            raise Problem(f"{path}: a pickle or a foreign weight format; only safetensors are served", f"rm {path}")
    return "no pickles"


def lfs_pointers(context: Context) -> str:
    for path in context.files():
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise Problem(f"{path}: a Git LFS pointer, not the file", "git lfs pull")
    return "none"


def data(context: Context) -> str:
    for path in context.files():
        if path.suffix in DATA_SUFFIXES:
            raise Problem(f"{path}: data, and an image holds nobody's chats", f"mv {path} ..")
    return "none"


def links(context: Context) -> str:
    for path in _links(context.folder):
        target = path.resolve()
        if not target.is_relative_to(context.folder.resolve()):
            copy = f"cp -rL {path} {path}.copy && rm {path} && mv {path}.copy {path}"
            raise Problem(f"{path} is a link, and Docker follows none out of the build context", copy)
    return "none out of the folder"


def _links(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            yield path
        elif path.is_dir():
            yield from _links(path)


def size_and_disk(context: Context) -> str:
    copied = context.size()
    image = f"about {_gigabytes(SYSTEM_BYTES + copied)}, {_gigabytes(copied)} of it from here"
    if shutil.which("docker") is None:
        return f"{image}; no Docker here, so its disk was not looked at"
    where = DOCKER if DOCKER.is_dir() else context.folder
    free, needed = shutil.disk_usage(where).free, SYSTEM_BYTES + 2 * copied  # Docker's builder keeps a copy of its own
    if free < needed:
        found = f"{image}; building it takes {_gigabytes(needed)}, and {where} has {_gigabytes(free)} free"
        raise Problem(found, "docker system prune, or build where there is more disk")
    return f"{image}; {_gigabytes(free)} free for Docker"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


CHECKS: dict[str, Callable[[Context], str]] = {
    "files": files,
    ".dockerignore": dockerignore,
    "secrets": secrets,
    "adapters": adapters,
    "only safetensors": only_safetensors,
    "LFS pointers": lfs_pointers,
    "data": data,
    "links": links,
    "size and disk": size_and_disk,
}
