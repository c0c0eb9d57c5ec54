"""The shards of a merge, several at a time: each thread with files and memory of its own."""

import errno
import shutil
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scripts.adapter import Adapter
from scripts.four_bits import FourBits
from scripts.merging import Merging, Source
from scripts.provenance import Precision
from scripts.shards import fp16_bytes, write_shard
from scripts.unfinished import Unfinished
from scripts.weights import Tensor, Weights
from training.console import progress
from training.finetuning.base import Base

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
