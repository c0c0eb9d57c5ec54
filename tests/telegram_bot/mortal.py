"""A bot that is killed, many times over: `python -m tests.telegram_bot.mortal CONFIG`, with a life a line on stdin.

A life is a fork of this process, so that the imports are made once. A line holds the number of the point at which it
kills itself with SIGKILL, or 0 for never: a point is the beginning and the end of every transaction, and before and
after every call of Telegram that must not be made twice. The answer is a line with the life's process id; `end` kills
the life (if it still lives) with SIGKILL, `stop` asks it to stop, and both answer with how it ended.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ghost.serving.client import backend
from replicate_deployment.errors import GhostError
from telegram_bot import bot, service
from telegram_bot import config as configuration
from telegram_bot.database import Database
from telegram_bot.gateway import Telegram
from tests.telegram_bot.fake_bot_api import TOKEN


def live(config: configuration.BotConfig, dies_at: int) -> None:
    points = 0

    def point() -> None:
        nonlocal points
        points += 1
        if points == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    transaction, do = Database.transaction, Telegram.do

    @contextmanager
    def mortal_transaction(self: Database) -> Iterator[None]:
        point()
        with transaction(self):
            yield
        point()

    async def mortal_do(self: Telegram, call: Any) -> int:
        point()
        message = await do(self, call)
        point()
        return message

    Database.transaction, Telegram.do = mortal_transaction, mortal_do  # type: ignore[method-assign]
    bot.set_up_log()
    logging.disable(logging.INFO)
    asyncio.run(service.serve(config, TOKEN))


async def warm_up(config: configuration.BotConfig) -> None:
    """What is imported at the first request is so once, here, and not by each life."""
    async with Telegram(TOKEN, config.telegram), backend(config.backend) as server:
        with suppress(GhostError):
            await server.get("nothing")


def main() -> None:
    # Each client reads all the certificates of the world first, most of a life's time; the servers here have none.
    context = ssl.create_default_context()
    ssl.create_default_context = lambda *_, **__: context
    config = configuration.load(Path(sys.argv[1]))
    asyncio.run(warm_up(config))
    child = 0
    for line in sys.stdin:
        if line.strip() in ("end", "stop"):
            os.kill(child, signal.SIGKILL if line.strip() == "end" else signal.SIGTERM)
            print(os.waitpid(child, 0)[1], flush=True)
            continue
        child = os.fork()
        if not child:
            try:
                live(config, int(line))
            finally:
                os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
