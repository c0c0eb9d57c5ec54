"""The merge against peft's own, its refusals, and its promise to write nothing that it could not prove."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import GhostError, MergeError, UsageError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.tokenization import encode, load_tokenizer, template_for
from scripts import merge_lora_fp16
from scripts.merge_lora_fp16 import Choices
from tests.training.merging.conftest import Recipe
from tests.training.merging.forms import merge, quiet
from training import config
from training.merging import proof, provenance
from training.merging import weights as reading
from training.merging.adapter import Output, read_adapter, read_config
from training.merging.merge import Merging, Nf4Weights
from training.merging.provenance import rope_in_both_spellings
from training.merging.weights import Weights, row_blocks


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    assert 0 < proof["parity"]["mean_abs_logprob"] < proof["parity"]["limit"]
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


def test_transformers_4_finds_what_it_knows(merged: Path) -> None:
    """Loaded there too, by hand: equal ids and logits in 4.57.6. Here, what that rests on."""
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1e6
    assert config["torch_dtype"] == "float16"
    tokenizer = json.loads((merged / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    ("config", "old", "new"),
    [
        ({"rope_theta": 5e5}, {"rope_theta": 5e5}, {"rope_type": "default"}),
        ({"rope_theta": 5e5, "rope_scaling": None}, {"rope_theta": 5e5}, {"rope_type": "default"}),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            {"rope_theta": 5e5},
            {"rope_type": "default"},
        ),
        ({"rope_parameters": {**YARN, "rope_theta": 5e5}}, {"rope_theta": 5e5, "rope_scaling": YARN}, YARN),
        ({"rope_theta": 5e5, "rope_scaling": YARN}, {"rope_theta": 5e5, "rope_scaling": YARN}, YARN),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            {"rope_type": "linear", "factor": 2.0},
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5}},
            {"rope_theta": 5e5, "partial_rotary_factor": 0.5},
            {"rope_type": "default", "partial_rotary_factor": 0.5},
        ),
    ],
)
def test_the_rotary_embedding_is_spelled_for_both(
    config: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    from transformers import LlamaConfig

    found = rope_in_both_spellings(config)
    assert found == old | {"rope_parameters": new | {"rope_theta": 5e5}}
    assert rope_in_both_spellings(config | found) == found
    # Read with both, as it would be read with its own alone.
    shape = {"max_position_embeddings": 4096}
    both, own = (LlamaConfig(**shape, **keys).rope_parameters for keys in (config | found, config))
    assert both == {key: value for key, value in own.items() if key != "type"}  # the name before rope_type


@pytest.mark.parametrize("config", [{}, {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}])
def test_what_has_no_older_spelling_stays_as_it_is(config: dict[str, Any]) -> None:
    assert rope_in_both_spellings(config) == {}


def test_a_second_run_is_byte_identical(merged: Path, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    merge(adapter, tiny_base, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(merged)


def test_an_untrained_adapter_is_refused(
    make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def untrained(tensors: dict[str, Any]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name] *= 0

    folder = make_adapter(untrained)
    capsys.readouterr()  # what libraries say when they are imported first here
    assert main(["merge", str(folder), "--base", str(tiny_base), "--out", str(tmp_path / "merged")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ghost merge: {folder}: all 14 B matrices are 0, so it was never trained")
    assert not (tmp_path / "merged").exists()
    # A head of its own is something learnt.
    folder = make_adapter(untrained, modules_to_save=["lm_head"])
    assert main(["merge", str(folder), "--base", str(tiny_base), "--out", str(tmp_path / "merged")]) == 0


def test_the_current_folder_can_be_the_adapter(
    adapter: Path, merged: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapter)
    assert main(["merge", ".", "--base", str(tiny_base), "--out", str(tmp_path / "merged")]) == 0
    assert snapshot(tmp_path / "merged") == snapshot(merged)


def test_of_a_whole_run_of_the_trainer_one_checkpoint_is_named(
    adapter: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (40, 200, 120):
        shutil.copytree(adapter, tmp_path / "run" / f"checkpoint-{step}")
    assert main(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "merged")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no adapter here, only in 3 checkpoints" in line
    assert line.endswith(f"ghost merge {tmp_path / 'run' / 'checkpoint-200'}")


def test_the_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    from ghost.demo import starter
    from tests.models import SENTENCES

    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    starter.save_base(
        tmp_path / "other", starter.make_model(tokenizer, seed=1, hidden=64, layers=2, heads=4), tokenizer
    )
    with pytest.raises(MergeError, match=r"adapter of another base: .* trained on tiny-base .* this is other"):
        merge(adapter, tmp_path / "other", tmp_path / "merged")


def test_a_local_base_is_found_where_training_found_it(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    recipe = config.load(Path(__file__).parents[3] / config.DEFAULT_PATH)
    written = config.dump(dataclasses.replace(recipe, base_model=str(tiny_base), revision_of_model=None))
    (tmp_path / "adapter" / "training_config.yaml").write_text(written)
    assert provenance.find_base(ghost_json.read(tmp_path / "adapter"), None).folder == tiny_base


def test_a_local_base_that_moved_must_be_named(adapter: Path) -> None:
    with pytest.raises(UsageError, match="--base PATH"):
        provenance.find_base(ghost_json.read(adapter), None)


@pytest.mark.parametrize("broken", ["arithmetic", "parity"])
def test_a_failing_proof_leaves_the_old_model(
    broken: str, monkeypatch: pytest.MonkeyPatch, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge(adapter, tiny_base, out)
    before = snapshot(out)
    if broken == "arithmetic":
        honest = Merging.float32

        def rounded_twice(self: Merging, output: Output) -> Iterator[Any]:
            for block in honest(self, output):
                yield block.bfloat16().float()

        monkeypatch.setattr(Merging, "float32", rounded_twice)
        message = r"embed_tokens.*values are not fp16\(W \+ s·B·A\)|lm_head"
    else:
        monkeypatch.setattr(proof, "ALLOWED", 0.01)
        message = r"not base \+ adapter: mean \|Δlogp\| .* allowed, 0.01 times"
    with pytest.raises(MergeError, match=message):
        merge(adapter, tiny_base, out)
    assert snapshot(out) == before
    assert [*tmp_path.iterdir()] == [out]


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


# What 4 bits leave of a base is what training holds, to the bit.


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


# `ghost merge --keep-adapter`: a folder that peft loads as it is; what vLLM's loader would refuse is refused here.


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


def test_it_holds_what_an_engine_reads_and_no_more(
    kept: tuple[Path, Path, str], adapter: Path, tiny_base: Path
) -> None:
    _, out, _ = kept
    names = {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "ghost.json"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    # peft wrote a path, and vLLM's resolver takes no adapter whose base is not named as `vllm serve` names it.
    named = {"base_model_name_or_path": tiny_base.name, "revision": None}
    assert json.loads((out / "adapter_config.json").read_text()) == read_config(adapter) | named
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
    ],
)
def test_a_form_that_an_engine_does_not_take_is_named(lora: dict[str, object], told: str, adapter: Path) -> None:
    import re

    (found,) = provenance.refusals(read_config(adapter) | lora, ())
    assert re.search(told, found)


def test_what_training_writes_is_taken(adapter: Path) -> None:
    provenance.check_keepable(adapter)


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
    assert provenance.refusals(read_config(adapter), [name]) == [f"a tensor named {name}"]


def test_it_is_refused_before_the_work(
    make_adapter: Recipe, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dora = make_adapter(use_dora=True)
    flags = ["--base", str(tiny_base), "--out", str(tmp_path / "merged"), "--keep-adapter", str(tmp_path / "kept")]
    assert main(["merge", str(dora), *flags]) == 1
    assert "vLLM cannot serve this adapter: use_dora = True" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
