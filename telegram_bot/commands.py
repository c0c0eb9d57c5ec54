"""Answer /start, /reset, /forget, /help, /status and /quality, within the transaction that records them."""

from statistics import median

from telegram_bot import drafts, quality, retention
from telegram_bot.config import BotConfig
from telegram_bot.database import DONE, Database
from telegram_bot.gateway import fitting
from telegram_bot.outgoing import Place, plan


def predictions_today(db: Database) -> int:
    """Count the predictions that were or may have been run today; those that the server refused cost nothing."""
    return int(db.value("SELECT count(*) FROM predictions WHERE day = ? AND state <> 'refused'", db.clock.today()))


def status(db: Database, config: BotConfig, *, owner: bool) -> str:
    """Return the text of /status. The owner also sees figures about the bot as a whole."""
    day = db.clock.today()
    done = db.rows(f"SELECT waited, seconds, ended, state FROM predictions WHERE day = ? AND state IN {DONE}", day)
    lines = [f"Replies today: {sum(row['state'] == 'answered' for row in done)}"]
    known = [row["ended"] for row in done if row["ended"] is not None]
    if known:
        lines.append(f"Ended by an end token: {100 * sum(known) / len(known):.0f}% of {len(known)}")
    if done:
        waits = sorted(row["waited"] for row in done)
        lines.append(f"From message to reply: median {median(waits):.1f} s, longest {waits[-1]:.1f} s")
        lines.append(f"of which model: median {median(row['seconds'] for row in done):.1f} s")
    distances = [row[0] for row in db.rows("SELECT distance FROM drafts WHERE distance IS NOT NULL")]
    if owner and distances:
        kept = sum(distance == 0 for distance in distances)
        average = sum(distances) / len(distances)
        lines.append(f"Drafts sent: {len(distances)}, {kept} unchanged; edit distance {100 * average:.0f}% of the text")
    if not owner:
        return "\n".join(lines)
    lines.append(f"Predictions today: {predictions_today(db)} of {config.limits.predictions_per_day}")
    failed = "SELECT count(*) FROM predictions WHERE day = ? AND state IN ('failed', 'lost')"
    if count := db.value(failed, day):
        lines.append(f"of which failed: {count}")
    if count := db.value("SELECT count(*) FROM predictions WHERE day = ? AND state = 'withheld'", day):
        lines.append(f"of which broken, not sent: {count}")
    if count := db.value("SELECT count(DISTINCT conversation) FROM messages WHERE pending"):
        lines.append(f"Chats waiting for a reply: {count}")
    for state, meaning in [("doubtful", "Delivery unknown, not sent again"), ("refused", "Refused by Telegram")]:
        numbers = [str(row[0]) for row in db.rows("SELECT id FROM outgoing WHERE state = ? ORDER BY id DESC", state)]
        if numbers:
            more = ", …" if len(numbers) > 5 else ""
            lines.append(f"{meaning}: {len(numbers)} (message {', '.join(numbers[:5])}{more})")
    if count := db.value("SELECT count(*) FROM updates WHERE failed IS NOT NULL"):
        lines.append(f"Updates that could not be processed: {count}")
    return "\n".join(lines)


COMMANDS = ("start", "reset", "forget", "help", "status", "quality")


def parse_command(text: str, bot: str) -> str | None:
    """Return a command of this bot and its argument, such as "forget all", else None.

    A command addressed to another bot (/help@other) is None. Other texts that start with a slash are messages.
    """
    word, _, argument = text.strip().partition(" ")
    command, at, whose = word.removeprefix("/").partition("@")
    if not word.startswith("/") or command.casefold() not in COMMANDS:
        return None
    if at and whose.casefold() != bot.casefold():
        return None
    return f"{command.casefold()} {argument.strip().casefold()}".strip()


def answer(db: Database, config: BotConfig, place: Place, command: str, writer: int) -> None:
    """Within a transaction: carry out a command and plan its answer."""
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
    elif command.split()[0] == "forget" and place.chat != writer and not owner:  # in a group
        retention.forget_writer(db, place.chat, writer)
        plan(db, place, texts.forgotten_own)
    elif command.split()[0] == "forget":
        own = "kind = 'forwards' AND chat = ?"
        chats = db.rows(f"SELECT id FROM conversations WHERE id = ? OR ({own})", conversation, place.chat)
        retention.forget(db, [row["id"] for row in chats])
        plan(db, place._replace(conversation=None), texts.forgotten)
    elif command.split()[0] == "quality" and owner and place.chat == writer:
        plan(db, place, fitting(quality.summary(db, config)))
    elif command.split()[0] == "status":
        plan(db, place, status(db, config, owner=owner and place.chat == writer))
    else:
        owners = (
            "\n/forget all – delete what is stored of every chat, your edits of drafts too"
            "\n/quality – what I wrote this week, beside how you write"
        )
        plan(db, place, texts.help + owners * owner)


def _clear_what_waits(db: Database, place: Place) -> None:
    db.run("UPDATE messages SET pending = 0 WHERE conversation = ?", place.conversation)
    # Keep the notice that this is an AI: it is recorded as sent.
    db.run(
        "DELETE FROM outgoing WHERE conversation = ? AND state = 'planned'"
        " AND json_extract(payload, '$.notice') IS NULL",
        place.conversation,
    )
