"""The merge against peft's own, its refusals, and its promise to write nothing that it could not prove."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicate_deployment import ghost_json
from replicate_deployment.tokenization import encode
from scripts import merge_lora_fp16, parity
from scripts.weights import Weights, plan_shards
from training.cli import main
from training.errors import GhostError, MergeError, UsageError
from training.finetuning import config

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def merge(adapter: Path, base: Path, out: Path) -> dict[str, Any]:
    ghost = ghost_json.read(adapter)
    return merge_lora_fp16.merge(ghost, merge_lora_fp16.find_base(ghost, str(base)), out)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("lora", "scale"), [({}, 6 / 4), ({"use_rslora": True}, 6 / math.sqrt(4))])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_equals_pefts_own_merge_bit_for_bit(
    lora: dict[str, Any], scale: float, make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = make_adapter(**lora)
    block = merge(folder, tiny_base, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    with Weights.of_model(tmp_path / "merged") as merged:
        assert set(merged.shapes) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(merged.tensor(name), tensor.half()), name
    assert block["scale"] == scale


def test_every_tensor_is_f16_and_the_adapter_moved_only_its_targets(merged: Path, tiny_base: Path) -> None:
    import torch

    with Weights.of_model(merged) as after, Weights.of_model(tiny_base) as before:
        assert set(after.dtypes.values()) == {"F16"}
        moved = {n for n in after.shapes if not torch.equal(after.tensor(n), before.tensor(n).half())}
    assert len(moved) == 2 * 7
    assert all("_proj" in name for name in moved)


def test_ghost_json_carries_the_chain(merged: Path, adapter: Path) -> None:
    before, after = ghost_json.read(adapter), ghost_json.read(merged)
    ghost_json.verify(after)
    for name in ("text", "data", "base", "training"):
        assert after.facts[name] == before.facts[name]
    assert after.block("merge")["adapter_sha256"] == before.block("files")["adapter_model.safetensors"]["sha256"]
    proof = after.block("merge")
    assert 0 < proof["parity"]["mean_abs_logprob"] < proof["parity"]["limit"] < proof["nf4"]["mean_abs_logprob"]
    assert proof["arithmetic"]["tensors"] == len(
        json.loads((merged / "model.safetensors.index.json").read_text())["weight_map"]
    )
    assert after.block("golden")["ids"]


def test_transformers_reads_the_folder(merged: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(merged)
    assert model.dtype == torch.float16
    generation = GenerationConfig.from_pretrained(merged)
    assert (generation.do_sample, generation.temperature, generation.eos_token_id) == (True, 0.7, 2)
    assert generation.stop_strings is None
    tokenizer = AutoTokenizer.from_pretrained(merged)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hey"}], add_generation_prompt=True)
    assert chat["input_ids"] == encode(tokenizer, "B: hey\nA:").ids


def test_a_second_run_is_byte_identical(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    merge(adapter, tiny_base, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(merged)


def test_shards_hold_what_one_file_holds(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    import torch

    ghost = ghost_json.read(adapter)
    base = merge_lora_fp16.find_base(ghost, str(tiny_base))
    merge_lora_fp16.merge(ghost, base, tmp_path / "sharded", shard_bytes=100_000)
    names = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    with Weights.of_model(merged) as one, Weights.of_model(tmp_path / "sharded") as many:
        assert set(one.shapes) == set(many.shapes)
        assert all(torch.equal(one.tensor(name), many.tensor(name)) for name in one.shapes)


def test_a_shard_is_filled_but_not_over() -> None:
    shapes = {"a": [10], "b": [10], "c": [30], "d": [1]}
    assert plan_shards(shapes, shard_bytes=40) == [["a", "b"], ["c"], ["d"]]


def test_the_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    from tests.conftest import SENTENCES
    from training.sample import starter

    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    starter.save_base(
        tmp_path / "other", starter.make_model(tokenizer, seed=1, hidden=64, layers=2, heads=4), tokenizer
    )
    with pytest.raises(MergeError, match=r"adapter of another base: .* trained on tiny-base .* this is other"):
        merge(adapter, tmp_path / "other", tmp_path / "merged")


def test_a_local_base_is_found_where_training_found_it(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    recipe = config.load(Path(__file__).parents[2] / config.DEFAULT_PATH)
    written = config.dump(dataclasses.replace(recipe, base_model=str(tiny_base), revision_of_model=None))
    (tmp_path / "adapter" / "training_config.yaml").write_text(written)
    assert merge_lora_fp16.find_base(ghost_json.read(tmp_path / "adapter"), None).folder == tiny_base


def test_a_local_base_that_moved_must_be_named(adapter: Path) -> None:
    with pytest.raises(UsageError, match="--base PATH"):
        merge_lora_fp16.find_base(ghost_json.read(adapter), None)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.pop(name)


def add(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: tensors[f"{Q_PROJ}.lora_A.weight"].clone()})


def fill(value: float) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[f"{Q_PROJ}.lora_B.weight"][3].fill_(value)


def shorten(tensors: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_B.weight"] = tensors[f"{Q_PROJ}.lora_B.weight"][1:].clone()


def drop_pair(tensors: dict[str, Any]) -> None:
    for half in "AB":
        del tensors[f"{Q_PROJ}.lora_{half}.weight"]


REFUSED_TENSORS = {
    "a tensor of no module": (add("base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight"), "x_proj"),
    "a whole module": (add("base_model.model.lm_head.weight"), "1 tensors have no place in this base, first .*lm_head"),
    "a wrapper's prefix": (
        add(Q_PROJ.replace("model.model.", "model._orig_mod.model.") + ".lora_A.weight"),
        "no place in this base.*_orig_mod",
    ),
    "a half pair": (drop(f"{Q_PROJ}.lora_B.weight"), r"q_proj\.lora_B\.weight is missing"),
    "a target without a pair": (
        drop_pair,
        r"1 weights .* targets have no factors, first .*layers\.0\.self_attn\.q_proj",
    ),
    "another shape": (shorten, r"q_proj.*W is \[64, 64\], A is \[4, 64\], B is \[63, 4\]"),
    "NaN": (fill(math.nan), r"model\.layers\.0\.self_attn\.q_proj\.weight: 64 of 4,096 values are NaN"),
    "overflow": (fill(1e8), r"layers\.0\.self_attn\.q_proj\.weight: .* beyond FP16's largest value"),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS.keys())
def test_tensors_that_do_not_fit_are_refused(
    edit: Any, message: str, make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(edit)
    with pytest.raises(MergeError, match=message):
        merge(folder, tiny_base, tmp_path / "merged")
    assert [*tmp_path.iterdir()] == []


REFUSED_FORMS = {
    "use_dora": True,
    "modules_to_save": ["lm_head"],
    "bias": "all",
    "lora_bias": True,
    "rank_pattern": {"q_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "fan_in_fan_out": True,
    "init_lora_weights": "pissa",
    "peft_type": "LOHA",
    "a_form_of_next_year": {"on": True},
}


@pytest.mark.parametrize(("key", "value"), REFUSED_FORMS.items(), ids=REFUSED_FORMS.keys())
def test_other_forms_of_adapter_are_refused_by_name(
    key: str, value: object, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    from scripts.adapter import open_adapter

    document = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(document | {key: value}))
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    refused = pytest.raises(MergeError, match=f"{key}: .*only plain LoRA")
    with Weights.of_model(tiny_base) as base, refused, open_adapter(tmp_path, base):
        pass


@pytest.mark.parametrize("broken", ["arithmetic", "parity"])
def test_a_failing_proof_leaves_the_old_model(
    broken: str, monkeypatch: pytest.MonkeyPatch, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge(adapter, tiny_base, out)
    before = snapshot(out)
    if broken == "arithmetic":
        honest = merge_lora_fp16._merged

        def rounded_twice(*parts: Any) -> Callable[[str], Any]:
            import torch

            return lambda name: honest(*parts)(name).to(torch.bfloat16).half()

        monkeypatch.setattr(merge_lora_fp16, "_merged", rounded_twice)
        message = r"embed_tokens.*values checked are not fp16\(W \+ s·B·A\)|lm_head"
    else:
        monkeypatch.setattr(parity, "LIMIT", 1e-9)
        message = r"not the trained one: mean \|Δlogp\| .* 1e-09 allowed"
    with pytest.raises(MergeError, match=message):
        merge(adapter, tiny_base, out)
    assert snapshot(out) == before
    assert [*tmp_path.iterdir()] == [out]


def test_one_changed_value_fails_the_arithmetic(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    from scripts.adapter import open_adapter

    shutil.copytree(merged, tmp_path / "changed")
    shard = tmp_path / "changed" / "model-00001-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-2] ^= 1  # the last bit of the last value of the last tensor, the final norm
    shard.write_bytes(content)
    with Weights.of_model(tiny_base) as base, open_adapter(adapter, base) as factors:
        assert parity.check_arithmetic(base, factors, merged, seed=0).tensors == len(base.shapes)
        with pytest.raises(MergeError, match=r"model\.norm\.weight: 1 of 64 values"):
            parity.check_arithmetic(base, factors, tmp_path / "changed", seed=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rank", [1, 16])
def test_one_unit_in_the_last_place_is_noticed(rank: int, dtype: str, tmp_path: Path) -> None:
    """Whatever the base's dtype; but for the few values where float32 itself is not that exact."""
    import torch
    from safetensors.torch import save_file

    from scripts.adapter import Adapter
    from scripts.weights import write_shards

    torch.manual_seed(rank)
    (tmp_path / "base").mkdir()
    (tmp_path / "merged").mkdir()
    w = torch.randn(48, 32).to(getattr(torch, dtype))
    save_file({"x.weight": w}, tmp_path / "base" / "model.safetensors")
    factors = {
        f"base_model.model.x.lora_{half}.weight": torch.randn(shape)
        for half, shape in (("A", (rank, 32)), ("B", (48, rank)))
    }
    save_file(factors, tmp_path / "adapter.safetensors")
    with Weights.of_model(tmp_path / "base") as base, Weights([tmp_path / "adapter.safetensors"]) as ab:
        adapter = Adapter(rank, 0.3, frozenset({"x.weight"}), ab)
        honest = merge_lora_fp16._merged(base, adapter, lambda: None)("x.weight")
        for target in (torch.inf, -torch.inf):
            moved = torch.nextafter(honest, torch.full_like(honest, target))
            write_shards(tmp_path / "merged", base.shapes, lambda name, moved=moved: moved)
            with pytest.raises(MergeError, match=r"x\.weight: ([\d,]+) of 1,536 values") as refused:
                parity.check_arithmetic(base, adapter, tmp_path / "merged", seed=0)
            noticed = int(str(refused.value).split()[1].replace(",", ""))
            assert noticed > 0.95 * honest.numel()
        write_shards(tmp_path / "merged", base.shapes, lambda name: honest)
        assert parity.check_arithmetic(base, adapter, tmp_path / "merged", seed=0).values_checked == honest.numel()


def test_a_folder_that_no_merge_wrote_is_not_replaced(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").write_text("mine")
    for out in (tmp_path / "home", tmp_path / "home" / "diary.txt", adapter):
        before = [*tmp_path.rglob("*")]
        with pytest.raises(GhostError) as caught:
            merge(adapter, tiny_base, out)
        assert caught.value.exit_code == 2
        assert [*tmp_path.rglob("*")] == before


def test_a_changed_adapter_is_refused_on_the_command_line(
    make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter()
    with (folder / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    assert main(["merge", str(folder), "--base", str(tiny_base), "--out", str(tmp_path / "merged")]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_json_is_all_that_is_printed(
    adapter: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert main(["merge", str(adapter), "--base", str(tiny_base), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["merge"] == ghost_json.read(out).block("merge")
