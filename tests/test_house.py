"""The walls of the house: what may import what, and what a bare laptop can do."""

import ast
import importlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from replicate_deployment.errors import GhostError
from training import cli, errors

ROOT = Path(__file__).parents[1]
OURS = {"training", "scripts", "serving", "telegram_bot", "benchmarks"}
HEAVY = ["torch", "transformers", "peft", "bitsandbytes", "accelerate", "pandas", "cog"]


def python(*arguments: str, block: Sequence[str] = (), cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in which the packages in `block` cannot be imported, as if they were not installed."""
    refuse = f"import sys; sys.modules.update(dict.fromkeys({list(block)!r})); sys.path.insert(0, {str(ROOT)!r}); "
    return subprocess.run(
        [sys.executable, "-c", refuse + arguments[0], *arguments[1:]],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("path", sorted((ROOT / "replicate_deployment").glob("*.py")), ids=lambda path: path.name)
def test_the_build_context_imports_nothing_of_ours_from_outside(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"line {node.lineno} climbs out of the folder"
            names = [node.module or ""] if node.level == 0 else []
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        assert not {name.split(".")[0] for name in names} & OURS, f"line {node.lineno}"


def test_training_imports_without_torch() -> None:
    done = python("import training, training.cli, training.artifact", block=HEAVY)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    done = python(
        "import sys, training.cli\n"
        "try: training.cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"loaded = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert f"ghost {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train", "merge", "check", "try", "serve"])
def test_a_bare_laptop_is_told_in_one_line(verb: str, tmp_path: Path) -> None:
    done = python("from training import cli; sys.exit(cli.main(sys.argv[1:]))", verb, block=HEAVY, cwd=tmp_path)
    assert done.returncode == 1
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(("verb", "package"), [(name, verb.needs) for name, verb in cli.VERBS.items() if verb.needs])
def test_a_package_that_is_needed_late_is_missed_at_once(verb: str, package: str, tmp_path: Path) -> None:
    code = "from training import cli; sys.exit(cli.main(sys.argv[1:]))"
    done = python(code, verb, *(["x", "--gguf", "f16"] if verb == "export" else ["x"]), block=[package], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    extra = cli.VERBS[verb].extra
    assert done.stderr == f"ghost {verb}: {package} is not installed; type: pip install -e '.[{extra}]'\n"


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise ModuleNotFoundError("No module named 'peft'", name="peft")

    verb = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, cli.VERBS["merge"].module, verb)
    assert cli.main(["merge"]) == 1
    assert capsys.readouterr().err == "ghost merge: peft is not installed; type: pip install -e '.[train]'\n"


def test_a_stop_from_outside_is_one_line(tmp_path: Path) -> None:
    code = "import os, signal, sys; from types import SimpleNamespace; from training import cli; run = lambda args: "
    code += "os.kill(os.getpid(), signal.SIGTERM); sys.modules[cli.VERBS['merge'].module] = "
    code += "SimpleNamespace(add_arguments=lambda parser: None, run=run); sys.exit(cli.main(['merge']))"
    done = python(code)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith("ghost merge: stopped")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_disk_that_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chat.txt").write_text("18/03/2022, 14:56 - Noa: salut\n18/03/2022, 14:57 - Malo: hey\n")
    (tmp_path / "file").touch()
    assert cli.main(["extract", str(tmp_path / "chat.txt"), "--out", str(tmp_path / "file" / "below")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("ghost extract: ")
    assert "Not a directory" in err or "File exists" in err


def test_unknown_verb_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["extrct"])
    assert stop.value.code == 2
    assert "extract" in capsys.readouterr().err


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    def below(parent: type[GhostError]) -> set[str]:
        return {name for child in parent.__subclasses__() for name in (child.__name__, *below(child))}

    importlib.import_module("training.finetuning.exchange")  # where one of them lives
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == below(GhostError)


@pytest.mark.parametrize(("verb", "flag", "code"), [("extract", "", 2), ("prepare", "--cleaned=", 1)])
def test_an_error_is_one_line_and_its_exit_code(
    verb: str, flag: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, f"{flag}{tmp_path / 'nowhere'}"]) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"ghost {verb}: ")
    assert len(err.splitlines()) == 1


def test_the_network_is_blocked_here_and_in_child_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_ONLY_LOG", str(tmp_path / "asked.txt"))
    with pytest.raises(OSError, match="network is blocked"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    done = python("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
    assert "network is blocked" in done.stderr
    assert (tmp_path / "asked.txt").read_text() == "192.0.2.1\n" * 2
