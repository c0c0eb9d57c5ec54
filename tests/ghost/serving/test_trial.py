"""The trial of `ghost release`: sent once, gone on with, judged."""

import os
import signal
import threading
import time

import pytest

from ghost.serving import release
from ghost.serving.client import replicate
from tests.ghost.serving.fake_replicate import LOST_AFTER, NEXT_VERSION, VERSION, Fault
from tests.ghost.serving.release_scene import CREATE, Scene


def test_a_trial_of_the_latest_version(scene: Scene) -> None:
    assert scene.release("--trial") == 0
    assert scene.fake.bodies[scene.fake.requests.index(CREATE)]["version"] == VERSION
    assert scene.release("--trial", "v2") == 2


def test_a_trial_whose_end_was_not_seen_is_gone_on_with(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.fail("GET", "/v1/predictions/", *[Fault(500)] * replicate.ATTEMPTS)
    assert scene.release("--trial") == 1
    (id,) = scene.fake.predictions
    assert f"prediction {id} may still be running" in capsys.readouterr().err
    assert scene.release("--trial") == 0
    assert f"continuing with prediction {id}" in capsys.readouterr().out
    assert scene.release("--trial") == 0  # nor is one that has succeeded paid for again
    assert scene.fake.asked(*CREATE) == 1


def test_a_trial_that_takes_too_long_is_gone_on_with_too(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fake.states = ["processing"]
    monkeypatch.setattr(release, "TRIAL_SECONDS", 0.2)
    assert scene.release("--trial") == 1
    assert "not finished within" in capsys.readouterr().err
    assert not any(path.endswith("/cancel") for _, path in scene.fake.requests)


def test_a_trial_that_is_stopped_runs_on(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.states = ["processing"]

    def stop() -> None:
        while not any(path.startswith(("/v1/predictions/", "/streams/")) for _, path in scene.fake.requests):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    code = scene.release("--trial", VERSION)
    stopper.join()
    told = capsys.readouterr().err
    assert (code, "a trial already sent runs on" in told) == (143, True), told
    assert f"--trial {VERSION}" in told
    assert not any(path.endswith("/cancel") for _, path in scene.fake.requests)
    scene.fake.states = ["succeeded"]
    assert scene.release("--trial", VERSION) == 0
    assert scene.fake.asked(*CREATE) == 1


def test_a_trial_whose_answer_was_lost_is_looked_for(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.lists = False
    scene.fake.fail(*CREATE, LOST_AFTER)
    assert scene.release("--trial") == 1
    assert "look at replicate.com/predictions before you send it again" in capsys.readouterr().err
    scene.fake.lists = True
    assert scene.release("--trial") == 0
    assert scene.fake.asked(*CREATE) == 1


def test_a_list_that_cannot_be_had_sends_nothing(scene: Scene) -> None:
    scene.fake.fail("GET", "/v1/predictions$", *[Fault(500)] * replicate.ATTEMPTS)
    assert scene.release("--trial") == 1
    assert scene.fake.asked(*CREATE) == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("failed", "ran out of memory"),
        ("aborted", "timed out before it started"),
        ("canceled", "canceled, or timed out"),
    ],
)
def test_a_trial_that_ends_badly_says_how(
    scene: Scene, capsys: pytest.CaptureFixture[str], status: str, message: str
) -> None:
    scene.fake.states = ["starting", status]
    assert scene.release("--trial") == 1
    assert message in capsys.readouterr().err
    scene.fake.states = ["succeeded"]
    assert scene.release("--trial") == 0
    assert scene.fake.asked(*CREATE) == 2


def test_another_model_is_noticed(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.fake.pieces = ["Ω", "something else"]
    assert scene.release("--trial") == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_trial_of_another_version_is_another(scene: Scene) -> None:
    assert scene.release("--trial") == 0
    assert scene.release("--trial", NEXT_VERSION) == 0
    assert scene.fake.asked(*CREATE) == 2
