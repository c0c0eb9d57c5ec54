"""Turn pending messages into planned replies: debounce, limits, and the states of the model server.

One task per conversation with pending messages. It records the reply's messages and marks what they answer as no longer
pending in one transaction. A bot killed before that asks the model again; killed after it, never.
"""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from ghost.errors import ServerError
from ghost.serving.client import (
    Backend,
    Prediction,
    PredictionFailed,
    PredictionLost,
    Replicate,
    ServerBusy,
    ServerStarting,
    ServerUnreachable,
)
from ghost.serving.client.prediction import check
from replicate_deployment.chat_format import Turn, render_prompt
from telegram_bot import commands, drafts, history, quality
from telegram_bot.config import BotConfig
from telegram_bot.database import DONE, Database, DiskFull
from telegram_bot.gateway import as_messages, within
from telegram_bot.outgoing import TYPING_SECONDS, Place, Sender, Tasks, plan

# How long a stopping bot waits for the id of a new prediction on Replicate. A prediction costs money once it runs, so a
# stopping bot leaves it running and the next process fetches it by its id.
CREATE_SECONDS = 5.0


async def answer_or_leave(
    server: Replicate,
    inputs: Mapping[str, Any],
    *,
    on_created: Callable[[str], None],
    ending: Callable[[], bool],
    seconds: float,
) -> Prediction:
    """Like `Replicate.answer`, but if cancelled while `ending()`, leave the prediction running, up to `seconds`."""
    deadline = time.monotonic() + seconds
    creating = asyncio.ensure_future(server.create(inputs, seconds=seconds))
    try:
        prediction = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await asyncio.wait({creating}, timeout=CREATE_SECONDS)
        if not creating.done():
            creating.cancel()
        elif creating.exception() is None and ending():
            on_created(creating.result().id)
        elif creating.exception() is None:
            await _cancel(server, creating.result())
        raise
    try:
        on_created(prediction.id)
        ended = await server.wait(prediction, seconds=deadline - time.monotonic())
    except BaseException as error:
        if not (isinstance(error, asyncio.CancelledError) and ending()):
            await _cancel(server, prediction)
        raise
    return check(ended, inputs)


async def _cancel(server: Replicate, prediction: Prediction) -> None:
    with suppress(ServerError):
        await asyncio.shield(server.cancel(prediction.id))


log = logging.getLogger("ghost.bot")
ATTEMPTS = 2  # at a prediction that fails or is lost; each costs money, and a third would not help
LONGEST_WAIT = 60.0  # between two attempts at a server that is down
TYPING_DELAY = 0.2  # seconds; an answer that comes sooner saves the call that shows typing
MAX_DEBOUNCES = 4  # answer after so many debounce times even if more messages keep coming


class BudgetSpent(Exception):
    """The day's predictions are used up."""


class ReplyWorker:
    """Runs the tasks that answer. Call `wake` after recording anything."""

    def __init__(self, db: Database, config: BotConfig, backend: Backend, sender: Sender) -> None:
        self._db, self._config, self._backend, self._sender = db, config, backend, sender
        self._clock = db.clock
        self._tasks = Tasks[int]()
        self._closing = False
        self._at_once = asyncio.Semaphore(config.limits.predictions_at_once)
        self.broken = self._tasks.broken

    def wake(self) -> None:
        """Start a task for every conversation with something to answer, and cancel all others: forgotten messages must
        not reach the server, and nobody should pay for a prediction that nobody will read."""
        pending = "SELECT DISTINCT conversation FROM messages WHERE pending"
        writing = "SELECT conversation FROM drafts WHERE state = 'writing'"
        waiting = {number for (number,) in self._db.rows(f"{pending} UNION {writing}")}
        for number in self._tasks.keys() - waiting:
            self._tasks.pop(number).cancel()
            with suppress(DiskFull), self._db.transaction():  # if full, the next request here marks it lost
                self._mark_unused(number)
        for number in waiting:
            self._tasks.start(number, self._answer_all)

    async def close(self) -> None:
        """Cancel all tasks. The next process asks the model again, or fetches the prediction if the server keeps it."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer_all(self, number: int) -> None:
        while await self._wait_until_ready(number):
            conversation = self._db.row("SELECT * FROM conversations WHERE id = ?", number)
            upto = self._last_pending(number)
            if conversation is None or upto is None:
                return
            try:
                await self._answer(conversation, upto)
            except BudgetSpent:
                await self._db.write(partial(self._skip_over_budget, conversation, upto))
                self._sender.wake()

    def _last_pending(self, number: int) -> int | None:
        """Return the number of the last message to be answered, or None."""
        found = self._db.value("SELECT max(id) FROM messages WHERE conversation = ? AND pending", number)
        if found is None:
            found = self._db.value("SELECT upto FROM drafts WHERE conversation = ? AND state = 'writing'", number)
        return None if found is None else int(found)

    def _still_pending(self, number: int, upto: int) -> bool:
        """Return whether message `upto` still needs an answer: /forget, /reset, a deletion or the owner's own answer
        may have come meanwhile."""
        waits = "SELECT 1 FROM messages WHERE conversation = ? AND pending AND id <= ?"
        draft = "SELECT 1 FROM drafts WHERE conversation = ? AND state = 'writing' AND upto = ?"
        return bool(self._db.value(f"{waits} UNION {draft}", number, upto, number, upto))

    async def _wait_until_ready(self, number: int) -> bool:
        """Wait until the burst is over and the rate limit allows a reply; False when nothing is pending any more."""
        pause = self._config.debounce_seconds
        while True:
            first, last = self._db.rows(
                "SELECT min(at), max(at) FROM messages WHERE conversation = ? AND pending", number
            )[0]
            if first is None:
                return self._last_pending(number) is not None
            per_minute = self._config.limits.replies_per_minute
            recent = self._db.value(
                f"SELECT at FROM (SELECT at FROM predictions WHERE conversation = ? AND state IN {DONE} UNION ALL"
                " SELECT at FROM pace WHERE what = 'reply' AND chat = (SELECT chat FROM conversations WHERE id = ?))"
                " WHERE at > ? ORDER BY at DESC LIMIT 1 OFFSET ?",
                *(number, number, self._clock.time() - 60, per_minute - 1),
            )
            ready = max(min(last + pause, first + MAX_DEBOUNCES * pause), recent + 60 if recent else 0)
            left = ready - self._clock.time()
            if not 0 < left <= MAX_DEBOUNCES * pause + 60:  # longer only if a clock was set back: ignore
                return True
            await self._clock.sleep(left)

    def _skip_over_budget(self, conversation: sqlite3.Row, upto: int) -> None:
        """Within a transaction: leave the messages unanswered, and say so once a day in each chat."""
        db, day = self._db, self._clock.today()
        spoken = conversation["kind"] in ("private", "group")
        if spoken and history.tell_once(db, conversation["id"], "enough", day):
            plan(db, self._place(conversation), self._config.texts.enough)
        self._mark_answered(conversation["id"], upto)
        drafts.outdated(db, self._config, conversation["id"], "Today's predictions are used up.")
        self._tell_owner("budget", day, f"Today's {self._config.limits.predictions_per_day} predictions are used up.")

    def _mark_answered(self, number: int, upto: int) -> None:
        self._db.run("UPDATE messages SET pending = 0 WHERE conversation = ? AND id <= ?", number, upto)

    def _mark_unused(self, number: int) -> None:
        """Within a transaction: mark the running prediction as unused."""
        self._db.run("UPDATE predictions SET state = 'unused' WHERE conversation = ? AND state = 'asked'", number)

    def _tell_owner(self, what: str, value: str, text: str) -> None:
        """Within a transaction: tell the owner, once for each value of `what`."""
        if self._config.owner and self._db.meta(f"told {what}") != value:
            self._db.set_meta(f"told {what}", value)
            plan(self._db, Place(self._config.owner), text)

    @staticmethod
    def _place(conversation: sqlite3.Row) -> Place:
        return Place(conversation["chat"], conversation["connection"], conversation["thread"], conversation["id"])

    async def _answer(self, conversation: sqlite3.Row, upto: int) -> None:
        labels, config = self._config.sides, self._config
        messages = history.recent_messages(self._db, conversation["id"], upto, config.context_turns)
        turns = history.as_turns(messages, labels, config.context_turns)
        writing = "SELECT 1 FROM drafts WHERE conversation = ? AND state = 'writing' AND upto = ?"
        again = self._db.value(writing, conversation["id"], upto)
        # For Another, count from the press.
        asked = [message.at for message in messages if not message.mine and not again] or [self._clock.time()]
        inputs = {"prompt": render_prompt(turns, labels)} | msgspec.to_builtins(config.inputs)
        typing = None
        if conversation["kind"] in ("private", "group"):
            typing = asyncio.create_task(self._show_typing(self._place(conversation)))
        try:
            prediction, seconds = await self._ask_until_sound(conversation, upto, turns, inputs)
        finally:
            if typing:
                typing.cancel()
        await self._db.write(lambda: self._conclude(conversation, upto, turns, prediction, asked[-1], seconds))
        self._sender.wake()

    def _conclude(
        self,
        conversation: sqlite3.Row,
        upto: int,
        turns: list[Turn],
        prediction: Prediction | None,
        asked: float,
        seconds: float,
    ) -> None:
        """Within a transaction: plan the model's reply and mark what it answers as no longer pending."""
        db, config, number = self._db, self._config, conversation["id"]
        if not self._still_pending(number, upto):
            self._mark_unused(number)
            return
        waited = max(0.0, self._clock.time() - asked)  # a clock may have been set back
        text = within(history.clean(prediction.output), config.limits.messages_per_reply) if prediction else ""
        spoken = conversation["kind"] in ("private", "group")
        if prediction:
            db.run(
                "UPDATE predictions SET state = ?, waited = ?, seconds = ?, ended = ?"
                " WHERE conversation = ? AND state = 'asked'",
                *("answered" if spoken else "drafted", waited, seconds, prediction.metrics.get("ended_by_itself")),
                number,
            )
            self._watch(broken=False)
        self._mark_answered(number, upto)
        if not spoken:
            if text:
                drafts.offer(db, config, conversation, upto, turns, text)
            else:
                drafts.outdated(db, config, number, "The model wrote nothing that could be sent.")
            return
        place = self._place(conversation)
        if not prediction:
            plan(db, place, config.texts.failed)
            return
        counts = quality.observed(config, turns, text) | {"waited": Counter([str(round(waited))])}
        if ended := quality.ending(prediction.metrics):
            counts["ended"] = Counter([ended])
        to = db.value("SELECT telegram FROM messages WHERE id = ?", upto) if conversation["kind"] == "group" else None
        for place_in_reply, piece in enumerate(as_messages(text, config.limits.messages_per_reply)):
            spent = waited if place_in_reply == 0 else 0.0
            first: dict[str, Any] = {"reply_to": to, "counts": counts} if place_in_reply == 0 else {}
            # Add it to the history now, for replies to messages that arrive meanwhile; removed if Telegram refuses it.
            recorded = history.add_message(db, number, piece, self._clock.time(), mine=True, pending=False, slot=upto)
            plan(db, place, piece, pause=max(0.0, config.typing.seconds(piece) - spent), said=recorded, **first)

    async def _ask_until_sound(
        self, conversation: sqlite3.Row, upto: int, turns: list[Turn], inputs: dict[str, object]
    ) -> tuple[Prediction | None, float]:
        """As `_ask`, and again with another seed if the reply is broken. None if all were."""
        for _ in range(1 + self._config.checks.retries):
            prediction, seconds = await self._ask(conversation, upto, inputs)
            if prediction is None:
                break
            why = quality.broken(self._config, turns, history.clean(prediction.output))
            if not why:
                return prediction, seconds
            log.warning("conversation %d: a broken reply (%s) is not sent", conversation["id"], why)
            await self._db.write(partial(self._withhold, conversation["id"], why))
            inputs = inputs | {"seed": secrets.randbits(31)}
        return None, 0.0

    def _withhold(self, number: int, why: str) -> None:
        """Within a transaction: count a broken reply."""
        state = "UPDATE predictions SET state = 'withheld' WHERE conversation = ? AND state = 'asked'"
        if self._db.changed(state, number):  # not if forgotten meanwhile
            quality.add(self._db, number, {"withheld": {why: 1}})
            self._watch(broken=True)

    def _watch(self, *, broken: bool) -> None:
        """Within a transaction: tell the owner what has left the person's variation for good."""
        for alarm in quality.watch(self._db, self._config, broken=broken):
            plan(self._db, Place(self._config.owner), alarm)

    async def _ask(
        self, conversation: sqlite3.Row, upto: int, inputs: dict[str, object]
    ) -> tuple[Prediction | None, float]:
        """Return the prediction, or None if it failed, and the seconds it took. Waits for a server that is down."""
        failures, wait, since = 0, 0.25, self._clock.monotonic()
        while failures < ATTEMPTS:
            async with self._at_once:
                started = self._clock.monotonic()
                try:
                    return await self._predict(conversation, upto, inputs), self._clock.monotonic() - started
                except (PredictionFailed, PredictionLost) as error:
                    failures, wait = failures + 1, 0.5
                    state, why = "failed" if isinstance(error, PredictionFailed) else "lost", type(error).__name__
                except ServerError as error:  # it did not accept the request, but may later
                    retry_after = error.retry_after if isinstance(error, ServerBusy) else None
                    wait = min(LONGEST_WAIT, 2 * wait) if retry_after is None else retry_after
                    state, why = "refused", type(error).__name__
                    await self._report_unavailable(conversation, upto, error, self._clock.monotonic() - since)
            ended = "UPDATE predictions SET state = ? WHERE conversation = ? AND state = 'asked'"
            await self._db.write(partial(self._db.run, ended, state, conversation["id"]))
            log.warning("conversation %d: %s; again in %.3g s", conversation["id"], why, wait)
            await self._clock.sleep(wait)
        return None, 0.0

    async def _report_unavailable(
        self, conversation: sqlite3.Row, upto: int, error: ServerError, waited: float
    ) -> None:
        """Report once, to the chat and the owner as it concerns them, that the server does not accept a request."""
        if isinstance(error, ServerStarting):
            await self._notify_once(conversation, upto, "waking", self._config.texts.waking)
        elif isinstance(error, ServerBusy):
            pass
        elif not isinstance(error, ServerUnreachable):  # waiting alone will not help
            report = f"The model server: {str(error)[:500]}"
            await self._db.write(lambda: self._tell_owner("server", self._clock.today(), report))
            self._sender.wake()
        if not isinstance(error, (ServerStarting, ServerBusy)) and waited >= self._config.waking_seconds:
            await self._notify_once(conversation, upto, "down", self._config.texts.down)

    async def _notify_once(self, conversation: sqlite3.Row, upto: int, what: str, text: str) -> None:
        """Send a line about the wait, once for each pending message."""
        if conversation["kind"] not in ("private", "group"):
            return

        def say() -> None:
            if history.tell_once(self._db, conversation["id"], what, str(upto)):
                plan(self._db, self._place(conversation), text)
                if what == "down":
                    report = "The model server does not answer; messages are waiting for it."
                    self._tell_owner("down", self._clock.today(), report)

        await self._db.write(say)
        self._sender.wake()

    async def _predict(self, conversation: sqlite3.Row, upto: int, inputs: dict[str, object]) -> Prediction:
        """Call the model, after recording the call, or fetch the prediction that an earlier process requested."""
        db, number, limits = self._db, conversation["id"], self._config.limits
        earlier = db.row("SELECT * FROM predictions WHERE conversation = ? AND state = 'asked'", number)
        if earlier is not None and (found := await self._fetch(earlier, upto)) is not None:
            return found
        await db.writable()
        # Checked here because others may have asked meanwhile.
        if commands.predictions_today(db) >= limits.predictions_per_day:
            raise BudgetSpent

        def asking() -> int:
            db.run("UPDATE predictions SET state = 'lost' WHERE conversation = ? AND state = 'asked'", number)
            day = self._clock.today()
            row = db.run(
                "INSERT INTO predictions(conversation, upto, day, at) VALUES(?, ?, ?, ?)",
                *(number, upto, day, self._clock.time()),
            )
            if (count := commands.predictions_today(db)) >= 0.8 * limits.predictions_per_day:
                text = f"{count} of today's {limits.predictions_per_day} predictions are used."
                self._tell_owner("80%", day, text)
            return row

        row = await db.write(asking)

        def created(remote: str) -> None:
            with suppress(DiskFull), db.transaction():  # without the id, a restarted bot asks again
                db.run("UPDATE predictions SET remote = ? WHERE id = ?", remote, row)

        waking = asyncio.create_task(self._watch_start(conversation, upto, row))
        try:
            seconds = limits.prediction_seconds
            if isinstance(self._backend, Replicate):
                return await answer_or_leave(
                    self._backend, inputs, on_created=created, ending=lambda: self._closing, seconds=seconds
                )
            return await self._backend.answer(inputs, seconds=seconds)  # keeps no predictions to fetch later
        finally:
            waking.cancel()

    async def _fetch(self, earlier: sqlite3.Row, upto: int) -> Prediction | None:
        """Fetch the prediction that an earlier process requested, if the server keeps it (Replicate does)."""
        if not earlier["remote"]:
            return None
        with suppress(ServerError):
            if earlier["upto"] != upto:  # more was written since
                await self._backend.cancel(earlier["remote"])
                return None
            deadline = self._clock.monotonic() + self._config.limits.prediction_seconds
            while self._clock.monotonic() < deadline:
                found = await self._backend.get(earlier["remote"])
                if found.done:
                    return found if found.status == "succeeded" and not found.data_removed else None
                await self._clock.sleep(1)
        return None

    async def _watch_start(self, conversation: sqlite3.Row, upto: int, row: int) -> None:
        """Send "waking up…" if the server reports that the prediction has not started yet."""
        await self._clock.sleep(self._config.waking_seconds)
        remote = self._db.value("SELECT remote FROM predictions WHERE id = ?", row)
        if remote:
            with suppress(ServerError):
                if (await self._backend.get(remote)).status == "starting":
                    await self._notify_once(conversation, upto, "waking", self._config.texts.waking)

    async def _show_typing(self, place: Place) -> None:
        await self._clock.sleep(TYPING_DELAY)
        while True:
            await self._sender.show_typing(place)
            await self._clock.sleep(TYPING_SECONDS)
