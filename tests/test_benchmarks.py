"""The benchmarks are not run here; they must at least fit the code that they measure."""

import importlib
from pathlib import Path

import pytest

from benchmarks import canaries, memorising
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


def memorised(**figures: float) -> dict[str, float]:
    return {"loss": 3.0, "once": 1.0, "completed": 0.0, **figures}


def test_private_takes_the_safe_setting_with_the_lowest_loss() -> None:
    """Whatever is lower but unsafe; without goldfish if that lowers nothing, and one epoch where nothing is safe."""

    def preset(**unsafe: float) -> tuple[int | None, int]:
        rows = [{"k": None, "epochs": 0, **memorised()}]
        for k in memorising.KS:
            for epochs in memorising.EPOCHS:
                kept = {"once": 1.0 + epochs / (1 if k is None else 3), "completed": epochs / 100}
                rows.append({"k": k, "epochs": epochs, **memorised(loss=3.0 - epochs / 10 - (k or 0) / 100, **kept)})
                if k is not None:
                    rows[-1].update(unsafe)
        return memorising.preset(rows)

    assert preset(completed=0.0) == (8, 2)  # after four epochs it is exposed by 1.3 bits more
    assert preset(once=9.0) == (None, 1)
    assert preset(completed=0.05) == (None, 2)
