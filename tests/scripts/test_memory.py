"""A tenth of a 7B model: layers of its width, its vocabulary, fewer of them."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import merge
from benchmarks.large_model import write_adapter, write_base

FEWER_PROBES = "from scripts import parity; parity.probes = lambda *_: [[1, 300, 400, 2]]; "
LAYERS = 2  # 1.4 GB; what grows with the rest of the 32 is the disk


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted as Linux counts them")
def test_a_merge_takes_the_memory_of_its_largest_matrix(tmp_path: Path) -> None:
    """Takes half a minute: the size is what is tested. The proof's memory counts too; its probes are fewer here."""
    base, adapter, out = write_base(tmp_path / "base", LAYERS), tmp_path / "adapter", tmp_path / "merged"
    write_adapter(adapter, base, LAYERS)
    done = merge.measured(FEWER_PROBES + merge.GHOST, "merge", adapter, "--base", base, "--out", out, "--json")
    assert done.memory <= merge.MOST_MEMORY
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert size > 1.4e9
    assert json.loads(done.output)["merge"]["parity"]["mean_abs_logprob"] > 0
