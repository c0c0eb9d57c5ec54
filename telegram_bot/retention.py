"""Delete data on demand and by age. `Database.scrub` then removes its traces from the file."""

from telegram_bot.database import PACE_SECONDS, Database


def forget(db: Database, conversations: list[int]) -> None:
    """Within a transaction: delete all rows of these conversations."""
    for conversation in conversations:
        # /forget must not reset the rate limit.
        db.run(
            "INSERT INTO pace SELECT c.chat, 'reply', p.at FROM predictions p JOIN conversations c"
            " ON c.id = p.conversation WHERE c.id = ? AND p.state <> 'refused' AND p.at > ?",
            *(conversation, db.clock.time() - PACE_SECONDS),
        )
        _fold_figures(db, "conversation = ?", conversation)
        for table in ("messages", "outgoing", "drafts", "noticed"):
            db.run(f"DELETE FROM {table} WHERE conversation = ?", conversation)
        # Keep the predictions for the day's budget, without their conversation.
        db.run("UPDATE predictions SET conversation = 0, remote = NULL WHERE conversation = ?", conversation)
        db.run("DELETE FROM conversations WHERE id = ?", conversation)
    db.set_meta("scrub", "due")


def forget_writer(db: Database, chat: int, writer: int) -> None:
    """Within a transaction: delete what a person wrote in a group, also where others quote it."""
    theirs = "SELECT id FROM conversations WHERE chat = ? AND kind = 'group'"
    db.run(
        f"UPDATE messages SET quote = NULL WHERE conversation IN ({theirs}) AND quoted IN"
        f" (SELECT telegram FROM messages WHERE conversation IN ({theirs}) AND writer = ?)",
        *(chat, chat, writer),
    )
    db.run(f"DELETE FROM messages WHERE conversation IN ({theirs}) AND writer = ?", chat, writer)
    db.set_meta("scrub", "due")


def _fold_figures(db: Database, which: str, *values: int) -> None:
    """Within a transaction: add these counts to those without a conversation."""
    db.run(
        f"INSERT INTO figures SELECT 0, week, figure, kind, sum(count) FROM figures WHERE {which}"
        " GROUP BY week, figure, kind ON CONFLICT DO UPDATE SET count = count + excluded.count",
        *values,
    )
    db.run(f"DELETE FROM figures WHERE {which}", *values)


def expire(db: Database, messages_days: int, corrections_days: int) -> None:
    """Within a transaction: delete what is older, and conversations without messages."""
    now = db.clock.time()
    before, long_before = now - messages_days * 86400, now - corrections_days * 86400
    gone = db.changed("DELETE FROM messages WHERE at < ? AND NOT pending", before)
    gone += db.changed("DELETE FROM outgoing WHERE at < ? AND state NOT IN ('planned', 'sending')", before)
    judged = "state IN ('sent', 'edited', 'discarded', 'own') OR refused <> '[]'"
    due = f"at < CASE WHEN {judged} THEN ? ELSE ? END"
    gone += db.changed(f"DELETE FROM drafts WHERE {due}", long_before, before)
    db.run("DELETE FROM predictions WHERE at < ?", before)
    db.run("DELETE FROM strangers WHERE at < ?", before)
    db.run("DELETE FROM pace WHERE at < ?", now - PACE_SECONDS)
    # Telegram keeps an update for at most a day.
    db.run("DELETE FROM updates WHERE at < ?", now - 8 * 86400)
    db.run(
        "DELETE FROM conversations WHERE at < ? AND kind <> 'private' AND id NOT IN"
        " (SELECT conversation FROM messages UNION SELECT conversation FROM drafts)",
        before,
    )
    db.run("DELETE FROM noticed WHERE conversation NOT IN (SELECT id FROM conversations)")
    _fold_figures(db, "conversation <> 0 AND conversation NOT IN (SELECT id FROM conversations)")
    if gone:
        db.set_meta("scrub", "due")
