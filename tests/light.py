"""One interpreter with no more than the core install, in which the verbs are called in turn.

What is core is read from pyproject.toml and from what its dependencies depend on, so that no list here grows stale. The
interpreter is the harshest that people have: its output knows cp1252 only, as a pipe's on Windows does; it skips
`assert`; and a file of ours that is opened without an encoding is an error.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = ("ghost", "replicate_deployment", "scripts", "telegram_bot", "training")

CALLS = r"""
import json, sys, warnings
installed, blocked, calls, ours = json.loads(sys.argv[1])
warnings.filterwarnings("ignore", category=EncodingWarning)
warnings.filterwarnings("error", category=EncodingWarning, module=rf"({ours})\b")
from ghost import cli
codes = []
for call in [["--help"], *calls]:
    try:
        codes.append(cli.main(call))
    except SystemExit as stop:
        codes.append(stop.code)
    if not sys.modules.keys() & set(blocked):
        loaded = sorted(sys.modules.keys() & set(installed))
    sys.modules.update(dict.fromkeys(blocked))
    for stream in (sys.stdout, sys.stderr):
        stream.write("\0")
        stream.flush()
print(json.dumps({"codes": codes, "loaded": loaded, "from": cli.__file__}))
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def core_install() -> set[str]:
    """The names of its distributions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    wanted = [Requirement(line) for line in project["dependencies"]]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        wanted += [Requirement(line) for line in metadata.requires(name) or []]
    return found


class Told(NamedTuple):
    """`answers` to `--help` and then to each call; modules that `--help` `loaded`; the file of `ghost.cli`."""

    answers: list[Answer]
    loaded: list[str]
    file: Path


def light(calls: Sequence[Sequence[str]], cwd: Path, *, ghost: Path = ROOT) -> Told:
    """What `ghost --help` answers in `cwd`, and each call after it. `ghost` is the folder that holds our packages."""
    core = core_install()
    others = {
        module: {canonicalize_name(name) for name in distributions}
        for module, distributions in metadata.packages_distributions().items()
        if module not in OURS and not module.startswith("_")  # as a hook of setuptools', which Python loads itself
    }
    blocked = [module for module, distributions in others.items() if not distributions & core]
    given = json.dumps([[*others], blocked, calls, "|".join(OURS)])
    offline = os.environ["PYTHONPATH"].split(os.pathsep)[0]  # tests/conftest.py
    done = subprocess.run(
        [sys.executable, "-O", "-X", "warn_default_encoding", "-c", CALLS, given],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([offline, str(ghost)]), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    out, err = (stream.decode("cp1252").split("\0") for stream in (done.stdout, done.stderr))
    assert done.returncode == 0, err[-1]
    told = json.loads(out.pop())
    answers = [Answer(*answer) for answer in zip(told["codes"], out, err[:-1], strict=True)]
    return Told(answers, told["loaded"], Path(told["from"]))


def one_line(text: str) -> str:
    """The text, of which a person is to see one line. Raises AssertionError on a traceback."""
    assert re.fullmatch(r"[^\n]+\n", text), text
    return text.strip()
