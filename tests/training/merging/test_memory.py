"""A merge holds a block of a matrix at a time, whatever the size of the model."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import merge
from benchmarks.large_model import write_adapter, write_base
from training.merging.adapter import Output, Update
from training.merging.merge import Merging
from training.merging.weights import BLOCK, Weights

LAYERS = 2  # 1.4 GB; what grows with the rest of the 32 is the disk


def test_a_matrix_is_merged_in_blocks_that_share_their_memory(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    a, b, matrix = torch.randn(2, 1024), torch.randn(1024, 2), torch.randn(1024, 1024)
    (tmp_path / "base").mkdir()
    save_file({"x": matrix}, tmp_path / "base" / "model.safetensors")
    save_file({"A": a, "B": b}, tmp_path / "adapter.safetensors")
    output = Output((1024, 1024), "x", update=Update("A", "B", 2, 0.5, False, None))
    with Weights.of_model(tmp_path / "base") as base, Weights([tmp_path / "adapter.safetensors"]) as adapter:
        blocks = Merging(base, adapter).fp16("x", output)
        rows, places = zip(*((block.clone(), block.data_ptr()) for block in blocks), strict=True)
    assert max(block.numel() for block in rows) == BLOCK == matrix.numel() // 4
    assert len({*places}) == 1
    assert torch.allclose(torch.cat(rows).float(), matrix + 0.5 * b @ a, rtol=1e-3, atol=1e-3)


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted as Linux counts them")
def test_a_merge_takes_the_memory_of_its_largest_matrix(tmp_path: Path) -> None:
    """A tenth of a 7B model: layers of its width, its vocabulary, fewer of them. The size is what is tested, for half a
    minute. The proof's memory counts too."""
    base, adapter, out = write_base(tmp_path / "base", LAYERS), tmp_path / "adapter", tmp_path / "merged"
    write_adapter(adapter, base, LAYERS)
    done = merge.measured(merge.GHOST, "merge", adapter, "--base", base, "--out", out, "--json")
    assert done.memory <= merge.MOST_MEMORY
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert size > 1.4e9
    assert json.loads(done.output)["merge"]["parity"]["mean_abs_logprob"] > 0
