"""The walls of the house: what may import what, and what a bare laptop can do."""

import ast
import errno
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ghost import cli, errors
from replicate_deployment.errors import GhostError
from tests.light import OURS, light, one_line

ROOT = Path(__file__).parents[1]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds our packages."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code.lstrip()}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


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
        outside = {*OURS, "benchmarks"} - {"replicate_deployment"}
        assert not {name.split(".")[0] for name in names} & outside, f"line {node.lineno}"


@pytest.mark.parametrize("room", OURS)
def test_nothing_is_validated_by_assert(room: str) -> None:
    """`python -O` leaves it out."""
    for path in (ROOT / room).rglob("*.py"):
        lines = [node.lineno for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Assert)]
        assert not lines, f"{path.relative_to(ROOT)}: lines {lines}"


# What a verb needs to get beyond its flags.
FLAGS = {
    **{verb: ["x"] for verb in ("merge", "check", "try", "evaluate", "chat")},
    **{verb: ["x", "a/b"] for verb in ("push",)},
    **{verb: ["a/b"] for verb in ("pull", "release")},
    "export": ["x", "--gguf", "f16"],
    "distill": ["x", "--layers", "1"],
}


def test_on_the_core_install_every_verb_shows_its_help_or_does_its_work(tmp_path: Path) -> None:
    chats = "".join(
        f"18/03/2022, {hour:02}:{minute:02} - {name}: ça va → {hour}:{minute} 😂\n"
        for hour in range(24)
        for minute, name in ((1, "Malo"), (2, "Noa"), (40, "Malo"), (41, "Noa"))
    )
    (tmp_path / "chat.txt").write_text(chats, encoding="utf-8")
    (tmp_path / "same.json").write_text('{"user_label": "A:", "other_label": "A:"}', encoding="utf-8")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").touch()
    prepare = ["prepare", "--me", "Noa"]
    work = [
        ["init"],
        ["extract", "chat.txt"],
        [*prepare, "--force"],
        ["estimate"],
        ["preflight", "--no-weights"],
    ]
    refused = [[*prepare, "--user-config", "same.json"], [*prepare, "--base", "base"]]
    heavy = [[verb, *FLAGS.get(verb, [])] for verb, known in cli.VERBS.items() if known.needs]
    helps = [["--help"], [], *([verb, "--help"] for verb in cli.VERBS)]
    answers, loaded, _ = light([*helps[1:], *work, *refused, *heavy], tmp_path)

    assert loaded == []  # so that `ghost --help` answers at once
    for call in helps:
        code, out, err = answers.pop(0)
        assert (code, err) == (0, ""), (call, err)
        assert out.startswith(f"usage: ghost {call[0] if call[1:] else '[-h]'}"), call
    for call in work:
        code, out, err = answers.pop(0)
        assert (code, bool(out), err) == (0, True, ""), (call, out, err)
    assert "both labels are 'A:'" in one_line(answers.pop(0).err)
    assert "type: pip install -e" in one_line(answers.pop(0).err)
    for (verb, *_), answer in zip(heavy, answers, strict=True):
        install = f"pip install -e '{ROOT}[{cli.VERBS[verb].extra}]'"
        assert (answer.code, answer.out) == (1, "")
        assert re.fullmatch(rf"ghost {verb}: \w+ is not installed; type: {re.escape(install)}", one_line(answer.err))


def test_every_package_that_is_looked_for_is_in_the_extras_that_are_named() -> None:
    """Else the command that is told would not help."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    distributions = metadata.packages_distributions()
    for verb, known in cli.VERBS.items():
        lines = [line for extra in known.extra.split(",") for line in project["optional-dependencies"].get(extra, [])]
        named = {canonicalize_name(Requirement(line).name) for line in lines}
        for package in known.needs:
            assert {canonicalize_name(name) for name in distributions[package]} & named, (verb, package)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'zzz'", name="zzz"), "zzz is not installed; type: pip install -e "),
        (ModuleNotFoundError("No module named 'json.x'", name="json.x"), "json cannot be imported (No module named"),
        (ImportError("cannot import name 'x' from 'json'", name="json"), "json cannot be imported (cannot import"),
        (
            ImportError("libc10.so: undefined symbol\nat y"),
            "a package cannot be imported (libc10.so: undefined symbol)",
        ),
        (OSError("libcudart.so.12: cannot open shared object file"), "libcudart.so.12: cannot open shared object file"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk: No space left on device"),
    ],
)
def test_a_package_that_is_missing_or_broken_is_one_line(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise error

    works = SimpleNamespace(add_arguments=lambda parser: None, run=fails)
    monkeypatch.setitem(sys.modules, cli.VERBS["preflight"].module, works)
    assert cli.main(["preflight"]) == 1
    assert one_line(capsys.readouterr().err).startswith(f"ghost preflight: {told}")
    monkeypatch.setitem(sys.modules, cli.VERBS["preflight"].module, SimpleNamespace(add_arguments=fails, run=None))
    assert cli.main(["preflight"]) == 1
    assert one_line(capsys.readouterr().err).startswith(f"ghost preflight: {told}")


def test_a_fault_of_our_own_is_not_called_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise ImportError("cannot import name 'x' from 'training.y'", name="training.y")

    works = SimpleNamespace(add_arguments=lambda parser: None, run=fails)
    monkeypatch.setitem(sys.modules, cli.VERBS["preflight"].module, works)
    with pytest.raises(ImportError):
        cli.main(["preflight"])


def test_ghost_alone_and_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    told = capsys.readouterr().out
    assert all(verb in told for verb in cli.VERBS)
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"ghost \d+\.\d+\.\d+\n", capsys.readouterr().out)


STOPPED = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from ghost import cli
cli.VERBS["merge"] = cli.Verb("swallows", "")
sys.exit(cli.main(["merge"]))
"""


@pytest.mark.parametrize("where", ["importing", "running"])
def test_a_stop_from_outside_is_one_line(where: str, tmp_path: Path) -> None:
    """Also in an import, where packages catch all that is raised, and native code ends the process."""
    stop = "signal.raise_signal(signal.SIGTERM)"
    swallowed = f"try: {stop}\nexcept BaseException: pass"
    code = f"""
import signal, sys, time
{swallowed if where == "importing" else ""}
add_arguments = lambda parser: None
def run(args):
    {stop if where == "running" else "time.sleep(600)"}
"""
    (tmp_path / "swallows.py").write_text(code, encoding="utf-8")
    done = python(STOPPED, str(tmp_path))
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert one_line(done.stderr).startswith("ghost merge: stopped")


@pytest.mark.parametrize("call", [["--version"], ["init"], ["extract", "--help"]])  # print, rich, argparse
def test_a_reader_that_has_seen_enough_is_no_error(call: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ghost.cli", *call]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])}
    environment.pop("PYTHONUNBUFFERED", None)  # with it argparse is told, and keeps it to itself
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, b"")


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

    for where in (
        "training.finetuning.processes",
        "ghost.serving.checks",
        "ghost.serving.client.prediction",
        "telegram_bot.database",
    ):  # where some of them live
        importlib.import_module(where)
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
