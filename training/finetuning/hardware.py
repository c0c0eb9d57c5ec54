"""The device at hand: what it has free, and what training will take on it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from training.finetuning import speed
from training.finetuning.config import TrainingConfig
from training.finetuning.memory import Budget, resolve_budget
from training.finetuning.prices import Gpu, gpu_of
from training.finetuning.shapes import Shapes
from training.finetuning.speed import Load, Range


@dataclass(frozen=True)
class Device:
    """name  as torch.cuda.get_device_name() says, or the CPU with its threads
    free  bytes that a training may take
    cuda  whether it is a GPU
    gpu   what config/gpu_prices.yaml knows of it; None when nothing
    count GPUs that share each step
    cores of the CPU that training uses; 0 for a GPU
    """

    name: str
    free: int
    cuda: bool
    gpu: Gpu | None
    count: int = 1
    cores: int = 0

    @property
    def price(self) -> float | None:
        """Dollars an hour, of all of them; None when nobody knows."""
        return self.gpu.price * self.count if self.gpu else None

    def budget(self, shapes: Shapes, config: TrainingConfig, load: Load, *, longest: int) -> Budget:
        """As memory.resolve_budget, which also says what `longest` is. Raises TrainingError as it does."""
        most = -(-load.most // self.count)
        return resolve_budget(shapes, config, self.free, longest=longest, most=most, cuda=self.cuda)

    def seconds(self, load: Load, shapes: Shapes, config: TrainingConfig, budget: Budget) -> Range | None:
        """Expected of training and measuring. None on a GPU that config/gpu_prices.yaml does not know."""
        work = load.work(budget.tokens)
        if not self.cuda:
            rate = self.cores * speed.measure_core()
            return speed.on_cpu(rate, work, shapes, config, checkpointing=budget.checkpointing)
        if self.gpu is None:
            return None
        return speed.on_gpu(self.gpu, work, shapes, config, checkpointing=budget.checkpointing).scaled(1 / self.count)


def at_hand(count: int = 1) -> Device:
    """The GPU that torch would take, one of `count` alike, or else the CPU, which any number of processes share."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return Device(f"CPU, {threads} threads", free_memory(), False, None, cores=threads)
    name = torch.cuda.get_device_name()
    return Device(name, torch.cuda.mem_get_info()[0], True, gpu_of(name), count)


def free_memory(system: Path = Path("/")) -> int:
    """Bytes that programs can still take: what Linux calls available, and no more than the limits of a container or a
    batch system leave; elsewhere all there is."""
    try:
        with (system / "proc" / "meminfo").open(encoding="ascii") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([available, *_left_by_cgroups(system)])


def _left_by_cgroups(system: Path) -> Iterator[int]:
    """What each memory limit on this process leaves: cgroups(7), version 2 or 1.

    The limit of a group holds for those within it. Inside a container its own group is often the only one to be seen.
    """
    try:
        lines = (system / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, usage = system / "sys" / "fs" / "cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = system / "sys" / "fs" / "cgroup" / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                with suppress(OSError, ValueError):  # no such file; "max" is no number
                    used = int((folder / usage).read_text(encoding="ascii")) - _page_cache(folder)
                    yield max(0, int((folder / limit).read_text(encoding="ascii")) - used)


def _page_cache(group: Path) -> int:
    """Bytes of files that count as used and are given up when memory is short."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    stat = {name: int(value) for name, value in map(str.split, lines)}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))  # version 1 counts groups within apart


def expectation(device: Device, seconds: Range | None) -> str:
    """Hours and dollars in words, and what they rest on."""
    if seconds is None:
        return f"unknown: config/gpu_prices.yaml has no line for {device.name}"
    if device.gpu is None or device.price is None:
        cores = "1 idle core" if device.cores == 1 else f"{device.cores} idle cores"
        return f"{spell(seconds)} on {cores}; computed, not measured: from how fast one core multiplies matrices"
    dollars, gpu = seconds.scaled(device.price / 3600), device.gpu
    return (
        f"{spell(seconds)}, {spell_dollars(dollars)} at ${device.price:.2f} an hour ({gpu.provider}, {gpu.read}); "
        f"computed, not measured: at {speed.GPU_SHARE.high:.0%} to {speed.GPU_SHARE.low:.0%} of the GPU's peak"
    )


def usable_cores() -> int:
    """Cores that this process may use; torch decides by itself, and is not asked where it is not installed."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


UNITS = {"days": 86400, "h": 3600, "min": 60, "s": 1}


def spell(seconds: Range) -> str:
    """`40 to 65 min`: the largest unit of which the worse end has two."""
    unit = next((unit for unit, size in UNITS.items() if seconds.high >= 2 * size), "s")
    low, high = seconds.scaled(1 / UNITS[unit])
    return f"{_two_digits(low)} to {_two_digits(high)} {unit}"


def spell_dollars(dollars: Range) -> str:
    return f"${_cents(dollars.low)} to ${_cents(dollars.high)}"


def _two_digits(number: float) -> str:
    return f"{number:,.1f}" if number < 10 else f"{number:,.0f}"


def _cents(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars < 10 else f"{dollars:,.0f}"
