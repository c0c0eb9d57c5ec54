"""Models that run a layer at a time say what they say in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment import golden
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import load_tokenizer
from tests.training.merging.forms import FORMS, merge, quiet, with_peft
from training.merging import proof
from training.merging.adapter import meta_model, read_adapter, streamed
from training.merging.weights import Weights


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
