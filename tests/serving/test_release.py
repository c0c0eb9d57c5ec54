"""`ghost release`, with a program called `cog` that pushes nothing and a server that answers as Replicate does."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from replicate_deployment import ghost_json
from replicate_deployment.checks import Result
from replicate_deployment.tokenization import load_tokenizer
from serving import release, trial
from serving.client import replicate_api
from training import cli

from .fake_replicate import LOST_AFTER, LOST_BEFORE, NEXT_VERSION, SECRET, TOKEN, VERSION, FakeReplicate, Fault, running

NAME = "ana/ghost"
CREATE = ("POST", "/v1/predictions")
COG = """#!{python}
import json, os, pathlib, sys, urllib.request
folder = pathlib.Path.cwd()
files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
pathlib.Path({log!r}).write_text(json.dumps({{"words": sys.argv[1:], "folder": str(folder), "files": files}}))
print("Pushing image")
if {code}:
    sys.exit({code})
request = urllib.request.Request({url!r}, b"{{}}", {{"Authorization": "Bearer {token}"}})
urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request).read()
"""


class Scene:
    """A build context, a `cog` on PATH, a token, and Replicate."""

    def __init__(self, folder: Path, fake: FakeReplicate, weights: Path) -> None:
        self.folder, self.fake, self.weights = folder, fake, weights
        self.context = folder / "context"
        self.log = folder / "cog.json"
        self.note = folder / "models" / "trial-ana-ghost.json"

    def cog(self, code: int = 0) -> None:
        program = self.folder / "bin" / "cog"
        url = f"{self.fake.url}/pushed/{NAME}"
        text = COG.format(python=sys.executable, log=str(self.log), code=code, url=url, token=TOKEN)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

    def release(self, *flags: str) -> int:
        return cli.main(["release", NAME, "--weights", str(self.weights), *flags])


@pytest.fixture
def scene(tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    for name in ("bin", "context"):
        (tmp_path / name).mkdir()
    (tmp_path / "context" / "cog.yaml").write_text("build: {}\n", encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(release, "HERE", tmp_path / "context")
    monkeypatch.setattr(release, "preflight", lambda folder: iter([Result("files", "ok", "9 there")]))
    monkeypatch.setattr(replicate_api, "FIRST_PAUSE", 0.001)
    with running() as fake:
        monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
        monkeypatch.setenv("REPLICATE_BASE_URL", f"{fake.url}/v1")
        weights = sure_of_itself(tiny_merged, tmp_path / "merged")
        fake.pieces = ["hey", " et plus"]
        yield Scene(tmp_path, fake, weights)


def sure_of_itself(model: Path, folder: Path) -> Path:
    """The model with a golden block that names one word: random weights find hundreds as likely."""
    shutil.copytree(model, folder, copy_function=os.link)
    facts = json.loads((model / ghost_json.NAME).read_text(encoding="utf-8"))
    word, others = load_tokenizer(model)("hey", add_special_tokens=False)["input_ids"][0], range(10, 14)
    facts["golden"]["next_top5_logprobs"] = [[word, -0.1], *([token, -5.0] for token in others)]
    (folder / ghost_json.NAME).unlink()
    (folder / ghost_json.NAME).write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_without_go_nothing_is_sent(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    assert scene.release() == 0
    told = capsys.readouterr().out
    assert f"cd {scene.context} && cog push r8.im/ana/ghost" in told.replace("\n", " ")
    assert "private, as Replicate said just now" in told
    assert "gpu-l40s: $0.000975 a second, $3.51 an hour" in told
    assert f"ghost release ana/ghost --weights {scene.weights} --go" in told
    assert {method for method, _ in scene.fake.requests} == {"GET"}
    assert not scene.log.exists()
    assert TOKEN not in told


def test_without_a_token_it_says_what_was_not_looked_at(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    assert scene.release() == 0
    assert "not looked at, for REPLICATE_API_TOKEN is not set" in capsys.readouterr().out
    assert not scene.fake.requests
    assert scene.release("--trial") == 2


def test_the_model_is_put_into_the_build_context_without_a_second_copy(scene: Scene) -> None:
    (scene.context / "weights").mkdir()
    (scene.context / "weights" / ".gitkeep").touch()
    (scene.context / "weights" / "of-another.safetensors").touch()
    assert scene.release() == 0
    names = {path.name for path in (scene.context / "weights").iterdir()}
    assert names == {ghost_json.NAME, ".gitkeep", *ghost_json.read(scene.weights).block("files")}
    shard = scene.context / "weights" / "model.safetensors"
    assert shard.samefile(scene.weights / "model.safetensors")


def test_a_preflight_that_fails_stops_it(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.cog()
    results = [Result("files", "ok", "9 there"), Result("golden prompt", "failed", "other weights", "ghost merge")]
    monkeypatch.setattr(release, "preflight", lambda folder: iter(results))
    assert scene.release("--go") == 1
    told = capsys.readouterr()
    assert "preflight found 1 to mend; nothing was sent" in told.err
    assert "other weights" in told.out
    assert not scene.log.exists()


def test_with_go_it_pushes_and_tries(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    assert scene.release("--go") == 0
    told = capsys.readouterr().out
    pushed = json.loads(scene.log.read_text())
    assert (pushed["words"], pushed["folder"]) == (["push", "r8.im/ana/ghost"], str(scene.context))
    assert "weights/model.safetensors" in pushed["files"]
    assert f"pushed ana/ghost:{NEXT_VERSION}, a new version" in told
    assert scene.fake.bodies[scene.fake.requests.index(CREATE)]["version"] == NEXT_VERSION
    assert re.search(r"reply +.* et plus", told)
    assert "as recorded at the merge" in told
    assert re.search(r"cold start +\d+\.\d s", told)
    assert "0.25 s, first token after 0.040 s, 80.0 tokens/s" in told
    assert re.search(r"\$\d+\.\d{4} at most, on gpu-l40s", told)
    assert TOKEN not in told
    assert not scene.note.exists()


def test_json_is_all_that_is_printed(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    assert scene.release("--go", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["version"], result["output_tokens"], result["differs"]) == (NEXT_VERSION, 20, False)
    assert scene.release("--json") == 2


def test_a_model_that_everybody_sees_is_refused(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    scene.fake.add_model(NAME, visibility="public")
    for flags in ([], ["--go"], ["--trial"]):
        assert scene.release(*flags) == 1
        assert "replicate.com/ana/ghost is public" in capsys.readouterr().err
    assert not scene.log.exists()


def test_a_model_that_is_not_there_is_made_private(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    scene.fake.models.clear()
    assert scene.release() == 0
    assert "not there; --create makes it, private" in capsys.readouterr().out
    assert scene.release("--go") == 1
    assert "--go --create" in capsys.readouterr().err
    assert scene.release("--go", "--create", "--hardware", "gpu-9") == 1
    assert "there are cpu, gpu-l40s" in capsys.readouterr().err
    assert scene.fake.asked("POST", "/v1/models") == 0
    assert scene.release("--go", "--create") == 0
    made = scene.fake.bodies[scene.fake.requests.index(("POST", "/v1/models"))]
    assert made == {"owner": "ana", "name": "ghost", "visibility": "private", "hardware": "gpu-l40s"}


@pytest.mark.parametrize(
    ("fault", "made"), [(LOST_AFTER, True), (Fault(500, carried_out=True), True), (LOST_BEFORE, False)]
)
def test_whether_the_model_was_made_is_looked_up(scene: Scene, fault: Fault, made: bool) -> None:
    scene.cog()
    scene.fake.models.clear()
    scene.fake.fail("POST", "/v1/models", fault)
    assert scene.release("--go", "--create") == (0 if made else 1)
    assert scene.fake.asked("POST", "/v1/models") == 1


def test_a_model_that_is_made_public_all_the_same_gets_no_weights(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.cog()
    scene.fake.models.clear()
    add = scene.fake.add_model
    monkeypatch.setattr(scene.fake, "add_model", lambda name, **facts: add(name, version=None, visibility="public"))
    assert scene.release("--go", "--create") == 1
    assert "is public; make it private" in capsys.readouterr().err
    assert not scene.log.exists()


def test_no_cog_is_told_before_the_checks(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert scene.release("--go") == 1
    told = capsys.readouterr()
    assert "there is no `cog` program here" in told.err
    assert "--trial" in told.err
    assert not told.out


def test_a_push_that_fails_is_told(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog(code=3)
    assert scene.release("--go") == 1
    assert "cog push ended with code 3; before a first push: cog login" in capsys.readouterr().err
    assert scene.fake.asked(*CREATE) == 0


def test_the_same_image_again_is_the_same_version(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    scene.fake.next_version = VERSION
    assert scene.release("--go") == 0
    assert "the version from before" in capsys.readouterr().out


def test_a_trial_of_the_latest_version(scene: Scene) -> None:
    assert scene.release("--trial") == 0
    assert scene.fake.bodies[-1 - len(scene.fake.states)]["version"] == VERSION
    assert scene.release("--trial", "v2") == 2


def test_a_trial_that_was_killed_is_gone_on_with(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.fail("GET", "/v1/predictions/", *[Fault(500)] * replicate_api.ATTEMPTS)
    assert scene.release("--trial") == 1
    id = json.loads(scene.note.read_text())["prediction"]
    assert f"prediction {id} may run on" in capsys.readouterr().err
    assert "personne" not in scene.note.read_text()
    assert scene.release("--trial") == 0
    assert f"going on with prediction {id}" in capsys.readouterr().out
    assert (scene.fake.asked(*CREATE), scene.note.exists()) == (1, False)


def test_a_trial_that_is_stopped_runs_on(scene: Scene) -> None:
    scene.fake.states = ["processing"]
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "release",
        NAME,
        "--weights",
        str(scene.weights),
        "--trial",
        VERSION,
    ]
    root = Path(cli.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ['PYTHONPATH']}"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(
            path.startswith("/v1/predictions/") for _, path in scene.fake.requests
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, "a trial that was sent runs on" in told) == (143, True), told
    assert f"--trial {VERSION}" in told
    assert not any(path.endswith("/cancel") for _, path in scene.fake.requests)
    scene.fake.states = ["succeeded"]
    assert scene.release("--trial", VERSION) == 0
    assert scene.fake.asked(*CREATE) == 1


def test_a_trial_whose_answer_was_lost_is_looked_for(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.lists = False
    scene.fake.fail(*CREATE, LOST_AFTER)
    assert scene.release("--trial") == 1
    assert "The same command looks for it again" in capsys.readouterr().err
    assert scene.release("--trial") == 1
    assert "not in Replicate's list" in capsys.readouterr().err
    scene.fake.lists = True
    assert scene.release("--trial") == 0
    assert (scene.fake.asked(*CREATE), scene.note.exists()) == (1, False)


def test_a_trial_that_is_refused_leaves_no_note(scene: Scene) -> None:
    scene.fake.fail(*CREATE, Fault(402))
    assert scene.release("--trial") == 1
    assert not scene.note.exists()


@pytest.mark.parametrize(
    ("status", "message"),
    [("failed", "ran out of memory"), ("aborted", "over before it started"), ("canceled", "its time was over")],
)
def test_a_trial_that_ends_badly_says_how(
    scene: Scene, capsys: pytest.CaptureFixture[str], status: str, message: str
) -> None:
    scene.fake.states = ["starting", status]
    assert scene.release("--trial") == 1
    assert message in capsys.readouterr().err
    assert not scene.note.exists()


def test_another_model_is_noticed(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.pieces = ["Ω", "something else"]
    assert scene.release("--trial") == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_trial_of_another_version_is_forgotten(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    trial.Sent(NAME, "ab" * 32, 1, "2026-01-01T00:00:00+00:00", "x").write(scene.note)
    assert scene.release("--trial") == 0
    assert "forgetting the trial of ana/ghost:abababababab" in capsys.readouterr().out
    scene.note.write_text("{}")
    assert scene.release("--trial") == 1


def test_a_webhook_ends_a_trial(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicate's part is played here: a webhook when the prediction, which looks alone would never end, has ended."""
    scene.fake.states = ["processing"]
    with httpx2.Client(trust_env=False, verify=False) as http:

        def tell() -> None:
            while not (rows := list(scene.fake.predictions.values())):
                time.sleep(0.01)
            scene.fake.move(rows[0], "succeeded")
            body = json.dumps({name: value for name, value in rows[0].items() if name != "body"}).encode()
            now = int(time.time())
            key = base64.b64decode(SECRET.removeprefix("whsec_"))
            signature = base64.b64encode(hmac.new(key, f"m.{now}.".encode() + body, hashlib.sha256).digest()).decode()
            headers = {"webhook-id": "m", "webhook-timestamp": str(now), "webhook-signature": f"v1,{signature}"}
            url = f"http://127.0.0.1:{ports[0]}"
            assert http.post(url, content=body, headers=headers | {"webhook-id": "forged"}).status_code == 401
            assert http.post(url, content=body, headers=headers).status_code == 200

        ports: list[int] = []
        receiver = release.Receiver

        def listen(secret: str, port: int) -> release.Receiver:
            made = receiver(secret, port)
            ports.append(int(made.url.rpartition(":")[2]))
            return made

        monkeypatch.setattr(release, "Receiver", listen)
        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        assert scene.release("--trial", "--webhook", "https://tunnel.example/", "--webhook-port", "0") == 0
        thread.join()
    assert "told by webhook, signature verified" in capsys.readouterr().out
    sent = scene.fake.bodies[scene.fake.requests.index(CREATE)]
    assert (sent["webhook"], sent["webhook_events_filter"]) == ("https://tunnel.example/", ["completed"])


def test_a_webhook_that_never_comes_is_done_without(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.01)
    assert scene.release("--trial", "--webhook", "https://tunnel.example/", "--webhook-port", "0") == 0
    assert "no webhook came" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ghost", "ana/ghost:latest", "../x/y"])
def test_what_is_no_model_is_bad_usage(name: str) -> None:
    assert cli.main(["release", name]) == 2
