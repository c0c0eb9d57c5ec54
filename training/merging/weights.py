"""The tensors of a model folder, read by offset.

A mapped file counts as memory of the process, page by page, until somebody else wants it: through `safe_open`, 14.5 GB
of weights look like 14.5 GB, and on a laptop they are what pushes everything else out.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from replicate_deployment.errors import WeightsError
from replicate_deployment.safetensors_header import read_header
from training.errors import MergeError
from training.finetuning.base import weight_files

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # the dtypes that merge
# Values that are worked on at a time: 1 MB in float32, which stays in a core's cache from the first step to the last.
BLOCK = 2**18
Tensor = Any  # torch.Tensor; torch is imported where it works


def row_blocks(shape: Sequence[int], multiple: int = 1) -> Iterator[tuple[int, int]]:
    """(start, stop) of as many rows as make about BLOCK values, a multiple of `multiple` rows at least."""
    count, width = math.prod(shape[:1]), max(1, math.prod(shape[1:]))
    step = max(1, BLOCK // (width * multiple)) * multiple
    for start in range(0, count, step):
        yield start, min(count, start + step)


class _Place(NamedTuple):
    file: Any  # io.FileIO
    start: int


class Weights:
    """A folder's weights, opened for reading: `with Weights.of_model(folder) as weights: weights.tensor(name)`.

    `shapes` and `dtypes` are by name, in the order in which the values lie on the disk. For one thread: a second one
    opens the files again. Raises MergeError on a tensor that is not F32, F16 or BF16, or that two files hold.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._paths = [*files]
        self._stack = ExitStack()
        self._places: dict[str, _Place] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}

    @classmethod
    def of_model(cls, folder: Path) -> Self:
        return cls(weight_files(folder))

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what is opened is closed again if a later file is refused
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
                raise MergeError(f"{path}: {name}: {entry.size} bytes are no {entry.dtype} {[*entry.shape]}")
            self._places[name] = _Place(file, entry.start)
            self.shapes[name] = entry.shape
            self.dtypes[name] = entry.dtype

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def tensor(self, name: str) -> Tensor:
        """In the dtype of the file."""
        shape = self.shapes[name]
        return self._read(name, 0, math.prod(shape)).view(shape)

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Rows `start` to `stop` (of a vector: values), in the dtype of the file.

        They lie in `buffer`, bytes, where it is given and large enough: memory that is used again need not be
        asked for.
        """
        rest = self.shapes[name][1:]
        width = math.prod(rest)
        return self._read(name, start * width, (stop - start) * width, buffer).view(stop - start, *rest)

    def gather(self, name: str, index: list[int]) -> Tensor:
        """The rows (of a vector: values) at `index`, in the dtype of the file."""
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
        """Whether two tensors are the same, to the bit."""
        import torch

        if (self.shapes[one], self.dtypes[one]) != (self.shapes[other], self.dtypes[other]):
            return False
        pairs = zip(self.blocks(one), self.blocks(other), strict=True)
        return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The whole tensor, some rows at a time."""
        for start, stop in row_blocks(self.shapes[name]):
            yield self.rows(name, start, stop)

    def _read(self, name: str, start: int, count: int, buffer: Tensor | None = None) -> Tensor:
        """`count` values from the `start`-th on."""
        import torch

        size = count * ITEM_BYTES[self.dtypes[name]]
        if buffer is None or len(buffer) < size:
            buffer = torch.empty(size, dtype=torch.uint8)
        buffer = buffer[:size]
        self._fill(buffer.numpy().data, name, start)
        return buffer.view(self._dtype(name))

    def _fill(self, view: memoryview, name: str, start: int) -> None:
        """With the bytes of the values from the `start`-th on."""
        place, done = self._places[name], 0
        place.file.seek(place.start + start * ITEM_BYTES[self.dtypes[name]])
        while done < len(view):
            got = place.file.readinto(view[done:])
            if not got:
                raise MergeError(f"{place.file.name}: became shorter while it was read; copy it again")
            done += got

    def _dtype(self, name: str) -> Any:
        import torch

        return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[self.dtypes[name]]
