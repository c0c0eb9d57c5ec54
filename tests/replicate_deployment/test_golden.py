import copy
from typing import Any

import pytest
import torch

from replicate_deployment import golden
from replicate_deployment.chat_format import parse
from replicate_deployment.decoding import cache_argument
from replicate_deployment.engine import Engine
from replicate_deployment.errors import WeightsError


@pytest.fixture
def block(engine: Engine) -> dict[str, Any]:
    return golden.record(engine.model, engine.tokenizer, engine.labels)


def test_the_prompt_is_in_the_format_and_holds_what_tokenizers_get_wrong(engine: Engine, block: dict[str, Any]) -> None:
    assert parse(block["prompt"])[:-1] == golden.turns(engine.labels)
    assert "</s>" in block["prompt"]
    assert engine.tokenizer.eos_token_id not in block["ids"]
    assert block["ids"][0] == engine.tokenizer.bos_token_id


def test_the_recorded_tokens_are_the_likeliest(engine: Engine, block: dict[str, Any]) -> None:
    logprobs = [logprob for _, logprob in block["next_top5_logprobs"]]
    assert len(logprobs) == 5
    assert logprobs == sorted(logprobs, reverse=True)
    with torch.inference_mode():
        logits = engine.model(input_ids=torch.tensor([block["ids"]])).logits[0, -1]
    assert block["next_top5_logprobs"][0][0] == int(logits.argmax())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_weights_pass_in_any_precision(engine: Engine, block: dict[str, Any], dtype: torch.dtype) -> None:
    golden.verify(copy.deepcopy(engine.model).to(dtype), engine.tokenizer, block)


def test_other_weights_fail(engine: Engine, block: dict[str, Any]) -> None:
    other = copy.deepcopy(engine.model)
    with torch.no_grad():
        layers = other.model.layers
        layers[0].mlp.load_state_dict(layers[1].mlp.state_dict())
        other.lm_head.weight.mul_(3)
    with pytest.raises(WeightsError, match="not the weights of the merge"):
        golden.verify(other, engine.tokenizer, block)


def test_weights_that_overflow_fail(engine: Engine, block: dict[str, Any]) -> None:
    broken = copy.deepcopy(engine.model)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="nan"):
        golden.verify(broken, engine.tokenizer, block)


def test_another_tokenizer_fails_and_says_where(engine: Engine, block: dict[str, Any]) -> None:
    ids = block["ids"].copy()
    ids[3] += 1
    with pytest.raises(WeightsError, match=rf"first difference at 3 \({ids[3] - 1}, not {ids[3]}\)"):
        golden.verify(engine.model, engine.tokenizer, block | {"ids": ids})


def test_weights_in_4_bits_are_held_to_not_being_broken(engine: Engine, block: dict[str, Any]) -> None:
    moved = copy.deepcopy(engine.model)
    with torch.no_grad():
        for parameter in moved.lm_head.parameters():
            parameter.mul_(1.2)
    with pytest.raises(WeightsError, match=r"± 0\.1:"):
        golden.verify(moved, engine.tokenizer, block)
    golden.verify(moved, engine.tokenizer, block, rounded=True)
    with torch.no_grad():
        moved.lm_head.weight.mul_(30)
    with pytest.raises(WeightsError, match=rf"± {golden.ROUNDED_TOLERANCE}: 4 bits change this model"):
        golden.verify(moved, engine.tokenizer, block, rounded=True)


def test_a_cache_that_the_library_ignores_fails(
    engine: Engine, block: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when `forward` renames the argument: what it does not know vanishes in its **kwargs, and nothing complains."""
    forward = type(engine.model).forward

    def deaf(self: Any, cache: Any = None, **rest: Any) -> Any:
        return forward(self, **rest)

    monkeypatch.setattr(type(engine.model), "forward", deaf)
    with pytest.raises(WeightsError, match="with the KV cache, but the correct one without it"):
        golden.verify(engine.model, engine.tokenizer, block)


def test_the_cache_goes_by_the_name_that_forward_knows() -> None:
    def new(self: Any, cache: Any = None) -> None: ...

    def old(self: Any, past_key_values: Any = None) -> None: ...

    assert cache_argument(type("New", (), {"forward": new})()) == "cache"
    assert cache_argument(type("Old", (), {"forward": old})()) == "past_key_values"


def test_a_forward_without_a_cache_is_named() -> None:
    other = type("Cacheless", (), {"forward": lambda self, input_ids: None})()
    with pytest.raises(WeightsError, match=r"Cacheless\.forward takes a KV cache neither"):
        cache_argument(other)
