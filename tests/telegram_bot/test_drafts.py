"""Drafts: offered to the owner, sent by nobody else, corrected by nobody else."""

import json
import time
from pathlib import Path
from typing import Any

from replicate_deployment.chat_format import Turn
from telegram_bot import drafts, export, intake
from telegram_bot.config import Texts
from telegram_bot.database import Database
from tests.telegram_bot import fake_model
from tests.telegram_bot.conftest import FRIEND, LINK, OWNER, PEER, World, offered, state
from tests.telegram_bot.fake_bot_api import Fault, Sent


def forwarded(world: World, writer: int | None, text: str) -> None:
    origin: dict[str, Any] = {"type": "hidden_user", "sender_user_name": "Somebody", "date": 0}
    if writer is not None:
        origin = {"type": "user", "sender_user": world.api.user(writer), "date": 0}
    world.api.say(OWNER, text, forward_origin=origin)


def test_send(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "tu viens ?\net quand ?")
        draft = offered(business, "TU VIENS ?\nET QUAND ?")
        assert draft.text.startswith("Draft 1, to Ines\n» tu viens ?\net quand ?\n\n")
        assert [button["text"] for button in draft.buttons] == ["Send", "Edit", "Another", "Discard"]
        assert not api.texts(PEER)
        query = api.press(OWNER, draft, "Send")
        api.until(lambda: api.texts(PEER) == ["TU VIENS ?", "ET QUAND ?"])
        api.until(lambda: not draft.buttons and api.answered.get(query) == "Sent")
        assert {sent.connection for sent in api.sent if sent.chat == PEER} == {LINK}
    assert state(business) == ["sent"]


def test_a_long_text_is_offered_as_far_as_it_fits_and_sent_whole(business: World) -> None:
    api, said = business.api, "😂 mdr " * 900
    business.model.reply = lambda prompt: said
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi " * 300)
        draft = api.until(lambda: next((sent for sent in api.sent if sent.buttons), None))
        assert draft.text.endswith("…")
        api.press(OWNER, draft, "Send")
        api.until(lambda: " ".join(api.texts(PEER)) == said.strip())


def test_pressing_twice_sends_once(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        queries = [api.press(OWNER, draft, "Send"), api.press(OWNER, draft, "Send"), api.press(OWNER, draft, "Discard")]
        api.until(lambda: all(query in api.answered for query in queries))
        api.until(lambda: api.texts(PEER))
    assert api.texts(PEER) == ["HI"]
    assert [api.answered[query] for query in queries][1:] == ["This draft is not open any more."] * 2


def test_edit_then_send_is_a_correction(business: World, tmp_path: Path) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        api.press(OWNER, draft, "Edit")
        asked = api.until(lambda: next((s for s in api.sent if "reply to this message" in s.text), None))
        assert json.loads(asked.raw["reply_markup"])["force_reply"]
        api.say(OWNER, "salut toi", reply_to_message=api.shown(asked))
        edited = offered(business, "salut toi")
        assert not api.texts(PEER)  # written, and not yet sent
        stale = api.press(
            OWNER, Sent(OWNER, draft.id, "", buttons=[{"text": "Send", "callback_data": "send:1:1"}]), "Send"
        )
        api.until(lambda: stale in api.answered)
        assert not api.texts(PEER)
        api.press(OWNER, edited, "Send")
        api.until(lambda: api.texts(PEER) == ["salut toi"])
        api.say_in_business(LINK, PEER, PEER, "ok")
        api.until(lambda: len(business.model.prompts) == 2)
        api.say(OWNER, "/status")
        status = api.until(lambda: next((t for t in api.texts(OWNER) if t.startswith("Replies")), None))
    assert business.model.prompts[1] == "B: hi\nA: salut toi\nB: ok\nA:"
    assert "Drafts sent: 1, 0 as they were; edit distance 100%" in status
    db = business.look()
    row = db.row("SELECT * FROM drafts WHERE id = 1")
    db.close()
    assert row is not None
    assert (row["state"], row["draft"], row["text"]) == ("edited", "HI", "salut toi")
    assert json.loads(row["context"]) == [["B:", "hi"]]
    out = tmp_path / "corrections.jsonl"
    assert export.corrections(business.config, out) == 1
    assert json.loads(out.read_text()) == {"context": [["other", "hi"]], "draft": "HI", "final": "salut toi"}
    assert out.stat().st_mode & 0o077 == 0


def test_another_then_discard(business: World) -> None:
    api = business.api
    said = iter(["first", "second"])
    business.model.reply = lambda prompt: next(said)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "first")
        api.press(OWNER, draft, "Another")
        draft = offered(business, "second")
        assert len([s for s in api.sent if s.chat == OWNER]) == 1  # in the same message
        query = api.press(OWNER, draft, "Discard")
        api.until(lambda: api.answered.get(query) == "Discarded" and draft.text == "Discarded.")
    assert not api.texts(PEER)
    assert state(business) == ["discarded"]


def test_a_newer_message_or_the_owners_own_makes_a_draft_pointless(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        first = offered(business, "HI")
        api.say_in_business(LINK, PEER, PEER, "?")
        second = offered(business, "HI\n?")  # neither is answered: one turn
        api.until(lambda: first.text == "There is a newer draft below.")
        api.say_in_business(LINK, OWNER, PEER, "sorry, here I am")
        api.until(lambda: second.text == "You have answered yourself." and not second.buttons)
        api.say_in_business(LINK, PEER, PEER, "ah")
        offered(business, "AH")
    assert business.model.prompts[-1] == "B: hi\n?\nA: sorry, here I am\nB: ah\nA:"
    assert not api.texts(PEER)


def test_only_chosen_chats_and_only_the_owners_account(business: World) -> None:
    api = business.api
    api.connect("other", 77)
    with business.bot():
        api.say_in_business("other", PEER, PEER, "not yours")
        api.say_in_business(LINK, FRIEND, FRIEND, "not chosen")
        api.say_in_business("unheard of", PEER, PEER, "no such connection")
        api.say_in_business(LINK, PEER, PEER, "hi")
        offered(business, "HI")
    assert business.model.prompts == ["B: hi\nA:"]
    assert business.value("SELECT count(*) FROM messages") == 1


def test_a_connection_from_before_the_database_is_asked_for(business: World) -> None:
    business.api.updates.clear()  # what told of it is gone
    with business.bot():
        business.api.say_in_business(LINK, PEER, PEER, "hi")
        offered(business, "HI")


def test_nobody_elses_press_does_anything(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        query = api.press(PEER, draft, "Send")
        api.until(lambda: query in api.answered)
        time.sleep(0.1)
    assert not api.texts(PEER)
    assert state(business) == ["offered"]


def test_what_telegram_refuses_the_owner_hears_of(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        api.faults = [Fault("sendMessage", 400)]
        api.press(OWNER, draft, "Send")
        api.until(lambda: "A message to Ines: Telegram refused it." in api.texts(OWNER))
    assert not api.texts(PEER)


def test_forwards_get_a_draft_to_copy(world: World) -> None:
    api = world.api
    world.set(debounce_seconds=0.3)
    with world.bot():
        forwarded(world, None, "on mange où ?")
        forwarded(world, OWNER, "je sais pas")
        forwarded(world, None, "décide")
        draft = offered(world, "DÉCIDE")
        assert draft.text.startswith("Draft 1, to Somebody\n» décide\n\n")
        assert draft.buttons[0]["text"] == "Take"
        api.press(OWNER, draft, "Take")
        api.until(lambda: "DÉCIDE" in api.texts(OWNER))
        api.until(lambda: draft.text == "Yours to copy:")
        time.sleep(0.4)  # the burst is over
        forwarded(world, PEER, "autre chose")
        offered(world, "AUTRE CHOSE")
    assert world.model.prompts == ["B: on mange où ?\nA: je sais pas\nB: décide\nA:", "B: autre chose\nA:"]
    assert {sent.chat for sent in api.sent} == {OWNER}


def test_replies_are_those_that_somebody_got(business: World) -> None:
    api = business.api
    business.model.reply = lambda prompt: "" if prompt.endswith("nothing\nA:") else fake_model.echo(prompt)

    def status() -> str:
        before = len(api.texts(OWNER))
        api.say(OWNER, "/status")
        return str(api.until(lambda: next((t for t in api.texts(OWNER)[before:] if t.startswith("Replies")), None)))

    with business.bot():
        api.say(FRIEND, "say nothing")
        api.until(lambda: Texts().failed in api.texts(FRIEND))
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        told = status()
        assert "Replies today: 0\nEnded by themselves: 100% of 2" in told
        assert "Predictions today: 2 of 500" in told
        api.press(OWNER, draft, "Send")
        api.until(lambda: api.texts(PEER) == ["HI"])
        assert "Replies today: 1\n" in status()


def test_a_draft_survives_a_restart(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
    with business.bot():
        api.press(OWNER, draft, "Send")
        api.until(lambda: api.texts(PEER) == ["HI"])


def test_a_draft_that_is_closed_before_its_message_has_an_id_is_closed_then(world: World) -> None:
    db = Database(Path(world.config.database))
    with db.transaction():
        number = intake.open_conversation(db, "business", PEER, LINK, 0, "Ines", 0.0)
        conversation = db.row("SELECT * FROM conversations WHERE id = ?", number)
        assert conversation is not None
        drafts.offer(db, world.config, conversation, 1, [Turn("B:", "hi")], "yo")
        drafts.outdated(db, world.config, number, "There is a newer draft below.")
        planned = "SELECT payload FROM outgoing WHERE method = 'edit'"
        assert db.row(planned) is None
        drafts.shown(db, world.config, 1, 77)
        assert json.loads(db.value(planned)) == {"text": "There is a newer draft below.", "message": 77}
    db.close()


def test_what_was_answered_while_it_thought_gets_no_draft(business: World) -> None:
    api = business.api
    business.model.hold.clear()
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.until(lambda: business.model.prompts)
        api.say_in_business(LINK, OWNER, PEER, "here I am")
        api.until(lambda: api.confirmed == api.next_update)
        business.model.hold.set()
        api.until(lambda: business.value("SELECT state FROM predictions") == "unused")
    assert not api.texts(OWNER)
    assert state(business) == []


def test_an_edit_of_a_draft_that_is_closed_says_so(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        shown = api.shown(draft)
        api.press(OWNER, draft, "Discard")
        api.say(OWNER, "salut", reply_to_message=shown)
        api.until(lambda: drafts.GONE in api.texts(OWNER))
    assert len(business.model.prompts) == 1  # and the ghost does not take it for a message to itself


def test_a_long_text_is_taken_whole(world: World) -> None:
    said = "😂 mdr " * 900
    world.model.reply = lambda prompt: said
    with world.bot():
        forwarded(world, None, "hi")
        draft = world.api.until(lambda: next((sent for sent in world.api.sent if sent.buttons), None))
        world.api.press(OWNER, draft, "Take")
        world.api.until(lambda: said.strip() in " ".join(world.api.texts(OWNER)))


def test_a_connection_that_has_ended_hides_no_other(business: World) -> None:
    business.api.updates.clear()
    for link in ("gone 1", LINK, "gone 2"):  # in one batch, and none is known
        business.api.say_in_business(link, PEER, PEER, "hi")
    with business.bot():
        offered(business, "HI")
