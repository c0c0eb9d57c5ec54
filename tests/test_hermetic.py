"""What lies on the machine of whoever runs the tests decides nothing: see the head of conftest.py."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import models

REPO = "ghost/base"
PROGRAM = """
import sys
if sys.argv[1] == "tests":
    import tests.conftest
import os, pathlib
from training.tokens import try_load_tokenizer
print(try_load_tokenizer(sys.argv[2]) is not None, pathlib.Path.home(), os.environ.get("HF_TOKEN"))
"""


@pytest.mark.parametrize("inside", ["tests", "anything else"])
def test_a_persons_hub_cache_and_token_are_not_seen(inside: str, tiny_base: Path, tmp_path: Path) -> None:
    """The tokenizer of `ghost/base` is in their cache, as Mistral's is in that of many."""
    repo = tmp_path / "hub" / "models--ghost--base"
    snapshot = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_bytes((tiny_base / "tokenizer.json").read_bytes())
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(snapshot.name)
    theirs = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_secret"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, inside, REPO],
        env=os.environ | theirs,
        capture_output=True,
        text=True,
        cwd=models.ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, home, token = done.stdout.split()
    if inside == "tests":
        assert (found, token) == ("False", "None")
        assert Path(home) != tmp_path
        assert not Path(home).exists()  # it is gone with the process
    else:
        assert (found, home, token) == ("True", str(tmp_path), "hf_secret")


def build(folder: Path) -> None:
    (folder / "weights").write_text("made")


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Of an empty cache, as if each call came from another process."""
    taken: list[int] = []
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(models, "_leases", taken)
    monkeypatch.setattr(models, "_handed_out", {})
    monkeypatch.setattr(models, "_of_this_code", models._of_this_code.__wrapped__)
    yield taken
    for lease in taken:
        os.close(lease)


def test_a_model_is_built_once_and_only_whole(leases: list[int]) -> None:
    def cut(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.shared("tiny", cut)
    found = models.shared("tiny", build)
    assert [path.name for path in found.iterdir()] == ["weights"]
    assert models.shared("tiny", cut) == found


def test_another_state_of_the_code_builds_anew_and_deletes_what_nobody_uses(
    leases: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for state in ("first", "second", "third"):
        monkeypatch.setattr(models, "_fingerprint", lambda state=state: state)
        states.append(models.shared("tiny", build).parent)
        if state == "first":
            os.close(leases.pop())  # its process has ended
    assert [path.exists() for path in states] == [False, True, True]


def test_who_writes_to_a_shared_model_is_found_out(leases: list[int]) -> None:
    found = models.shared("tiny", build)
    assert models.changed() == []
    (found / "weights").write_text("spoilt")
    assert models.changed() == [found]
    assert not found.exists()
