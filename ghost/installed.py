"""What ships with ghost, in a clone or a wheel: its default configs, and the command that installs extras.

`ghost init` copies the configs that people edit to ./config. A file there takes precedence over ghost's own.
"""

import argparse
import os
import shlex
from pathlib import Path

from ghost.console import console

FOLDER = Path("config")
_ROOT = Path(__file__).parents[1]
_WHEEL = _ROOT / "ghost_config"  # name of config/ inside a wheel: pyproject.toml, package-dir
CLONE = None if _WHEEL.is_dir() else _ROOT
SHIPPED = _WHEEL if CLONE is None else _ROOT / FOLDER

# File that `ghost init` writes → the shipped file it copies.
EDITED = {
    "training_config.yaml": "training_config.yaml",
    "preferences.yaml": "preferences.yaml",
    "bases.yaml": "bases.yaml",
    "gpu_prices.yaml": "gpu_prices.yaml",
    "user_config.json": "user_config.example.json",
    "bot.yaml": "bot.example.yaml",
    "accelerate/ddp.yaml": "accelerate/ddp.yaml",
    "accelerate/fsdp.yaml": "accelerate/fsdp.yaml",
}


def config_file(name: str) -> Path:
    """config/NAME in the current folder if it exists, else the one that ships with ghost."""
    here = FOLDER / name
    return here if here.exists() else SHIPPED / name


def install_command(extras: str = "") -> str:
    """The command that installs ghost with these extras of pyproject.toml, such as "train" or "train,serve".

    Outside a clone, pip keeps the installed wheel and adds the extra's packages; the name need not be on an index.
    """
    wanted = f"[{extras}]" if extras else ""
    if CLONE is None:
        return f"pip install {shlex.quote(f'ghost-in-the-shell{wanted}')}"
    where = "." if Path.cwd() == CLONE else str(CLONE)
    return f"pip install -e {shlex.quote(where + wanted)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Never overwrites a file. Without these files every verb uses the defaults that ship with ghost."


def run(args: argparse.Namespace) -> int:
    for name, source in EDITED.items():
        target = FOLDER / name
        if target.exists():
            console.print(f"kept     {target}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes((SHIPPED / source).read_bytes())
        os.replace(part, target)
        console.print(f"written  {target}")
    console.print(f"next     put your names into {FOLDER / 'user_config.json'}, then: ghost extract PATH")
    return 0
