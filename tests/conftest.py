"""Shared fixtures. Every test runs offline, on a CPU, in an empty home, on models made here."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No test, and no process that a test starts, reaches beyond this machine.
OFFLINE = Path(__file__).parent / "offline"
sys.path.insert(0, str(OFFLINE))
import loopback_only  # noqa: E402, F401

# Nor does it see what the person who runs it has: settings, tokens, models that their Hub cache holds.
PERSONAL = ("GHOST_", "HF_", "HUGGING", "MPL", "REPLICATE_", "TELEGRAM_", "TORCHINDUCTOR_", "TRANSFORMERS_", "XDG_")
for name in [name for name in os.environ if name.startswith(PERSONAL)]:
    del os.environ[name]
os.environ["HOME"] = tempfile.mkdtemp(prefix="ghost-tests-home-")
atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)

# What a shell starts in the background has these ignored, and the processes it starts have them ignored too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Matrices this small are slower on two threads than on one, nine times slower on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

# Where no name can be looked up, as in CI's network namespace, torch's processes warn that loopback has none.
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))

# A busy machine must not fail a test: nothing is timed, and the examples are the same in every run.
settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")

from tests import models  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def shared_models_stay_as_they_are() -> Iterator[None]:
    yield
    assert not (found := models.changed()), f"a test has written to {found}; it must copy what it changes"


@pytest.fixture(scope="session")
def tiny_base() -> Path:
    """A base folder with random weights (hidden 64, 2 layers): right shapes, right tokenizer, knows nothing."""
    return models.shared("tiny-base", models.write_tiny_base)


@pytest.fixture(scope="session")
def tiny_merged(tiny_base: Path) -> Path:
    """A merged folder as `ghost merge` writes it, from the tiny base: servable, and talking rubbish."""
    return models.shared("tiny-merged", lambda folder: models.write_tiny_merged(folder, tiny_base))
