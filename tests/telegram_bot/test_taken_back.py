"""What its writer has deleted is deleted here: from the chat, from the drafts, from what training would learn."""

from pathlib import Path

from telegram_bot import export
from tests.telegram_bot.conftest import LINK, OWNER, PEER, World, offered, state


def deleted(world: World, *numbers: int) -> None:
    gone = {"business_connection_id": LINK, "chat": world.api.chat(PEER), "message_ids": list(numbers)}
    world.api.push(deleted_business_messages=gone)


def test_a_message_that_its_writer_deletes_is_deleted_here(business: World) -> None:
    api = business.api
    business.set(debounce_seconds=0.5)
    with business.bot():
        number = api.say_in_business(LINK, PEER, PEER, "oops")
        api.say_in_business(LINK, PEER, PEER, "hi")
        deleted(business, number)
        offered(business, "HI")
    assert business.model.prompts == ["B: hi\nA:"]


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
        assert export.corrections(business.config, tmp_path / "corrections.jsonl") == 0
        deleted(business, second)
        api.until(lambda: draft.text == "What this answered was deleted." and not draft.buttons)
    assert state(business) == ["edited", "outdated"]
    assert business.value("SELECT context FROM drafts WHERE id = 2") == ""
