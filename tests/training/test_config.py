import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from ghost.errors import ConfigError
from tests.schemas import ask, needs
from tests.training.conftest import RECIPE_OF_RECORD
from training import config as training_config
from training.config import TrainingConfig

# Read in Axolotl 0.19.0, src/axolotl/utils/schemas/: where each key of ours is a field. Of the first run of the test
# below: Axolotl 0.19.0, pydantic 2.14.3, transformers 5.23.0, torch 2.13.0+cpu.
AXOLOTL = {
    "model.py": {"base_model", "output_dir"},
    "deprecated.py (RemappedParameters, not deprecated)": {"revision_of_model"},
    "peft.py": {
        "load_in_4bit",
        "bnb_config_kwargs",
        "adapter",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
    },
    "training.py": {
        "train_on_inputs",
        "micro_batch_size",
        "gradient_accumulation_steps",
        "num_epochs",
        "optimizer",
        "learning_rate",
        "lr_scheduler",
        "weight_decay",
        "max_grad_norm",
    },
    "config.py": {
        "bf16",
        "datasets",
        "test_datasets",
        "sequence_len",
        "warmup_ratio",
        "evals_per_epoch",
        "load_best_model_at_end",
        "early_stopping_patience",
        "gradient_checkpointing",
        "seed",
        "logging_steps",
    },
}
AXOLOTL_DATASET = {"path", "split", "type"}  # datasets.py, SFTDataset
OURS = {"goldfish_k", "micro_batch_tokens", "collapse_nested_windows", "checkpoint_minutes", "sample_replies"}

# What Axolotl itself validates with, by the card it trains on: an H100 with torch 2.11, its lowest. Prints what it
# understood of each file, or why it refuses it.
VALIDATE = """
import json, sys
import yaml
from axolotl.utils.schemas.config import AxolotlConfigWCapabilities
card = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_90"}
for path in sys.argv[1:]:
    document = yaml.safe_load(open(path, encoding="utf-8"))
    try:
        config = AxolotlConfigWCapabilities(**document, capabilities=card, env_capabilities={"torch_version": "2.11.0"})
        print(json.dumps(config.model_dump(mode="json")))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def changed(tmp_path: Path, **changes: object) -> Path:
    document = yaml.safe_load(RECIPE_OF_RECORD.read_text(encoding="utf-8")) | changes
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_the_recipe_of_record(recipe: TrainingConfig) -> None:
    assert recipe.base_model == "mistralai/Mistral-7B-v0.3"
    assert (recipe.adapter, recipe.load_in_4bit, recipe.bnb_config_kwargs.bnb_4bit_quant_type) == ("qlora", True, "nf4")
    assert (recipe.lora_r, recipe.lora_alpha, recipe.lora_dropout) == (16, 32, 0.05)
    assert recipe.lora_target_modules == tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    assert (recipe.sequence_len, recipe.micro_batch_size, recipe.gradient_accumulation_steps) == (1024, 1, 64)
    assert (recipe.learning_rate, recipe.lr_scheduler, recipe.num_epochs) == (5e-5, "cosine", 8)
    assert (recipe.bf16, recipe.train_on_inputs) == (True, True)


def test_every_key_is_one_of_axolotls() -> None:
    document = yaml.safe_load(RECIPE_OF_RECORD.read_text(encoding="utf-8"))
    assert set(document) == OURS.union(*AXOLOTL.values())
    assert {key for dataset in document["datasets"] for key in dataset} == AXOLOTL_DATASET


@needs("axolotl")
def test_axolotls_own_schema_takes_the_file(tmp_path: Path) -> None:
    """It understands every value but those of our own keys, which it passes over; and it can say no."""
    refused = changed(tmp_path, early_stopping_patience=3)
    done = ask(VALIDATE, str(RECIPE_OF_RECORD), str(refused), home=tmp_path)
    assert done.returncode == 0, done.stderr
    understood, refusal = map(json.loads, done.stdout.splitlines()[-2:])
    assert isinstance(understood, dict), understood
    assert not OURS & set(understood)
    document = yaml.safe_load(RECIPE_OF_RECORD.read_text(encoding="utf-8"))
    for key in set(document) - OURS - {"datasets", "test_datasets"}:
        assert understood[key] == document[key], key
    for key in ("datasets", "test_datasets"):
        (found,), (asked,) = understood[key], document[key]
        assert {name: found[name] for name in asked} == asked
    assert "`early_stopping_patience` requires save_steps and eval_steps" in refusal


def test_a_dumped_config_reads_back_equal(tmp_path: Path, recipe: TrainingConfig) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(training_config.dump(recipe), encoding="utf-8")
    assert training_config.load(path) == recipe


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = RECIPE_OF_RECORD.read_text(encoding="utf-8").replace("learning_rate: 0.00005", "learning_rate: 5e-5")
    path.write_text(text, encoding="utf-8")
    assert yaml.safe_load(text)["learning_rate"] == "5e-5"
    assert training_config.load(path).learning_rate == 5e-5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lora_alfa": 32}, "unknown key lora_alfa; did you mean lora_alpha?"),
        ({"bnb_config_kwargs": {"bnb_4bit_quant_typ": "nf4"}}, "did you mean bnb_config_kwargs.bnb_4bit_quant_type?"),
        ({"bnb_config_kwargs": {"bnb_4bit_quant_type": "nf4"}}, "missing key bnb_config_kwargs.bnb_4bit_use_double"),
        ({"wandb": 1}, "unknown key wandb"),
        ({"lora_r": "16"}, "lora_r: expected a whole number, found '16'"),
        ({"lora_r": True}, "lora_r: expected a whole number, found True"),
        ({"lora_r": 0}, "lora_r: expected a whole number >= 1, found 0"),
        ({"bf16": "auto"}, "bf16: expected true or false"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number, found 'fast'"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number"),
        ({"learning_rate": True}, "learning_rate: expected a number"),
        ({"adapter": "dora"}, "adapter: 'dora' is not one of qlora, lora"),
        ({"adapter": "lora"}, "load_in_4bit: true conflicts with adapter: lora"),
        ({"load_in_4bit": False}, "load_in_4bit: false conflicts with adapter: qlora"),
        ({"lora_target_modules": []}, "lora_target_modules: expected a list of length >= 1, found an empty list"),
        ({"lora_target_modules": "q_proj"}, "lora_target_modules: expected a list"),
        ({"lora_dropout": 1.0}, "lora_dropout: expected a number < 1.0, found 1.0"),
        ({"weight_decay": -0.1}, "weight_decay: expected a number >= 0.0, found -0.1"),
        ({"seed": -1}, "seed: expected a whole number >= 0, found -1"),
        ({"micro_batch_tokens": "all"}, "micro_batch_tokens: 'all' is not one of auto or a number"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens: expected a whole number >= 1, found 0"),
        ({"micro_batch_tokens": None}, "micro_batch_tokens: expected a whole number or text, found nothing"),
        ({"goldfish_k": 1}, "goldfish_k: expected a whole number >= 2, found 1"),
        ({"early_stopping_patience": 0}, "early_stopping_patience: expected a whole number >= 1, found 0"),
        ({"gradient_checkpointing": "auto"}, "gradient_checkpointing: expected true or false"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes: expected a number > 0.0, found 0"),
        ({"group_by_length": True}, "unknown key group_by_length"),
        ({"sequence_len": 8}, "sequence_len: expected a whole number >= 16, found 8"),
        ({"datasets": [{"path": "a", "split": "train", "type": "alpaca"}]}, "datasets[0].type: 'alpaca' is not one of"),
        (
            {"datasets": [{"path": "elsewhere/t.jsonl", "split": "train", "type": "completion"}]},
            "must be in the same folder",
        ),
        ({"datasets": ["train.jsonl"]}, "datasets[0]: expected keys, found 'train.jsonl'"),
    ],
)
def test_what_cannot_be_is_refused_by_key_and_file(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    path = changed(tmp_path, **changes)
    with pytest.raises(ConfigError) as refusal:
        training_config.load(path)
    assert complaint in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_decided_later_may_be_decided_here(tmp_path: Path, recipe: TrainingConfig) -> None:
    decided = {"micro_batch_tokens": 4096, "early_stopping_patience": 3, "gradient_checkpointing": False}
    assert training_config.load(changed(tmp_path, **decided)) == dataclasses.replace(recipe, **decided)  # type: ignore[arg-type]


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(RECIPE_OF_RECORD.read_text(encoding="utf-8").replace("\nseed: 42", "\n#"), encoding="utf-8")
    with pytest.raises(ConfigError, match="missing key seed"):
        training_config.load(path)


@pytest.mark.parametrize(
    ("text", "complaint"), [("a: [", "line 1: not YAML"), ("", "expected keys, found nothing"), ("- a", "found a list")]
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        training_config.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        training_config.load(tmp_path / "none.yaml")
