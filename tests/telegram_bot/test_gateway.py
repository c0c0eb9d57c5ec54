"""The connections to Telegram are few, and a request that nobody waits for any more must not keep one."""

import asyncio
import random

from telegram_bot.gateway import TYPING_AT_ONCE, Call, Telegram
from tests.telegram_bot.fake_bot_api import TOKEN, FakeBotAPI


def test_requests_given_up_while_they_wait_for_a_connection_keep_none(api: FakeBotAPI) -> None:
    """As when replies come before the typing that announces them is sent, in many chats at once."""
    rng = random.Random(0)

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
    assert api.texts(21) == ["still here"]


def test_a_message_does_not_wait_for_signs_of_typing_that_hang(api: FakeBotAPI) -> None:
    async def scene() -> None:
        async with Telegram(TOKEN, api.url, connections=TYPING_AT_ONCE + 4) as telegram:
            asked = [asyncio.create_task(telegram.typing(chat, "", 0)) for chat in range(1, 101)]
            async with asyncio.timeout(20):
                await telegram.do(Call(101, "", 0, "send", {"text": "still here"}))
            api.typing_goes_on.set()
            await asyncio.gather(*asked)

    api.typing_goes_on.clear()
    asyncio.run(scene())
    assert api.texts(101) == ["still here"]
