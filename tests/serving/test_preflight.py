"""Each check against a build context that breaks exactly it."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.breakages import BREAKAGES, HUB_TOKEN, Breakage, build_context, room_for_docker
from replicate_deployment import cog_checks, image_checks, weights_checks
from replicate_deployment.checks import Context, Result
from replicate_deployment.dockerignore import Patterns
from serving.preflight import SERVER, preflight
from training import cli

CHECKS = [*cog_checks.CHECKS, *image_checks.CHECKS, *weights_checks.CHECKS, SERVER]
LOADING = {"golden prompt", SERVER}


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """The disk of whoever runs the tests is not under test."""
    with room_for_docker():
        yield


@pytest.fixture
def context(tmp_path: Path, tiny_merged: Path) -> Path:
    return build_context(tmp_path / "replicate_deployment", tiny_merged)


def results(folder: Path) -> dict[str, Result]:
    return {result.check: result for result in preflight(folder)}


def test_a_whole_build_context_passes_every_check_and_replies(context: Path) -> None:
    found = results(context)
    assert list(found) == CHECKS
    assert {result.status for result in found.values()} == {"ok"}, found
    assert "replied" in found[SERVER].found


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: f"{breakage.check}: {breakage.done}")
def test_a_breakage_fails_its_check_alone(context: Path, breakage: Breakage) -> None:
    breakage.spoil(context)
    with breakage.during():
        found = results(context)
    failed = found.pop(breakage.check)
    assert failed.status == "failed", failed
    assert breakage.says in f"{failed.found} {failed.todo}"
    assert "\n" not in failed.found
    # What loads the model is not tried after a failure; everything else is well.
    later = {name for name, result in found.items() if result.status == "skipped"}
    assert later == LOADING - set(CHECKS[: CHECKS.index(breakage.check) + 1])
    assert {result.status for name, result in found.items() if name not in later} == {"ok"}, found


def test_every_check_is_broken_at_least_once() -> None:
    assert {breakage.check for breakage in BREAKAGES} == set(CHECKS)


def test_what_the_compiler_left_is_no_part_of_the_image(context: Path) -> None:
    """On a machine with a GPU the golden prompt leaves it there: pickles, of another torch than the image's."""
    size = Context(context).size()
    (context / ".weights.inductor" / "fxgraph").mkdir(parents=True)
    (context / ".weights.inductor" / "fxgraph" / "compiled.pkl").write_bytes(b"x" * 9)
    assert Context(context).dockerignore.leaves_out(".weights.inductor/fxgraph/compiled.pkl")
    assert Context(context).size() == size
    assert image_checks.only_safetensors(Context(context)) == "no pickles"


def test_a_secret_is_named_and_not_shown(context: Path) -> None:
    breakage = next(one for one in BREAKAGES if "Hub token" in one.done)
    breakage.spoil(context)
    assert "hf_" not in str(results(context)["secrets"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cog.yaml", "build: {}\nenvironment:\n  HF_TOKEN: SECRET\n"),
        ("cog.yaml", "build: {}\nenvironment:\n  - HF_TOKEN: SECRET\n"),
        ("cog.yaml", "build: {}\nenvironment: [HF TOKEN=SECRET]\n"),
        ("cog.yaml", "build: {}\nenvironment: ['HF_TOKEN=SECRET]\n"),
        ("requirements.txt", "git+https://SECRET@github.com/noa/ghost\n"),
    ],
)
def test_a_slip_beside_a_token_does_not_show_it(context: Path, name: str, content: str) -> None:
    (context / name).write_text(content.replace("SECRET", HUB_TOKEN))
    found = results(context)
    assert "failed" in {found["cog.yaml"].status, found["requirements"].status}
    assert "hf_" not in str(found)


def test_without_weights_one_line_says_what_to_copy(context: Path) -> None:
    shutil.rmtree(context / "weights")
    found = results(context)
    assert found["weights"].status == "failed"
    assert "cp -r models/merged/." in found["weights"].todo
    assert found["golden prompt"].found == "no weights"
    assert found[SERVER].status == "skipped"


def test_weights_without_their_ghost_json_are_told_apart_from_none(context: Path) -> None:
    (context / "weights" / "ghost.json").unlink()
    assert "has weights but no ghost.json" in results(context)["weights"].found


def test_a_laptop_without_torch_skips_what_needs_it(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("transformers", "accelerate", "cog"):
        monkeypatch.setitem(sys.modules, package, None)
    found = {name: result.found for name, result in results(context).items() if result.status != "ok"}
    assert set(found) == {"tokenizer", "chat template", "golden prompt", SERVER}
    assert "transformers is not installed: pip install" in found["chat template"]
    assert "cog is not installed: pip install" in found[SERVER]


def test_the_verb_reports_in_json_and_passes_this_repository(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["preflight", "--no-weights", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["ok"]) == (0, True), report
    assert {check["status"] for check in report["checks"]} == {"ok", "skipped"}


def test_the_table_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preflight", "--no-weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1
    assert lines[-1] == "ready but for the weights, at which nothing has looked"


@pytest.mark.parametrize(
    ("lines", "name", "decided"),
    [
        ("weights", "weights/a/b.json", "weights"),
        ("weights", "old/weights/b.json", None),  # anchored, unlike git's
        ("**/.env", ".env", "**/.env"),
        ("**/.env", "a/b/.env", "**/.env"),
        ("*.py", "predict.py", "*.py"),
        ("*.py", "a/predict.py", None),
        ("weights/**", "weights/a/b", "weights/**"),
        ("/weights/", "weights/x", "/weights/"),
        ("*\n!predict.py", "predict.py", None),
        ("!predict.py\n*", "predict.py", "*"),
        ("# *\n", "predict.py", None),
        ("chat_[a-f]ormat.p?", "chat_format.py", "chat_[a-f]ormat.p?"),
    ],
)
def test_a_dockerignore_is_read_as_docker_reads_it(lines: str, name: str, decided: str | None) -> None:
    assert Patterns(lines).leaves_out(name) == decided
