"""`ghost push` when all goes well, and when it must not begin."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ghost import cli
from tests.ghost.hub.conftest import REPO, Ghost, make_model
from tests.ghost.hub.fake_hub import FakeHub
from tests.ghost.hub.fake_repos import TOKEN, Repo

UPLOADS = r"PUT /put|/preupload/|/commit/|/batch"


def test_what_is_there_is_what_is_here(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    found = ghost.figures("push", model, REPO)
    assert hub.repos[REPO].private
    listed = json.loads((model / "ghost.json").read_text())["files"]
    commit = hub.repos[REPO].commits[-1]
    assert set(commit.files) == {".gitattributes", "README.md", "ghost.json", *listed}
    for name in ("ghost.json", *listed):
        assert hub.content(REPO, name) == (model / name).read_bytes()
    assert found["private"] is True
    assert (found["tag"], found["commit"]) == ("v1", commit.id)
    assert hub.repos[REPO].tags == {"v1": commit.id}
    assert found["ghost_json_sha256"] == hashlib.sha256((model / "ghost.json").read_bytes()).hexdigest()


def test_private_is_asked_for_before_the_first_byte(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    ghost("push", model, REPO)
    made = hub.seen.index("POST /api/repos/create")
    assert hub.seen[made + 1] == f"GET /api/models/{REPO}"
    assert not any("preupload" in request for request in hub.seen[: made + 2])


def test_a_large_file_goes_up_in_parts(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.part_size = 70_000
    assert ghost("push", model, REPO)[0] == 0
    assert hub.count("PUT /put") == 2 * 5
    for path in model.glob("*.safetensors"):
        assert hub.content(REPO, path.name) == path.read_bytes()


def test_pushing_again_uploads_nothing_and_keeps_the_version(ghost: Ghost, hub: FakeHub, pushed: Path) -> None:
    hub.seen.clear()
    found = ghost.figures("push", pushed, REPO)
    assert hub.count(UPLOADS) == 0
    assert (found["uploaded"], found["tag"]) == ([], "v1")


def test_a_new_version_replaces_what_changed_and_removes_old_shards(
    ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path
) -> None:
    hub.repos[REPO].commits[-1].files["notes.txt"] = b"somebody's own"
    newer = make_model(tmp_path / "newer", shards=1, seed=9)
    before = hub.received
    found = ghost.figures("push", newer, REPO)
    assert found["tag"] == "v2"
    assert sorted(name for name in hub.repos[REPO].commits[-1].files if name.endswith(".safetensors")) == [
        "model-00001-of-00001.safetensors"
    ]
    assert "notes.txt" in hub.repos[REPO].commits[-1].files
    assert hub.received - before == 300_000
    assert hub.content(REPO, "tokenizer.json", "v1") == (pushed / "tokenizer.json").read_bytes()


def test_a_version_has_the_name_it_is_given(ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path) -> None:
    newer = make_model(tmp_path / "newer", seed=1)
    before = hub.received
    code, output = ghost("push", newer, REPO, "--tag", "v1")
    assert code == 1
    assert "--tag v1: already names commit" in output
    assert hub.received == before
    assert ghost.figures("push", newer, REPO, "--tag", "spring")["tag"] == "spring"


def test_only_what_is_listed_goes_up(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    (model / "notes.txt").write_text("met her in May")
    code, output = ghost("push", model, REPO)
    assert code == 0
    assert "notes.txt: not in ghost.json, so it is not uploaded" in output
    assert "notes.txt" not in hub.repos[REPO].commits[-1].files


@pytest.mark.parametrize("name", ["extra.safetensors", "optimizer.pt", "pytorch_model.bin"])
def test_unlisted_weights_are_refused(ghost: Ghost, hub: FakeHub, model: Path, name: str) -> None:
    (model / name).write_bytes(b"x")
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert f"{name}: not listed in ghost.json, so it is refused" in output
    assert hub.seen == []


def test_an_altered_model_is_refused(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    path = model / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "its SHA-256 is not the one in ghost.json" in output
    assert hub.seen == []


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/passwd", ".gitattributes", "a\\b", "x/../y", "ghost.json"])
def test_a_ghost_json_that_leads_elsewhere_is_refused(ghost: Ghost, hub: FakeHub, model: Path, name: str) -> None:
    _list(model, name)
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "the file was altered" in output
    assert hub.seen == []


def test_a_listed_pickle_is_refused(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    (model / "weights.bin").write_bytes(b"")
    _list(model, "weights.bin")
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "lists weights.bin, which can run code; only safetensors" in output
    assert hub.seen == []


def test_a_folder_of_chats_is_refused(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    facts = json.loads((model / "ghost.json").read_text())
    for later in ("training", "merge"):
        del facts[later]
    (model / "ghost.json").write_text(json.dumps(facts))
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "not a merged model" in output
    assert hub.seen == []


def test_a_public_repo_is_refused_unless_told_twice(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.repos[REPO] = Repo(private=False)
    hub.repos[REPO].commit({})
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "is public" in output
    assert f"--public {REPO}" in output
    assert hub.count(UPLOADS) == 0
    code, output = ghost("push", model, REPO, "--public", "noa/other")
    assert code == 2
    assert "repeat its name" in output
    assert hub.count(UPLOADS) == 0
    code, output = ghost("push", model, REPO, "--public", REPO)
    assert code == 0
    assert "PUBLIC" in output


def test_a_new_repo_is_private_even_where_public_is_allowed(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    assert ghost("push", model, REPO, "--public", REPO)[0] == 0
    assert hub.repos[REPO].private


def test_a_repo_that_turns_out_public_gets_no_byte(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.new_repos_are_private = False
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "is public" in output
    assert hub.count(UPLOADS) == 0


def test_the_token_goes_to_the_hub_only(ghost: Ghost, hub: FakeHub, pushed: Path, tmp_path: Path) -> None:
    ghost("pull", REPO, "--out", tmp_path / "out")
    store = hub.store_url.removeprefix("http://")
    assert {token for host, token in hub.tokens if host == store} == {None}
    assert {token for host, token in hub.tokens if host != store} == {f"Bearer {TOKEN}"}


def test_the_card_says_what_it_is(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.repos["mistralai/Mistral-7B-v0.3"] = Repo(private=False, licence="apache-2.0")
    hub.repos["mistralai/Mistral-7B-v0.3"].commit({})
    ghost("push", model, REPO)
    text = hub.content(REPO, "README.md").decode()
    _, header, body = text.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "apache-2.0"
    assert metadata["base_model"] == "mistralai/Mistral-7B-v0.3"
    assert "imitates a real person" in body
    assert "| messages | 3,000 |" in body
    assert "| learning rate | 5e-05 |" in body
    assert "| held-out loss after, nats a token | 2.125 |" in body
    assert "c" * 40 in body
    assert "secret-folder" not in text
    assert "$" not in text


@pytest.mark.parametrize(("licence", "told"), [(None, "not on record"), ("other", "other")])
def test_a_licence_that_is_not_known_is_not_claimed(
    ghost: Ghost, hub: FakeHub, model: Path, licence: str | None, told: str
) -> None:
    hub.repos["mistralai/Mistral-7B-v0.3"] = Repo(private=False, licence=licence)
    hub.repos["mistralai/Mistral-7B-v0.3"].commit({})
    ghost("push", model, REPO)
    text = hub.content(REPO, "README.md").decode()
    assert "license" not in yaml.safe_load(text.split("---\n")[1])
    assert f"whose licence is {told}" in text


def test_your_own_card_goes_before_the_template(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    (model / "README.md").write_text("# mine\n")
    ghost("push", model, REPO)
    assert hub.content(REPO, "README.md") == b"# mine\n"


@pytest.mark.parametrize("name", ["ghost", "noa/ghost/x", "noa/gh--ost", "noa/", "https://huggingface.co/noa/ghost"])
def test_a_name_that_no_repo_has_is_bad_usage(ghost: Ghost, hub: FakeHub, model: Path, name: str) -> None:
    code, output = ghost("push", model, name)
    assert code == 2
    assert "must be USER/REPO" in output
    assert hub.seen == []


def test_on_the_command_line_with_the_endpoint_of_the_environment(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    """A process of its own: nothing here has imported huggingface_hub before the verb, and its login is a file."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(f"{TOKEN}\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-m", "ghost.cli", "push", str(model), REPO],
        capture_output=True,
        text=True,
        cwd=Path(cli.__file__).parents[1],
        env=environment | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert TOKEN not in done.stdout
    assert hub.count("xet") == 0
    assert set(hub.repos[REPO].tags) == {"v1"}


def _list(model: Path, name: str) -> None:
    path = model / "ghost.json"
    facts = json.loads(path.read_text())
    facts["files"][name] = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    path.write_text(json.dumps(facts))
