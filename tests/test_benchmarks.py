"""The benchmarks are not run here; they must at least fit the code that they measure."""

import importlib
from pathlib import Path

import pytest

from benchmarks import canaries
from ghost.evaluation.memorisation import Exposure, by_repetitions

FOLDER = Path(canaries.__file__).parent
PROGRAMS = sorted(".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_finds_all_that_it_imports(program: str) -> None:
    importlib.import_module(f"benchmarks.{program}")


@pytest.mark.parametrize(
    ("bits", "met"),
    [
        ([(1.5, 4.0, 8.0), (1.3, 4.2, 8.0)], True),
        ([(1.5, 4.0, 8.0), (4.5, 2.5, 8.0)], True),  # of the means over the seeds
        ([(1.5, 8.0, 8.0), (1.5, 8.0, 8.0)], False),
        ([(1.5, 1.4, 8.0)], False),
    ],
)
def test_exposure_must_rise_with_repetition(bits: list[tuple[float, ...]], met: bool) -> None:
    seeds = [[Exposure(n, bit, False) for n, bit in zip((1, 10, 100), seed, strict=True)] for seed in bits]
    assert canaries.rises([by_repetitions(seed) for seed in seeds]) is met
