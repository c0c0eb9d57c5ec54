"""The static way to decode beside transformers' own, on the tiny model, in float32 and on a CPU."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from replicate_deployment import acceleration, decoding
from replicate_deployment.acceleration import static_decoder
from replicate_deployment.decoding import PARTS, DynamicDecoder, StaticDecoder, attend, decoder_layer
from replicate_deployment.engine import Engine
from replicate_deployment.errors import PromptError, WeightsError

IDS = [1, *range(5, 90)]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # logits of about ±1, summed in another order


def follow(way: DynamicDecoder | StaticDecoder, ids: list[int], more: list[int]) -> torch.Tensor:
    """Scores (1 + more, vocabulary) after the prompt and after each further token."""
    scores = [way.start(ids).clone()]
    return torch.stack([*scores, *(way.next(torch.tensor([token])).clone() for token in more)])


def test_static_gives_the_scores_of_transformers(engine: Engine) -> None:
    more = list(range(100, 120))
    expected = follow(DynamicDecoder(engine.model), IDS, more)
    with torch.inference_mode():
        whole = engine.model(input_ids=torch.tensor([IDS + more])).logits[0, len(IDS) - 1 :]
    torch.testing.assert_close(expected, whole, **CLOSE)
    torch.testing.assert_close(follow(StaticDecoder(engine.model, 128), IDS, more), expected, **CLOSE)


def test_a_length_that_has_no_parts_does_too(engine: Engine) -> None:
    assert 109 % PARTS
    torch.testing.assert_close(
        follow(StaticDecoder(engine.model, 109), IDS, [7, 8]),
        follow(DynamicDecoder(engine.model), IDS, [7, 8]),
        **CLOSE,
    )


def test_nothing_is_left_of_the_reply_before(engine: Engine) -> None:
    static = StaticDecoder(engine.model, 128)
    fresh = follow(static, IDS[:20], [3, 4])
    follow(static, IDS, [9] * 10)
    with torch.inference_mode():
        for keys, values in static._cache:
            keys[:, 40:], values[:, 40:] = float("inf"), float("nan")
    assert torch.equal(follow(static, IDS[:20], [3, 4]), fresh)


def test_one_compilation_serves_every_layer_and_every_place(engine: Engine) -> None:
    torch.compiler.reset()
    counters.clear()
    layer: Callable[..., Any] = torch.compile(decoder_layer, fullgraph=True, dynamic=False, backend="aot_eager")
    static = StaticDecoder(engine.model, 128, layer)
    static.record()
    for ids in (IDS[:5], IDS):
        torch.testing.assert_close(
            follow(static, ids, [5, 6]), follow(DynamicDecoder(engine.model), ids, [5, 6]), **CLOSE
        )
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()


def test_a_prompt_in_pieces_gives_the_same_scores(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = follow(DynamicDecoder(engine.model), IDS, [4])
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 16)
    torch.testing.assert_close(follow(DynamicDecoder(engine.model), IDS, [4]), whole, **CLOSE)


def test_a_prompt_too_large_for_the_memory_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DynamicDecoder, "_forward", full)
    with pytest.raises(PromptError, match="the prompt's 86 tokens do not fit the GPU's memory"):
        DynamicDecoder(engine.model).start(IDS)


def test_attention_is_the_textbooks() -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(shape, generator=generator) for shape in ((8, 4), (2, 32, 4), (2, 32, 4)))
    visible = torch.arange(32) <= 20
    repeated = [part.repeat_interleave(4, dim=0)[:, :21] for part in (keys, values)]
    weights = torch.einsum("hw,hlw->hl", query, repeated[0]).softmax(-1)
    expected = torch.einsum("hl,hlw->hw", weights, repeated[1])
    torch.testing.assert_close(attend(query, keys, values, visible), expected)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "compiled_layer", lambda: decoder_layer)


@pytest.mark.usefixtures("uncompiled")
def test_what_is_proven_is_used(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    found = static_decoder(engine.model, IDS)
    assert found is not None
    assert found.length == 2048
    assert not caplog.records


@pytest.fixture
def no_cache_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


@pytest.mark.usefixtures("no_cache_chosen")
def test_the_compilers_cache_lies_beside_the_model(merged_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen before the model is loaded: transformers imports the compiler, which settles on its own."""
    chosen: list[str | None] = []

    def load(*_: object, **__: object) -> None:
        chosen.append(os.environ.get("TORCHINDUCTOR_CACHE_DIR"))
        raise WeightsError("not loaded")

    monkeypatch.setattr("replicate_deployment.loading.load", load)
    for accelerate in (False, True):
        with pytest.raises(WeightsError, match="not loaded"):
            Engine.load(merged_copy, device="cpu", accelerate=accelerate)
    assert chosen == [None, str(merged_copy.with_name(".merged.inductor"))]
    assert merged_copy.with_name(".merged.inductor").is_dir()


@pytest.mark.usefixtures("no_cache_chosen")
@pytest.mark.parametrize("whose", ["a link's", "somebody else's", "everybody's"])
def test_a_cache_that_others_could_have_filled_is_not_used(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    folder = tmp_path / ".merged.inductor"
    if whose == "a link's":
        folder.symlink_to(engine.ghost.folder)
    else:
        folder.mkdir(mode=0o700)
        folder.chmod(0o777 if whose == "everybody's" else 0o700)
    if whose == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    acceleration.keep_compiled_code(tmp_path / "merged")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    (record,) = caplog.records
    assert f"{folder} is a link, or writable by others" in record.message


def test_a_compiler_that_fails_costs_a_line_and_not_the_answer(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C compiler\nwas found")

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(acceleration, "compiled_layer", lambda: broken)
    assert static_decoder(engine.model, IDS) is not None
    assert [record.message for record in caplog.records] == [
        "decoding is not compiled and will be slower: RuntimeError: no C compiler"
    ]


@pytest.mark.usefixtures("uncompiled")
def test_a_decoder_that_computes_otherwise_is_not_used(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(decoding, "attend", lambda query, keys, values, visible: query * 10)
    assert static_decoder(engine.model, IDS) is None
    assert len(caplog.records) == 2
    assert "golden prompt moves by" in caplog.records[0].message


def test_another_architecture_is_left_to_transformers(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    other = copy.copy(engine.model)
    other.config = copy.copy(engine.model.config)
    other.config.sliding_window = 32
    assert static_decoder(other, IDS) is None
    assert "only full attention is supported, and this model has a sliding window of 32 tokens" in caplog.text
    other.config.model_type = "gemma2"
    assert static_decoder(other, IDS) is None
    assert "and this is a gemma2 model" in caplog.text
