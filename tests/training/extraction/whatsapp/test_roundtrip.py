"""What a generator renders in every header variant comes back message by message.

The record of a long run lies in benchmarks/results/roundtrip.md.
"""

from pathlib import Path

import pytest

from tests.training.extraction.whatsapp.generator import export
from tests.training.extraction.whatsapp.roundtrip import round_trip
from tests.training.extraction.whatsapp.spelling import VARIANTS

CASES = 30  # of each variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_rendered_comes_back(tmp_path: Path, variant: str) -> None:
    for seed in range(CASES):
        rendered = export(variant, seed)
        assert round_trip(rendered, tmp_path / "chat.txt").complaint == "", f"seed {seed}: {rendered.content!r}"


def test_the_same_seed_renders_the_same_export() -> None:
    assert export("ios en", 7) == export("ios en", 7)
