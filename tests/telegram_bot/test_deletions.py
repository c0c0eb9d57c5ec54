"""What its writer has deleted is deleted here: from the chat, from the drafts, from what training would learn."""

from pathlib import Path

from telegram_bot import bot
from telegram_bot.texts import Texts
from tests.telegram_bot.conftest import FRIEND, GROUP, LINK, OWNER, PEER, STRANGER, World, offered, state


def deleted(world: World, *numbers: int) -> None:
    gone = {"business_connection_id": LINK, "chat": world.api.chat(PEER), "message_ids": list(numbers)}
    world.api.push(deleted_business_messages=gone)


def test_a_message_that_its_writer_deletes_is_deleted_here(business: World) -> None:
    api = business.api
    with business.bot():
        with business.clock.stopped():
            number = api.say_in_business(LINK, PEER, PEER, "oops")
            api.say_in_business(LINK, PEER, PEER, "hi")
            deleted(business, number)
            business.recorded()
        offered(business, "HI")
    assert business.model.prompts == ["B: hi\nA:"]


def test_a_quote_does_not_remember_what_was_deleted_or_reworded(business: World) -> None:
    api = business.api
    old = api.message(OWNER, "call me on 5551234", PEER, business_connection_id=LINK)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "tonight?", reply_to_message=old)
        offered(business, "> CALL ME ON 5551234\nTONIGHT?")
        api.push(edited_business_message=old | {"text": "call me on …", "edit_date": 1})
        business.recorded()
        assert not business.value("SELECT count(*) FROM drafts WHERE context LIKE '%5551234%'")
        api.say_in_business(LINK, PEER, PEER, "hello?")
        offered(business, "> CALL ME ON …\nTONIGHT?\nHELLO?")
        deleted(business, old["message_id"])
        business.recorded()
        assert not business.value("SELECT count(*) FROM drafts WHERE context LIKE '%call me%'")
        api.say_in_business(LINK, PEER, PEER, "well")
        offered(business, "TONIGHT?\nHELLO?\nWELL")
    assert business.model.prompts[-1] == "B: tonight?\nhello?\nwell\nA:"


def test_in_a_group_forget_takes_only_what_its_writer_wrote(world: World) -> None:
    api = world.api
    world.set(allow=[GROUP])
    with world.bot():
        secret = api.say(FRIEND, "my secret", chat=GROUP)
        quoted = api.message(FRIEND, "my secret", GROUP) | {"message_id": secret}
        api.say(STRANGER, "what is it? @ghost_bot", chat=GROUP, reply_to_message=quoted)
        api.until(lambda: len(world.model.prompts) == 1)
        api.say(FRIEND, "/forget", chat=GROUP)
        api.until(lambda: Texts().forgotten_own in api.texts(GROUP))
        assert world.value("SELECT group_concat(text) FROM messages WHERE NOT mine") == "what is it?"
        assert world.value("SELECT count(*) FROM messages WHERE quote IS NOT NULL") == 0
        api.say(OWNER, "/forget", chat=GROUP)
        api.until(lambda: Texts().forgotten in api.texts(GROUP))
    assert world.value("SELECT count(*) FROM messages") == 0


def test_what_the_owner_rewords_is_what_they_said(business: World) -> None:
    api = business.api
    with business.bot():
        with business.clock.stopped():
            number = api.say_in_business(LINK, OWNER, PEER, "at eihgt")
            edited = api.message(OWNER, "at eight", PEER, business_connection_id=LINK) | {"message_id": number}
            api.push(edited_business_message=edited | {"edit_date": 1})
            api.say_in_business(LINK, PEER, PEER, "ok")
            business.recorded()
        offered(business, "OK")
    assert business.model.prompts == ["A: at eight\nB: ok\nA:"]


def test_a_draft_does_not_remember_what_was_deleted(business: World, tmp_path: Path) -> None:
    api = business.api
    with business.bot():
        secret = api.say_in_business(LINK, PEER, PEER, "my secrt")
        edited = api.message(PEER, "my secret", PEER, business_connection_id=LINK) | {"message_id": secret}
        draft = offered(business, "MY SECRT")
        api.push(edited_business_message=edited | {"edit_date": 1})
        api.press(OWNER, draft, "Edit")
        asked = api.until(lambda: next((s for s in api.sent if "reply to this message" in s.text), None))
        api.say(OWNER, "salut", reply_to_message=api.shown(asked))
        api.press(OWNER, offered(business, "salut"), "Send")
        api.until(lambda: api.texts(PEER) == ["salut"])
        second = api.say_in_business(LINK, PEER, PEER, "and then")
        draft = offered(business, "AND THEN")
        assert "my secret" in str(business.value("SELECT group_concat(context) FROM drafts"))
        deleted(business, secret)
        api.until(lambda: not business.value("SELECT count(*) FROM messages WHERE text = 'my secret'"))
        assert state(business) == ["edited", "offered"]  # it answers something else
        assert business.value("SELECT context FROM drafts WHERE id = 1") == ""
        assert "secr" not in business.value("SELECT context FROM drafts WHERE id = 2")
        assert bot.corrections(business.config, tmp_path / "corrections.jsonl") == (0, 0)
        deleted(business, second)
        api.until(lambda: draft.text == "What this answered was deleted." and not draft.buttons)
    assert state(business) == ["edited", "outdated"]
    assert business.value("SELECT context FROM drafts WHERE id = 2") == ""
