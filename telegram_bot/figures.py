"""/status: how the ghost is doing, in figures."""

from statistics import median

from telegram_bot.config import BotConfig
from telegram_bot.database import DONE, Database


def asked_today(db: Database) -> int:
    """Predictions that were, or may have been, run today. Those that the server took on for nobody are no cost."""
    return int(db.value("SELECT count(*) FROM predictions WHERE day = ? AND state <> 'refused'", db.clock.today()))


def status(db: Database, config: BotConfig, *, owner: bool) -> str:
    """Figures for anybody who may talk to the bot; the owner also sees what concerns the bot as a whole."""
    day = db.clock.today()
    done = db.rows(f"SELECT waited, seconds, ended, state FROM predictions WHERE day = ? AND state IN {DONE}", day)
    lines = [f"Replies today: {sum(row['state'] == 'answered' for row in done)}"]
    known = [row["ended"] for row in done if row["ended"] is not None]
    if known:
        lines.append(f"Ended by themselves: {100 * sum(known) / len(known):.0f}% of {len(known)}")
    if done:
        waits = sorted(row["waited"] for row in done)
        lines.append(f"From a message to its reply: median {median(waits):.1f} s, longest {waits[-1]:.1f} s")
        lines.append(f"of which the model: median {median(row['seconds'] for row in done):.1f} s")
    distances = [row[0] for row in db.rows("SELECT distance FROM drafts WHERE distance IS NOT NULL")]
    if owner and distances:
        kept = sum(distance == 0 for distance in distances)
        average = sum(distances) / len(distances)
        lines.append(
            f"Drafts sent: {len(distances)}, {kept} as they were; edit distance {100 * average:.0f}% of the text"
        )
    if not owner:
        return "\n".join(lines)
    lines.append(f"Predictions today: {asked_today(db)} of {config.limits.predictions_per_day}")
    failed = db.value("SELECT count(*) FROM predictions WHERE day = ? AND state IN ('failed', 'lost')", day)
    if failed:
        lines.append(f"of which failed: {failed}")
    waiting = db.value("SELECT count(DISTINCT conversation) FROM messages WHERE pending")
    if waiting:
        lines.append(f"Chats that wait for a reply: {waiting}")
    for state, meaning in [("doubtful", "In doubt, not sent again"), ("refused", "Refused by Telegram")]:
        numbers = [str(row[0]) for row in db.rows("SELECT id FROM outgoing WHERE state = ? ORDER BY id DESC", state)]
        if numbers:
            more = ", …" if len(numbers) > 5 else ""
            lines.append(f"{meaning}: {len(numbers)} (message {', '.join(numbers[:5])}{more})")
    failed = db.value("SELECT count(*) FROM updates WHERE failed IS NOT NULL")
    if failed:
        lines.append(f"Updates that could not be understood: {failed}")
    return "\n".join(lines)
