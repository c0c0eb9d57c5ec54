"""What is to be sent, recorded before it is: planned → sending → sent, refused or doubtful.

One task a chat sends its rows in order, and only while there are any. A row is `sending` from before its bytes can
leave until its outcome is known; who finds one there after a restart cannot know whether it arrived, and lets it be.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from telegram_bot.calls import Call, Doubtful, Moved, NotNow, Refused
from telegram_bot.database import Database
from training.errors import BotError

log = logging.getLogger("ghost.bot")
LONGEST_WAIT = 60.0  # between two attempts while Telegram cannot be reached
AT_ONCE = 8  # calls that can be in doubt when the bot is killed; enough for the thirty a second that Telegram takes
TYPING_SECONDS = 4.0  # Telegram shows it for five


class Lane(NamedTuple):
    """Where order matters: one chat, seen by the bot itself or through a business connection."""

    chat: int
    connection: str


class Place(NamedTuple):
    chat: int
    connection: str = ""
    thread: int = 0
    conversation: int | None = None


class Sends(Protocol):
    async def do(self, call: Call) -> int: ...

    async def typing(self, chat: int, connection: str, thread: int) -> None: ...


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
    """Within a transaction: this will be sent. `pause`: seconds of typing before it."""
    db.run(
        "INSERT INTO outgoing(conversation, chat, connection, thread, method, payload, pause, draft, at)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(place.conversation, place.chat, place.connection, place.thread, method),
        *(json.dumps({"text": text} | payload, ensure_ascii=False), pause, draft, time.time()),
    )


def moved(db: Database, old: int, new: int) -> None:
    """Within a transaction: a group has another id now. It is let in as before (`intake` looks), and keeps its chat."""
    db.set_meta(f"moved {new}", str(old))
    db.run("UPDATE OR IGNORE conversations SET chat = ? WHERE chat = ?", new, old)
    db.run("UPDATE outgoing SET chat = ? WHERE chat = ? AND state = 'planned'", new, old)


class Sender:
    """The tasks that send.

    `sent(draft, message id)` and `failed(conversation, outcome)` are called within the transaction that records
    a draft's sending, or the end of an approved message that did not arrive for certain.
    """

    def __init__(
        self,
        db: Database,
        telegram: Sends,
        sent: Callable[[int, int], None],
        failed: Callable[[int | None, str], None],
    ) -> None:
        self._db, self._telegram, self._sent, self._failed = db, telegram, sent, failed
        self._closing = False
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """See that every chat with something planned has a task."""
        for chat, connection in self._db.rows("SELECT DISTINCT chat, connection FROM outgoing WHERE state = 'planned'"):
            self.wake_lane(Lane(chat, connection))

    def wake_lane(self, lane: Lane) -> None:
        if lane not in self._tasks or self._tasks[lane].done():  # done, and its callback has not run yet
            task = asyncio.create_task(self._send_all(lane))
            self._tasks[lane] = task
            task.add_done_callback(partial(self._ended, lane))

    def _ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        if self._tasks.get(lane) is task:
            del self._tasks[lane]
        if not task.cancelled() and (error := task.exception()) and not self.broken.done():
            self.broken.set_exception(error)

    async def close(self, seconds: float = 5) -> None:
        """Let what is on its way arrive; what is only planned is the next process's."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send_all(self, lane: Lane) -> None:
        failures = 0
        while not self._closing:
            row = self._db.row(
                "SELECT * FROM outgoing WHERE chat = ? AND connection = ? AND state = 'planned' ORDER BY id LIMIT 1",
                *lane,
            )
            if row is None:
                return
            if row["pause"]:
                await self._type(lane, row["thread"], row["pause"])
                if self._closing:
                    return
            async with self._at_once:
                wait = await self._attempt(lane, row["id"], failures)
            failures = 0 if wait is None else failures + 1
            await asyncio.sleep(wait or 0)

    async def show_typing(self, place: Place) -> None:
        await self._telegram.typing(place.chat, place.connection, place.thread)

    async def _type(self, lane: Lane, thread: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._closing:
            await self._telegram.typing(lane.chat, lane.connection, thread)
            await asyncio.sleep(min(left, TYPING_SECONDS, max(until - time.monotonic(), 0)))

    async def _attempt(self, lane: Lane, number: int, failures: int) -> float | None:
        """One attempt at row `number`. Seconds until the next where Telegram has not taken it, and it stays planned."""
        db = self._db
        await db.writable()
        with db.transaction():  # /forget or /reset may have taken it away during the pause
            if not db.changed("UPDATE outgoing SET state = 'sending' WHERE id = ? AND state = 'planned'", number):
                return None
        row = db.row("SELECT * FROM outgoing WHERE id = ?", number)
        assert row is not None
        call = Call(row["chat"], row["connection"], row["thread"], row["method"], json.loads(row["payload"]))
        try:
            try:
                message = await self._telegram.do(call)
            finally:
                await db.writable()
        except NotNow as error:
            with db.transaction():
                db.run("UPDATE outgoing SET state = 'planned', pause = 0, error = ? WHERE id = ?", str(error), number)
            wait = error.wait(failures, LONGEST_WAIT)
            log.warning("message %d: Telegram does not take it (%s); again in %.3g s", number, error, wait)
            return wait
        except Moved as error:
            with db.transaction():
                db.run("UPDATE outgoing SET state = 'planned' WHERE id = ?", number)
                moved(db, lane.chat, error.chat)
            self.wake_lane(Lane(error.chat, lane.connection))
        except (Doubtful, Refused) as error:
            outcome = "doubtful" if isinstance(error, Doubtful) else "refused"
            log.warning("message %d: %s (%s); it is not sent again", number, outcome, error)
            with db.transaction():
                db.not_sent(row, outcome, str(error))
                if lane.connection:
                    self._failed(row["conversation"], outcome)
            self.wake()
        except BotError:  # the token counts no more: it has not been sent, and will be with another one
            with db.transaction():
                db.run("UPDATE outgoing SET state = 'planned' WHERE id = ?", number)
            raise
        else:
            with db.transaction():
                # The words are in `messages` or `drafts`, once: what /forget and retention look for.
                db.run("UPDATE outgoing SET state = 'sent', payload = '', telegram = ? WHERE id = ?", message, number)
                if row["draft"] is not None and row["method"] == "send":
                    self._sent(row["draft"], message)
        return None
