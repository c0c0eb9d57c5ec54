"""Store a conversation's messages and render them as the model's prompt."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from replicate_deployment.chat_format import BURST_SECONDS, CONTEXT_TURNS, DROPPED_TURNS, Labels, Turn
from telegram_bot.database import Database

NEAR = 4  # turns: do not quote an answered message within so many turns before its answer
LONGEST_QUOTE = 300  # characters


class StoredMessage(NamedTuple):
    mine: bool
    text: str
    at: float
    telegram: int | None = None
    quoted: int | None = None  # the `telegram` id of the answered message
    quote: str | None = None  # its text


def recent_messages(db: Database, conversation: int, upto: int, turns: int) -> list[StoredMessage]:
    """Return the messages up to number `upto`, oldest first: up to ten per turn for so many `turns`.

    Each of the ghost's messages follows what it answers, even if others wrote in between. A partly sent answer to
    `upto` itself is left out, so a history always ends with the message to be answered. The first one is the same for
    the next `turns` * 10 messages, up to twice as many as asked for.
    """
    rows = db.rows(
        "WITH said AS (SELECT *, coalesce(slot, id) AS place FROM messages"
        " WHERE conversation = ? AND coalesce(slot, id) <= ? AND slot IS NOT ?"
        " AND coalesce(slot, id) > (SELECT since FROM conversations WHERE id = ?))"
        " SELECT mine, text, at, telegram, quoted, quote FROM said"
        " ORDER BY place DESC, mine DESC, id DESC LIMIT ? + (SELECT count(*) FROM said) % ?",
        *(conversation, upto, upto, conversation, turns * 10, turns * 10),
    )
    return [StoredMessage(bool(mine), *rest) for mine, *rest in reversed(rows)]


def as_turns(messages: Iterable[StoredMessage], labels: Labels, at_most: int) -> list[Turn]:
    """Join bursts into turns, as preparation does, and return the last `at_most`.

    If servers leave out older ones themselves, return up to 7 more, so that most prompts begin like the one before.

    If the other side replies to a message more than NEAR turns back, its text starts with that message, each line
    prefixed "> ". Training has no quotes, so this uses the notation of mail and forums, which every base has read. The
    ghost's own messages show no quotes, or it would imitate them.
    """
    bursts: list[list[StoredMessage]] = []
    for message in messages:
        before = bursts[-1][-1] if bursts else None
        if before and before.mine == message.mine and message.at - before.at <= BURST_SECONDS:
            bursts[-1].append(message)
        else:
            bursts.append([message])
    step = DROPPED_TURNS if at_most >= CONTEXT_TURNS else 1
    bursts = bursts[max(0, len(bursts) - at_most) // step * step :]
    places = {message.telegram: place for place, burst in enumerate(bursts) for message in burst if message.telegram}
    turns = []
    for place, burst in enumerate(bursts):
        label = labels.me if burst[0].mine else labels.other
        near = {number for number, at in places.items() if place - at < NEAR}
        turns.append(Turn(label, "\n".join(one.text if one.quoted in near else with_quote(one) for one in burst)))
    return turns


def with_quote(message: StoredMessage) -> str:
    """Return the text with the quote, if any, before it. No line of a quote can be read as a tag."""
    if message.mine or not message.quote:
        return message.text
    return "".join(f"> {line}\n" for line in message.quote.split("\n") if line.strip()) + message.text


def add_message(
    db: Database,
    conversation: int,
    text: str,
    at: float,
    *,
    mine: bool,
    pending: bool,
    telegram: int | None = None,
    slot: int | None = None,
    quoted: int | None = None,
    quote: str | None = None,
    writer: int | None = None,
) -> int:
    """Within a transaction: record a message that was or will be sent, and return its number. The text must not be
    blank. `slot`: the number of the message that it follows in the history."""
    db.run("UPDATE conversations SET at = ? WHERE id = ?", at, conversation)
    return db.run(
        "INSERT INTO messages(conversation, mine, text, at, telegram, pending, slot, quoted, quote, writer)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(conversation, mine, clean(text), at, telegram, pending, slot, quoted, quote and shortened(quote), writer),
    )


def delete_refused(db: Database, message: int) -> None:
    """Within a transaction: delete a message that Telegram refused; mark a reply with no messages left as unsent."""
    row = db.row("SELECT conversation, slot FROM messages WHERE id = ?", message)
    if row is None:
        return
    db.run("DELETE FROM messages WHERE id = ?", message)
    if not db.value("SELECT 1 FROM messages WHERE conversation = ? AND slot = ?", *row):
        db.run(
            "UPDATE predictions SET state = 'unsent' WHERE conversation = ? AND upto = ? AND state = 'answered'", *row
        )


def shortened(quote: str) -> str:
    text = clean(quote)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE].rstrip()}…"


def tell_once(db: Database, conversation: int, what: str, of: str) -> bool:
    """Within a transaction: return whether the notice `what` was not yet sent for `of`, and record it as sent."""
    told = db.value("SELECT told FROM conversations WHERE id = ?", conversation) or ""
    marks = json.loads(told) if told.startswith("{") else {}
    if marks.get(what, "") == of:
        return False
    marks[what] = of
    return bool(db.changed("UPDATE conversations SET told = ? WHERE id = ?", json.dumps(marks), conversation))


def clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
