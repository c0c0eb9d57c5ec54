"""Servers that are down, cold, slow, busy, or lose an answer: each has its behaviour, nothing is said twice."""

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from ghost.errors import BotError
from telegram_bot import commands, intake, service
from telegram_bot.config import Limits
from telegram_bot.database import Database
from telegram_bot.gateway import RetryLater
from telegram_bot.outgoing import Place
from telegram_bot.texts import Texts
from tests.telegram_bot import fake_model
from tests.telegram_bot.conftest import FRIEND, NOTICE, OWNER, PEER, World
from tests.telegram_bot.fake_bot_api import TOKEN, Fault

TEXTS = Texts()


def test_a_model_server_that_is_down_is_waited_for(world: World) -> None:
    port = world.model.server_port
    world.model.shutdown()
    world.model.server_close()
    with world.bot():
        world.api.say(FRIEND, "anyone?")
        world.api.until(lambda: TEXTS.down in world.replies(FRIEND))
        world.api.until(lambda: any("does not answer" in text for text in world.api.texts(OWNER)))
        again = fake_model.FakeModel(port=port)
        world.wait(FRIEND, TEXTS.down, "ANYONE?")
        again.shutdown()
        again.server_close()
    assert world.value("SELECT count(*) FROM predictions WHERE state = 'answered'") == 1
    assert world.value("SELECT count(*) FROM predictions WHERE state <> 'refused'") == 1  # the budget counts one


def test_a_cold_server_is_told_once(world: World) -> None:
    world.model.moods = ["starting"] * 3
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, TEXTS.waking, "HI")


def test_a_busy_server_is_asked_again(world: World) -> None:
    world.model.moods = ["busy", "busy"]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")


def test_a_broken_server_is_the_owners_to_mend(world: World) -> None:
    world.model.moods = ["broken"]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
        told = world.api.until(lambda: world.api.texts(OWNER))
    assert told[0].startswith("The model server: ")


def test_a_slow_server_shows_typing_and_loses_nothing(world: World) -> None:
    world.model.hold.clear()
    with world.bot():
        world.api.say(FRIEND, "one")
        world.api.until(lambda: world.model.prompts and FRIEND in world.api.typing)
        world.api.say(FRIEND, "two")  # while it thinks about the first
        world.recorded()
        world.model.hold.set()
        world.wait(FRIEND, "ONE", "TWO")
    assert world.model.prompts[1] == "B: one\nA: ONE\nB: two\nA:"


def test_a_prediction_that_takes_too_long_is_given_up(world: World) -> None:
    world.set(limits=Limits(prediction_seconds=0.1, replies_per_minute=1000))
    world.model.hold.clear()
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, TEXTS.failed)
        world.model.hold.set()
    assert world.value("SELECT count(*) FROM predictions WHERE state = 'failed'") == 2


@pytest.mark.parametrize(("mood", "state"), [("failed", "failed"), ("lost", "lost")])
def test_a_prediction_that_fails_is_made_again_once(world: World, mood: str, state: str) -> None:
    world.model.moods = [mood, "", mood, mood]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
        world.api.say(FRIEND, "and?")
        world.wait(FRIEND, "HI", TEXTS.failed)
    assert world.value(f"SELECT count(*) FROM predictions WHERE state = '{state}'") == 3


def test_a_flood_is_waited_out(world: World) -> None:
    world.api.faults = [Fault("sendMessage", 429, retry_after=600)]
    with world.bot():
        with world.clock.stopped():
            world.api.say(FRIEND, "hi")
            world.api.until(lambda: world.value("SELECT count(*) FROM outgoing WHERE error = '429'"))
            world.clock.skip(590)
            world.api.say(OWNER, "hi")  # others do not wait with them
            world.api.until(lambda: NOTICE in world.api.texts(OWNER))
            assert not world.api.texts(FRIEND)
            world.clock.skip(20)
        world.wait(FRIEND, "HI")
    assert world.api.texts(FRIEND) == [NOTICE, "HI"]


@pytest.mark.parametrize("fault", [500, 502, "lost"])
def test_an_answer_of_telegrams_that_is_lost_is_not_repeated(
    world: World, fault: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.faults = [Fault("sendMessage", fault, skip=1)]
    with caplog.at_level(logging.WARNING), world.bot():
        world.api.say(FRIEND, "hi")
        world.api.until(lambda: world.value("SELECT count(*) FROM outgoing WHERE state = 'doubtful'"))
        world.api.say(FRIEND, "next")
        world.api.until(lambda: "NEXT" in world.replies(FRIEND))
        world.api.say(OWNER, "/status")
        status = world.api.until(lambda: next((t for t in world.api.texts(OWNER) if t.startswith("Replies")), None))
    assert world.replies(FRIEND).count("HI") == (1 if fault == "lost" else 0)
    assert "Delivery unknown, not sent again: 1 (message 2)" in status
    assert "message 2: doubtful" in caplog.text
    assert world.model.prompts[1] == "B: hi\nA: HI\nB: next\nA:"  # it may have been read


@pytest.mark.parametrize("fault", [403, "cut", "lost"])
def test_a_notice_that_may_not_have_arrived_comes_with_the_next_message(world: World, fault: int | str) -> None:
    world.api.faults = [Fault("sendMessage", fault)]
    with world.bot():
        for number, text in enumerate(["one", "two", "three"], 1):
            world.api.say(FRIEND, text)
            world.api.until(lambda number=number: len(world.replies(FRIEND)) == number)
    certain = [NOTICE, "TWO", "THREE"]
    assert world.api.texts(FRIEND) == ([NOTICE] if fault == "lost" else []) + ["ONE", *certain]


def test_a_notice_that_was_on_its_way_as_the_bot_was_killed_comes_again(world: World) -> None:
    db = Database(Path(world.config.database))
    with db.transaction():
        place = Place(FRIEND, conversation=intake.open_conversation(db, "private", FRIEND, "", 0, "Malo", 0.0))
        commands.answer(db, world.config, place, "start", FRIEND)
        db.run("UPDATE outgoing SET state = 'sending'")
    db.close()
    with world.bot():
        world.api.say(FRIEND, "/reset")  # which clears what is planned, and not this
        world.api.until(lambda: TEXTS.reset in world.api.texts(FRIEND))
    assert world.api.texts(FRIEND) == [NOTICE, TEXTS.reset]


def test_updates_come_again_after_telegram_was_down(world: World) -> None:
    world.api.faults = [Fault("getUpdates", 502, times=2), Fault("getUpdates", "lost"), Fault("getUpdates", "cut")]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
    assert len(world.model.prompts) == 1


@pytest.mark.parametrize(
    "answer", ['{"detail": "sign in first"}', "[1]", '{"ok": false}', '{"ok": true, "result": {"login": 1}}']
)
def test_json_of_somebody_else_is_a_bad_connection(world: World, answer: str, caplog: pytest.LogCaptureFixture) -> None:
    world.api.faults = [Fault("getUpdates", answer)]
    with caplog.at_level(logging.WARNING), world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
    assert len([record for record in caplog.records if "no updates from Telegram" in record.message]) == 1
    assert "Traceback" not in caplog.text


def test_lines_about_the_wait_are_each_said_once(world: World) -> None:
    world.set(waking_seconds=0.0)
    world.model.moods = ["starting", "broken"] * 3
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, TEXTS.waking, TEXTS.down, "HI")


def test_enough_is_said_once_a_day(world: World) -> None:
    world.set(limits=Limits(predictions_per_day=1))
    photo = [{"file_id": "x", "file_unique_id": "y", "width": 1, "height": 1}]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
        world.api.say(FRIEND, "one")
        world.wait(FRIEND, "HI", TEXTS.enough)
        world.api.say(FRIEND, None, photo=photo)
        world.wait(FRIEND, "HI", TEXTS.enough, TEXTS.only_text)
        world.api.say(FRIEND, "two")
        world.api.until(lambda: world.value("SELECT count(*) FROM messages WHERE NOT pending AND text = 'two'"))
    assert world.replies(FRIEND) == ["HI", TEXTS.enough, TEXTS.only_text]


def test_the_network_is_cut_and_comes_back(world: World) -> None:
    world.api.faults = [Fault("deleteWebhook", "cut"), Fault("getUpdates", "cut", times=2)]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")


def test_somebody_who_blocked_the_bot_is_let_be(world: World) -> None:
    world.api.faults = [Fault("sendMessage", 403, times=2)]
    with world.bot():
        world.api.say(FRIEND, "hi")
        refused = "SELECT count(*) FROM outgoing WHERE state = 'refused'"
        world.api.until(lambda: world.value(refused) == 2)
        world.api.say(FRIEND, "next")
        world.wait(FRIEND, "HI", "NEXT")  # both are unanswered
        world.api.say(OWNER, "/status")
        status = world.api.until(lambda: next((t for t in world.api.texts(OWNER) if t.startswith("Replies")), None))
    assert world.model.prompts[1] == "B: hi\nnext\nA:"  # what nobody got was not said
    assert "Replies today: 1\n" in status
    assert "Predictions today: 2 of 500" in status


def test_two_pollers_are_told_apart(world: World) -> None:
    world.api.faults = [Fault("getUpdates", 409, times=3)]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
    world.api.faults = [Fault("getUpdates", 409, times=1000)]
    with pytest.raises(BotError, match="another program reads this bot's updates"), world.bot():
        while not world.ended.wait(0.01):
            world.clock.skip(3)


@pytest.mark.skipif(sys.platform == "win32", reason="kill ends a process there")
@pytest.mark.parametrize("loop_takes_signals", [True, False], ids=["unix", "as on Windows"])
def test_a_signal_ends_it(world: World, monkeypatch: pytest.MonkeyPatch, loop_takes_signals: bool) -> None:
    def refused(*_: object) -> None:
        raise NotImplementedError

    def stop() -> None:
        world.api.until(lambda: "getUpdates" in world.api.calls)
        os.kill(os.getpid(), signal.SIGTERM)

    if not loop_takes_signals:
        monkeypatch.setattr("asyncio.SelectorEventLoop.add_signal_handler", refused)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    killer = threading.Thread(target=stop)
    killer.start()
    try:
        asyncio.run(service.serve(world.config, TOKEN, [signal.SIGTERM], world.clock))
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, before)


def test_a_token_that_telegram_does_not_know(world: World) -> None:
    world.api.faults = [Fault("getMe", 401)]
    with pytest.raises(BotError, match="does not know this token"), world.bot():
        world.ended.wait(10)


@pytest.mark.parametrize("status", [401, 404])
def test_a_token_that_was_taken_back_leaves_what_is_to_be_sent(world: World, status: int) -> None:
    world.api.faults = [Fault("sendMessage", status, skip=1)]
    with pytest.raises(BotError, match="no longer knows this token"), world.bot():
        world.api.say(FRIEND, "hi")
        assert world.ended.wait(30)
    with world.bot():
        world.wait(FRIEND, "HI")


def test_the_budget_ends_the_day(world: World) -> None:
    world.set(limits=Limits(predictions_per_day=5, replies_per_minute=1000))
    with world.bot():
        for number in range(7):
            world.api.say(FRIEND, f"m{number}")
            world.api.until(lambda number=number: len(world.replies(FRIEND)) == min(number, 5) + 1)
        world.api.until(lambda: len(world.api.texts(OWNER)) == 2)
    assert world.replies(FRIEND) == ["M0", "M1", "M2", "M3", "M4", TEXTS.enough]
    assert world.api.texts(OWNER) == ["4 of today's 5 predictions are used.", "Today's 5 predictions are used up."]
    assert len(world.model.prompts) == 5


def test_who_writes_too_fast_is_answered_together(world: World) -> None:
    world.set(limits=Limits(replies_per_minute=1), debounce_seconds=0.0)
    with world.clock.stopped(), world.bot():
        world.api.say(FRIEND, "one")
        world.wait(FRIEND, "ONE")
        world.api.say(FRIEND, "two")
        world.api.say(FRIEND, "three")
        world.recorded()
    assert world.replies(FRIEND) == ["ONE"]
    world.clock.skip(61)
    with world.bot():
        world.wait(FRIEND, "ONE", "TWO", "THREE")
    assert len(world.model.prompts) == 2


def test_who_forgets_is_not_answered_sooner(world: World) -> None:
    world.set(limits=Limits(replies_per_minute=1), debounce_seconds=0.0)
    with world.clock.stopped(), world.bot():
        world.api.say(FRIEND, "one")
        world.wait(FRIEND, "ONE")
        for count in (1, 2):
            world.api.say(FRIEND, "/forget")
            world.api.until(lambda count=count: world.replies(FRIEND).count(TEXTS.forgotten) == count)
            world.api.say(FRIEND, "two")
            world.api.until(lambda: world.value("SELECT count(*) FROM messages WHERE pending"))
        world.api.say(OWNER, "hi")
        world.api.until(lambda: "HI" in world.replies(OWNER))
        assert "TWO" not in world.replies(FRIEND)
        world.clock.skip(61)
        world.api.until(lambda: "TWO" in world.replies(FRIEND))


def test_commands_have_a_rate(world: World) -> None:
    world.set(limits=Limits(commands_per_minute=2), debounce_seconds=0.0)
    with world.clock.stopped(), world.bot():
        for _ in range(5):
            world.api.say(FRIEND, "/help")
        world.api.say(OWNER, "/help")  # others are not the slower for it
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, TEXTS.help, TEXTS.help, TEXTS.slower, "HI")
        world.api.until(lambda: len(world.api.texts(OWNER)) == 2)
        world.clock.skip(61)
        world.api.say(FRIEND, "/help")
        world.wait(FRIEND, TEXTS.help, TEXTS.help, TEXTS.slower, "HI", TEXTS.help)


def test_no_log_line_holds_a_message_or_the_token(world: World, caplog: pytest.LogCaptureFixture) -> None:
    from telegram_bot.bot import set_up_log

    set_up_log()
    world.model.moods = ["failed", "lost"]
    world.api.faults = [Fault("getUpdates", "cut"), Fault("sendMessage", 429, retry_after=1)]
    with caplog.at_level(logging.DEBUG, logger="ghost.bot"), world.bot():
        world.api.say(FRIEND, "my secret")
        world.api.until(lambda: world.replies(FRIEND))
        world.api.push(message={"message_id": 1, "date": 0, "chat": {"id": 1, "type": "private"}, "from": {}})
        world.api.say(FRIEND, "my secret")
        world.api.until(lambda: len(world.replies(FRIEND)) > 1)
    assert "secret" not in caplog.text.casefold()
    assert TOKEN not in caplog.text
    assert caplog.records


def test_who_queues_for_the_last_prediction_does_not_overdraw(world: World) -> None:
    world.set(allow=[FRIEND, PEER], limits=Limits(predictions_per_day=1))
    world.model.hold.clear()
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.api.until(lambda: world.model.prompts)
        world.api.say(PEER, "hi")
        world.api.until(lambda: PEER in world.api.typing)  # now it waits for its turn
        world.model.hold.set()
        world.wait(PEER, TEXTS.enough)
        world.wait(FRIEND, "HI")
    assert len(world.model.prompts) == 1


def test_what_was_taken_back_is_not_sent_to_a_server_that_comes_back(world: World) -> None:
    world.model.moods = ["busy"] * 1000
    world.set(waking_seconds=60.0)
    with world.bot():
        world.api.say(FRIEND, "my secret")
        world.api.until(lambda: len(world.model.moods) < 1000)
        world.api.say(FRIEND, "/forget")
        world.api.until(lambda: TEXTS.forgotten in world.replies(FRIEND))
        world.model.moods = []
        world.api.say(FRIEND, "hi")
        world.api.until(lambda: "HI" in world.replies(FRIEND))
    assert world.model.prompts == ["B: hi\nA:"]


def test_a_start_without_a_network_waits_for_it(world: World) -> None:
    world.api.faults = [Fault("getMe", "cut"), Fault("getMe", 502), Fault("getMe", 429, retry_after=1)]
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")


def test_days_without_telegram_are_waited_out() -> None:
    assert [RetryLater(None, "").wait(failures) for failures in (0, 3, 10_000)] == [0.5, 4, 60]
    assert RetryLater(7, "").wait(10_000) == 7
