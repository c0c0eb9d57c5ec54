"""`ghost release`: what it refuses, says, makes and pushes."""

import json
import os
import re
import shutil
import signal
import threading
import time

import pytest

from ghost import cli
from ghost.hub import leaking
from ghost.serving import release
from ghost.serving.checks import Result
from ghost.serving.client import replicate
from replicate_deployment import ghost_json
from tests.ghost.serving.fake_replicate import LOST_AFTER, LOST_BEFORE, NEXT_VERSION, TOKEN, VERSION, Fault
from tests.ghost.serving.release_scene import CREATE, NAME, Scene


def test_without_go_nothing_is_sent(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    assert scene.release() == 0
    told = capsys.readouterr().out
    assert f"cd {scene.context} && cog push r8.im/ana/ghost" in told.replace("\n", " ")
    assert "private, confirmed by Replicate just now" in told
    assert "gpu-l40s: $0.000975 a second, $3.51 an hour" in told
    assert f"ghost release ana/ghost --weights {scene.weights} --go" in told
    assert {method for method, _ in scene.fake.requests} == {"GET"}
    assert not scene.log.exists()
    assert TOKEN not in told


def test_it_says_what_the_model_gives_away(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert scene.release() == 0
    assert f"not checked; to check first: ghost evaluate {scene.weights}" in capsys.readouterr().out
    leaking.EVALUATION.parent.mkdir()
    model = {"ghost_sha256": ghost_json.sha256(scene.weights / ghost_json.NAME)}
    for found, told in [
        ([], "none above its limit"),
        (["12% of training replies come out.", "2 phones."], "2 phones."),
    ]:
        leaking.EVALUATION.write_text(json.dumps({"model": model, "leaks": {"above_limit": found}}))
        assert scene.release() == 0
        assert told in capsys.readouterr().out


def test_without_a_token_it_says_what_was_not_looked_at(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    assert scene.release() == 0
    assert "not checked, because REPLICATE_API_TOKEN is not set" in capsys.readouterr().out
    assert not scene.fake.requests
    assert scene.release("--trial") == 2


def test_the_model_is_put_into_the_build_context_without_a_second_copy(scene: Scene) -> None:
    (scene.context / "weights").mkdir()
    (scene.context / "weights" / ".gitkeep").touch()
    (scene.folder / "another.safetensors").touch()
    (scene.context / "weights" / "another.safetensors").hardlink_to(scene.folder / "another.safetensors")
    assert scene.release() == 0
    names = {path.name for path in (scene.context / "weights").iterdir()}
    assert names == {ghost_json.NAME, ".gitkeep", *ghost_json.read(scene.weights).block("files")}
    shard = scene.context / "weights" / "model.safetensors"
    assert shard.samefile(scene.weights / "model.safetensors")


def test_whichever_user_the_image_runs_as_can_read_the_weights(scene: Scene) -> None:
    assert scene.release() == 0
    weights = scene.context / "weights"
    for path in weights.iterdir():
        path.chmod(0o600)
    weights.chmod(0o700)
    assert scene.release() == 0  # they are there already
    assert weights.stat().st_mode & 0o005 == 0o005
    assert all(path.stat().st_mode & 0o004 for path in weights.iterdir())
    scene.weights.chmod(0o700)
    shutil.rmtree(weights)
    assert scene.release() == 0
    assert weights.stat().st_mode & 0o005 == 0o005
    assert scene.weights.stat().st_mode & 0o077 == 0  # the model's own folder stays closed


def test_the_server_in_the_image_is_pinned(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    (scene.context / "cog.yaml").write_text('build:\n  sdk_version: "0.23.1"\n', encoding="utf-8")
    assert scene.release() == 0
    line = "env COGLET_WHEEL=pypi:0.23.1 cog push r8.im/ana/ghost"
    assert f"cd {scene.context} && {line}" in capsys.readouterr().out.replace("\n", " ")
    assert scene.release("--go") == 0
    assert json.loads(scene.log.read_text())["coglet"] == "pypi:0.23.1"


def test_the_only_copy_of_another_model_is_not_replaced(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    weights = scene.context / "weights"
    weights.mkdir()
    (weights / "of-another.safetensors").write_bytes(b"another")
    scene.cog()
    for flags in ([], ["--go"]):
        assert scene.release(*flags) == 2
        told = capsys.readouterr().err
        assert f"{weights} would be replaced, but holds the only copy of of-another.safetensors" in told
        assert f"rm -r {weights}/*" in told.replace("\n", " ")
    assert [path.read_bytes() for path in weights.iterdir()] == [b"another"]
    assert not scene.log.exists()


def test_a_copy_of_the_same_model_is_replaced(scene: Scene) -> None:
    shutil.copytree(scene.weights, scene.context / "weights", copy_function=shutil.copy)  # as cp -r does
    assert scene.release() == 0
    assert (scene.context / "weights" / "model.safetensors").samefile(scene.weights / "model.safetensors")


def test_a_preflight_that_fails_stops_it(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.cog()
    results = [Result("files", "ok", "9 there"), Result("golden prompt", "failed", "other weights", "ghost merge")]
    monkeypatch.setattr(release, "preflight", lambda folder: iter(results))
    assert scene.release("--go") == 1
    told = capsys.readouterr()
    assert "preflight found 1 to fix; nothing was sent" in told.err
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
    assert re.search(r"at most \d+\.\d{4} dollars on gpu-l40s", told)
    assert TOKEN not in told


def test_json_is_all_that_is_printed(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    assert scene.release("--go", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["version"], result["output_tokens"], result["differs"]) == (NEXT_VERSION, 20, False)


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
    assert "does not exist; --create creates it, private" in capsys.readouterr().out
    assert scene.release("--go") == 1
    assert "--go --create" in capsys.readouterr().err
    assert scene.release("--go", "--create", "--hardware", "gpu-9") == 1
    assert "choose from cpu, gpu-l40s" in capsys.readouterr().err
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
    assert "is public: everybody could talk to this ghost" in capsys.readouterr().err
    assert not scene.log.exists()


def test_no_cog_is_told_before_the_checks(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert scene.release("--go") == 1
    told = capsys.readouterr()
    assert "the `cog` program is not installed" in told.err
    assert "--trial" in told.err
    assert not told.out


def test_a_push_that_fails_is_told(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog(code=3)
    assert scene.release("--go") == 1
    assert "cog push ended with code 3; before the first push: cog login" in capsys.readouterr().err
    assert scene.fake.asked(*CREATE) == 0


def test_the_same_image_again_is_the_same_version(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cog()
    scene.fake.next_version = VERSION
    assert scene.release("--go") == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert (
        f"the latest version is still ana/ghost:{VERSION}: either the image did not change, or Replicate does not show"
        in told
    )
    assert f"ghost release ana/ghost --weights {scene.weights} --trial" in told


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--json"], "add --go or --trial"),
        (["--trial", "--create"], "--trial only tests what was pushed"),
        (["--trial", "--go"], "--trial only tests what was pushed"),
    ],
)
def test_a_flag_without_effect_is_bad_usage(
    scene: Scene, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    scene.cog()
    assert scene.release(*flags) == 2
    assert said in capsys.readouterr().err
    assert not scene.fake.requests


@pytest.mark.parametrize("name", ["ghost", "ana/ghost:latest", "../x/y"])
def test_what_is_no_model_is_bad_usage(name: str) -> None:
    assert cli.main(["release", name]) == 2


# The trial of `ghost release`: sent once, gone on with, judged.


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
