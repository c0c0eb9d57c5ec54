"""What `ghost push` does when the Hub, the network or somebody else is in the way."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.ghost.hub.conftest import REPO, Ghost
from tests.ghost.hub.fake_hub import FakeHub, Handler
from tests.ghost.hub.fake_repos import Fault, Repo

CALLS = {
    "whoami": "GET /api/whoami",
    "create": "POST /api/repos/create",
    "info": f"GET /api/models/{REPO}$",
    "tree": "/tree/",
    "preupload": "/preupload/",
    "batch": "/batch",
    "put": "PUT /put",
    "verify": "POST /verify",
    "commit": "POST .*/commit/",
    "refs": "/refs",
    "tag": "POST .*/tag/",
}
AGAIN = f"ghost push \\S+merged {REPO}"


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (call, what)
        for call in CALLS
        for what in (429, 503, "cut", "lost", "page")
        if what != "page" or call not in {"put", "verify", "tag"}  # of which huggingface_hub reads only the status
    ],
)
def test_a_fault_that_passes_is_waited_out(
    ghost: Ghost, hub: FakeHub, model: Path, waits: list[float], call: str, what: int | str
) -> None:
    hub.faults = [Fault(CALLS[call], what)]
    found = ghost.figures("push", model, REPO)
    assert hub.faults[0].times == 0, "the fault was never met"
    assert found["tag"] == "v1"
    assert set(hub.repos[REPO].tags) == {"v1"}
    assert len(hub.repos[REPO].commits) == 2, "the commit was made twice"
    for path in model.glob("*.safetensors"):
        assert hub.content(REPO, path.name) == path.read_bytes()


@pytest.mark.parametrize("call", ["whoami", "create", "batch", "commit", "tag"])
def test_as_long_as_the_hub_asks(ghost: Ghost, hub: FakeHub, model: Path, waits: list[float], call: str) -> None:
    hub.faults = [Fault(CALLS[call], 429, headers={"Retry-After": "77"})]
    assert ghost("push", model, REPO)[0] == 0
    assert 77 <= sum(waits) <= 78


def test_the_hubs_own_header_of_its_limits_is_understood(
    ghost: Ghost, hub: FakeHub, model: Path, waits: list[float]
) -> None:
    hub.faults = [Fault(CALLS["commit"], 429, headers={"RateLimit": '"api";r=0;t=55'})]
    code, output = ghost("push", model, REPO)
    assert code == 0
    assert "the Hub asks to wait 55 s (HTTP 429); waiting" in output
    assert waits == [55]


def test_nobody_waits_for_an_hour(ghost: Ghost, hub: FakeHub, model: Path, waits: list[float]) -> None:
    hub.faults = [Fault(CALLS["commit"], 429, headers={"Retry-After": "3600"})]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert re.search(f"asks to wait 3600 s. Everything transferred so far is kept; then: {AGAIN}", output)
    assert waits == []


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (503, f"the Hub has problems \\(HTTP 503\\), 5 times in a row. Try later: {AGAIN}"),
        (429, f"asks to wait some minutes. Everything transferred so far is kept; then: {AGAIN}"),
        ("cut", f"no connection to http://127.0.0.1:\\d+ \\(\\w+\\), 5 times.* is kept. Continue with: {AGAIN}"),
        ("page", f"does not answer like the Hub \\(a proxy's page\\?\\); then: {AGAIN}"),
    ],
)
@pytest.mark.parametrize("call", ["whoami", "create", "commit", "refs"])
def test_a_fault_that_stays_is_one_line(
    ghost: Ghost, hub: FakeHub, model: Path, waits: list[float], call: str, what: int | str, told: str
) -> None:
    hub.faults = [Fault(CALLS[call], what, times=99)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert re.search(told, output), output
    assert len(waits) == 4
    hub.faults = []
    assert ghost("push", model, REPO)[0] == 0


@pytest.mark.parametrize(
    ("call", "told"),
    [("put", "the Hub refuses \\(HTTP 404\\)"), ("tag", f"but the tag v1 is missing; type again: {AGAIN}")],
)
def test_a_page_in_the_place_of_an_answer_nobody_reads(
    ghost: Ghost, hub: FakeHub, model: Path, call: str, told: str
) -> None:
    hub.faults = [Fault(CALLS[call], "page")]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert re.search(told, output), output
    assert hub.repos[REPO].tags == {}
    assert ghost.figures("push", model, REPO)["tag"] == "v1"


def test_nobody_listens(ghost: Ghost, model: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "no connection to http://127.0.0.1:9 (ConnectError)" in output


def test_after_a_cut_only_the_rest_goes_up(ghost: Ghost, hub: FakeHub, model: Path, waits: list[float]) -> None:
    """The second shard never arrives; the next push finds the first one there, though no commit names it."""
    hub.faults = [Fault("PUT /put", "cut", times=999, skip=1)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert re.search(f"Continue with: {AGAIN}", output)
    assert len(hub.repos[REPO].commits) == 1
    hub.faults, hub.seen, hub.received = [], [], 0
    found = ghost.figures("push", model, REPO)
    assert hub.count("PUT /put") == 1
    assert hub.received == 300_000
    assert "model-00002-of-00002.safetensors" in found["uploaded"]
    assert "model-00001-of-00002.safetensors" not in found["uploaded"]


def test_a_byte_that_changed_on_the_way_is_found_and_sent_again(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.faults = [Fault("PUT /put", "corrupt", skip=1)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "model-00002-of-00002.safetensors was altered on the way; 5 of 6 files match" in output
    assert "no version was tagged" in output
    assert hub.repos[REPO].tags == {}
    assert ghost.figures("push", model, REPO)["tag"] == "v1"
    assert hub.count("PUT /put") == 3


def test_a_small_file_that_the_hub_holds_otherwise_is_found(ghost: Ghost, hub: FakeHub, pushed: Path) -> None:
    files = hub.repos[REPO].commits[-1].files
    files["tokenizer.json"] = bytes(reversed(hub.content(REPO, "tokenizer.json")))  # of the same size
    assert ghost.figures("push", pushed, REPO)["uploaded"] == ["tokenizer.json"]


def test_what_the_repo_ignores_is_missed(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.ignores = {"model-00001-of-00002.safetensors"}
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "model-00001-of-00002.safetensors is missing (excluded by" in output
    assert hub.repos[REPO].tags == {}


def test_two_who_push_at_once_do_not_mix(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.faults = [Fault(CALLS["commit"], 412)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "was changed by someone else meanwhile" in output


def test_a_repo_that_is_opened_meanwhile_is_told(
    ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = Handler.tag

    def opened(self: Handler, name: str, revision: str) -> None:
        hub.repos[name].private = False
        tag(self, name, revision)

    monkeypatch.setattr(Handler, "tag", opened)
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "is public, so everybody could read" in output


def test_a_repo_that_is_opened_while_it_uploads_gets_no_commit(
    ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Handler.batch

    def opened(self: Handler, name: str) -> None:
        hub.repos[name].private = False
        batch(self, name)

    monkeypatch.setattr(Handler, "batch", opened)
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "is public, so everybody could read" in output
    assert len(hub.repos[REPO].commits) == 1


def test_no_token(ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, output = ghost("push", model, REPO)
    assert code == 1
    note, error = output.splitlines()
    assert note.startswith("note: this model was not checked for leaks")
    assert error == (
        "ghost push: no token: create one with write access at https://huggingface.co/settings/tokens, then type: "
        "hf auth login"
    )
    assert hub.seen == []


@pytest.mark.parametrize("token", ["hf_WithAn\x01Escape", "hf_avec_é", "hf_two words"])
def test_a_token_that_is_none_is_not_printed(
    ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "the token holds invalid characters" in output
    assert token[3:] not in output
    assert hub.seen == []


def test_a_token_that_the_hub_does_not_know(
    ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "the Hub does not accept this token (expired or revoked?)" in output
    assert "hf_revoked" not in output


def test_a_token_that_may_only_read(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.role = "read"
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "the token of noa is read-only" in output
    assert hub.count("POST") == 0


def test_a_repo_of_somebody_else(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    code, output = ghost("push", model, "malo/ghost")
    assert code == 1
    assert "malo/ghost: noa has no permission for this (HTTP 403: You don't have the rights" in output


@pytest.mark.parametrize("call", ["create", "preupload", "batch", "commit"])
@pytest.mark.parametrize(
    "said",
    [
        "Private repository storage limit reached, please upgrade your plan to increase it.",
        "Your storage patterns tripped our internal systems! Please contact us at website@huggingface.co",
    ],
)
def test_full_storage_is_told_from_a_token_without_rights(
    ghost: Ghost, hub: FakeHub, model: Path, call: str, said: str
) -> None:
    hub.faults = [Fault(CALLS[call], 403, body={"error": said})]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert f"the Hub storage of noa is full (HTTP 403: {said})" in output
    assert "token" not in output
    assert re.search(f"then: {AGAIN}", output)


def test_what_the_hub_says_is_passed_on_without_the_token(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    from tests.ghost.hub.fake_repos import TOKEN

    body: dict[str, Any] = {"error": f"{TOKEN} may only look, see https://s3/x?X-Amz-Signature=1"}
    hub.faults = [Fault(CALLS["batch"], 403, body=body)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "noa has no permission for this (HTTP 403: … may only look, see …" in output


def test_offline_is_said(ghost: Ghost, hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert "HF_HUB_OFFLINE is set" in output
    assert hub.seen == []


def test_a_repo_that_the_token_may_read_but_not_write(ghost: Ghost, hub: FakeHub, model: Path) -> None:
    hub.repos[REPO] = Repo(private=True)
    hub.repos[REPO].commit({})
    hub.faults = [Fault(CALLS["preupload"], 403, times=9)]
    code, output = ghost("push", model, REPO)
    assert code == 1
    assert f"{REPO}: noa has no permission for this (HTTP 403)" in output
