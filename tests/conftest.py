"""Shared fixtures. Every test runs offline, on a CPU, on models made here."""

import os
import sys
from pathlib import Path

import pytest

# No test, and no process that a test starts, reaches beyond this machine.
OFFLINE = Path(__file__).parent / "offline"
sys.path.insert(0, str(OFFLINE))
import loopback_only  # noqa: E402, F401

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))

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
    from training.sample import starter

    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    model = starter.make_model(tokenizer, seed=0, hidden=64, layers=2, heads=4)
    folder = tmp_path_factory.mktemp("models") / "tiny-base"
    starter.save_base(folder, model, tokenizer)
    return folder
