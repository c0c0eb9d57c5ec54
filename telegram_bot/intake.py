"""Process updates, each in the transaction that records it. Nothing here makes network calls.

A repeated update changes nothing. An update that cannot be processed is recorded as failed, with its number and kind of
error, and the rest of its batch continues.
"""

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from telegram_bot import commands, drafts, history, quality
from telegram_bot.config import BotConfig
from telegram_bot.database import Database, failure
from telegram_bot.gateway import UNREADABLE
from telegram_bot.outgoing import Place, moved, plan

if TYPE_CHECKING:
    from telegram import BusinessConnection, Message, ReactionType, Update, User

log = logging.getLogger("ghost.bot")
OFFSET_DAYS = 6  # after a week without updates Telegram restarts its numbering (core.telegram.org/bots/api#update)


class Me(NamedTuple):
    """The bot's own id and user name."""

    id: int
    name: str


def offset(db: Database) -> int | None:
    """Return the number after the last recorded update, or None to get all that Telegram holds."""
    last = db.meta("last update")
    recent = db.value("SELECT 1 FROM updates WHERE id = ? AND at > ?", last, db.clock.time() - OFFSET_DAYS * 86400)
    return int(last) + 1 if recent else None


def record(db: Database, config: BotConfig, me: Me, updates: "Sequence[Update]") -> None:
    """Within a transaction: record and process these updates. Once it is committed, they may be confirmed."""
    now = db.clock.time()
    for update in updates:
        if db.value("SELECT 1 FROM updates WHERE id = ?", update.update_id):
            continue
        failed = update.api_kwargs.get(UNREADABLE)
        try:
            with db.savepoint():
                _take(db, config, me, update, now)
        except Exception as error:  # a bug here must not block the other updates
            if isinstance(error, sqlite3.Error) and failure(error, db.path):
                raise  # a disk error, not the update's fault
            failed = type(error).__name__
        if failed:
            log.error("update %d: %s; left unanswered", update.update_id, failed)
        db.run("INSERT INTO updates VALUES(?, ?, ?)", update.update_id, now, failed)
    if updates:
        db.set_meta("last update", str(updates[-1].update_id))  # not the latest by time: clocks may be set back


def _take(db: Database, config: BotConfig, me: Me, update: "Update", now: float) -> None:
    if update.message:
        _message(db, config, me, update.message, now)
    elif update.callback_query:
        drafts.pressed(db, config, update.callback_query)
    elif reaction := update.message_reaction:
        added = Counter(map(_kind, reaction.new_reaction)) - Counter(map(_kind, reaction.old_reaction))
        for row in _known(db, "telegram", reaction.message_id, reaction.chat.id, ""):
            if row["mine"]:
                quality.add(db, row["conversation"], {"reactions": added})
    elif connection := update.business_connection:
        connected(db, config, connection)
    elif update.business_message:
        _business(db, config, update.business_message, now)
    elif edited := update.edited_message or update.edited_business_message:
        if text := edited.text or edited.caption:
            # Remove the bot's name, which addresses it in groups but not in business messages.
            text = history.clean(text if edited.business_connection_id else _without_name(text, me))
            where = (edited.message_id, edited.chat.id, edited.business_connection_id or "")
            for row in _known(db, "telegram", *where):
                drafts.message_edited(db, row, row["text"], text)
                db.run("UPDATE messages SET text = ? WHERE id = ?", text, row["id"])
            for row in _known(db, "quoted", *where):
                _requote(db, row, row["quote"] if (row["quote"] or "") in text else history.shortened(text))
    elif gone := update.deleted_business_messages:
        for message in gone.message_ids:
            where = (message, gone.chat.id, gone.business_connection_id)
            for row in _known(db, "telegram", *where):
                drafts.message_deleted(db, config, row)
                db.run("DELETE FROM messages WHERE id = ?", row["id"])
                db.set_meta("scrub", "due")
            for row in _known(db, "quoted", *where):
                _requote(db, row, None)
                db.set_meta("scrub", "due")


def _kind(reaction: "ReactionType") -> str:
    """Return the emoji, or the type of a reaction without one: custom_emoji, paid."""
    return str(getattr(reaction, "emoji", reaction.type))


def _known(db: Database, column: str, message: int, chat: int, connection: str) -> list[sqlite3.Row]:
    """Return the rows whose `column` is this Telegram message: `telegram` for itself, `quoted` for those quoting it."""
    return db.rows(
        f"SELECT * FROM messages WHERE {column} = ? AND conversation IN"
        " (SELECT id FROM conversations WHERE chat = ? AND connection = ?)",
        *(message, chat, connection),
    )


def _requote(db: Database, row: sqlite3.Row, quote: str | None) -> None:
    """Within a transaction: change or remove the quote in this message."""
    stored = history.StoredMessage(row["mine"], row["text"], row["at"], quote=row["quote"])
    drafts.message_edited(db, row, history.with_quote(stored), history.with_quote(stored._replace(quote=quote)))
    db.run("UPDATE messages SET quote = ? WHERE id = ?", quote, row["id"])


def connected(db: Database, config: BotConfig, connection: "BusinessConnection") -> None:
    """Within a transaction: record a business connection and whether the bot may write there. Anyone can connect their
    account to any bot, so only the owner's connections are used."""
    rights = connection.rights
    can_reply = connection.is_enabled and connection.user.id == config.owner and bool(rights and rights.can_reply)
    owners = connection.user.id == config.owner
    db.run("INSERT OR REPLACE INTO connections VALUES(?, ?, ?)", connection.id, owners, can_reply)


def unknown_connections(db: Database, updates: "Sequence[Update]") -> set[str]:
    """Return connections older than this database, which no update will report."""
    named = {update.business_message.business_connection_id for update in updates if update.business_message}
    return {id for id in named if id and db.value("SELECT 1 FROM connections WHERE id = ?", id) is None}


def _message(db: Database, config: BotConfig, me: Me, message: "Message", now: float) -> None:
    writer, chat = message.from_user, message.chat
    if writer is None or writer.is_bot or chat.type == "channel":
        return
    group = chat.type != "private"
    if group and (message.migrate_to_chat_id or message.migrate_from_chat_id):
        old, new = message.migrate_from_chat_id or chat.id, message.migrate_to_chat_id or chat.id
        if old in config.allow and not db.meta(f"told moved {new}"):
            db.set_meta(f"told moved {new}", str(old))
            log.warning("the group %d is now %d", old, new)
            owner = Place(config.owner)
            plan(db, owner, f"The group {old} now has the id {new}. It stays allowed; add {new} under allow too.")
        moved(db, old, new)
        return
    if not config.is_allowed(writer.id, chat.id) and not config.is_allowed(
        writer.id, int(db.meta(f"moved {chat.id}") or 0)
    ):
        if not group:
            _reject_stranger(db, config, writer.id, chat.id, now)
        return
    text = message.text or message.caption
    thread = message.message_thread_id if message.is_topic_message and message.message_thread_id else 0
    if writer.id == config.owner and not group and drafts.from_owner(db, config, me.id, message, text, now):
        return
    kind = "group" if group else "private"
    conversation = open_conversation(db, kind, chat.id, "", thread, chat.title or writer.first_name, now)
    place = Place(chat.id, "", thread, conversation)
    if text and (command := commands.parse_command(text, me.name)):
        most = config.limits.commands_per_minute
        if (count := db.count_per_minute(writer.id, "command")) > most:
            if count == most + 1:
                plan(db, place, config.texts.slower)
            return
        if command != "start":  # its answer includes the notice
            _send_notice(db, config, place, writer, message if group else None)
        commands.answer(db, config, place, command, writer.id)
        return
    addressed = not group or _addressed(message, me)
    if not addressed and not text:
        return
    if addressed:
        _send_notice(db, config, place, writer, message if group else None)
    if not text:
        if history.tell_once(db, conversation, "only_text", "yes"):
            plan(db, place, config.texts.only_text)
        return
    history.tell_once(db, conversation, "only_text", "")  # repeat it for the next picture
    text, quote = _without_name(text, me), _quote(message)
    history.add_message(
        *(db, conversation, text, now),
        mine=False,
        pending=addressed,
        telegram=message.message_id,
        quoted=_answered(message),
        quote=quote and _without_name(quote, me),
        writer=writer.id,
    )


def _answered(message: "Message") -> int | None:
    return message.reply_to_message.message_id if message.reply_to_message else None


def _quote(message: "Message") -> str | None:
    """Return the text that a message replies to: the part its writer selected, else all of it. A reply to a message in
    another chat has only the selected part; a picture without a caption has no text."""
    if message.quote:
        return message.quote.text
    answered = message.reply_to_message
    return (answered.text or answered.caption) if answered else None


def _without_name(text: str, me: Me) -> str:
    """Return the text without mentions of the bot, unless nothing else is left."""
    return re.sub(rf"@{re.escape(me.name)}\b", "", text, flags=re.IGNORECASE).strip() or text


def _addressed(message: "Message", me: Me) -> bool:
    answered = message.reply_to_message
    if answered and answered.from_user and answered.from_user.id == me.id:
        return True
    entities = {**message.parse_entities(["mention", "text_mention"]), **message.parse_caption_entities(["mention"])}
    return any(
        words.casefold() == f"@{me.name}".casefold() or bool(entity.user and entity.user.id == me.id)
        for entity, words in entities.items()
    )


def _business(db: Database, config: BotConfig, message: "Message", now: float) -> None:
    """Handle a message in one of the owner's chats: draft an answer to others; the owner's own outdates open drafts."""
    connection, writer = message.business_connection_id, message.from_user
    if connection is None or writer is None or message.chat.id not in config.drafts.chats:
        return
    if not db.value("SELECT owners FROM connections WHERE id = ?", connection) or message.sender_business_bot:
        return
    text = message.text or message.caption
    if not text:
        return
    name = message.chat.first_name or message.chat.title or str(message.chat.id)
    conversation = open_conversation(db, "business", message.chat.id, connection, 0, name, now)
    mine = writer.id == config.owner
    if mine:
        db.run("UPDATE messages SET pending = 0 WHERE conversation = ?", conversation)
        drafts.answered_by_hand(db, config, conversation, text, now)
    history.add_message(
        *(db, conversation, text, now),
        mine=mine,
        pending=not mine,
        telegram=message.message_id,
        quoted=_answered(message),
        quote=None if mine else _quote(message),
    )


def open_conversation(
    db: Database, kind: str, chat: int, connection: str, thread: int, name: str | None, now: float
) -> int:
    found = db.value(
        "SELECT id FROM conversations WHERE chat = ? AND connection = ? AND thread = ? AND kind <> 'forwards'",
        *(chat, connection, thread),
    )
    if found is None:
        found = db.run(
            "INSERT INTO conversations(kind, chat, connection, thread, name, at) VALUES(?, ?, ?, ?, ?, ?)",
            *(kind, chat, connection, thread, name or "", now),
        )
    return int(found)


def _reject_stranger(db: Database, config: BotConfig, person: int, chat: int, now: float) -> None:
    """Answer a stranger once, then stay silent. What they write is not stored."""
    if db.changed("INSERT OR IGNORE INTO strangers VALUES(?, ?)", person, now):
        log.info("a stranger wrote: %d", person)
        plan(db, Place(chat), f"{config.texts.stranger}\nYour id: {person}")


def _send_notice(db: Database, config: BotConfig, place: Place, writer: "User", to: "Message | None") -> None:
    """Send the notice before anything else, once to each person in each chat; again if it may not have arrived."""
    if db.changed("INSERT OR IGNORE INTO noticed VALUES(?, ?)", place.conversation, writer.id):
        plan(db, place, config.texts.notice, reply_to=to.message_id if to else None, notice=writer.id)
