"""Send recorded messages: planned → sending → sent, refused or doubtful (delivery unknown).

One task per chat sends its rows in order and ends when none are left. A row becomes `sending` before the call is made
and stays so until the outcome is known. After a restart, such a row may have arrived, so it is not sent again.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ghost.errors import BotError
from telegram_bot import history, quality
from telegram_bot.database import Database
from telegram_bot.gateway import Call, DeliveryUnknown, Moved, Refused, RetryLater, Telegram

log = logging.getLogger("ghost.bot")
AT_ONCE = 8  # limits the calls of unknown outcome if the bot is killed; enough for Telegram's 30 calls per second
TYPING_SECONDS = 4.0  # Telegram shows it for five
CLOSE_SECONDS = 5.0  # how long calls under way may take when the bot stops


class QueueKey(NamedTuple):
    """Identifies an ordered queue: one chat, seen by the bot itself or through a business connection."""

    chat: int
    connection: str


class Place(NamedTuple):
    chat: int
    connection: str = ""
    thread: int = 0
    conversation: int | None = None


Key = TypeVar("Key")


class Tasks(dict[Key, asyncio.Task[None]]):
    """The running tasks, at most one for each key. `broken` raises the first error of a task."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, key: Key, work: Callable[[Key], Coroutine[Any, Any, None]]) -> None:
        """Start `work(key)`, unless the key's task runs."""
        if key not in self or self[key].done():  # done, but its callback has not run yet
            self[key] = asyncio.create_task(work(key))
            self[key].add_done_callback(partial(self._ended, key))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if self.get(key) is task:
            del self[key]
        if not task.cancelled() and (error := task.exception()) and not self.broken.done():
            self.broken.set_exception(error)


def plan(
    db: Database,
    place: Place,
    text: str,
    *,
    pause: float = 0,
    method: str = "send",
    draft: int | None = None,
    **payload: Any,
) -> None:
    """Within a transaction: plan a message. `pause`: seconds of typing before it.

    In the payload, `notice` is the person who is told that this is an AI, and `said` the row of `messages` with this
    text. If Telegram refuses the message, both are undone. `counts` are added to the figures once it is sent.
    """
    db.run(
        "INSERT INTO outgoing(conversation, chat, connection, thread, method, payload, pause, draft, at)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(place.conversation, place.chat, place.connection, place.thread, method),
        *(json.dumps({"text": text} | payload, ensure_ascii=False), pause, draft, db.clock.time()),
    )


def moved(db: Database, old: int, new: int) -> None:
    """Within a transaction: record a group's new id. It stays allowed (`intake` checks) and keeps its conversation."""
    db.set_meta(f"moved {new}", str(old))
    db.run("UPDATE OR IGNORE conversations SET chat = ? WHERE chat = ?", new, old)
    db.run("UPDATE outgoing SET chat = ? WHERE chat = ? AND state = 'planned'", new, old)


class Sender:
    """Runs the tasks that send.

    Calls `drafted(row, payload, outcome, message id)` for a message that offers a draft, or was approved from one,
    within the transaction that records its outcome: sent, refused or doubtful.
    """

    def __init__(
        self, db: Database, telegram: Telegram, drafted: Callable[[sqlite3.Row, dict[str, Any], str, int], None]
    ) -> None:
        self._db, self._telegram, self._drafted = db, telegram, drafted
        self._closing = False
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tasks = Tasks[QueueKey]()
        self.broken = self._tasks.broken

    def recover(self) -> None:
        """Settle the calls that the last process left under way. A message may have arrived, so do not resend it."""
        with self._db.transaction():
            for row in self._db.rows("SELECT * FROM outgoing WHERE state = 'sending'"):
                if row["method"] == "send":
                    self._record(row["id"], "doubtful")
                else:
                    self._postpone(row["id"])

    def wake(self) -> None:
        """Start a task for every chat with planned messages."""
        for chat, connection in self._db.rows("SELECT DISTINCT chat, connection FROM outgoing WHERE state = 'planned'"):
            self.wake_queue(QueueKey(chat, connection))

    def wake_queue(self, queue: QueueKey) -> None:
        self._tasks.start(queue, self._send_all)

    async def close(self) -> None:
        """Wait for calls under way. Planned messages are left to the next process."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send_all(self, queue: QueueKey) -> None:
        failures = 0
        while not self._closing:
            row = self._db.row(
                "SELECT * FROM outgoing WHERE chat = ? AND connection = ? AND state = 'planned' ORDER BY id LIMIT 1",
                *queue,
            )
            if row is None:
                return
            if row["pause"]:
                await self._type(queue, row["thread"], row["pause"])
                if self._closing:
                    return
            async with self._at_once:
                wait = await self._attempt(queue, row["id"], failures)
            failures = 0 if wait is None else failures + 1
            await self._db.clock.sleep(wait or 0)

    async def show_typing(self, place: Place) -> None:
        await self._telegram.typing(place.chat, place.connection, place.thread)

    async def _type(self, queue: QueueKey, thread: int, seconds: float) -> None:
        clock = self._db.clock
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0 and not self._closing:
            await self._telegram.typing(queue.chat, queue.connection, thread)
            await clock.sleep(min(left, TYPING_SECONDS, max(until - clock.monotonic(), 0)))

    async def _attempt(self, queue: QueueKey, number: int, failures: int) -> float | None:
        """Try to send row `number`. If Telegram did not accept it, return the seconds until the next attempt."""
        db = self._db
        row = await db.write(lambda: self._take(number))
        if row is None:
            return None
        call = Call(row["chat"], row["connection"], row["thread"], row["method"], json.loads(row["payload"]))
        try:
            message = await self._telegram.do(call)
        except RetryLater as error:
            why = str(error)
            await db.write(lambda: self._postpone(number, why))
            wait = error.wait(failures)
            log.warning("message %d: not accepted by Telegram (%s); trying again in %.3g s", number, error, wait)
            return wait
        except Moved as error:
            new = error.chat

            def move() -> None:
                self._postpone(number)
                moved(db, queue.chat, new)

            await db.write(move)
            self.wake_queue(QueueKey(new, queue.connection))
        except (DeliveryUnknown, Refused) as error:
            outcome, why = "doubtful" if isinstance(error, DeliveryUnknown) else "refused", str(error)
            log.warning("message %d: %s (%s); not sent again", number, outcome, error)
            await db.write(lambda: self._record(number, outcome, error=why))
            self.wake()
        except BotError:  # the token is no longer valid: the message was not sent, and will be with a new one
            await db.write(lambda: self._postpone(number))
            raise
        else:
            await db.write(lambda: self._record(number, "sent", message))
            if row["draft"] is not None:
                self.wake()  # its outcome is reported in the owner's chat
        return None

    def _take(self, number: int) -> sqlite3.Row | None:
        """Within a transaction: mark the row as sending. None if /forget or /reset deleted it during the pause."""
        if not self._db.changed("UPDATE outgoing SET state = 'sending' WHERE id = ? AND state = 'planned'", number):
            return None
        return self._db.row("SELECT * FROM outgoing WHERE id = ?", number)

    def _postpone(self, number: int, why: str | None = None) -> None:
        """Within a transaction: the call was not accepted; plan it again."""
        self._db.run("UPDATE outgoing SET state = 'planned', pause = 0, error = ? WHERE id = ?", why, number)

    def _record(self, number: int, outcome: str, message: int = 0, error: str | None = None) -> None:
        """Within a transaction: record the final outcome and update what depends on it."""
        db = self._db
        row = db.row("SELECT * FROM outgoing WHERE id = ?", number)
        if row is None:  # forgotten meanwhile
            return
        payload = json.loads(row["payload"])
        # Keep the text only in `messages` or `drafts`, where /forget and retention delete it.
        db.run(
            "UPDATE outgoing SET state = ?, payload = '', telegram = ?, error = ? WHERE id = ?",
            *(outcome, message or None, error, number),
        )
        if outcome != "sent" and (notice := payload.get("notice")):  # better to repeat the notice than to omit it
            db.run("DELETE FROM noticed WHERE conversation = ? AND person = ?", row["conversation"], notice)
        if outcome == "sent" and (counts := payload.get("counts")):
            quality.add(db, row["conversation"], counts)
        if said := payload.get("said"):
            if outcome == "sent":
                db.run("UPDATE messages SET telegram = ? WHERE id = ?", message, said)
            elif outcome == "refused":
                history.delete_refused(db, said)
        if row["draft"] is not None:
            self._drafted(row, payload, outcome, message)
