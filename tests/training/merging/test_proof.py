"""The proof of a merge: its arithmetic recomputed, and models that run a layer at a time, beside the same in memory."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import MergeError
from replicate_deployment import golden
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import load_tokenizer
from tests.training.merging.forms import FORMS, merge, quiet, with_peft
from training.merging import proof
from training.merging.adapter import Adapter, Output, Update, meta_model, read_adapter, streamed
from training.merging.merge import Merging
from training.merging.proof import check_arithmetic
from training.merging.weights import Weights, plan_shards, write_index, write_shard


def in_memory(model: Any, probes: list[list[int]]) -> list[proof.Score]:
    """One probe at a time, no padding, no streaming."""
    import torch

    scores = []
    with torch.inference_mode():
        for ids in probes:
            tokens = torch.tensor(ids)
            logprobs = model(input_ids=tokens[None], use_cache=False).logits[0].log_softmax(-1)
            of_tokens = logprobs[:-1].gather(1, tokens[1:, None])[:, 0]
            scores.append(proof.Score(of_tokens, logprobs[:-1].argmax(-1), logprobs[-1]))
    return scores


@pytest.mark.parametrize(
    "form", ["LoRA", "DoRA", "LoRA on embedding and head", "modules_to_save", "lora_bias", "fan_in_fan_out, DoRA"]
)
def test_the_trained_model_is_the_one_that_peft_loads(
    form: str, make_base: Callable[..., Path], make_adapter: Any
) -> None:
    kind, lora = FORMS[form]
    base = make_base(kind)
    folder = make_adapter(base=base, **lora)
    adapter = read_adapter(folder, base)
    probes = proof.probes(load_tokenizer(base), DEFAULT_LABELS, whole=True)
    with Weights.of_model(base) as weights:
        found = proof.score_trained(base, weights, adapter, probes)
    with quiet():
        assert_equal(found, in_memory(with_peft(folder, base), probes))
    assert [len(score.logprobs) for score in found] == [len(ids) - 1 for ids in probes]


def test_the_merged_model_is_the_one_that_transformers_loads(merged: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    probes = proof.probes(load_tokenizer(merged), DEFAULT_LABELS, whole=True)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert_equal(proof.score_merged(merged, probes), in_memory(model, probes))


def assert_equal(found: list[proof.Score], expected: list[proof.Score]) -> None:
    import torch

    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.greedy, other.greedy)
        assert torch.allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert torch.allclose(one.following, other.following, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_limit_is_what_rounding_does(
    dtype: str, make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path
) -> None:
    """And a layer without its adapter is far beyond it."""
    from safetensors.torch import load_file, save_file

    base = make_base("mistral", dtype)
    folder = make_adapter(base=base)
    merge(folder, base, tmp_path / "merged")
    adapter, probes = read_adapter(folder, base), proof.probes(load_tokenizer(base), DEFAULT_LABELS)
    with Weights.of_model(base) as weights:
        right, _ = proof.compare(tmp_path / "merged", base, weights, adapter, probes)
        assert right.holds
        assert 0.5 < right.mean_abs_logprob / right.rounding < 2
        shard = tmp_path / "merged" / "model-00001-of-00001.safetensors"
        tensors = load_file(shard)
        for name in [name for name in tensors if "layers.1.self_attn" in name]:
            tensors[name] = weights.tensor(name).half()
        save_file(tensors, shard, metadata={"format": "pt"})
        wrong, _ = proof.compare(tmp_path / "merged", base, weights, adapter, probes)
    assert not wrong.holds
    assert wrong.mean_abs_logprob > 2 * wrong.limit


def test_the_spacing_is_that_of_fp16() -> None:
    import torch

    values = torch.tensor([0.0, 1e-7, 2.0**-14, 0.03, 1.0, 1.5, 1000.0, 40000.0]).half()
    following = torch.nextafter(values, torch.tensor(torch.inf).half())
    assert torch.equal(proof.fp16_spacing(values.float()), following.float() - values.float())


def test_the_text_is_the_golden_prompt_unless_more_is_asked_for(merged: Path) -> None:
    tokenizer = load_tokenizer(merged)
    prompt = golden.prompt(tokenizer, DEFAULT_LABELS)[1]
    assert proof.probes(tokenizer, DEFAULT_LABELS) == [prompt]
    whole = proof.probes(tokenizer, DEFAULT_LABELS, whole=True)
    assert (whole[0], len(whole)) == (prompt, 7)


def test_one_layer_is_in_memory_at_a_time(tiny_base: Path) -> None:
    """Values that are there at once: at most those of the largest module."""
    import torch

    model = meta_model(tiny_base)
    held: list[int] = []
    with Weights.of_model(tiny_base) as weights:

        def read(name: str) -> Any:
            held.append(weights.tensor(name).numel() + sum(p.numel() for p in model.parameters() if not p.is_meta))
            return weights.tensor(name).float()

        with streamed(model, read), torch.inference_mode():
            model(input_ids=torch.tensor([[1, 5, 9]]), use_cache=False)
        assert len(held) == len(weights.shapes)
        assert max(held) == max(torch.Size(shape).numel() for shape in weights.shapes.values())
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_layer_that_fails_leaves_nothing_behind(tiny_base: Path) -> None:
    import torch

    model = meta_model(tiny_base)
    with Weights.of_model(tiny_base) as weights:
        with streamed(model, lambda name: weights.tensor(name).float()), pytest.raises(IndexError):
            model(input_ids=torch.tensor([[10**6]]), use_cache=False)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert not any(module._forward_pre_hooks for module in model.modules())


# The check of the arithmetic: it lets through what is right, and notices what is off by one unit.


SHARD = "model-00001-of-00001.safetensors"
INVENTED = {
    "LoRA": {},
    "rsLoRA of rank 16": {"rank": 16},
    "the other way round": {"transposed": True},
    "DoRA": {"dora": True},
    "DoRA, the other way round": {"dora": True, "transposed": True},
}


def write(folder: Path, outputs: dict[str, Output], fp16: Callable[[str], Any]) -> None:
    shapes = {name: output.shape for name, output in outputs.items()}
    write_shard(folder / SHARD, shapes, lambda name: [fp16(name)])
    write_index(folder, shapes, plan_shards(shapes))


def invented(folder: Path, dtype: str, rank: int, transposed: bool, dora: bool) -> Adapter:
    """One matrix of (48, 32) and one vector, in `folder / "base"`, with an adapter for both in `folder`."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(rank)
    (folder / "base").mkdir()
    tensors = {"x.weight": torch.randn(48, 32), "x.bias": torch.randn(48), "y.weight": torch.randn(9)}
    save_file(
        {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()},
        folder / "base" / "model.safetensors",
    )
    outer, inner = (32, 48) if transposed else (48, 32)
    factors = {
        "A": torch.randn(rank, inner),
        "B": torch.randn(outer, rank),
        "m": torch.rand(outer),
        "v": torch.randn(48),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    update = Update("A", "B", rank, 0.3, transposed, "m" if dora else None)
    outputs = {
        "x.weight": Output((48, 32), "x.weight", update=update),
        "x.bias": Output((48,), "x.bias", shift=("v", 0.3)),
        "y.weight": Output((9,), "y.weight"),
    }
    return Adapter(folder, {}, outputs, None, {}, False, frozenset(), {})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", INVENTED)
def test_one_unit_in_the_last_place_is_noticed(form: str, dtype: str, tmp_path: Path) -> None:
    """Whatever the base's dtype; but for the few values where float32 itself is not that exact."""
    import torch

    adapter = invented(tmp_path, dtype, **{"rank": 1, "transposed": False, "dora": False} | INVENTED[form])
    (tmp_path / "merged").mkdir()
    with Weights.of_model(tmp_path / "base") as base, adapter.open() as tensors:
        merging = Merging(base, tensors)
        honest = {
            name: torch.cat([block.clone() for block in merging.fp16(name, output)])
            for name, output in adapter.outputs.items()
        }
        write(tmp_path / "merged", adapter.outputs, honest.__getitem__)
        found = check_arithmetic(base, adapter, tmp_path / "merged", seed=0)
        assert (found.tensors, found.merged, found.values_checked) == (3, 2, 48 * 32 + 48 + 9)
        for name, right in honest.items():
            for target in (torch.inf, -torch.inf):
                wrong = honest | {name: torch.nextafter(right, torch.full_like(right, target))}
                write(tmp_path / "merged", adapter.outputs, wrong.__getitem__)
                with pytest.raises(MergeError, match=rf"{name}: ([\d,]+) values are not") as refused:
                    check_arithmetic(base, adapter, tmp_path / "merged", seed=0)
                noticed = int(str(refused.value).split()[1].replace(",", ""))
                assert noticed > 0.95 * right.numel()


def test_one_changed_value_is_found_in_the_files(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "changed")
    content = bytearray((merged / SHARD).read_bytes())
    content[-2] ^= 1  # the last bit of the last value of the last tensor, the final norm
    (tmp_path / "changed" / SHARD).write_bytes(content)
    plan = read_adapter(adapter, tiny_base)
    with Weights.of_model(tiny_base) as base:
        assert check_arithmetic(base, plan, merged, seed=0).tensors == len(base.shapes)
        with pytest.raises(MergeError, match=r"model\.norm\.weight: 1 values are not"):
            check_arithmetic(base, plan, tmp_path / "changed", seed=0)


def test_of_a_large_tensor_some_rows_are_checked(
    merged: Path, adapter: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "SAMPLED_ROWS", 10)
    plan = read_adapter(adapter, tiny_base)
    with Weights.of_model(tiny_base) as base:
        one, other = (check_arithmetic(base, plan, merged, seed=seed) for seed in (0, 1))
        expected = sum(10 * shape[1] if len(shape) == 2 else 10 for shape in base.shapes.values())
        whole = check_arithmetic(base, plan, merged, seed=0, whole=True)
    assert one.values_checked == other.values_checked == expected < one.values == whole.values_checked


def test_a_tensor_too_few_or_of_another_kind_is_found(
    merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    plan = read_adapter(adapter, tiny_base)
    tensors = load_file(merged / SHARD)
    lost = tensors.pop("model.norm.weight")
    for more, message in (
        ({}, "1 tensors are only planned or only written, first model.norm.weight"),
        ({"model.norm.weight": lost.float()}, r"model.norm.weight: written as F32 \[64\], not F16 \[64\]"),
        ({"model.norm.weight": lost[1:]}, r"written as F16 \[63\], not F16 \[64\]"),
    ):
        save_file(tensors | more, tmp_path / "model.safetensors")
        with Weights.of_model(tiny_base) as base, pytest.raises(MergeError, match=message):
            check_arithmetic(base, plan, tmp_path, seed=0)
