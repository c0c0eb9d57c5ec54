"""Drafts: offered to the owner, sent by nobody else, corrected by nobody else."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import BotError
from replicate_deployment.chat_format import BURST_SECONDS, DEFAULT_LABELS, Turn
from telegram_bot import bot, commands, drafts, intake
from telegram_bot.config import Typing
from telegram_bot.database import Database
from telegram_bot.texts import Texts
from tests.telegram_bot import fake_model
from tests.telegram_bot.conftest import FRIEND, LINK, OWNER, PEER, World, offered, state
from tests.telegram_bot.fake_bot_api import Fault, Sent
from training.preparation.corrections import parse


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
        api.until(lambda: draft.text == "To Ines, sent by you:\n\nTU VIENS ?\nET QUAND ?" and not draft.buttons)
        assert api.answered[query] == "Sending"
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
    assert [api.answered[query] for query in queries][1:] == ["This draft is no longer open."] * 2


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
        api.until(lambda: state(business) == ["edited"])
        assert api.texts(PEER) == ["salut toi"]
        api.say_in_business(LINK, PEER, PEER, "ok")
        api.until(lambda: len(business.model.prompts) == 2)
        api.say(OWNER, "/status")
        status = api.until(lambda: next((t for t in api.texts(OWNER) if t.startswith("Replies")), None))
    assert business.model.prompts[1] == "B: hi\nA: salut toi\nB: ok\nA:"
    assert "Drafts sent: 1, 0 unchanged; edit distance 100%" in status
    db = business.look()
    row = db.row("SELECT * FROM drafts WHERE id = 1")
    db.close()
    assert row is not None
    assert (row["state"], row["draft"], row["text"]) == ("edited", "HI", "salut toi")
    assert json.loads(row["context"]) == [["B:", "hi"]]
    assert labels(business, tmp_path) == [("edited", "HI", "salut toi")]


Label = tuple[str, str, str | None]


def labels(world: World, folder: Path) -> list[Label]:
    """What `ghost bot --corrections` writes of all that the database holds."""
    out = folder / "all.jsonl"
    out.unlink(missing_ok=True)
    bot.corrections(world.config, out, again=True, clock=world.clock)
    found = [(one.label, one.draft, one.final) for one in parse(out, DEFAULT_LABELS)]
    return [(str(label), draft, final) for label, draft, final in found]


def test_every_outcome_is_a_label(business: World, tmp_path: Path) -> None:
    api = business.api
    said = iter(["as it is", "first", "second", "never", "third"])
    business.model.reply = lambda prompt: next(said)

    def asked(text: str, draft: str) -> Sent:
        api.say_in_business(LINK, PEER, PEER, text)
        return offered(business, draft)

    with business.bot():
        api.press(OWNER, asked("one", "as it is"), "Send")
        api.until(lambda: state(business) == ["sent"])
        api.press(OWNER, asked("two", "first"), "Another")
        api.press(OWNER, offered(business, "second"), "Send")
        api.until(lambda: state(business)[-1] == "sent")
        api.press(OWNER, asked("three", "never"), "Discard")
        api.until(lambda: state(business)[-1] == "discarded")
        asked("four", "third")
        with business.clock.stopped():
            for text in ("my mail:", "ada@example.org"):
                api.say_in_business(LINK, OWNER, PEER, text)
            business.recorded()
        assert ("own", "third", None) not in labels(business, tmp_path)  # more of it may follow
        business.clock.skip(BURST_SECONDS + 1)
        api.say_in_business(LINK, OWNER, PEER, "later")  # no part of that burst
        business.recorded()
    assert labels(business, tmp_path) == [
        ("sent", "as it is", "as it is"),
        ("another", "first", "second"),
        ("sent", "second", "second"),
        ("discarded", "never", None),
        ("own", "third", "my mail:\n[email]"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert lines[1]["context"][-1] == ["other", "two"]
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)


def test_an_export_adds_what_is_new(business: World, tmp_path: Path) -> None:
    out = tmp_path / "corrections.jsonl"
    with business.bot():
        for number, text in enumerate(("one", "two")):
            business.api.say_in_business(LINK, PEER, PEER, text)
            business.api.press(OWNER, offered(business, text.upper()), "Send")
            business.api.until(lambda: state(business)[-1] == "sent")
            assert bot.corrections(business.config, out) == (1, number + 1)  # the bot runs
            assert bot.corrections(business.config, out) == (0, number + 1)
    assert out.stat().st_mode & 0o077 == 0
    other = tmp_path / "other.jsonl"
    assert bot.corrections(business.config, other) == (0, 0)
    assert bot.corrections(business.config, other, again=True) == (2, 2)
    assert bot.corrections(business.config, out, again=True) == (0, 2)
    assert out.read_text() == other.read_text()
    for content in ("dear diary\n", '{"text": "a line of training data"}\n', "[]\n", '{"context": [], "draft": "x"}\n'):
        out.write_text(content)
        with pytest.raises(BotError, match="not a file of corrections"):
            bot.corrections(business.config, out)
        assert out.read_text() == content


def test_what_is_deleted_or_reworded_after_it_was_sent_is_learnt_so(business: World, tmp_path: Path) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.press(OWNER, offered(business, "HI"), "Send")
        api.until(lambda: state(business) == ["sent"])
        api.say_in_business(LINK, PEER, PEER, "and you?")
        offered(business, "AND YOU?")
        number = api.say_in_business(LINK, OWNER, PEER, "fnie")
        message = api.message(OWNER, "fine", PEER, business_connection_id=LINK) | {"message_id": number}
        api.push(edited_business_message=message | {"edit_date": 1})
        business.recorded()
        business.clock.skip(BURST_SECONDS + 1)
        assert labels(business, tmp_path) == [("sent", "HI", "HI"), ("own", "AND YOU?", "fine")]
        gone = {"business_connection_id": LINK, "chat": api.chat(PEER), "message_ids": [number]}
        api.push(deleted_business_messages=gone)
        business.recorded()
    assert labels(business, tmp_path) == [("sent", "HI", "HI")]


def test_forget_removes_labels(business: World, tmp_path: Path) -> None:
    api = business.api
    said = iter(["first", "second"])
    business.model.reply = lambda prompt: next(said)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.press(OWNER, offered(business, "first"), "Another")
        api.press(OWNER, offered(business, "second"), "Discard")
        api.until(lambda: state(business) == ["discarded"])
        assert len(labels(business, tmp_path)) == 2
        api.say(OWNER, "/forget all")
        api.until(lambda: any("every other one" in text for text in api.texts(OWNER)))
    assert labels(business, tmp_path) == []


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
        assert not business.value(f"SELECT count(*) FROM outgoing WHERE chat = {PEER} AND method = 'send'")
    assert not api.texts(PEER)
    assert state(business) == ["offered"]


def test_what_telegram_refuses_to_send_was_not_said_and_can_be_sent_later(business: World, tmp_path: Path) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        api.say(OWNER, "hi, you\ntwo", reply_to_message=api.shown(draft))
        edited = offered(business, "hi, you\ntwo")
        api.quiet.add(PEER)
        api.press(OWNER, edited, "Send")
        again = api.until(lambda: next((sent for sent in api.sent if "not sent" in sent.text), None))
        api.until(lambda: edited.text == "Not sent; see below.")
        assert again.text.startswith("Draft 1, to Ines: not sent. ")
        assert "24 hours" in again.text
        assert again.text.endswith("\n\nhi, you\ntwo")
        assert [button["text"] for button in again.buttons] == ["Send", "Edit", "Another", "Discard"]
        assert not edited.buttons
        assert state(business) == ["offered"]
        assert labels(business, tmp_path) == []  # nobody was told that
        api.quiet.clear()
        api.press(OWNER, again, "Send")
        api.until(lambda: again.text == "To Ines, sent by you:\n\nhi, you\ntwo")
    assert api.texts(PEER) == ["hi, you", "two"]
    assert state(business) == ["edited"]
    assert labels(business, tmp_path) == [("edited", "HI", "hi, you\ntwo")]


def test_the_next_prompt_knows_nothing_of_what_was_refused(business: World) -> None:
    api = business.api
    api.quiet.add(PEER)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.press(OWNER, offered(business, "HI"), "Send")
        again = api.until(lambda: next((sent for sent in api.sent if "not sent" in sent.text), None))
        api.say_in_business(LINK, PEER, PEER, "anyone?")
        offered(business, "HI\nANYONE?")
        api.until(lambda: again.text == "There is a newer draft below." and not again.buttons)
    assert business.model.prompts[-1] == "B: hi\nanyone?\nA:"
    db = business.look()
    assert "Replies today: 0" in commands.status(db, business.config, owner=True)
    db.close()


def test_what_is_refused_halfway_is_open_again_from_there(business: World) -> None:
    api = business.api
    business.model.reply = lambda prompt: "one\ntwo\nthree" if prompt == "B: hi\nA:" else "ok"
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "one\ntwo\nthree")
        api.faults = [Fault("sendMessage", 400, skip=1)]
        api.press(OWNER, draft, "Send")
        again = offered(business, "two\nthree")
        assert "only its beginning was sent" in again.text
        assert api.texts(PEER) == ["one"]
        api.press(OWNER, again, "Send")
        api.until(lambda: state(business) == ["sent"])
        api.say_in_business(LINK, PEER, PEER, "well")
        offered(business, "ok")
    assert api.texts(PEER) == ["one", "two", "three"]
    assert business.model.prompts[-1] == "B: hi\nA: one\ntwo\nthree\nB: well\nA:"


def test_another_can_be_asked_for_when_only_the_beginning_was_sent(business: World) -> None:
    api = business.api
    said = iter(["one\ntwo", "three"])
    business.model.reply = lambda prompt: next(said)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "one\ntwo")
        api.faults = [Fault("sendMessage", 400, skip=1)]
        api.press(OWNER, draft, "Send")
        api.press(OWNER, offered(business, "two"), "Another")
        api.press(OWNER, offered(business, "three"), "Send")
        api.until(lambda: api.texts(PEER) == ["one", "three"])
    assert business.model.prompts == ["B: hi\nA:"] * 2


def test_what_is_refused_after_the_chat_has_gone_on_is_given_back(business: World) -> None:
    api = business.api
    business.set(typing=Typing(characters_per_second=1, longest_seconds=30))
    api.quiet.add(PEER)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        with business.clock.stopped():
            api.press(OWNER, draft, "Send")
            api.until(lambda: draft.text == "To Ines, on its way:\n\nHI")
            api.say_in_business(LINK, PEER, PEER, "anyone?")
            business.recorded()
        told = api.until(lambda: next((text for text in api.texts(OWNER) if "not sent" in text), None))
        api.until(lambda: draft.text == "Not sent; see below.")
    assert told.startswith("Draft 1, to Ines: not sent. ")
    assert told.endswith("\n\nHI")
    assert state(business)[0] == "outdated"


def test_a_draft_that_was_on_its_way_as_the_bot_was_killed_is_in_doubt_and_said_so(business: World) -> None:
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.press(OWNER, offered(business, "HI"), "Send")
        api.until(lambda: state(business) == ["sent"])
    db = Database(Path(business.config.database))
    with db.transaction():  # as the kill would have left it, between the sending and its record
        number = db.value(f"SELECT id FROM outgoing WHERE chat = {PEER} AND method = 'send'")
        said = db.value("SELECT id FROM messages WHERE mine")
        db.run("UPDATE drafts SET state = 'sending', distance = NULL")
        payload = json.dumps({"text": "HI", "said": said})
        db.run("UPDATE outgoing SET state = 'sending', payload = ? WHERE id = ?", payload, number)
    db.close()
    with business.bot():
        api.until(
            lambda: (
                "A message to Ines may not have arrived; check the chat before you send it again." in api.texts(OWNER)
            )
        )
        api.say_in_business(LINK, PEER, PEER, "ok")
        offered(business, "OK")
    assert state(business) == ["sent", "offered"]
    assert api.texts(PEER) == ["HI"]
    assert business.model.prompts[-1] == "B: hi\nA: HI\nB: ok\nA:"  # it may have been read


def test_a_draft_is_shown_anew_when_the_message_that_showed_it_is_gone(business: World) -> None:
    api, said = business.api, iter(["first", "second"])
    business.model.reply = lambda prompt: next(said)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "first")
        api.press(OWNER, draft, "Another")
        api.sent.remove(draft)  # the owner has cleared the chat
        api.press(OWNER, offered(business, "second"), "Send")
        api.until(lambda: api.texts(PEER) == ["second"])


def test_drafts_that_could_not_be_shown_wait_for_the_owners_start(business: World) -> None:
    """A bot may not write to somebody who has never written to it."""
    api = business.api
    api.faults = [Fault("sendMessage", 403)]
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.until(lambda: business.value("SELECT count(*) FROM outgoing WHERE state = 'refused'"))
        assert not api.texts(OWNER)
        api.say(OWNER, "/start")
        api.press(OWNER, offered(business, "HI"), "Send")
        api.until(lambda: api.texts(PEER) == ["HI"])
        api.say(OWNER, "/start")
        api.until(lambda: len(api.texts(OWNER)) == 3)
    assert [text.startswith("Draft") for text in api.texts(OWNER)].count(True) == 0  # that one is closed


def test_what_the_owner_takes_is_said_when_they_have_sent_it(business: World) -> None:
    api = business.api
    api.connect(LINK, OWNER, can_reply=False)
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        draft = offered(business, "HI")
        api.press(OWNER, draft, "Take")
        api.until(lambda: "HI" in api.texts(OWNER) and draft.text == "Yours to copy:")
        api.say_in_business(LINK, OWNER, PEER, "HI")
        api.say_in_business(LINK, PEER, PEER, "well")
        offered(business, "WELL")
    assert business.model.prompts[-1] == "B: hi\nA: HI\nB: well\nA:"


def test_forwards_get_a_draft_to_copy(world: World) -> None:
    api = world.api
    with world.bot():
        with world.clock.stopped():
            forwarded(world, None, "on mange où ?")
            forwarded(world, OWNER, "je sais pas")
            forwarded(world, None, "décide")
            world.recorded()
        draft = offered(world, "DÉCIDE")
        assert draft.text.startswith("Draft 1, to Somebody\n» décide\n\n")
        assert draft.buttons[0]["text"] == "Take"
        api.press(OWNER, draft, "Take")
        api.until(lambda: "DÉCIDE" in api.texts(OWNER))
        api.until(lambda: draft.text == "Yours to copy:")
        world.clock.skip(1)  # the burst is over
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
        assert "Replies today: 0\nEnded by an end token: 100% of 1" in told
        assert "Predictions today: 2 of 500" in told
        api.press(OWNER, draft, "Send")
        api.until(lambda: state(business) == ["sent"])
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
        offer = db.row("SELECT * FROM outgoing WHERE method = 'send'")
        assert offer is not None
        drafts.delivery_ended(db, world.config, offer, json.loads(offer["payload"]), "sent", 77)
        assert json.loads(db.value(planned)) == {"text": "There is a newer draft below.", "message": 77}
    db.close()


def test_what_was_answered_while_it_thought_gets_no_draft(business: World) -> None:
    api = business.api
    business.model.hold.clear()
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "hi")
        api.until(lambda: business.model.prompts)
        api.say_in_business(LINK, OWNER, PEER, "here I am")
        business.recorded()
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
