"""The bot before Replicate: cold starts, its own pace, and a prediction that outlives the process that asked for it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ghost.serving.client import Backend, Replicate
from telegram_bot.texts import Texts
from tests.ghost.serving import fake_replicate
from tests.ghost.serving.fake_replicate import PIECES, FakeReplicate, Fault
from tests.telegram_bot.conftest import FRIEND, World

SAID = "".join(PIECES).split("\n")


@pytest.fixture
def replicate(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeReplicate]:
    with fake_replicate.running() as fake:

        def backend(where: str, _: Path) -> Backend:
            return Replicate(where.removeprefix("replicate:"), fake_replicate.TOKEN, fake.url)

        monkeypatch.setattr("telegram_bot.service.backend", backend)
        monkeypatch.setattr("ghost.serving.client.replicate.PAUSES", [0.01, 0.02, 0.04])
        world.set(backend="replicate:ana/ghost")
        yield fake


def test_a_cold_start_is_told_once(world: World, replicate: FakeReplicate) -> None:
    replicate.streams = False
    replicate.states = ["starting"] * 40 + ["succeeded"]
    with world.bot():
        world.api.say(FRIEND, "tu viens ?")
        world.api.until(lambda: Texts().waking in world.replies(FRIEND))
        replicate.states = ["succeeded"]
        world.wait(FRIEND, Texts().waking, *SAID)
    assert replicate.asked("POST", "/v1/predictions") == 1


def test_too_many_requests_are_waited_out(world: World, replicate: FakeReplicate) -> None:
    for seconds in ("0", "7200"):  # what Replicate's client waits for, and what it leaves to the bot
        replicate.fail("POST", "/v1/predictions", Fault(429, headers={"Retry-After": seconds}, detail="throttled"))
    replicate.states = ["succeeded"]
    with world.bot():
        world.api.say(FRIEND, "tu viens ?")
        world.api.until(lambda: world.value("SELECT count(*) FROM predictions WHERE state = 'refused'"))
        assert not world.replies(FRIEND)
        world.clock.skip(7200)
        world.wait(FRIEND, *SAID)
    assert len(replicate.predictions) == 1


def test_a_bot_that_ends_leaves_its_prediction_to_the_next(world: World, replicate: FakeReplicate) -> None:
    replicate.states = ["processing"]
    with world.bot():
        world.api.say(FRIEND, "tu viens ?")
        world.api.until(lambda: world.api.texts(FRIEND))
        world.api.until(lambda: world.value("SELECT remote FROM predictions WHERE state = 'asked'"))
    (row,) = replicate.predictions.values()
    assert row["status"] != "canceled"
    replicate.move(row, "succeeded")
    with world.bot():
        world.wait(FRIEND, *SAID)
    assert replicate.asked("POST", "/v1/predictions") == 1


def test_what_nobody_waits_for_any_more_is_cancelled(world: World, replicate: FakeReplicate) -> None:
    replicate.states = ["processing"]
    with world.bot():
        world.api.say(FRIEND, "tu viens ?")
        world.api.until(lambda: world.api.texts(FRIEND))
        world.api.until(lambda: world.value("SELECT remote FROM predictions WHERE state = 'asked'"))
        world.api.say(FRIEND, "/forget")
        (row,) = replicate.predictions.values()
        world.api.until(lambda: row["status"] == "canceled")


def test_what_a_killed_process_asked_for_is_fetched_and_not_asked_again(
    world: World, replicate: FakeReplicate, tmp_path: Path
) -> None:
    replicate.states = ["processing"]
    folder = Path(world.config.database).parent
    with world.bot():
        world.api.say(FRIEND, "tu viens ?")
        world.api.until(lambda: world.api.texts(FRIEND))
        world.api.until(lambda: world.value("SELECT remote FROM predictions WHERE state = 'asked'"))
        world.api.until(lambda: not world.value("SELECT count(*) FROM outgoing WHERE state <> 'sent'"))
        # What one that is killed leaves.
        shutil.copytree(folder, tmp_path / "killed")
    shutil.rmtree(folder)
    shutil.move(tmp_path / "killed", folder)
    (row,) = replicate.predictions.values()
    replicate.move(row, "succeeded")
    with world.bot():
        world.wait(FRIEND, *SAID)
    assert replicate.asked("POST", "/v1/predictions") == 1
    assert world.value("SELECT count(*) FROM predictions WHERE state = 'answered'") == 1
