"""The connections to Telegram are few, and a request that nobody waits for any more must not keep one."""

import asyncio
import random

from telegram_bot.gateway import Telegram
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
                await telegram.typing(21, "", 0)

    asyncio.run(scene())
    api.shutdown()
    api.server_close()
    assert api.calls[-1] == "sendChatAction"
