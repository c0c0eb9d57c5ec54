"""Run the bot: poll for updates, record them and wake the sender and the reply worker, until a signal."""

import asyncio
import logging
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from telegram import Update

from ghost.errors import BotError
from ghost.serving.client import backend
from telegram_bot import drafts, intake, quality, retention
from telegram_bot.config import BotConfig
from telegram_bot.database import Clock, Database, failure
from telegram_bot.gateway import PolledElsewhere, Refused, RetryLater, Telegram
from telegram_bot.outgoing import Sender
from telegram_bot.replies import ReplyWorker

log = logging.getLogger("ghost.bot")
EXPIRY_SECONDS = 3600.0  # how often old data is deleted
CONFLICT_SECONDS = 3.0
CONFLICTS = 20  # tolerated, since a restarted bot may overlap with its predecessor


STOPS = (signal.SIGINT, signal.SIGTERM)


async def serve(
    config: BotConfig, token: str, signals: Sequence[signal.Signals] = STOPS, clock: Clock | None = None
) -> None:
    """Run until one of `signals`, which only the main thread can handle. Raises BotError on errors a user must fix."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in signals:
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    living, stopped = asyncio.create_task(_run(config, token, clock)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({living, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            living.result()  # raises what ended it
    except sqlite3.Error as error:
        trouble = failure(error, Path(config.database))
        if trouble is None:
            raise
        raise trouble from error
    finally:
        for task in (living, stopped):
            task.cancel()
        await asyncio.gather(living, stopped, return_exceptions=True)
    log.info("stopped; planned messages are sent after the next start")


async def _run(config: BotConfig, token: str, clock: Clock | None) -> None:
    """Run until cancelled or until a task fails."""
    server = backend(config.backend, Path(config.ghost))
    quality.person(config.evaluation)  # raises what is wrong with it
    db = Database(Path(config.database), clock=clock)
    async with AsyncExitStack() as stack:
        stack.callback(db.close)
        await stack.enter_async_context(server)
        telegram = await _connect(stack, config, token, db.clock)
        db.bind_to_bot(telegram.me.id)
        sender = Sender(db, telegram, partial(drafts.delivery_ended, db, config))
        sender.recover()
        worker = ReplyWorker(db, config, server, sender)
        stack.push_async_callback(sender.close)
        stack.push_async_callback(worker.close)
        doubts = db.value("SELECT count(*) FROM outgoing WHERE state = 'doubtful'")
        log.info("@%s is listening; %d messages of unknown delivery, not sent again", telegram.me.username, doubts)
        polling = asyncio.create_task(_poll(db, config, telegram, sender, worker))
        ends: set[asyncio.Future[Any]] = {polling, sender.broken, worker.broken}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()  # raises what ended it
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)


async def _connect(stack: AsyncExitStack, config: BotConfig, token: str, clock: Clock) -> Telegram:
    """Connect to the Bot API. Retry, since a machine that has just started may have no network yet."""
    failures = 0
    while True:
        try:
            return await stack.enter_async_context(Telegram(token, config.telegram))
        except RetryLater as error:
            wait = error.wait(failures)
            failures += 1
            log.warning("no answer from %s (%s); check the network. Again in %.3g s", config.telegram, error, wait)
            await clock.sleep(wait)


async def _poll(db: Database, config: BotConfig, telegram: Telegram, sender: Sender, worker: ReplyWorker) -> None:
    """Poll for updates, record them and wake sender and worker. The next poll confirms what was recorded."""
    me = intake.Me(telegram.me.id, telegram.me.username or "")
    failures = conflicts = 0
    expires = float("-inf")
    webhook_possible = True  # until delete_webhook has succeeded
    while True:
        if db.clock.monotonic() >= expires:
            days = config.retention
            await db.write(partial(retention.expire, db, days.messages_days, days.corrections_days))
            expires = db.clock.monotonic() + EXPIRY_SECONDS
        if db.meta("scrub"):
            await db.scrub_in_background()
        sender.wake()
        worker.wake()
        updates: Sequence[Update] = ()
        try:
            if webhook_possible:
                await telegram.delete_webhook()
                webhook_possible = False
            updates = await telegram.updates(intake.offset(db))
            for id in intake.unknown_connections(db, updates):
                try:
                    connection = await telegram.connection(id)
                except Refused as error:  # the connection has ended since: ignore its messages
                    log.warning("a business connection: %s", error)
                    continue
                await db.write(partial(intake.connected, db, config, connection))
        except PolledElsewhere as error:
            conflicts += 1
            if conflicts > CONFLICTS:
                raise BotError("another program reads this bot's updates; stop it, then: ghost bot") from error
            log.warning("another program reads this bot's updates (%d of %d)", conflicts, CONFLICTS)
            await db.clock.sleep(CONFLICT_SECONDS)
            continue
        except RetryLater as error:
            wait = error.wait(failures)
            failures += 1
            log.warning("no updates from Telegram (%s); again in %.3g s", error, wait)
            await db.clock.sleep(wait)
            continue
        failures = conflicts = 0
        if updates:
            await db.write(partial(intake.record, db, config, me, updates))
