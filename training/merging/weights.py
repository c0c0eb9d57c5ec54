"""Read weights in parts from safetensors, and write shards, without loading a model.

`safe_open` maps files, and mapped pages count as the process's memory: 14.5 GB of weights would push everything else
out on a laptop.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self

from ghost.errors import MergeError
from replicate_deployment.errors import WeightsError
from replicate_deployment.model_folder import INDEX, read_header
from training.finetuning.base import weight_files


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in the calling thread alone: on small blocks its threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # supported dtypes
# Values per block: 1 MB in float32, which stays in a core's cache.
BLOCK = 2**18
Tensor = Any  # torch.Tensor; torch is imported where it is used
Shape = tuple[int, ...]


def row_blocks(shape: Sequence[int], multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of about BLOCK values each, in multiples of `multiple` rows."""
    count, width = math.prod(shape[:1]), max(1, math.prod(shape[1:]))
    step = max(1, BLOCK // (width * multiple)) * multiple
    for start in range(0, count, step):
        yield start, min(count, start + step)


class Weights:
    """A folder's weights, open for reading: `with Weights.of_model(folder) as weights: weights.tensor(name)`.

    `shapes` and `dtypes` are by name, in the order on disk. Not thread-safe: open the files again in each thread.
    Raises MergeError on a tensor that is not F32, F16 or BF16, or that two files hold.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._paths = [*files]
        self._stack = ExitStack()
        self._places: dict[str, tuple[Any, int]] = {}  # open file, and where the values start in it
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}

    @classmethod
    def of_model(cls, folder: Path) -> Self:
        return cls(weight_files(folder))

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # close the files again if a later one is refused
            for path in self._paths:
                self._open(path, stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, path: Path, stack: ExitStack) -> None:
        try:
            header = read_header(path)
            file = stack.enter_context(path.open("rb", buffering=0))
        except (OSError, WeightsError) as error:
            raise MergeError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
        for name, entry in sorted(header.items(), key=lambda item: item[1].start):
            if name in self._places:
                raise MergeError(f"{path}: holds {name}, and so does a file before it; copy the folder again")
            if entry.dtype not in ITEM_BYTES:
                raise MergeError(f"{path}: {name} is {entry.dtype}; only {', '.join(sorted(ITEM_BYTES))} merge")
            if entry.size != ITEM_BYTES[entry.dtype] * math.prod(entry.shape):
                raise MergeError(f"{path}: {name}: {entry.size} bytes do not fit {entry.dtype} {[*entry.shape]}")
            self._places[name] = (file, entry.start)
            self.shapes[name] = entry.shape
            self.dtypes[name] = entry.dtype

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tensor(self, name: str) -> Tensor:
        """Read a tensor in the dtype of the file."""
        shape = self.shapes[name]
        return self._read(name, 0, math.prod(shape)).view(shape)

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Read rows `start` to `stop` (of a vector: values), in the dtype of the file, into `buffer` (bytes) if it is
        given and large enough.
        """
        rest = self.shapes[name][1:]
        width = math.prod(rest)
        return self._read(name, start * width, (stop - start) * width, buffer).view(stop - start, *rest)

    def gather(self, name: str, index: list[int]) -> Tensor:
        """Read the rows (of a vector: values) at `index`, in the dtype of the file."""
        import torch

        shape = (len(index), *self.shapes[name][1:])
        width = math.prod(shape[1:])
        size = width * ITEM_BYTES[self.dtypes[name]]
        buffer = torch.empty(len(index) * size, dtype=torch.uint8)
        view = buffer.numpy().data
        for place, row in enumerate(index):
            self._fill(view[place * size : (place + 1) * size], name, row * width)
        return buffer.view(self._dtype(name)).view(shape)

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors are bit-equal."""
        import torch

        if (self.shapes[one], self.dtypes[one]) != (self.shapes[other], self.dtypes[other]):
            return False
        pairs = zip(self.blocks(one), self.blocks(other), strict=True)
        return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Yield the whole tensor, some rows at a time."""
        for start, stop in row_blocks(self.shapes[name]):
            yield self.rows(name, start, stop)

    def _read(self, name: str, start: int, count: int, buffer: Tensor | None = None) -> Tensor:
        """Read `count` values from the `start`-th on."""
        import torch

        size = count * ITEM_BYTES[self.dtypes[name]]
        if buffer is None or len(buffer) < size:
            buffer = torch.empty(size, dtype=torch.uint8)
        buffer = buffer[:size]
        self._fill(buffer.numpy().data, name, start)
        return buffer.view(self._dtype(name))

    def _fill(self, view: memoryview, name: str, start: int) -> None:
        """Fill `view` with the bytes of the values from the `start`-th on."""
        (file, origin), done = self._places[name], 0
        file.seek(origin + start * ITEM_BYTES[self.dtypes[name]])
        while done < len(view):
            got = file.readinto(view[done:])
            if not got:
                raise MergeError(f"{file.name}: the file became shorter while it was read; copy it again")
            done += got

    def _dtype(self, name: str) -> Any:
        import torch

        return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[self.dtypes[name]]


# Write FP16 shards as streams, and their index: a header needs shapes only, and the values follow in order.

# Eight files for a 7B model: one for each writing thread, several times over.
SHARD_BYTES = 2_000_000_000


def plan_shards(shapes: Mapping[str, Shape], shard_bytes: int = SHARD_BYTES) -> dict[str, list[str]]:
    """Return tensor names by shard file: as many as fit into `shard_bytes` of FP16, at least one."""
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
    with path.open("wb") as file:
        for content in chain([_header(shapes)], (block.numpy() for name in shapes for block in blocks(name))):
            view = memoryview(content).cast("B")
            digest.update(view)
            file.write(view)
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
