"""The trial of `ghost release`: sent once, gone on with, judged."""

import base64
import functools
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from serving import release, trial
from serving.client import replicate_api
from training import cli

from .fake_replicate import LOST_AFTER, SECRET, VERSION, Fault
from .release_scene import CREATE, NAME, Scene


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


def test_a_trial_without_an_end_was_not_found_by_looking(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fake.states = ["processing"]
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(release.trial, "Trial", functools.partial(trial.Trial, seconds=0.1))
    assert scene.release("--trial", "--webhook", "https://tunnel.example/", "--webhook-port", "0") == 1
    told = capsys.readouterr()
    assert "no end within" in told.err
    assert "found by looking" not in told.out
    assert scene.note.exists()
