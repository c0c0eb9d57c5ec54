"""A thousandth of what benchmarks/fuzz_extraction.py does, without its fuzzer: damaged files end in a line each."""

import random
from pathlib import Path

import pytest

from tests.training.extraction.examine import examine
from tests.training.extraction.exports import save
from tests.training.extraction.seeds import BESIDE, SEEDS, content
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source

MUTATIONS = 50  # of each seed
SPLICES = [
    b'"',
    b"{",
    b"]",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"null",
    b"-1",
    b"1e999",
    b"9" * 40,
    b"\\ud83d",
    b"\xe2\x80\x8e",
]


def mutated(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice([0, 1, 2, rng.randrange(200)]))
        data[at:to] = rng.choice([b"", bytes([rng.randrange(256)]), rng.choice(SPLICES), data[at:to] * 2, other[at:to]])
    return bytes(data)


def test_every_platform_has_a_seed(tmp_path: Path) -> None:
    for name in BESIDE:
        save(tmp_path, content(name), name)
    matches = [recognise(Source(save(tmp_path, content(name), name))) for name in SEEDS]
    assert {match.platform.NAME for match in matches if match} == PLATFORMS.keys()
    assert None not in matches


@pytest.mark.parametrize("name", SEEDS)
def test_damage_is_no_crash(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    for beside in BESIDE:
        save(tmp_path, content(beside), beside)
    for _ in range(MUTATIONS):
        other = content(rng.choice(list(SEEDS)))
        source = Source(save(tmp_path, mutated(content(name), other, rng), name))
        examine(source, rng.choice(list(PLATFORMS)), rng.choice([None, "dmy"]))
