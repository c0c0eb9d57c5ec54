"""Other projects' loaders, asked what they make of our files: each in a process of its own, offline.

They lie in a folder apart (`schemas.txt` says how they get there), so that their pins are not ours.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "schemas"


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where the package is not installed."""
    missing = not (FOLDER / package).is_dir()
    return pytest.mark.skipif(missing, reason=f"{package} is not in {FOLDER}: see the head of tests/schemas.txt")


def ask(program: str, *arguments: str, home: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a Python program that can import them. `home` is where they may write; neither reports home."""
    path = os.pathsep.join([str(FOLDER), os.environ["PYTHONPATH"]])
    quiet = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    env = {**os.environ, **quiet, "PYTHONPATH": path, "HOME": str(home)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling SkyPilot takes longer than all it does here
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=env,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
