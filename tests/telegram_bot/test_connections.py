"""The connections to Telegram are few, and a request that nobody waits for any more must not keep one."""

import asyncio
import random

import pytest

from telegram_bot.calls import Call
from telegram_bot.gateway import TYPING_AT_ONCE, Telegram
from tests.telegram_bot.fake_bot_api import TOKEN, FakeBotAPI


def test_requests_given_up_while_they_wait_for_a_connection_keep_none() -> None:
    """As when replies come before the typing that announces them is sent, in many chats at once."""
    api, rng = FakeBotAPI(), random.Random(0)

    async def given_up(telegram: Telegram, chat: int) -> None:
        typing = asyncio.create_task(telegram.typing(chat, "", 0))
        await asyncio.sleep(rng.uniform(0, 0.02))
        typing.cancel()
        await asyncio.wait({typing})

    async def scene() -> None:
        async with Telegram(TOKEN, api.url, connections=4) as telegram:
            for _ in range(20):
                await asyncio.gather(*(given_up(telegram, chat) for chat in range(1, 21)))
            async with asyncio.timeout(10):
                await telegram.do(Call(21, "", 0, "send", {"text": "still here"}))

    asyncio.run(scene())
    api.shutdown()
    api.server_close()
    assert api.texts(21) == ["still here"]


def test_few_show_that_they_type_at_once_and_the_rest_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 connections are for messages too."""
    begun = 0

    async def scene() -> None:
        nonlocal begun
        over = asyncio.Event()

        async def slow(*_: object) -> None:
            nonlocal begun
            begun += 1
            await over.wait()

        telegram = Telegram(TOKEN, "http://127.0.0.1:1")
        monkeypatch.setattr(telegram, "_type", slow)
        asked = [asyncio.create_task(telegram.typing(chat, "", 0)) for chat in range(1, 101)]
        await asyncio.wait(asked, timeout=0.1)
        over.set()
        await asyncio.gather(*asked)
        await telegram.typing(1, "", 0)

    asyncio.run(scene())
    assert begun == TYPING_AT_ONCE + 1
