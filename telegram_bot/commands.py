"""/start, /reset, /forget, /help and /status, answered within the transaction that records them."""

from telegram_bot import drafts, figures, retention
from telegram_bot.config import BotConfig
from telegram_bot.database import Database
from telegram_bot.outgoing import Place, plan

COMMANDS = ("start", "reset", "forget", "help", "status")


def named(text: str, bot: str) -> str | None:
    """The command and its argument, if the text is one of ours: "forget all". In a group it may name the bot it is for;
    one for another bot is none. Anything else that begins with a slash is a message like others."""
    word, _, argument = text.strip().partition(" ")
    command, at, whose = word.removeprefix("/").partition("@")
    if not word.startswith("/") or command.casefold() not in COMMANDS:
        return None
    if at and whose.casefold() != bot.casefold():
        return None
    return f"{command.casefold()} {argument.strip().casefold()}".strip()


def answer(db: Database, config: BotConfig, place: Place, command: str, writer: int) -> None:
    """Within a transaction. What a command clears is cleared now; its answer is the next thing that is sent."""
    conversation = place.conversation
    texts, owner = config.texts, writer == config.owner
    if command == "start":
        db.run("INSERT OR IGNORE INTO noticed VALUES(?, ?)", conversation, writer)
        plan(db, place, f"{texts.notice}\n\n{texts.help}", notice=writer)
        if owner and place.chat == writer:
            drafts.show_unseen(db, config)
    elif command == "reset":
        _clear_what_waits(db, place)
        last = "SELECT coalesce(max(id), 0) FROM messages WHERE conversation = ?"
        db.run(f"UPDATE conversations SET since = ({last}) WHERE id = ?", conversation, conversation)
        plan(db, place, texts.reset)
    elif command == "forget all" and owner:
        retention.forget(db, [row["id"] for row in db.rows("SELECT id FROM conversations")])
        plan(db, place._replace(conversation=None), f"{texts.forgotten} And of every other one.")
    elif command.split()[0] == "forget":
        own = "kind = 'forwards' AND chat = ?"
        chats = db.rows(f"SELECT id FROM conversations WHERE id = ? OR ({own})", conversation, place.chat)
        retention.forget(db, [row["id"] for row in chats])
        plan(db, place._replace(conversation=None), texts.forgotten)
    elif command.split()[0] == "status":
        plan(db, place, figures.status(db, config, owner=owner and place.chat == writer))
    else:
        owners = "\n/forget all – delete what is stored of every chat, your edits of drafts too" if owner else ""
        plan(db, place, texts.help + owners)


def _clear_what_waits(db: Database, place: Place) -> None:
    db.run("UPDATE messages SET pending = 0 WHERE conversation = ?", place.conversation)
    # But what tells that this is an AI: it is noted as said.
    db.run(
        "DELETE FROM outgoing WHERE conversation = ? AND state = 'planned'"
        " AND json_extract(payload, '$.notice') IS NULL",
        place.conversation,
    )
