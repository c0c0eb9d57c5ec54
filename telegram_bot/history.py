"""What was said in a conversation, as the turns that the model is shown."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from replicate_deployment.chat_format import Labels, Turn, render_prompt
from telegram_bot.database import Database

BURST_SECONDS = (
    180  # as in preparation: a message this soon after the one before it, of the same side, continues its turn
)


class Said(NamedTuple):
    mine: bool
    text: str
    at: float


def said(db: Database, conversation: int, upto: int, turns: int) -> list[Said]:
    """The messages before and with number `upto`, oldest first: enough for so many turns.

    The ghost's own stand behind what they answer, though others may have written while it thought: so a history always
    ends with what is to be answered.
    """
    rows = db.rows(
        "SELECT mine, text, at FROM messages WHERE conversation = ? AND coalesce(slot, id) <= ?"
        " AND coalesce(slot, id) > (SELECT since FROM conversations WHERE id = ?)"
        " ORDER BY coalesce(slot, id) DESC, mine DESC, id DESC LIMIT ?",
        *(conversation, upto, conversation, turns * 10),
    )
    return [Said(bool(mine), text, at) for mine, text, at in reversed(rows)]


def as_turns(messages: Iterable[Said], labels: Labels, at_most: int) -> list[Turn]:
    """Bursts joined as preparation joins them; the last `at_most` turns."""
    turns: list[Turn] = []
    last = 0.0
    for message in messages:
        label = labels.me if message.mine else labels.other
        if turns and turns[-1].label == label and message.at - last <= BURST_SECONDS:
            turns[-1] = Turn(label, f"{turns[-1].text}\n{message.text}")
        else:
            turns.append(Turn(label, message.text))
        last = message.at
    return turns[-at_most:]


def prompt(db: Database, conversation: int, upto: int, labels: Labels, turns: int) -> str:
    """The rendered history, escaped: whatever somebody typed, it is text of their own turn."""
    return render_prompt(as_turns(said(db, conversation, upto, turns), labels, turns), labels)


def add(
    db: Database, conversation: int, text: str, at: float, *, mine: bool, pending: bool, telegram: int | None = None
) -> int:
    """Within a transaction: a message was said. Its text has the newlines of the chat format, and is not blank."""
    db.run("UPDATE conversations SET at = ? WHERE id = ?", at, conversation)
    return db.run(
        "INSERT INTO messages(conversation, mine, text, at, telegram, pending) VALUES(?, ?, ?, ?, ?, ?)",
        *(conversation, mine, clean(text), at, telegram, pending),
    )


def tell_once(db: Database, conversation: int, what: str, of: str) -> bool:
    """Within a transaction: whether this kind of line was not said of `of` yet. From here on it counts as said."""
    told = db.value("SELECT told FROM conversations WHERE id = ?", conversation) or ""
    marks = json.loads(told) if told.startswith("{") else {}
    if marks.get(what, "") == of:
        return False
    marks[what] = of
    return bool(db.changed("UPDATE conversations SET told = ? WHERE id = ?", json.dumps(marks), conversation))


def clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
