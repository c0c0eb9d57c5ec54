"""W + s·B·A, part by part, into shards that a merge cut short goes on with."""

import errno
import json
import math
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ghost.atomic import mend, put_in_place
from ghost.console import progress
from ghost.errors import MergeError
from ghost.signals import Stopped
from replicate_deployment import ghost_json
from replicate_deployment.errors import GhostError
from training.finetuning.base import Base
from training.merging.adapter import Adapter, Output, Update
from training.merging.provenance import Precision
from training.merging.weights import BLOCK, ITEM_BYTES, Tensor, Weights, fp16_bytes, row_blocks, write_shard

# The arithmetic of the merge: a few rows at a time, in float32, rounded once.

LARGEST = 65520.0  # from here on FP16 rounds to infinity; its largest value is 65504


class Source(Protocol):
    """Where the values lie that the adapter is added to: `Weights`, or what 4 bits leave of them."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor: ...

    def gather(self, name: str, index: list[int]) -> Tensor: ...


class Merging:
    """One thread's: files opened for it, and memory for one block, used again and again."""

    def __init__(self, base: Source, adapter: Weights) -> None:
        import torch

        self._base, self._adapter = base, adapter
        self._raw = torch.empty(BLOCK * max(ITEM_BYTES.values()), dtype=torch.uint8)
        self._wide, self._added = (torch.empty(BLOCK) for _ in range(2))
        self._half = torch.empty(BLOCK, dtype=torch.float16)

    def fp16(self, name: str, output: Output) -> Iterator[Tensor]:
        """The merged tensor's rows, in order; each block is overwritten by the next.

        Raises MergeError, after the last block, when a value is not finite or does not fit FP16.
        """
        import torch

        wrong = unfit = 0
        for block in self.float32(output):
            low, high = block.aminmax()
            if not (low > -LARGEST and high < LARGEST):  # not `<=`: NaN compares false
                finite = torch.isfinite(block)
                wrong += int((~finite).sum())
                unfit += int((finite & (block.abs() >= LARGEST)).sum())
            half = _part(self._half, block.shape)
            yield half.copy_(block)
        if wrong or unfit:
            kind = "NaN or infinite" if wrong else "beyond FP16's largest value, 65504"
            count = math.prod(output.shape)
            raise MergeError(f"{name}: {wrong or unfit:,} of {count:,} values are {kind}; nothing was written")

    def float32(self, output: Output) -> Iterator[Tensor]:
        """W + s·B·A and what else belongs to the output, unrounded, some rows at a time, in the same memory."""
        update, shift = output.update, output.shift
        if update is None:
            for start, stop in row_blocks(output.shape):
                block = self._values(output, start, stop)
                if shift is not None:  # of a vector: nothing to multiply
                    block.add_(self._adapter.tensor(shift[0]).float()[start:stop].mul_(shift[1]))
                yield block
            return
        a, b = self._adapter.tensor(update.a).float(), self._adapter.tensor(update.b).float()
        factors = None
        if update.magnitude is not None:
            factors = self._adapter.tensor(update.magnitude).float()
            if update.transposed:  # an output is a column: its norm needs all rows
                squares = sum(block.double().square_().sum(0) for _, block in self._sums(output, update, a, b))
                factors = factors / squares.sqrt().float()
        for (start, stop), block in self._sums(output, update, a, b):
            if factors is None:
                yield block
            elif update.transposed:
                yield block.mul_(factors)
            else:
                # In float64: a float32 sum of thousands of squares would be off by more than the rounding to come.
                norms = _norms(block)
                yield block.mul_((factors[start:stop] / norms)[:, None])

    def _sums(self, output: Output, update: Update, a: Tensor, b: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """W + s·B·A, in peft's own order of operations, so that bits can be compared."""
        import torch

        for start, stop in row_blocks(output.shape):
            block = self._values(output, start, stop)
            left, right = (a[:, start:stop].t(), b.t()) if update.transposed else (b[start:stop], a)
            # In one step (addmm_) it would be faster, and summed in another order where a block is a single row.
            added = _part(self._added, block.shape)
            torch.mm(left, right, out=added)
            yield (start, stop), block.add_(added.mul_(update.scale))

    def _values(self, output: Output, start: int, stop: int) -> Tensor:
        source = self._adapter if output.from_adapter else self._base
        values = source.rows(output.source, start, stop, self._raw)
        return _part(self._wide, values.shape).copy_(values)


def _part(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape in the memory, or in new memory where a single row is larger."""
    count = math.prod(shape)
    return (memory[:count] if count <= len(memory) else memory.new_empty(count)).view(shape)


def _norms(block: Tensor) -> Tensor:
    """‖row‖ of each row, float32, summed in float64."""
    import torch

    return torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).float()


# What QLoRA's 4 bits leave of a base: the values that an adapter was trained against.
#
# bitsandbytes rounds each run of 64 values of a linear layer to 16 levels between ± its largest one, and with double
# quantisation those largest ones to 8 bits too (arXiv:2305.14314). The same here, some rows at a time: its own
# function for CPUs takes three times as long, and on a whole matrix many times the memory. Tests hold the two equal to
# the bit.

RUN = 64  # values that share a scale
CELLS = 64  # of equal width from -1 to 1: no cell holds more than one border between levels


class FourBits:
    """The base's tensors as training saw them: `quantised` ones rounded to nf4, all in the dtype of computation."""

    def __init__(self, base: Weights, quantised: frozenset[str], *, double_quant: bool, bf16: bool) -> None:
        self._base, self._quantised = base, quantised
        self._double_quant, self._bf16 = double_quant, bf16
        self._scales: tuple[str, Tensor] | None = None  # of the tensor asked for last

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._base.shapes

    def rows(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """As `Weights.rows`, in bfloat16 or float32."""
        if name not in self._quantised:
            return self._seen(self._base.rows(name, start, stop, buffer))
        height, width = self._base.shapes[name]
        if start * width % RUN or (stop * width % RUN and stop < height):
            return self.rows(name, 0, height)[start:stop]  # runs that end within a row: no layer of a real model
        values = self._seen(self._base.rows(name, start, stop, buffer))
        runs, largest = _runs(values)
        scales = largest
        if self._double_quant:
            first = start * width // RUN
            scales = self._tensor_scales(name)[first : first + len(largest)]
        rounded = _rounded(runs, largest).mul_(scales[:, None])
        return self._seen(rounded.flatten()[: values.numel()].view(values.shape))

    def gather(self, name: str, index: list[int]) -> Tensor:
        import torch

        return torch.cat([self.rows(name, row, row + 1) for row in index])

    def _seen(self, values: Tensor) -> Tensor:
        import torch

        return values.to(torch.bfloat16 if self._bf16 else torch.float32)

    def _tensor_scales(self, name: str) -> Tensor:
        """The scales of all runs, rounded to 8 bits around their mean: a matter of the whole tensor."""
        import torch
        from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

        if self._scales is None or self._scales[0] != name:
            blocks = row_blocks(self._base.shapes[name], RUN)  # 64 rows are whole runs, whatever their width
            largest = torch.cat([_runs(self._seen(self._base.rows(name, *block)))[1] for block in blocks])
            mean = largest.mean()
            codes, state = quantize_blockwise(largest - mean, blocksize=256)
            self._scales = name, dequantize_blockwise(codes, state).float() + mean
        return self._scales[1]


class _Levels(NamedTuple):
    border: Tensor
    """(cells,): where a cell's values change from one level to the next; beyond 1 where they do not."""
    levels: Tensor
    """(2 · cells,): the level below and the one above the border of each cell."""


@cache
def _levels() -> _Levels:
    import torch
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    borders = (levels[1:] + levels[:-1]) / 2
    low = torch.bucketize(torch.arange(CELLS + 1) / (CELLS / 2) - 1, borders)  # one more cell: for 1 itself
    border = torch.full((CELLS + 1,), 2.0)
    border[((borders + 1) * (CELLS / 2)).int()] = borders
    return _Levels(border, levels[torch.stack([low, (low + 1).clamp(max=15)], 1)].flatten())


def _runs(values: Tensor) -> tuple[Tensor, Tensor]:
    """(runs, 64) in float32, the last one filled up with zeros, and the largest absolute value of each."""
    import torch

    flat = values.flatten().float()
    if len(flat) % RUN:
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % RUN))
    runs = flat.view(-1, RUN)
    return runs, runs.abs().amax(1)


def _rounded(runs: Tensor, largest: Tensor) -> Tensor:
    """The nearest level of each value, as a share of its run's largest. A search through all borders takes longer."""
    import torch

    border, levels = _levels()
    shares = (runs * (1 / largest.clamp(min=1e-38))[:, None]).clamp_(-1, 1).flatten()
    cells = (shares * (CELLS / 2)).add_(CELLS / 2).int()
    above = shares > torch.index_select(border, 0, cells)
    return torch.index_select(levels, 0, cells.mul_(2).add_(above)).view(-1, RUN)


# A folder that grows file by file and outlives its writer: whoever comes next keeps what is finished.

PROGRESS = "progress.json"


class Unfinished:
    """`folder`, and the files in it that are finished, with their SHA-256."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        self._plan = plan
        self.finished: dict[str, str] = {}
        self._lock = threading.Lock()

    def keep(self, names: set[str]) -> None:
        """Of what an earlier process left: the `names` that it finished by the same plan, and that hash as recorded."""
        try:
            record = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            found = dict(record["finished"]) if record["plan"] == self._plan else {}
        except (OSError, ValueError, KeyError, TypeError):
            found = {}
        for path in [*self.folder.iterdir()]:
            if path.name not in names & found.keys() or not path.is_file():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        left = sorted(self.folder.iterdir())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, sha256 in zip(left, pool.map(ghost_json.sha256, left), strict=True):
                if sha256 == found[path.name]:
                    self.finished[path.name] = sha256
                else:
                    path.unlink()
        self._record()

    def finish(self, part: Path, name: str, sha256: str) -> None:
        """The whole file `part` becomes `name`. Any thread may say so."""
        os.replace(part, self.folder / name)
        with self._lock:
            self.finished[name] = sha256
            self._record()

    def seal(self) -> dict[str, str]:
        """The SHA-256 of what is finished; from here on it is not kept any more, whatever happens."""
        (self.folder / PROGRESS).unlink()
        sealed, self.finished = self.finished, {}
        return sealed

    def _record(self) -> None:
        part = self.folder / (PROGRESS + ".part")
        part.write_text(json.dumps({"plan": self._plan, "finished": self.finished}, indent=2), encoding="utf-8")
        os.replace(part, self.folder / PROGRESS)


@contextmanager
def unfinished_folder(final: Path, plan: dict[str, Any]) -> Iterator[Unfinished]:
    """Yield the folder that takes the place of `final` if the block succeeds, with what is there of it already.

    `plan` is all that decides the contents: what was made by another one is not kept. A GhostError in the block means
    that the folder is not wanted; after anything else, a stop or a full disk among them, what is finished stays for
    the next call. Raises MergeError when another process writes the same folder.
    """
    final = final.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    mend(final)
    folder = final.parent / f".{final.name}.unfinished"
    folder.mkdir(mode=0o700, exist_ok=True)
    with _alone(folder):
        unfinished = Unfinished(folder, plan)
        try:
            yield unfinished
            put_in_place(folder, final)
        except GhostError:
            shutil.rmtree(folder)
            raise
        except Stopped as stop:
            raise Stopped(stop.number, f"stopped; {_left(unfinished)}") from stop
        except OSError as error:
            what = f"{error.filename or folder}: {error.strerror or error}"
            raise MergeError(f"{what}; {_left(unfinished)}") from error


def _left(unfinished: Unfinished) -> str:
    if not unfinished.finished:
        shutil.rmtree(unfinished.folder)
        return "nothing was finished, nothing is left"
    count = len(unfinished.finished)
    return f"{count} finished shards are kept in {unfinished.folder}, and the same command goes on from there"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A lock on the folder itself, which ends with the process. Windows has none, and no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise BlockingIOError  # whoever held it has just put it in place
        yield
    except BlockingIOError as error:
        raise MergeError(f"{folder}: another merge writes there; wait for it, or change --out") from error
    finally:
        os.close(handle)


# At most. More than a small machine has cores, since who writes waits for the disk meanwhile; more of them would only
# make it jump.
WRITERS = 4
BaseWeights = Literal["original", "dequantized"]


@dataclass(frozen=True)
class Sources:
    """Where a merge reads from. Each thread opens its own."""

    base: Base
    adapter: Adapter
    precision: Precision
    base_weights: BaseWeights

    @contextmanager
    def open(self, base_weights: BaseWeights | None = None) -> Iterator[tuple[Source, Weights]]:
        """The weights merged onto (or others of the same base), and the adapter's."""
        with Weights.of_model(self.base.folder) as base, self.adapter.open() as tensors:
            if (base_weights or self.base_weights) == "original":
                yield base, tensors
            else:
                yield FourBits(base, self.adapter.quantised, **asdict(self.precision)), tensors


class _Abandoned(Exception):
    """Ends a writer whose shard nobody waits for any more."""


def write_shards(aside: Unfinished, sources: Sources, shards: dict[str, list[str]]) -> None:
    """Write the shards that are not finished yet, some at a time, each by one thread.

    PyTorch's own threads are one each: they share out every single operation, and wait for each other after each.
    """
    import torch

    outputs = sources.adapter.outputs
    left = {shard: names for shard, names in shards.items() if shard not in aside.finished}
    _check_disk(aside.folder, sum(fp16_bytes(outputs[name].shape) for names in left.values() for name in names))
    stop = threading.Event()

    def write(shard: str) -> None:
        torch.set_num_threads(1)  # counts for the thread that says it
        part = aside.folder / f"{shard}.part"
        with sources.open() as (base, tensors):
            merging = Merging(base, tensors)

            def blocks(name: str) -> Iterable[Tensor]:
                for block in merging.fp16(name, outputs[name]):
                    if stop.is_set():
                        raise _Abandoned
                    yield block
                bar.advance()

            sha256 = write_shard(part, {name: outputs[name].shape for name in left[shard]}, blocks)
        aside.finish(part, shard, sha256)

    threads = torch.get_num_threads()
    with progress("merging", total=sum(map(len, left.values()))) as bar, ThreadPoolExecutor(WRITERS) as pool:
        try:
            for done in as_completed([pool.submit(write, shard) for shard in left]):
                done.result()
        finally:  # a stop, or what one writer found, ends the others at their next block
            stop.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:  # as if the disk had said so: what is finished is kept
        why = f"{free / 1e9:.1f} GB free, the merged model needs {needed / 1e9:.1f} GB more"
        raise OSError(errno.ENOSPC, why, str(folder.parent))
