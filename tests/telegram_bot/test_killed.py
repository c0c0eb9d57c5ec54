"""kill -9 anywhere: every message is answered exactly once, or its reply is in doubt and not repeated."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.telegram_bot.conftest import NOTICE, World

ROOT = Path(__file__).parents[2]
POINTS = 25  # a message to one that was never seen passes 22 points; what the life before left comes on top
FIRST = 1000
SOME = (3, 9, 15, 21)


class Mortal:
    def __init__(self, config: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.telegram_bot.mortal", str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TELEGRAM_BOT_TOKEN": "unused"},
        )

    def tell(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def mortal(world: World, tmp_path: Path) -> Iterator[Mortal]:
    people = list(range(FIRST, FIRST + POINTS + 1))
    world.set(allow=people, debounce_seconds=0.0)
    path = tmp_path / "bot.yaml"
    path.write_text(yaml.safe_dump(msgspec.to_builtins(world.config)))
    process = Mortal(path)
    yield process
    assert process.process.stdin is not None
    assert process.process.stdout is not None
    process.process.stdin.close()
    process.process.wait(20)
    process.process.stdout.close()


def died(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "points", [SOME, pytest.param(range(1, POINTS + 1), marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
def test_killed_at_a_point(world: World, mortal: Mortal, points: Sequence[int]) -> None:
    api = world.api
    for point in points:
        person = FIRST + point
        api.say(person, f"m{point}")
        pid = mortal.tell(str(point))
        deadline = time.monotonic() + 30
        while not died(pid) and not api.texts(person)[1:]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        mortal.tell("end")
    api.say(FIRST, "last")
    mortal.tell("0")
    unsent = (
        "SELECT (SELECT count(*) FROM outgoing WHERE state = 'planned') + (SELECT count(*) FROM messages WHERE pending)"
    )
    api.until(lambda: "LAST" in api.texts(FIRST))
    while world.value(unsent):
        time.sleep(0.05)
    assert mortal.tell("stop") == 0
    doubtful = 0
    for point in points:
        told = api.texts(FIRST + point)
        for text in (NOTICE, f"M{point}"):
            assert told.count(text) <= 1, "said twice"
            if text not in told:
                doubts = f"SELECT count(*) FROM outgoing WHERE state = 'doubtful' AND chat = {FIRST + point}"
                assert world.value(doubts), f"the answer to {point} is lost, and nothing says so"
                doubtful += 1
        assert len(told) <= 2
    assert doubtful, "no kill came between the record of a sending and the sending"
    assert world.value("SELECT count(*) FROM updates") == len(points) + 1
