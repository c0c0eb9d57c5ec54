"""A model of which `ghost evaluate` says that it gives something away is pushed only when asked twice."""

import hashlib
import json
from pathlib import Path

import pytest

from ghost.hub import leaking
from tests.ghost.hub.conftest import REPO, Ghost
from tests.ghost.hub.fake_hub import FakeHub

LEAKS = ["12% of training replies can be drawn out of it.", "Its replies hold personal data of training (2 phone)."]


def evaluated(path: Path, model: Path, leaks: list[str], digest: str = "", *, learnt: bool = True) -> Path:
    digest = digest or hashlib.sha256((model / "ghost.json").read_bytes()).hexdigest()
    document = {"model": {"ghost_sha256": digest, "learnt_by_it": learnt}, "leaks": {"above_limit": leaks}}
    path.write_text(json.dumps(document))
    return path


def test_leaks_stop_a_push_before_the_hub_is_asked_for_anything(
    ghost: Ghost, hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    found = evaluated(tmp_path / "evaluation.json", model, LEAKS)
    code, output = ghost("push", model, REPO, "--tag", "v9", "--evaluation", found)
    assert code == 1
    assert all(leak in output for leak in LEAKS)
    again = f"ghost push {model} {REPO} --tag v9 --evaluation {found} --despite-leaks {REPO}"
    assert again in output
    assert not hub.seen
    assert ghost(*again.split()[1:])[0] == 0
    assert hub.repos[REPO].tags.keys() == {"v9"}


def test_the_name_must_be_that_of_the_repo(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    code, output = ghost("push", model, REPO, "--despite-leaks", "noa/other")
    assert code == 2
    assert f"repeat the repo's name; the repo is {REPO}" in output
    assert not hub.seen


def test_an_evaluation_without_leaks_says_nothing(ghost: Ghost, model: Path, tmp_path: Path) -> None:
    code, output = ghost("push", model, REPO, "--evaluation", evaluated(tmp_path / "e.json", model, []))
    assert code == 0
    assert "gives away" not in output


@pytest.mark.parametrize(("data", "leaks", "code"), [("d" * 64, LEAKS, 1), ("e" * 64, LEAKS, 0), ("d" * 64, [], 0)])
def test_leaks_follow_the_training_data_to_a_new_merge(
    ghost: Ghost, model: Path, tmp_path: Path, data: str, leaks: list[str], code: int
) -> None:
    path = model / "ghost.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": {"train_sha256": "d" * 64}}))
    document = {"model": {"ghost_sha256": "0" * 64, "train_sha256": data}, "leaks": {"above_limit": leaks}}
    (tmp_path / "evaluation.json").write_text(json.dumps(document))
    assert ghost("push", model, REPO, "--evaluation", tmp_path / "evaluation.json")[0] == code


@pytest.mark.parametrize("leak", ["canaries", "canaries."])
def test_each_leak_is_a_sentence(leak: str, ghost: Ghost, model: Path, tmp_path: Path) -> None:
    output = ghost("push", model, REPO, "--evaluation", evaluated(tmp_path / "e.json", model, [leak, *LEAKS]))[1]
    assert f"lists leaks: canaries. {' '.join(LEAKS)} Nothing was uploaded" in output


@pytest.mark.parametrize("is_there", [True, False])
def test_the_evaluation_of_another_model_is_none_of_this_one(
    is_there: bool, ghost: Ghost, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if is_there:
        leaking.EVALUATION.parent.mkdir()
        evaluated(leaking.EVALUATION, model, LEAKS, digest="0" * 64)
    code, output = ghost("push", model, REPO)
    assert code == 0
    assert "note: this model was not checked for leaks; to check it first: ghost evaluate" in output


@pytest.mark.parametrize("name", ["nowhere.json", "report", str(leaking.EVALUATION)])
def test_an_evaluation_that_was_asked_for_must_be_there(
    name: str, ghost: Ghost, hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report").mkdir()
    code, output = ghost("push", model, REPO, "--evaluation", name)
    assert code == 2
    assert f"--evaluation {name}: no such file; create it: ghost evaluate {model}, or push without it" in output
    assert not hub.seen


def test_no_leak_of_other_training_lines_is_none_of_this_model(ghost: Ghost, model: Path, tmp_path: Path) -> None:
    path = evaluated(tmp_path / "e.json", model, [], learnt=False)
    code, output = ghost("push", model, REPO, "--evaluation", path)
    assert (code, "note: this model was not checked for leaks" in output) == (0, True)
    evaluated(path, model, LEAKS, learnt=False)
    assert ghost("push", model, REPO, "--evaluation", path)[0] == 1


@pytest.mark.parametrize("content", ["", "[]", '{"model": {}}', '{"model": null}'])
def test_a_file_that_is_no_evaluation_is_named(content: str, ghost: Ghost, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(content)
    if content == '{"model": {}}':  # of a served model: it has no folder
        assert ghost("push", model, REPO, "--evaluation", path)[0] == 0
        return
    code, output = ghost("push", model, REPO, "--evaluation", path)
    assert code == 1
    assert f"{path}: not written by `ghost evaluate`" in output
