"""Shared fixtures. Every test runs offline, on a CPU, on models made here."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# No test, and no process that a test starts, reaches beyond this machine.
OFFLINE = Path(__file__).parent / "offline"
sys.path.insert(0, str(OFFLINE))
import loopback_only  # noqa: E402, F401

# Matrices this small are slower on two threads than on one, nine times slower on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))

# A busy machine must not fail a test: nothing is timed, and the examples are the same in every run.
settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")

SENTENCES = [
    "hey tu fais quoi ce soir",
    "pas grand chose, I was about to cook something",
    "on se voit at the café then 😂",
    "mdr ok see you there <3",
    "did you see the match? c'était dingue",
]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder with random weights (hidden 64, 2 layers): right shapes, right tokenizer, knows nothing."""
    return write_tiny_base(tmp_path_factory.mktemp("models") / "tiny-base")


@pytest.fixture(scope="session")
def tiny_merged(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged folder as `ghost merge` writes it, from the tiny base: servable, and talking rubbish."""
    return write_tiny_merged(tmp_path_factory.mktemp("models") / "tiny-merged", tiny_base)


def write_tiny_base(folder: Path) -> Path:
    from training.sample import starter

    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    model = starter.make_model(tokenizer, seed=0, hidden=64, layers=2, heads=4)
    starter.save_base(folder, model, tokenizer)
    return folder


def write_tiny_merged(folder: Path, base: Path) -> Path:
    from dataclasses import asdict

    import torch
    from transformers import AutoModelForCausalLM

    from replicate_deployment import golden
    from replicate_deployment.chat_format import DEFAULT_LABELS, chat_template
    from replicate_deployment.settings import Settings
    from replicate_deployment.tokenization import load_tokenizer
    from training import artifact

    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = chat_template(DEFAULT_LABELS, recipe="windows")
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16)
    model.save_pretrained(folder)
    labels = {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other}
    artifact.write(
        folder,
        None,
        text={"labels": labels, "recipe": "windows", "stop_sequences": DEFAULT_LABELS.stop_sequences},
        data={"counts": {"messages": 0}, "train_sha256": "", "val_sha256": ""},
        base={"repo": str(base), "revision": None},
        training={"steps": 0},
        merge={"dtype": "float16"},
        sampling=asdict(Settings()),
        golden=golden.record(model.float(), tokenizer, DEFAULT_LABELS),
    )
    return folder
