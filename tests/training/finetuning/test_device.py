"""What memory a training may take: the machine's, within the limits of the groups it runs in."""

from pathlib import Path

import pytest

from training.finetuning.hardware import free_memory

GB = 10**9


def write(system: Path, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: {64 * GB // 1024} kB\nMemAvailable: {48 * GB // 1024} kB\n",
        **files,
    }.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(text, encoding="ascii")
    return system


def group(version: int, limit: str, usage: int, cache: int = 0) -> dict[str, str]:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"anon 1\ninactive_file {cache}\n" if version == 2 else f"inactive_file 0\ntotal_inactive_file {cache}\n"
    return {names[0]: f"{limit}\n", names[1]: f"{usage}\n", "memory.stat": stat}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"sys/fs/cgroup/{folder}{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 48 * GB),
        ({"proc/self/cgroup": "0::/\n"}, 48 * GB),  # no memory controller
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, f"{16 * GB}", 5 * GB, cache=2 * GB))}, 13 * GB),
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, "max", 5 * GB))}, 48 * GB),
        (
            {
                "proc/self/cgroup": "0::/batch/job\n",
                **below("batch/job/", group(2, f"{32 * GB}", 1 * GB)),
                **below("batch/", group(2, f"{16 * GB}", 6 * GB)),  # shared with other jobs
            },
            10 * GB,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/a\n2:name=systemd:/\n4:memory:/docker/1f\n0::/\n",
                **below("memory/docker/1f/", group(1, f"{8 * GB}", 3 * GB, cache=GB)),
            },
            6 * GB,
        ),
        # A container of version 1 is told a path that it does not see: its own group is the root.
        (
            {"proc/self/cgroup": "4:memory:/docker/1f\n", **below("memory/", group(1, f"{8 * GB}", 3 * GB))},
            5 * GB,
        ),
        ({"proc/self/cgroup": "4:memory:/\n", **below("memory/", group(1, "9223372036854771712", GB))}, 48 * GB),
        ({"proc/self/cgroup": "0::/\n", **below("", group(2, f"{GB}", 2 * GB))}, 0),
    ],
)
def test_free_memory_is_what_the_tightest_limit_leaves(files: dict[str, str], left: int, tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, files)) == pytest.approx(left, abs=1024)


def test_without_linux_it_is_all_there_is(tmp_path: Path) -> None:
    assert free_memory(tmp_path) > GB
