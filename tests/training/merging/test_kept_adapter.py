"""`ghost merge --keep-adapter`: a folder that peft loads as it is; what vLLM's loader would refuse is refused here."""

import json
from pathlib import Path

import pytest

from ghost.cli import main
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import load_tokenizer, template_for
from tests.training.merging.conftest import Recipe
from training.merging import provenance
from training.merging.adapter import read_config


@pytest.fixture(scope="module")
def kept(adapter: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The merged model, the kept adapter, and what was printed."""
    folder = tmp_path_factory.mktemp("kept")
    merged, out = folder / "merged", folder / "noa"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("ghost.console.console.print", lambda text="", **_: lines.append(str(text)))
        flags = ["--base", str(tiny_base), "--out", str(merged), "--keep-adapter", str(out)]
        assert main(["merge", str(adapter), *flags]) == 0
    return merged, out, "\n".join(lines)


def test_it_holds_what_an_engine_reads_and_no_more(kept: tuple[Path, Path, str], adapter: Path) -> None:
    _, out, _ = kept
    names = {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "ghost.json"}
    assert {path.name for path in out.iterdir()} == names
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert (out / "chat_template.jinja").read_text() == template_for(load_tokenizer(adapter), DEFAULT_LABELS, "windows")
    ghost = ghost_json.read(out)
    ghost_json.verify(ghost)
    assert ghost.stop_sequences == DEFAULT_LABELS.stop_sequences


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft looks at every attribute
def test_peft_loads_it_and_says_what_the_merged_model_says(kept: tuple[Path, Path, str], tiny_base: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged, out, _ = kept
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.inference_mode():
        base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        before = base(ids).logits
        ours = PeftModel.from_pretrained(base, out).eval()(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    assert (ours - theirs).abs().max() < 0.1 * (ours - before).abs().max()


def test_the_merge_prints_what_other_servers_must_be_sent(kept: tuple[Path, Path, str]) -> None:
    stops = json.dumps(DEFAULT_LABELS.stop_sequences)
    assert f'must be sent "stop": {stops}' in kept[2]


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"r": 1024}, "r = 1024, of at most 512"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_a_form_that_an_engine_does_not_take_is_named(lora: dict[str, object], told: str, adapter: Path) -> None:
    import re

    (found,) = provenance.refusals(read_config(adapter) | lora, provenance.names_of(adapter))
    assert re.search(told, found)


def test_what_training_writes_is_taken(adapter: Path) -> None:
    assert provenance.refusals(read_config(adapter), provenance.names_of(adapter)) == []


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model._orig_mod.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
    ],
)
def test_a_tensor_that_an_engine_does_not_know_is_named(name: str, adapter: Path) -> None:
    names = [*provenance.names_of(adapter), name]
    assert provenance.refusals(read_config(adapter), names) == [f"a tensor named {name}"]


def test_it_is_refused_before_the_work(
    make_adapter: Recipe, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dora = make_adapter(use_dora=True)
    flags = ["--base", str(tiny_base), "--out", str(tmp_path / "merged"), "--keep-adapter", str(tmp_path / "kept")]
    assert main(["merge", str(dora), *flags]) == 1
    assert "vLLM cannot serve this adapter: use_dora = True" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
