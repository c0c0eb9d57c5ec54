"""A wheel, installed where no clone is: what is in it, and the verbs that need no torch, run with it in a folder."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ghost.demo.exports import write_exports
from tests.light import OURS, ROOT, light, one_line

# Read in the clone only: a service and an image that are made from it, and what SkyPilot takes of it.
LEFT_OUT = ("telegram_bot/deployment/", "replicate_deployment/weights/", "config/cloud.sky.yaml")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a clone that git does not ignore, and two that it does: somebody's own."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("source")
    for name in listed.stdout.splitlines():
        if name.startswith((*(f"{room}/" for room in OURS), "config/")) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name in ("bot.yaml", "user_config.json"):
        (folder / "config" / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` makes of the wheel: the folder of packages, beside it `bin/ghost`."""
    for needed in ("pip", "setuptools"):
        if find_spec(needed) is None:
            pytest.skip(f"building a wheel without a network needs {needed} in this environment")
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


def test_it_holds_all_that_our_packages_read_and_nothing_of_anybody(source: Path, installed: Path) -> None:
    expected = {
        path.relative_to(source).as_posix().replace("config/", "ghost_config/", 1)
        for room in (*OURS, "config")
        for path in (source / room).rglob("*")
        if path.is_file() and not path.relative_to(source).as_posix().startswith(LEFT_OUT)
    } - {"ghost_config/bot.yaml", "ghost_config/user_config.json"}
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    ours = {path.as_posix() for path in found if path.parts[0] in (*OURS, "ghost_config")}
    assert ours == expected
    assert {path.parts[0] for path in found if ".dist-info" not in path.parts[0]} == {*OURS, "ghost_config", "bin"}


def test_the_line_runs_in_any_folder(installed: Path, tmp_path: Path) -> None:
    sample = write_exports(tmp_path / "raw", seed=7, messages=900)
    me = [word for name in sample.names for word in ("--me", name)]
    calls = [
        ["extract", "raw"],
        ["prepare", *me],
        ["estimate"],
        ["preflight", "--no-weights"],
        ["init"],
        ["init"],
        ["estimate", "--config", "config/training_config.yaml", "--json"],
        ["estimate", "--config", "config/other.yaml"],
        ["train", "--help"],
        ["train"],
    ]
    told = light(calls, tmp_path, ghost=installed)
    assert told.file == installed / "ghost" / "cli.py"
    answers = dict(
        zip(["help", "extract", "prepare", "estimate", "preflight", "init", "again"], told.answers, strict=False)
    )
    for name, answer in answers.items():
        assert (answer.code, answer.err) == (0, ""), name
    with_own, missing, train_help, train = told.answers[7:]
    assert (with_own.code, train_help.code) == (0, 0)
    assert one_line(missing.err).startswith("ghost estimate: config/other.yaml: no such file; `ghost init` writes ")
    assert one_line(train.err).endswith("is not installed; type: pip install 'ghost-in-the-shell[train]'")

    written = [line.split() for line in answers["init"].out.splitlines()]
    again = [line.split() for line in answers["again"].out.splitlines()]
    files = {word[1] for word in written if word[0] == "written"}
    assert {word[1] for word in again if word[0] == "kept"} == files
    assert all((tmp_path / file).is_file() for file in files)
    assert (tmp_path / "data" / "processed" / "report.html").is_file()
    # A build context of one's own, for the package's may be anywhere, and lose what is put into it.
    assert (tmp_path / "models" / "replicate_deployment" / "cog.yaml").is_file()


def test_the_program_finds_its_packages(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    program = [str(installed / "bin" / "ghost"), "--version"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert done.stdout.startswith("ghost ")
