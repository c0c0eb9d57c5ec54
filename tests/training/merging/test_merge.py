"""The merge against peft's own, its refusals, and its promise to write nothing that it could not prove."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import GhostError, MergeError, UsageError
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import encode
from tests.training.merging.forms import merge
from training import config
from training.merging import proof, provenance
from training.merging.adapter import Output
from training.merging.merge import Merging
from training.merging.provenance import rope_in_both_spellings
from training.merging.weights import Weights


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
