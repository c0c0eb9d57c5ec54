"""Drafts for the owner to approve, with the buttons Send, Edit, Another and Discard. Only the owner can send them.

    writing ─▶ offered ─▶ sending ─▶ sent      unchanged
       ▲          │  ▲       │ └───▶ edited    rewritten by the owner
       └ Another ─┤  └───────┘ refused by Telegram: open again, with the unsent rest
                  ├─────▶ discarded
                  ├─────▶ own          answered by the owner in the chat; `text` is that answer
                  └─────▶ outdated     the other side wrote again or deleted its message

What becomes of a draft is a label to learn from (`ghost bot --corrections`), also each draft refused for another.

Each change happens in the transaction that records its cause: a press, a message or the outcome of a call. A second
press of a button finds another state and does nothing. `version` distinguishes current buttons from outdated ones.
"""

import json
import logging
import re
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, Any

from replicate_deployment.chat_format import BURST_SECONDS, Turn
from telegram_bot import history, quality
from telegram_bot.config import BotConfig
from telegram_bot.database import Database
from telegram_bot.gateway import as_messages, fitting
from telegram_bot.outgoing import Place, plan

if TYPE_CHECKING:
    from telegram import CallbackQuery, Message

log = logging.getLogger("ghost.bot")
QUOTED = 300  # characters of the answered message, shown above a draft
REFUSED = (
    "Telegram refused it. A bot may write in your chats only within 24 hours of the other person's last message, "
    "and only while Settings → Telegram Business → Chatbots allows it."
)
_DRAFT = re.compile(r"Draft (\d+)[:,]")
GONE = "This draft is no longer open."
OPEN = "conversation = ? AND state IN ('offered', 'writing')"


def offer(
    db: Database, config: BotConfig, conversation: sqlite3.Row, upto: int, context: list[Turn], text: str
) -> None:
    """Within a transaction: offer the model's reply to the messages up to `upto` as a draft."""
    writing = db.row("SELECT * FROM drafts WHERE conversation = ? AND state = 'writing'", conversation["id"])
    if writing and writing["upto"] == upto:
        db.run(
            "UPDATE drafts SET state = 'offered', draft = ?, text = ?, version = version + 1 WHERE id = ?",
            *(text, text, writing["id"]),
        )
        _show(db, config, writing["id"], instead_of=writing["shown"])
        return
    outdated(db, config, conversation["id"], "There is a newer draft below.")
    draft = db.run(
        "INSERT INTO drafts(conversation, upto, state, context, draft, text, at) VALUES(?, ?, 'offered', ?, ?, ?, ?)",
        *(conversation["id"], upto, json.dumps(context, ensure_ascii=False), text, text, db.clock.time()),
    )
    _show(db, config, draft)


def outdated(db: Database, config: BotConfig, conversation: int, why: str) -> None:
    """Within a transaction: mark the open drafts of this conversation as outdated."""
    for draft in db.rows(f"SELECT * FROM drafts WHERE {OPEN}", conversation):
        db.run("UPDATE drafts SET state = 'outdated' WHERE id = ?", draft["id"])
        _close(db, config, draft, why)


def answered_by_hand(db: Database, config: BotConfig, conversation: int, text: str, now: float) -> None:
    """Within a transaction, before the owner's message in this chat is recorded: it is the answer instead of the open
    draft, or goes on with such an answer as part of its burst."""
    text = history.clean(text)
    going_on = (
        "id = (SELECT max(id) FROM drafts WHERE conversation = ?) AND state = 'own' AND at >= ?"
        " AND (SELECT mine FROM messages WHERE conversation = ? ORDER BY id DESC LIMIT 1)"
    )
    db.run(
        f"UPDATE drafts SET text = text || char(10) || ?, at = ? WHERE {going_on}",
        *(text, now, conversation, now - BURST_SECONDS, conversation),
    )
    for draft in db.rows(f"SELECT * FROM drafts WHERE {OPEN}", conversation):
        db.run("UPDATE drafts SET state = 'own', text = ?, at = ? WHERE id = ?", text, now, draft["id"])
        quality.add(db, conversation, {"drafts": {"own": 1}})
        _close(db, config, draft, "You have answered yourself.")


def message_deleted(db: Database, config: BotConfig, message: sqlite3.Row) -> None:
    """Within a transaction, before this message is deleted: outdate open drafts that answer it, remove it from the
    context of other open ones, and clear the context of the rest and of those that it was sent for, which are then no
    longer training data."""
    if draft := _draft_of(db, message):
        db.run("UPDATE drafts SET context = '' WHERE id = ?", draft["id"])
    stored = history.StoredMessage(message["mine"], message["text"], message["at"], quote=message["quote"])
    for draft, context, place, words in _drafts_citing(db, message, history.with_quote(stored), message["text"]):
        if draft["state"] in ("offered", "writing"):
            if place < len(context) - 1:  # it answers something else
                _replace(db, draft, context, place, words, "")
                continue
            db.run("UPDATE drafts SET state = 'outdated' WHERE id = ?", draft["id"])
            _close(db, config, draft, "What this answered was deleted.")
        db.run("UPDATE drafts SET context = '' WHERE id = ?", draft["id"])


def message_edited(db: Database, message: sqlite3.Row, old: str, new: str) -> None:
    """Within a transaction: replace `old` by `new` in the drafts whose context holds this message, and in the one that
    it was sent for."""
    if old != new and (draft := _draft_of(db, message)):
        text = f"\n{draft['text']}\n".replace(f"\n{old}\n", f"\n{new}\n", 1).strip("\n")
        state = "edited" if draft["state"] == "sent" else draft["state"]
        db.run("UPDATE drafts SET text = ?, state = ? WHERE id = ?", text, state, draft["id"])
    for draft, context, place, words in _drafts_citing(db, message, old):
        _replace(db, draft, context, place, words, new)


def _draft_of(db: Database, message: sqlite3.Row) -> sqlite3.Row | None:
    """The draft that this message of the owner was sent for, or instead of."""
    sent = "conversation = ? AND upto < ? AND context <> '' AND state IN ('sent', 'edited', 'own')"
    found = db.rows(f"SELECT * FROM drafts WHERE {sent} ORDER BY id DESC", message["conversation"], message["id"])
    held = (draft for draft in found if f"\n{message['text']}\n" in f"\n{draft['text']}\n")
    return next(held, None) if message["mine"] else None


def _drafts_citing(
    db: Database, message: sqlite3.Row, *forms: str
) -> list[tuple[sqlite3.Row, list[list[str]], int, str]]:
    """Return the drafts whose context holds this message in one of its `forms`: (draft, context, index of the last turn
    with that text, text)."""
    found = []
    after = "conversation = ? AND upto >= ? AND context <> ''"
    for draft in db.rows(f"SELECT * FROM drafts WHERE {after}", message["conversation"], message["id"]):
        context = json.loads(draft["context"])
        for words in forms:
            # Match whole lines: each message of a burst is one or more lines of its turn.
            places = [i for i, (_, text) in enumerate(context) if f"\n{words}\n" in f"\n{text}\n"]
            if places:
                found.append((draft, context, places[-1], words))
                break
    return found


def _replace(db: Database, draft: sqlite3.Row, context: list[list[str]], place: int, old: str, new: str) -> None:
    label, text = context[place]
    head, _, tail = f"\n{text}\n".rpartition(f"\n{old}\n")
    context[place] = [label, "\n".join(part for part in (head.strip("\n"), new, tail.strip("\n")) if part)]
    kept = [turn for turn in context if turn[1]]
    db.run("UPDATE drafts SET context = ? WHERE id = ?", json.dumps(kept, ensure_ascii=False), draft["id"])


def pressed(db: Database, config: BotConfig, query: "CallbackQuery") -> None:
    """Within a transaction: handle a button. Only the owner's presses have an effect, and only once each."""
    action, _, rest = (query.data or "").partition(":")
    number, _, version = rest.partition(":")
    answer = GONE
    draft = None
    if query.from_user.id == config.owner and number.isdecimal():
        draft = db.row("SELECT * FROM drafts WHERE id = ?", int(number))
    if draft and draft["state"] == "offered" and str(draft["version"]) == version:
        if query.message:
            db.run("UPDATE drafts SET shown = ? WHERE id = ?", query.message.message_id, draft["id"])
        answer = _do(db, config, draft["id"], action)
    plan(db, Place(query.from_user.id), answer, method="callback", query=query.id)


def _do(db: Database, config: BotConfig, number: int, action: str) -> str:
    """Carry out `action` on an open draft; return the text that Telegram shows for the press."""
    draft = db.required_row("SELECT * FROM drafts WHERE id = ?", number)
    if action == "send":
        return _approve(db, config, draft)
    if action == "edit":
        name, _ = _destination(db, draft)
        asked = f"Draft {number}: reply to this message with what {name or 'they'} should read."
        plan(db, _owner(config, draft), asked, ask=True)
        return "Write it below"
    if action == "another":
        refused = json.dumps([*json.loads(draft["refused"]), [draft["draft"], db.clock.time()]], ensure_ascii=False)
        db.run("UPDATE drafts SET state = 'writing', draft = '', refused = ? WHERE id = ?", refused, number)
        quality.add(db, draft["conversation"], {"drafts": {"another": 1}})
        _close(db, config, draft, "Writing another…")
        return "Writing another"
    if action == "discard":
        db.run("UPDATE drafts SET state = 'discarded', at = ? WHERE id = ?", db.clock.time(), number)
        quality.add(db, draft["conversation"], {"drafts": {"discarded": 1}})
        _close(db, config, draft, "Discarded.")
        return "Discarded"
    return GONE


def _approve(db: Database, config: BotConfig, draft: sqlite3.Row) -> str:
    """Send the draft through the business connection if the bot may write there, else hand it to the owner to copy.

    A sent text is added to the history at once, for replies to messages that arrive meanwhile, and removed if Telegram
    refuses it. A copied text is added when Telegram reports that the owner has sent it.
    """
    name, place = _destination(db, draft)
    conversation, text, now = draft["conversation"], draft["text"], db.clock.time()
    db.run("UPDATE drafts SET state = 'sending' WHERE id = ?", draft["id"])
    if place is None:
        for piece in as_messages(text, 1):
            plan(db, _owner(config, draft), piece, draft=draft["id"], said=None)
        return "Here it is"
    for piece in as_messages(text, config.limits.messages_per_reply):
        recorded = history.add_message(db, conversation, piece, now, mine=True, pending=False, slot=draft["upto"])
        plan(db, place, piece, pause=config.typing.seconds(piece), draft=draft["id"], said=recorded)
    _close(db, config, draft, f"To {name}, on its way:\n\n{text}")
    return "Sending"


def delivery_ended(
    db: Database, config: BotConfig, row: sqlite3.Row, payload: dict[str, Any], outcome: str, message: int
) -> None:
    """Within a transaction: handle the outcome of a message that offers a draft, or of an approved one."""
    draft = db.row("SELECT * FROM drafts WHERE id = ?", row["draft"])
    if draft is None:  # forgotten meanwhile
        return
    if "said" in payload:
        if draft["state"] == "sending":
            _sending(db, config, draft, row, payload["text"], outcome)
    elif outcome == "sent" and row["method"] == "send":
        _shown(db, config, draft, message)
    elif outcome == "refused" and row["method"] == "edit" and payload.get("version") == draft["version"]:
        if draft["state"] == "offered":  # the message that showed it is gone
            _show(db, config, draft["id"])
    elif outcome == "refused":
        log.warning("draft %d cannot be shown: the owner must open the chat with the bot and send /start", draft["id"])


def _sending(db: Database, config: BotConfig, draft: sqlite3.Row, row: sqlite3.Row, text: str, outcome: str) -> None:
    """Handle an approved message's outcome: close the draft after the last message, reopen it after a refused one."""
    after = "SELECT id, payload FROM outgoing WHERE draft = ? AND state = 'planned' ORDER BY id"
    rest = [(id, payload) for id, found in db.rows(after, draft["id"]) if "said" in (payload := json.loads(found))]
    if outcome == "refused":
        for id, payload in rest:
            db.run("DELETE FROM outgoing WHERE id = ?", id)
            db.run("DELETE FROM messages WHERE id = ?", payload["said"])
        _refused(db, config, draft, "\n".join([text, *(payload["text"] for _, payload in rest)]), row["connection"])
        return
    if outcome == "doubtful":
        name, _ = _destination(db, draft)
        doubt = f"A message to {name or 'them'} may not have arrived; check the chat before you send it again."
        plan(db, _owner(config, draft), doubt)
    if not rest:
        _sent(db, config, draft, row["connection"])


def _sent(db: Database, config: BotConfig, draft: sqlite3.Row, connection: str) -> None:
    from rapidfuzz.distance import Levenshtein

    name, _ = _destination(db, draft)
    conversation, text = draft["conversation"], draft["text"]
    slot = "SELECT text FROM messages WHERE conversation = ? AND slot = ? AND mine ORDER BY id"
    pieces = [piece for (piece,) in db.rows(slot, conversation, draft["upto"])]
    if len(pieces) > len(as_messages(text, config.limits.messages_per_reply)):  # its beginning was sent before
        text = "\n".join(pieces)
    distance = Levenshtein.normalized_distance(draft["draft"], text)
    state = "edited" if distance else "sent"
    counts: dict[str, Counter[str]] = {"drafts": Counter([state])}
    if distance:
        counts["edited"] = Counter([str(round(100 * distance))])
    elif draft["context"]:  # as the ghost wrote it
        counts |= quality.observed(config, [Turn(*turn) for turn in json.loads(draft["context"])], text)
    quality.add(db, conversation, counts)
    now = db.clock.time()
    db.run(
        "UPDATE drafts SET state = ?, text = ?, distance = ?, at = ? WHERE id = ?",
        *(state, text, distance, now, draft["id"]),
    )
    written = "SELECT max(id) FROM predictions WHERE conversation = ? AND upto = ? AND state = 'drafted'"
    db.run(f"UPDATE predictions SET state = 'answered' WHERE id = ({written})", conversation, draft["upto"])
    _close(db, config, draft, f"To {name}, sent by you:\n\n{text}" if connection else "Yours to copy:")


def _refused(db: Database, config: BotConfig, draft: sqlite3.Row, rest: str, connection: str) -> None:
    """Reopen the draft with the unsent rest. If the chat has moved on, give the owner its text instead."""
    conversation = draft["conversation"]
    begun = db.value("SELECT 1 FROM messages WHERE conversation = ? AND slot = ?", conversation, draft["upto"])
    gone_on = "SELECT 1 FROM messages WHERE conversation = ? AND id > ? AND slot IS NULL"
    text = rest if begun else draft["text"]
    why = (
        f"{'only its beginning was sent' if begun else 'not sent'}. {REFUSED if connection else 'Telegram refused it.'}"
    )
    _close(db, config, draft, "Not sent; see below.")
    if not draft["context"] or db.value(gone_on, conversation, draft["upto"]):
        db.run("UPDATE drafts SET state = 'outdated' WHERE id = ?", draft["id"])
        name, _ = _destination(db, draft)
        returned = f"Draft {draft['id']}, to {name or 'whoever wrote this'}: {why}\n\n{text}"
        plan(db, _owner(config, draft), fitting(returned))
        return
    db.run("UPDATE drafts SET state = 'offered', text = ?, version = version + 1 WHERE id = ?", text, draft["id"])
    _show(db, config, draft["id"], why=why)


def from_owner(db: Database, config: BotConfig, bot: int, message: "Message", text: str | None, now: float) -> bool:
    """Within a transaction: handle an edited draft or a forward from the owner; return whether the message was one."""
    answered = message.reply_to_message
    if answered and answered.from_user and answered.from_user.id == bot and text:
        # Match its text, not its id: the id is missing if delivery was unknown.
        number = _DRAFT.match(answered.text or "")
        draft = number and db.row("SELECT * FROM drafts WHERE state = 'offered' AND id = ?", int(number[1]))
        if number and not draft:
            plan(db, Place(config.owner), GONE)
            return True
        if draft:
            _close(db, config, draft, "Edited; see below.")
            db.run("UPDATE drafts SET text = ?, version = version + 1 WHERE id = ?", history.clean(text), draft["id"])
            _show(db, config, draft["id"])
            return True
    if message.forward_origin is None:
        return False
    if not text:
        return True  # a picture among forwarded messages
    origin = getattr(message.forward_origin, "sender_user", None)
    name = origin.first_name if origin else getattr(message.forward_origin, "sender_user_name", "")
    mine = origin is not None and origin.id == config.owner
    # Treat a burst of forwards as one conversation, since Telegram often does not say whose it is.
    conversation = db.value(
        "SELECT m.conversation FROM messages m JOIN conversations c ON c.id = m.conversation"
        " WHERE c.kind = 'forwards' AND c.chat = ? AND m.slot IS NULL AND m.at > ? ORDER BY m.id DESC LIMIT 1",
        *(message.chat.id, now - config.debounce_seconds),
    )
    if conversation is None:
        conversation = db.run(
            "INSERT INTO conversations(kind, chat, connection, thread, name, at) VALUES('forwards', ?, '', 0, '', ?)",
            *(message.chat.id, now),
        )
    if not mine:
        db.run("UPDATE conversations SET name = ? WHERE id = ? AND name = ''", name or "", conversation)
    history.add_message(db, conversation, text, now, mine=mine, pending=not mine, telegram=message.message_id)
    return True


def show_unseen(db: Database, config: BotConfig) -> None:
    """Within a transaction: show open drafts that Telegram refused to show before the owner's /start."""
    under_way = "SELECT draft FROM outgoing WHERE draft IS NOT NULL AND state IN ('planned', 'sending')"
    unseen = f"state = 'offered' AND shown IS NULL AND id NOT IN ({under_way})"
    for (number,) in db.rows(f"SELECT id FROM drafts WHERE {unseen} ORDER BY id"):
        _show(db, config, number)


def _shown(db: Database, config: BotConfig, draft: sqlite3.Row, message: int) -> None:
    """Record the message that shows this draft; close it if the draft was closed meanwhile."""
    db.run("UPDATE drafts SET shown = ?, closing = NULL WHERE id = ?", message, draft["id"])
    if draft["closing"] is not None:
        _close(db, config, db.required_row("SELECT * FROM drafts WHERE id = ?", draft["id"]), draft["closing"])


def _destination(db: Database, draft: sqlite3.Row) -> tuple[str, Place | None]:
    """Return (name, place for an approved reply; None if the owner must copy it)."""
    row = db.required_row("SELECT * FROM conversations WHERE id = ?", draft["conversation"])
    can_reply = db.value("SELECT can_reply FROM connections WHERE id = ?", row["connection"])
    return row["name"], Place(row["chat"], row["connection"], row["thread"], row["id"]) if can_reply else None


def _owner(config: BotConfig, draft: sqlite3.Row) -> Place:
    """The owner's chat with the bot. /forget deletes what is planned there for the draft's conversation."""
    return Place(config.owner, conversation=draft["conversation"])


def _show(db: Database, config: BotConfig, number: int, instead_of: int | None = None, why: str = "") -> None:
    """Show a draft in the message `instead_of`, or in a new one."""
    draft = db.required_row("SELECT * FROM drafts WHERE id = ?", number)
    name, place = _destination(db, draft)
    actions = [("Send" if place else "Take", "send"), ("Edit", "edit"), ("Another", "another"), ("Discard", "discard")]
    buttons = [(label, f"{action}:{number}:{draft['version']}") for label, action in actions]
    asked = str(json.loads(draft["context"])[-1][1])
    asked = asked if len(asked) <= QUOTED else f"…{asked[-QUOTED:]}"
    whom = f"{name or 'whoever wrote this'}{why and f': {why}'}"
    text = fitting(f"Draft {number}, to {whom}\n» {asked}\n\n{draft['text']}")
    owner, shown = _owner(config, draft), {"buttons": buttons, "version": draft["version"]}
    if instead_of is None:
        db.run("UPDATE drafts SET shown = NULL, closing = NULL WHERE id = ?", number)
        plan(db, owner, text, draft=number, **shown)
    else:
        plan(db, owner, text, method="edit", draft=number, message=instead_of, **shown)


def _close(db: Database, config: BotConfig, draft: sqlite3.Row, text: str) -> None:
    """Remove the buttons: now, or once the id of the message that has them is known."""
    if draft["shown"] is None:
        db.run("UPDATE drafts SET closing = ? WHERE id = ?", text, draft["id"])
        return
    plan(db, _owner(config, draft), fitting(text), method="edit", message=draft["shown"])
