"""`ghost train`, killed again and again: run by test_survival.py in a process of its own.

Each attempt is a fork that SIGKILL ends as `kill -9` would. When it strikes is counted and not timed, or a busy machine
would decide how far an attempt gets: every call and return of a function, ours or a library's, is a moment. A first
attempt without a kill, into OUT.whole, tells how many there are.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

PHASES = ("loop", "end")  # while it trains; while the adapter takes its place and the checkpoint is removed
STRUCK = 99


class Reaper:
    """Counts moments from the start of each phase on, and strikes at the given one of the given phase."""

    def __init__(self, phase: str, moment: int | None) -> None:
        self.phase, self.moment = phase, moment
        self.counts = dict.fromkeys(PHASES, 0)
        self.now = ""

    def watch(self) -> None:
        from ghost import artifact
        from training.finetuning.checkpoint import Checkpoint
        from training.finetuning.loop import Loop

        Loop.run = self._opening("loop", Loop.run)  # type: ignore[method-assign]
        artifact.write = self._opening("end", artifact.write)
        Checkpoint.remove = self._closing(Checkpoint.remove)  # type: ignore[method-assign]

    def _opening(self, phase: str, honest: Any) -> Any:
        def opened(*arguments: Any, **keywords: Any) -> None:
            self.now = phase
            sys.setprofile(self._count)
            honest(*arguments, **keywords)

        return opened

    def _closing(self, honest: Any) -> Any:
        def closed(*arguments: Any) -> None:
            honest(*arguments)
            sys.setprofile(None)

        return closed

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.counts[self.now] += 1
        if self.now == self.phase and self.counts[self.now] == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(arguments: list[str], phase: str = "", moment: int | None = None) -> tuple[int, dict[str, int]]:
    """(exit code, negative for a signal; moments of each phase, of those who lived)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        from ghost import cli

        reaper = Reaper(phase, moment)
        reaper.watch()
        code = STRUCK
        try:
            code = cli.main(arguments)
        finally:
            sys.setprofile(None)
            os.write(writing, json.dumps(reaper.counts).encode())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        counts = json.loads(pipe.read() or "{}")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counts


def main(arguments: list[str], kills: dict[str, int], result: Path) -> None:
    """Train, killed so many times in each phase. `result` gets JSON: {killed: [the phases of the kills], code}."""
    out = arguments[arguments.index("--out") + 1]
    code, moments = attempt([out + ".whole" if word == out else word for word in arguments])
    assert code == 0
    random.seed(0)
    killed = []
    for phase in PHASES:
        for _ in range(kills[phase]):
            # In the loop each goes on from the last checkpoint, so together they must not be able to reach the end.
            last = moments[phase] // kills[phase] if phase == "loop" else moments[phase]
            code, _ = attempt([*arguments, "--resume"], phase, random.randrange(1, last))
            killed += [phase] if code == -signal.SIGKILL else []
    code, _ = attempt([*arguments, "--resume"])
    result.write_text(json.dumps({"killed": killed, "code": code}), encoding="utf-8")
