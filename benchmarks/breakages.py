"""Every way in which the tests and benchmarks/preflight.py break a build context, and the check that must say so.

Each breaks one thing, so that one check fails and every other stays well.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import replicate_deployment
from training import artifact

SOURCE = Path(replicate_deployment.__file__).parent
HUB_TOKEN = "hf_" + "Ab1" * 12  # put together, so that no scanner takes this file for a leak
KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n"
Edit = Callable[[Path], object]


@dataclass(frozen=True)
class Breakage:
    check: str
    done: str
    """What was done, for the table."""
    spoil: Edit
    """Does it to a build context."""
    says: str
    """Words that the check must say."""
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What else holds while the checks look."""


def build_context(folder: Path, merged: Path) -> Path:
    """A build context with weights, ready for `cog push`, in `folder`."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("weights", "__pycache__", ".cog"))
    shutil.copytree(merged, folder / "weights")
    return folder


@contextmanager
def room_for_docker(free: float = 1e12) -> Any:
    with ExitStack() as stack:
        stack.enter_context(mock.patch("shutil.which", lambda name: f"/usr/bin/{name}"))
        stack.enter_context(mock.patch("shutil.disk_usage", return_value=SimpleNamespace(free=free)))
        yield


def replaced(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} no longer holds {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def removed(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: str = "x") -> Edit:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def relisted(edit: Edit) -> Edit:
    """Break a file of weights/ and list the broken one: only the check of its content may see it."""

    def both(folder: Path) -> None:
        edit(folder)
        path = folder / "weights" / "ghost.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        artifact.write(folder / "weights", facts)

    return both


def shard(folder: Path) -> Path:
    return next((folder / "weights").glob("*.safetensors"))


def in_bfloat16(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(shard(folder))
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, shard(folder), {"format": "pt"})


def cut_short(folder: Path) -> None:
    os.truncate(shard(folder), shard(folder).stat().st_size - 100)


def doubled(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "weights" / "more.safetensors")


def other_weights(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[-30_000:] = bytes(30_000)
    shard(folder).write_bytes(content)


def with_index(total_size: int) -> Edit:
    def write(folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(shard(folder), "pt") as stream:
            names = list(stream.keys())
        index = {"metadata": {"total_size": total_size}, "weight_map": dict.fromkeys(names, shard(folder).name)}
        (folder / "weights" / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


def edited(name: str, **changes: object) -> Edit:
    """Keys of a JSON file of weights/ set, or removed when None."""

    def edit(folder: Path) -> None:
        path = folder / "weights" / name
        document = json.loads(path.read_text(encoding="utf-8")) | changes
        kept = {key: value for key, value in document.items() if key not in changes or value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")

    return edit


def without_merges(folder: Path) -> None:
    path = folder / "weights" / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"]["merges"] = document["model"]["merges"][:-20]
    path.write_text(json.dumps(document), encoding="utf-8")


def linked_folder(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "elsewhere")
    (folder / "weights").symlink_to(folder.parent / "elsewhere")


def linked_file(folder: Path) -> None:
    """As a folder of the Hub's cache has them."""
    blob = folder.parent / "blob"
    shard(folder).rename(blob)
    (folder / "weights" / "model.safetensors").symlink_to(blob)


def in_cog_yaml(line: str) -> Edit:
    return replaced("cog.yaml", "run:", f"{line}\nrun:")


BREAKAGES = [
    Breakage("cog.yaml", "`gpus:` for `gpu:`", replaced("cog.yaml", "  gpu: true", "  gpu: true\n  gpus: 1"), "gpus"),
    Breakage("cog.yaml", "a variable without `=`", in_cog_yaml("environment: [MODE]"), "environment.0"),
    Breakage("cog.yaml", "`cudnn: 9`, a number", replaced("cog.yaml", "  gpu:", "  cudnn: 9\n  gpu:"), "build.cudnn"),
    Breakage("deprecated keys", "`train:`", in_cog_yaml("train: train.py:train"), "train"),
    Breakage("deprecated keys", "`concurrency:`", in_cog_yaml("concurrency: {max: 4}"), "one at a time"),
    Breakage(
        "deprecated keys",
        "`python_packages:`",
        replaced("cog.yaml", "  gpu:", "  python_packages: []\n  gpu:"),
        "build.",
    ),
    Breakage(
        "entry point",
        "a class that is not there",
        replaced("cog.yaml", "predict.py:Predictor", "predict.py:Runner"),
        "no class Runner",
    ),
    Breakage(
        "entry point",
        "a file that is not there",
        replaced("cog.yaml", "predict.py:Predictor", "serve.py:Predictor"),
        "names no file",
    ),
    Breakage("python version", "`3.10` without quotes", replaced("cog.yaml", '"3.11"', "3.10"), "3.1;"),
    Breakage("SDK version", "another Cog than the tested one", replaced("cog.yaml", '"0.23.1"', '"0.20.0"'), "0.20.0"),
    Breakage("environment", "`CUDA_HOME=/usr`", in_cog_yaml("environment: [CUDA_HOME=/usr]"), "CUDA_HOME"),
    Breakage(
        "environment", "a Hub repo without its revision", in_cog_yaml("environment: [GHOST_REPO=a/b]"), "GHOST_REVISION"
    ),
    Breakage("environment", "one name twice", in_cog_yaml("environment: [A=1, A=2]"), "A is set twice"),
    Breakage(
        "requirements",
        "`accelerate>=1.15`",
        replaced("requirements.txt", "accelerate==1.15.0", "accelerate>=1.15"),
        "accelerate>=1.15",
    ),
    Breakage(
        "torch and CUDA",
        "a torch that Cog's table lacks",
        replaced("requirements.txt", "torch==2.11.0", "torch==2.13.0"),
        "torch 2.13.0",
    ),
    Breakage("torch and CUDA", "CUDA 12.4 for torch 2.11", replaced("cog.yaml", '"12.8"', '"12.4"'), "12.4"),
    Breakage("torch and CUDA", "`gpu: false`", replaced("cog.yaml", "gpu: true", "gpu: false"), "on a CPU"),
    Breakage("files", "a module is missing", removed("stopping.py"), "stopping.py"),
    Breakage("files", "the chat template is missing", removed("chat_template.jinja"), "chat_template.jinja"),
    Breakage(".dockerignore", "no such file", removed(".dockerignore"), "missing"),
    Breakage(
        ".dockerignore", "`weights/`", replaced(".dockerignore", "**/*.pyc", "**/*.pyc\nweights/"), "keeps weights"
    ),
    Breakage(".dockerignore", "`*.jinja`", replaced(".dockerignore", "**/*.pyc", "**/*.pyc\n*.jinja"), "chat_template"),
    Breakage(".dockerignore", "without `**/.git`", replaced(".dockerignore", "**/.git\n", ""), ".git/config"),
    Breakage(
        ".dockerignore",
        "without `**/.*.inductor`",
        replaced(".dockerignore", "**/.*.inductor\n", ""),
        ".weights.inductor",
    ),
    Breakage("secrets", "`.env`", written(".env"), ".env is a file of secrets"),
    Breakage("secrets", "a Hub token in `cog.yaml`", in_cog_yaml(f"environment: [T={HUB_TOKEN}]"), "Hugging Face"),
    Breakage("secrets", "a private key among the notes", written("notes.txt", f"mine:\n{KEY}"), "line 2"),
    Breakage("adapters", "an adapter in weights/", written("weights/adapter_config.json"), "an adapter"),
    Breakage("only safetensors", "a pickle", written("old.bin"), "old.bin: a pickle"),
    Breakage(
        "LFS pointers", "a pointer", written("a.txt", "version https://git-lfs.github.com/spec/v1\n"), "LFS pointer"
    ),
    Breakage("data", "the training data", written("train.jsonl"), "nobody's chats"),
    Breakage("links", "weights/ is a link", linked_folder, "is a link"),
    Breakage("links", "a shard is a link, as in the Hub's cache", linked_file, "is a link"),
    Breakage("size and disk", "5 GB free", lambda folder: None, "5.0 GB free", lambda: room_for_docker(5e9)),
    Breakage(
        "ghost.json and hashes", "a blank in config.json", replaced("weights/config.json", "{", "{ "), "config.json"
    ),
    Breakage("shards", "in bfloat16", relisted(in_bfloat16), "are not F16"),
    Breakage("shards", "a shard cut short", relisted(cut_short), "its header promises"),
    Breakage("shards", "a shard twice", relisted(doubled), "are there twice"),
    Breakage("shards", "a wrong total in the index", relisted(with_index(1)), "the index says 1 bytes"),
    Breakage(
        "end token",
        "another one in generation_config.json",
        relisted(edited("generation_config.json", eos_token_id=1)),
        "generation_config.json says 1",
    ),
    Breakage("end token", "none in config.json", relisted(edited("config.json", eos_token_id=None)), "says None"),
    Breakage("end token", "another BOS", relisted(edited("config.json", bos_token_id=2)), "bos_token_id differs"),
    Breakage(
        "end token",
        "the pad token is the end token",
        relisted(edited("config.json", pad_token_id=2)),
        "the pad token is",
    ),
    Breakage(
        "end token",
        "the same, in the tokenizer",
        relisted(edited("tokenizer_config.json", pad_token="</s>")),
        "the tokenizer: the pad token is",
    ),
    Breakage(
        "end token",
        "two pad tokens",
        relisted(
            lambda folder: [
                edited("config.json", pad_token_id=0)(folder),
                edited("generation_config.json", pad_token_id=5)(folder),
            ]
        ),
        "pad_token_id differs",
    ),
    Breakage(
        "sampling",
        "a temperature of 7",
        replaced("weights/ghost.json", '"temperature": 0.7', '"temperature": 7'),
        "temperature: 7",
    ),
    Breakage("tokenizer", "the last 20 merges are gone", relisted(without_merges), "not the tokenizer of the merge"),
    Breakage(
        "chat template",
        "a newline is lost",
        relisted(replaced("weights/chat_template.jinja", '"\\n" ~ me', "me")),
        "does not give the ids",
    ),
    Breakage(
        "chat template",
        "the recipe is another",
        replaced("weights/ghost.json", '"windows"', '"conversations"'),
        "does not give the ids",
    ),
    Breakage("golden prompt", "other weights, listed", relisted(other_weights), "not the weights of the merge"),
    Breakage(
        "server",
        "a slip in run() that only a prediction meets",
        replaced("predict.py", "reply.prompt_tokens", "reply.prompt_token"),
        "prompt_token",
    ),
]
