"""What 4 bits leave of a base is what training holds, to the bit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment import ghost_json
from scripts import merge_lora_fp16
from scripts.merge_lora_fp16 import Choices
from tests.training.merging.forms import quiet
from training.merging import provenance
from training.merging import weights as reading
from training.merging.adapter import read_adapter
from training.merging.merge import Nf4Weights
from training.merging.weights import Weights, row_blocks


def as_trained(base: Path, double_quant: bool, bf16: bool) -> dict[str, Any]:
    """Every tensor of the base as `ghost train` loads it, dequantised where it is in 4 bits."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    from training.finetuning.base import load_base, resolve_base

    model = load_base(resolve_base(str(base), None), nf4=True, double_quant=double_quant, bf16=bf16)
    found = {name: value for name, value in model.state_dict().items() if ".weight." not in name}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            shape, state.shape = state.shape, (math.prod(state.shape),)  # as one row: see Nf4Weights
            found[f"{name}.weight"] = dequantize_4bit(module.weight.data, state).view(shape)
    return found


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("kind", ["mistral", "biased", "tied"])
def test_equals_what_training_holds(
    kind: str,
    double_quant: bool,
    bf16: bool,
    make_base: Callable[..., Path],
    make_adapter: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(reading, "BLOCK", 1000)  # several blocks a tensor
    base = make_base(kind)
    quantised = read_adapter(make_adapter(base=base), base).quantised
    expected = as_trained(base, double_quant, bf16)
    with Weights.of_model(base) as weights:
        rounded = Nf4Weights(weights, quantised, double_quant=double_quant, bf16=bf16)
        for name, shape in weights.shapes.items():
            blocks = [rounded.rows(name, start, stop).clone() for start, stop in row_blocks(shape)]
            found = torch.cat(blocks)
            assert found.dtype == expected[name].dtype, name
            assert torch.equal(found, expected[name]), name
            rows = [0, shape[0] // 2, shape[0] - 1]
            assert torch.equal(rounded.gather(name, rows), expected[name][rows]), name
        assert len(quantised) == sum("_proj.weight" in name for name in weights.shapes)


def test_equal_for_any_number_of_threads(tmp_path: Path) -> None:
    """PyTorch adds the scales of a large matrix in as many parts as there are threads, which rounds differently."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(4)
    save_file({"x": torch.randn(4096, 1024) * torch.rand(4096, 1)}, tmp_path / "x.safetensors")
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with Weights([tmp_path / "x.safetensors"]) as weights:
                rounded = Nf4Weights(weights, frozenset({"x"}), double_quant=True, bf16=False)
                found.append(rounded.rows("x", 0, 4096))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_rows_that_are_no_whole_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A width that 64 does not divide: runs go from one row into the next, and the last one is short."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from safetensors.torch import save_file

    torch.manual_seed(3)
    values = torch.randn(77, 50)
    save_file({"x": values}, tmp_path / "x.safetensors")
    monkeypatch.setattr(reading, "BLOCK", 500)
    for double_quant in (True, False):
        flat = values.flatten()
        codes, state = quantize_4bit(flat, blocksize=64, quant_type="nf4", compress_statistics=double_quant)
        expected = dequantize_4bit(codes, state).view(values.shape)
        with Weights([tmp_path / "x.safetensors"]) as weights:
            rounded = Nf4Weights(weights, frozenset({"x"}), double_quant=double_quant, bf16=False)
            assert torch.equal(rounded.rows("x", 0, 77), expected)
            assert torch.equal(rounded.rows("x", 5, 20), expected[5:20])
            assert torch.equal(rounded.gather("x", [3, 70]), expected[[3, 70]])


def test_merged_onto_what_training_saw(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    """Parity is then with the 4-bit base itself, and the difference to it is FP16's rounding alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ghost = ghost_json.read(adapter)
    base = provenance.find_base(ghost, str(tiny_base))
    block = merge_lora_fp16.merge(ghost, base, tmp_path / "merged", Choices(base_weights="dequantized"))
    assert block["base_weights"] == "dequantized"
    assert 0 < block["parity"]["mean_abs_logprob"] < block["parity"]["limit"]
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        rounded = {name: value.float() for name, value in as_trained(tiny_base, True, True).items()}
        model.load_state_dict(rounded)
        expected = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    with Weights.of_model(tmp_path / "merged") as merged:
        for name, tensor in expected.items():
            assert torch.equal(merged.tensor(name), tensor.half()), name


@pytest.mark.parametrize(("recorded", "onto"), [({"load_in_4bit": True}, "dequantized"), ({}, "original")])
def test_the_default_is_what_the_adapter_was_trained_against(
    recorded: dict[str, bool], onto: str, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    known = ghost_json.read(adapter)
    training = known.block("training")
    facts = known.facts | {"training": training | {"config": training["config"] | recorded}}
    ghost = replace(known, facts=facts)
    block = merge_lora_fp16.merge(ghost, provenance.find_base(ghost, str(tiny_base)), tmp_path / "merged")
    assert block["base_weights"] == onto
