"""The tensors of a model folder, one at a time: read from safetensors, written as FP16 shards with an index."""

import json
import math
import struct
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.errors import MergeError
from training.finetuning.base import INDEX, weight_files

# Transformers' own default before version 5; what hubs and container layers handle well.
SHARD_BYTES = 5_000_000_000
READABLE = {"F32", "F16", "BF16"}
Tensor = Any  # torch.Tensor; torch is imported where it works


class Weights:
    """A folder's weights, opened for reading: `with Weights(folder) as weights: weights.tensor(name)`.

    Raises MergeError on a tensor that is not F32, F16 or BF16, or that two files hold.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._paths = [*files]
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, list[int]] = {}
        self.dtypes: dict[str, str] = {}

    @classmethod
    def of_model(cls, folder: Path) -> Self:
        return cls(weight_files(folder))

    def __enter__(self) -> Self:
        from safetensors import SafetensorError, safe_open

        for path in self._paths:
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise MergeError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
            for name in sorted(file.keys()):
                piece = file.get_slice(name)
                if name in self._files:
                    raise MergeError(f"{path}: holds {name}, and so does a file before it; copy the folder again")
                if piece.get_dtype() not in READABLE:
                    raise MergeError(f"{path}: {name} is {piece.get_dtype()}; only {', '.join(sorted(READABLE))} merge")
                self._files[name] = file
                self.shapes[name] = list(piece.get_shape())
                self.dtypes[name] = piece.get_dtype()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def tensor(self, name: str) -> Tensor:
        """In the dtype of the file."""
        return self._files[name].get_tensor(name)

    def rows(self, name: str, index: list[int]) -> Tensor:
        """Some rows (of a vector: some values), in the dtype of the file."""
        return self._files[name].get_slice(name)[index]


def plan_shards(shapes: dict[str, list[int]], shard_bytes: int = SHARD_BYTES) -> list[list[str]]:
    """The names of each shard, in order: as many as fit into `shard_bytes` of FP16, at least one."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        if shards[-1] and filled + fp16_bytes(shape) > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += fp16_bytes(shape)
    return shards


def write_shards(
    folder: Path, shapes: dict[str, list[int]], fp16: Callable[[str], Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `fp16(name)` for every name into `model-0000N-of-0000M.safetensors`, and the index beside them.

    One tensor is in memory at a time: the header needs shapes only, and the values follow in its order.
    """
    shards = plan_shards(shapes, shard_bytes)
    files: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        shard = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with shard.open("wb") as stream:
            stream.write(_header({name: shapes[name] for name in names}))
            for name in names:
                stream.write(fp16(name).contiguous().numpy().data)
                files[name] = shard.name
    index = {"metadata": {"total_size": sum(map(fp16_bytes, shapes.values()))}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def fp16_bytes(shape: list[int]) -> int:
    return 2 * math.prod(shape)


def _header(shapes: dict[str, list[int]]) -> bytes:
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
