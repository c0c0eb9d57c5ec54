"""What was said in a conversation, as the turns that the model is shown."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from replicate_deployment.chat_format import BURST_SECONDS, Labels, Turn, render_prompt
from telegram_bot.database import Database

NEAR = 4  # turns: what a reply answers is not repeated where it stands among so many last ones
LONGEST_QUOTE = 300  # characters of a message that is answered


class Said(NamedTuple):
    mine: bool
    text: str
    at: float
    telegram: int | None = None
    quoted: int | None = None  # the `telegram` of what this answers
    quote: str | None = None  # the words of it


def said(db: Database, conversation: int, upto: int, turns: int) -> list[Said]:
    """The messages before and with number `upto`, oldest first: enough for so many turns.

    The ghost's own stand behind what they answer, though others may have written while it thought, and an answer to
    `upto` itself, of which Telegram took the beginning only, is left out: so a history always ends with what is to be
    answered.
    """
    rows = db.rows(
        "SELECT mine, text, at, telegram, quoted, quote FROM messages"
        " WHERE conversation = ? AND coalesce(slot, id) <= ? AND slot IS NOT ?"
        " AND coalesce(slot, id) > (SELECT since FROM conversations WHERE id = ?)"
        " ORDER BY coalesce(slot, id) DESC, mine DESC, id DESC LIMIT ?",
        *(conversation, upto, upto, conversation, turns * 10),
    )
    return [Said(bool(mine), *rest) for mine, *rest in reversed(rows)]


def as_turns(messages: Iterable[Said], labels: Labels, at_most: int) -> list[Turn]:
    """Bursts joined as preparation joins them; the last `at_most` turns.

    A reply of the other side to something that does not stand close before it begins with the words that it answers,
    a line of "> " for each of theirs. Training knows no quotes, so they are text of the turn that quotes, marked as in
    mail and forums, which every base has read; the ghost's own side never shows any, for it would learn to write them.
    """
    bursts: list[list[Said]] = []
    for message in messages:
        before = bursts[-1][-1] if bursts else None
        if before and before.mine == message.mine and message.at - before.at <= BURST_SECONDS:
            bursts[-1].append(message)
        else:
            bursts.append([message])
    bursts = bursts[-at_most:]
    places = {said.telegram: place for place, burst in enumerate(bursts) for said in burst if said.telegram}
    turns = []
    for place, burst in enumerate(bursts):
        label = labels.me if burst[0].mine else labels.other
        near = {number for number, at in places.items() if place - at < NEAR}
        turns.append(Turn(label, "\n".join(said.text if said.quoted in near else quoting(said) for said in burst)))
    return turns


def quoting(message: Said) -> str:
    """The message behind the words that it answers, where it answers any. No line of a quote can be read as a tag."""
    if message.mine or not message.quote:
        return message.text
    return "".join(f"> {line}\n" for line in message.quote.split("\n") if line.strip()) + message.text


def prompt(db: Database, conversation: int, upto: int, labels: Labels, turns: int) -> str:
    """The rendered history, escaped: whatever somebody typed, it is text of their own turn."""
    return render_prompt(as_turns(said(db, conversation, upto, turns), labels, turns), labels)


def add(
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
) -> int:
    """Within a transaction: a message was said, or is about to be. Its text has the newlines of the chat format, and is
    not blank. `slot`: the message behind which it stands, whatever was said meanwhile."""
    db.run("UPDATE conversations SET at = ? WHERE id = ?", at, conversation)
    return db.run(
        "INSERT INTO messages(conversation, mine, text, at, telegram, pending, slot, quoted, quote)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(conversation, mine, clean(text), at, telegram, pending, slot, quoted, quote and shortened(quote)),
    )


def unsaid(db: Database, message: int) -> None:
    """Within a transaction: Telegram has refused this message of the ghost's. A reply of which all was is none."""
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
    """Within a transaction: whether this kind of line was not said of `of` yet. From here on it counts as said."""
    told = db.value("SELECT told FROM conversations WHERE id = ?", conversation) or ""
    marks = json.loads(told) if told.startswith("{") else {}
    if marks.get(what, "") == of:
        return False
    marks[what] = of
    return bool(db.changed("UPDATE conversations SET told = ? WHERE id = ?", json.dumps(marks), conversation))


def clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
