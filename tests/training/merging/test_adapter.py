"""Every form of adapter against peft's own merge in float32: equal to FP16's rounding, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import GhostError, MergeError
from tests.training.merging.forms import FORMS, UNTIED, Compared, beside_peft, merge, quiet, with_peft
from training.merging.adapter import read_adapter
from training.merging.merge import Merging
from training.merging.weights import Weights


def assert_equal_to_rounding(tensors: dict[str, Compared]) -> None:
    """The nearest FP16 values, or, where float32's own order of operations decides, the ones beside them."""
    for name, found in tensors.items():
        assert found.distance < 0.51, name
        assert found.nearest > 0.995, name


@pytest.mark.parametrize("form", FORMS)
def test_equals_pefts_own_merge(form: str, make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path) -> None:
    kind, lora = FORMS[form]
    base = make_base(kind)
    folder = make_adapter(base=base, **lora)
    block = merge(folder, base, tmp_path / "merged")
    assert_equal_to_rounding(beside_peft(folder, base, tmp_path / "merged", kind, block))
    assert block["arithmetic"]["merged"] > 0
    assert 0 < block["parity"]["mean_abs_logprob"] < block["parity"]["limit"]


@pytest.mark.parametrize("form", ["LoRA", "rsLoRA", "rank and alpha patterns", "modules_to_save"])
def test_plain_forms_equal_pefts_merge_bit_for_bit(
    form: str, make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path
) -> None:
    import torch

    kind, lora = FORMS[form]
    folder = make_adapter(base=make_base(kind), **lora)
    merge(folder, make_base(kind), tmp_path / "merged")
    with quiet():
        expected = with_peft(folder, make_base(kind)).merge_and_unload().state_dict()
    with Weights.of_model(tmp_path / "merged") as merged:
        for name, tensor in expected.items():
            assert torch.equal(merged.tensor(name), tensor.half()), name


@pytest.mark.parametrize("form", UNTIED)
def test_what_was_trained_apart_is_untied(
    form: str, make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = make_base("tied")
    folder = make_adapter(base=base, **UNTIED[form])
    block = merge(folder, base, tmp_path / "merged")
    assert block["untied"]
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        assert model.lm_head.weight is not model.model.embed_tokens.weight
        difference = model(ids).logits - with_peft(folder, base)(ids).logits
    assert difference.abs().max() < 5e-3


@pytest.mark.parametrize("kind", ["mistral", "tied"])
@pytest.mark.parametrize(
    "lora", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["by itself", "as modules"]
)
def test_a_resized_vocabulary(
    kind: str, lora: dict[str, Any], make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_base(kind)
    folder = make_adapter(base=base, resize=8, **lora)
    block = merge(folder, base, tmp_path / "merged")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        size = AutoModelForCausalLM.from_pretrained(base).config.vocab_size + 8
    assert model.config.vocab_size == block["vocab_size"] == size
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == size - 8 + 1
    ids = torch.arange(size - 20, size)[None]  # the new ones too
    with torch.inference_mode():
        difference = model(ids).logits - with_peft(folder, base, size)(ids).logits
    assert difference.abs().max() < 5e-3


def test_lora_on_a_resized_embedding(make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path) -> None:
    base = make_base("mistral")
    folder = make_adapter(base=base, resize=8, target_modules=["q_proj", "embed_tokens", "lm_head"])
    block = merge(folder, base, tmp_path / "merged")
    assert_equal_to_rounding(beside_peft(folder, base, tmp_path / "merged", "mistral", block))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_and_an_adapter_in_half_precision(
    dtype: str, make_base: Callable[..., Path], make_adapter: Any, tmp_path: Path
) -> None:
    """Computed in float32 all the same: peft's merge of half-precision tensors would round twice."""
    import torch

    base = make_base("mistral", dtype=dtype)

    def halve(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()})

    folder = make_adapter(halve, base=base)
    merge(folder, base, tmp_path / "merged")
    with quiet():
        expected = with_peft(folder, base).merge_and_unload().state_dict()
    with Weights.of_model(tmp_path / "merged") as merged:
        for name, tensor in expected.items():
            assert torch.equal(merged.tensor(name), tensor.half()), name


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
RENAMED: dict[str, Callable[[str], str]] = {
    "torch.compile": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "torch.compile of each layer": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    "the adapter's name": lambda name: name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."),
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "the prefix twice": lambda name: "base_model.model." + name,
    "DistributedDataParallel": lambda name: "module." + name,
    "FSDP and checkpointing": lambda name: name.replace(
        ".layers.0.", ".layers.0._fsdp_wrapped_module._checkpoint_wrapped_module."
    ),
}


def tensors_of(folder: Path, base: Path) -> dict[str, bytes]:
    """What would be written, without a proof."""
    adapter = read_adapter(folder, base)
    with Weights.of_model(base) as weights, adapter.open() as tensors:
        merging = Merging(weights, tensors)
        return {
            name: b"".join(block.numpy().tobytes() for block in merging.fp16(name, output))
            for name, output in adapter.outputs.items()
        }


@pytest.mark.parametrize("wrapper", RENAMED)
def test_what_wrappers_leave_in_names(wrapper: str, adapter: Path, make_adapter: Any, tiny_base: Path) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        for name in [*tensors]:
            tensors[RENAMED[wrapper](name)] = tensors.pop(name)

    assert tensors_of(make_adapter(rename), tiny_base) == tensors_of(adapter, tiny_base)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.pop(name)


def add(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: tensors[f"{Q_PROJ}.lora_A.weight"].clone()})


def fill(value: float) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[f"{Q_PROJ}.lora_B.weight"][3].fill_(value)


def shorten(tensors: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_B.weight"] = tensors[f"{Q_PROJ}.lora_B.weight"][1:].clone()


def twice(tensors: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_A.default.weight"] = tensors[f"{Q_PROJ}.lora_A.weight"] + 1


REFUSED_TENSORS = {
    "of no module": (add(f"{Q_PROJ[:-6]}x_proj.lora_A.weight"), "1 tensors have no place in this base, first .*x_proj"),
    "of a wrapper that we do not know": (
        add(Q_PROJ.replace("layers", "wrapped.layers")),
        "no place in this base.*wrap",
    ),
    "a magnitude without DoRA": (add(f"{Q_PROJ}.lora_magnitude_vector"), "no place in this base.*magnitude"),
    "a head of another vocabulary": (
        add("base_model.model.lm_head.weight"),
        r"its vocabulary is 4, and model\.embed_tokens\.weight of the base has 447 rows; save it with the adapter",
    ),
    "a missing half": (
        drop(f"{Q_PROJ}.lora_B.weight"),
        r"model\.layers\.0\S+lora_B\.weight is missing, although",
    ),
    "two for a place": (twice, r"lora_A\.default\.weight and \S+lora_A\.weight belong to the same place but differ"),
    "of another shape": (
        shorten,
        r"self_attn\.q_proj\.weight: \S+lora_B\.weight is \[63, 4\], and \[64, 4\] would fit",
    ),
    "NaN": (fill(float("nan")), r"model\.layers\.0\.self_attn\.q_proj\.weight: 64 of 4,096 values are NaN"),
    "infinite": (fill(float("inf")), r"q_proj\.weight: 64 of 4,096 values are NaN or infinite"),
    "overflow": (fill(1e8), r"layers\.0\.self_attn\.q_proj\.weight: .* beyond FP16's largest value"),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS.keys())
def test_tensors_that_do_not_fit_are_refused(
    edit: Any, message: str, make_adapter: Any, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(MergeError, match=message):
        merge(make_adapter(edit), tiny_base, tmp_path / "merged")
    assert [*tmp_path.iterdir()] == []


def test_a_lora_bias_needs_a_bias(make_adapter: Any, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no bias"):  # peft's own
        folder = make_adapter(lora_bias=True)
    with pytest.raises(MergeError, match=r"lora_bias: this base has no \S+\.bias to add to"):
        merge(folder, tiny_base, tmp_path / "merged")


REFUSED_FORMS = {
    "peft_type": "LOHA",
    "init_lora_weights": "pissa",
    "trainable_token_indices": [1, 2],
    "layer_replication": [[0, 1], [0, 2]],
    "target_parameters": ["experts.gate"],
    "loftq_config": {"loftq_bits": 4},
    "alora_invocation_tokens": [3],
    "a_form_of_next_year": {"on": True},
    "r": 0,
    "lora_alpha": "16",
    "rank_pattern": {"q_proj": "two"},
    "alpha_pattern": ["q_proj"],
    "target_modules": [],
}


@pytest.mark.parametrize(("key", "value"), REFUSED_FORMS.items(), ids=REFUSED_FORMS.keys())
def test_other_forms_are_refused_by_name(key: str, value: object, adapter: Path, tmp_path: Path) -> None:
    from training.merging.adapter import read_config

    document = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(MergeError, match=key):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target_modules": ["no_such_layer"]},
            "adapter_config.json does not fit this base; peft says: Target modules",
        ),
        ({"target_modules": ["q_proj", "norm"]}, "does not fit this base; peft says: Target module MistralRMSNorm"),
        ({"use_dora": True}, r"model\.layers\.0\S+lora_magnitude_vector is missing, although"),
        ({"r": 8}, r"lora_A\.weight is \[4, 224\], and \[8, 224\] would fit"),
        ({"modules_to_save": ["lm_head"]}, r"lm_head\.weight is missing, although"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors(
    change: dict[str, Any], message: str, make_adapter: Any, tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(config=lambda document: document.update(change))
    with pytest.raises(GhostError, match=message):
        merge(folder, tiny_base, tmp_path / "merged")
    assert [*tmp_path.iterdir()] == []
