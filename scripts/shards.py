"""FP16 shards with an index, each written as a stream: its header needs shapes only, and the values follow in order."""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.direct_file import DirectFile
from scripts.weights import Tensor
from training.finetuning.base import INDEX

# Eight files for a 7B model: small enough that a stopped merge loses little and that every core has one to write, and
# far from the number of files that makes a hub slow.
SHARD_BYTES = 2_000_000_000
Shape = tuple[int, ...]


def plan_shards(shapes: Mapping[str, Shape], shard_bytes: int = SHARD_BYTES) -> dict[str, list[str]]:
    """The names of each shard's tensors, by its file name: as many as fit into `shard_bytes` of FP16, at least one."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        if shards[-1] and filled + fp16_bytes(shape) > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += fp16_bytes(shape)
    count = len(shards)
    return {f"model-{number:05d}-of-{count:05d}.safetensors": names for number, names in enumerate(shards, start=1)}


def write_shard(path: Path, shapes: Mapping[str, Shape], blocks: Callable[[str], Iterable[Tensor]]) -> str:
    """Write the FP16 `blocks(name)` of each tensor one after the other, and return the file's SHA-256."""
    digest = hashlib.sha256()
    with DirectFile(path) as file:

        def write(content: Any) -> None:
            view = memoryview(content).cast("B")
            digest.update(view)
            file.write(view)

        write(_header(shapes))
        for name in shapes:
            for block in blocks(name):
                write(block.numpy())
    return digest.hexdigest()


def write_index(folder: Path, shapes: Mapping[str, Shape], shards: Mapping[str, Sequence[str]]) -> None:
    files = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {"total_size": sum(map(fp16_bytes, shapes.values()))}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def fp16_bytes(shape: Shape) -> int:
    return 2 * math.prod(shape)


def _header(shapes: Mapping[str, Shape]) -> bytes:
    """Eight bytes of length, then JSON padded to a multiple of 8 (https://github.com/huggingface/safetensors)."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
    offset = 0
    for name, shape in shapes.items():
        end = offset + fp16_bytes(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
