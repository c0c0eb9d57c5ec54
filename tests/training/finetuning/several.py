"""`ghost train` in several processes on this machine, and what befalls them: run by test_processes.py on its own.

Each process is a fork.
"""

import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, TypedDict

HANGING = 120  # seconds; it would be a bug, and the test shall fail instead of waiting


class Run(TypedDict, total=False):
    """arguments  of `ghost`
    count      processes
    fsdp       whether they share the base's weights, as accelerate says it
    blow       (rank, after how many forward passes of it, what): killed, stopped (all of them), memory, failure
    """

    arguments: list[str]
    count: int
    fsdp: bool
    blow: tuple[int, int, str]


def strike(what: str) -> None:
    import torch

    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stopped":
        os.killpg(0, signal.SIGTERM)  # as a launcher hands it on
    if what == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory")
    if what == "failure":
        raise RuntimeError("an illegal instruction\nof many lines")


def await_blow(after: int, what: str) -> None:
    from training.finetuning.loss import SegmentLoss

    honest, calls = SegmentLoss.forward, 0

    def forward(self: SegmentLoss, **row: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after:
            strike(what)
        return honest(self, **row)

    SegmentLoss.forward = forward  # type: ignore[method-assign]


def process(run: Run, rank: int, port: int, group: int, saying: Path) -> int:
    """The process' id."""
    child = os.fork()
    if child:
        os.setpgid(child, group or child)
        return child
    os.setpgid(0, group)
    signal.alarm(HANGING)
    said = os.open(saying, os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(run["count"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ["ACCELERATE_USE_FSDP"] = str(run.get("fsdp", False)).lower()
    code = 99
    try:
        from ghost import cli

        if "blow" in run and run["blow"][0] == rank:
            await_blow(*run["blow"][1:])
        code = cli.main(run["arguments"])
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception as error:
        print(repr(error))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def together(run: Run) -> list[tuple[int, str]]:
    """(exit code, negative for a signal; what it said) of each process."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        children: list[int] = []
        for rank in range(run["count"]):
            group = children[0] if children else 0
            children.append(process(run, rank, port, group, Path(folder) / str(rank)))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return [(code, (Path(folder) / str(rank)).read_text()) for rank, code in enumerate(codes)]


def main(run: Run, result: Path) -> None:
    """`result` gets JSON: by rank, [exit code, what it said]."""
    if run.get("fsdp"):
        import torch.distributed.fsdp  # noqa: F401  (before the forks, once for all)
    result.write_text(json.dumps(together(run)), encoding="utf-8")
