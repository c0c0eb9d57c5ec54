"""The calls of Telegram's Bot API that the bot makes, and what a failure of each means.

python-telegram-bot's `Bot` does the talking, without its `Application`: an application confirms updates before its
handlers are done with them, and here an update is confirmed when it is recorded. (aiogram would do as well; it brings a
dozen packages and holds back pydantic, where this one brings httpx.)
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Self

import httpx
from telegram import (
    Bot,
    BusinessConnection,
    ForceReply,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
    Update,
    User,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    RetryAfter,
    TelegramError,
)
from telegram.request import HTTPXRequest

from ghost.errors import BotError

# What the model wrote as Telegram shall show it: several messages, nothing in them a link.

LONGEST = 4096  # UTF-16 units of a message, as the Bot API counts
MOST_ENTITIES = 100  # Telegram passes over those that a message holds beyond it

# Telegram's servers make links of addresses, mentions, commands, hashtags and numbers in a message by themselves. They
# leave alone what stands in a `code` entity, which holds no other (core.telegram.org/bots/api#formatting-options). So a
# word that could become a link is marked as code: it reads the same, copies the same and cannot be tapped through to.
# Rather too many than too few: a word with a dot inside counts where letters follow it. (What may stand before is
# bounded, as a word of 4,096 letters would take seconds otherwise; a host's label has 63 at most.)
_LINK = re.compile(
    r"""\S{0,99}://\S*                     # any scheme
      | \S{0,99}\w\.[^\W\d_]{2,}\S*        # a.host, an@address.of.it
      | \b\d{1,3}(?:\.\d{1,3}){3}\S*      # 192.0.2.1
      | (?<![\w/])[@/\#$][\w@]+          # @mention, /command, #tag, $TAG
      | \+?\d[\d\s().-]{6,}\d             # a telephone number, or what looks like one
    """,
    re.VERBOSE,
)


class Code(NamedTuple):
    """A `code` entity: `offset` and `length` in UTF-16 units."""

    offset: int
    length: int


def units(text: str) -> int:
    """The length of `text` as Telegram counts: UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def without_links(text: str) -> list[Code]:
    """What to mark so that nothing in `text` becomes a link, a mention or a command."""
    found = list(_LINK.finditer(text))
    if len(found) > MOST_ENTITIES:
        return [Code(0, units(text))]
    return [Code(units(text[: match.start()]), units(match.group())) for match in found]


def as_messages(reply: str, at_most: int) -> list[str]:
    """A reply's bursts: a message a line, what is too many joined in the last, what is too long cut. May be empty."""
    lines = [line.strip() for line in reply.split("\n") if line.strip()]
    lines[at_most - 1 :] = ["\n".join(lines[at_most - 1 :])] if lines[at_most - 1 :] else []
    return [piece for line in lines for piece in _cut(line)]


def fitting(text: str) -> str:
    """As much of `text` as one message holds, with an ellipsis where that is not all."""
    return text if units(text) <= LONGEST else f"{text[: LONGEST // 2]}…"


def _cut(text: str) -> Iterator[str]:
    while units(text) > LONGEST:
        # No character is more than two units, so half of them always fit.
        head = text[: LONGEST // 2]
        at = max(head.rfind(" "), head.rfind("\n"))
        head = text[:at] if at > 0 else head
        yield head
        text = text[len(head) :].lstrip()
    if text:
        yield text


# A call of Telegram's Bot API, and what can become of it.

UNREADABLE = "unreadable"  # among an update's `api_kwargs`: what its parser stumbled over


class Call(NamedTuple):
    """`method`: send, edit or callback; the last two can be made again without harm."""

    chat: int
    connection: str
    thread: int
    method: str
    payload: dict[str, Any]

    @property
    def repeatable(self) -> bool:
        return self.method != "send"


class NotNow(Exception):
    """Telegram has not taken the call. It can be made again, after so many seconds where Telegram said how many."""

    def __init__(self, seconds: float | None, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds

    def wait(self, failures: int, longest: float) -> float:
        """Seconds until the next attempt, after so many that failed before this one."""
        if self.seconds is not None:
            return self.seconds
        return min(longest, 2.0 ** min(failures, 20) / 2)  # a day of failures is more than a float's exponent holds


class Doubtful(Exception):
    """The call went out and no answer came that says what became of it."""


class Refused(Exception):
    """Telegram will not do this, now or later: the person has blocked the bot, the message is gone."""


class Moved(Exception):
    """The group has become a supergroup, with another id."""

    def __init__(self, chat: int) -> None:
        super().__init__("the group has another id now")
        self.chat = chat


class PolledElsewhere(Exception):
    """Another program asks for this bot's updates."""


os.environ.setdefault("PTB_TIMEDELTA", "true")  # RetryAfter in the form that stays; the other one warns


TYPING_AT_ONCE = 16
POLL_SECONDS = 50  # a long poll that brings nothing ends after this
UPDATES = [
    "message",
    "edited_message",
    "callback_query",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
]
# Where the connection was not even made, nothing can have arrived.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Checked(HTTPXRequest):
    """JSON which is none of Telegram's, as a proxy on the way may answer, is an error like a page that is no JSON."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        answer = HTTPXRequest.parse_json_payload(payload)
        if not isinstance(answer, dict) or ("result" not in answer and answer.get("ok") is not False):
            raise TelegramError("not an answer of the Bot API")
        return answer


class _UpdatesOneByOne(_Checked):
    """An update of a shape that the library does not understand would block all others for ever: it reads a batch as a
    whole. Here such a one is passed on as a number, marked UNREADABLE."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        answer = _Checked.parse_json_payload(payload)
        if "result" in answer:
            updates = answer["result"]
            if not isinstance(updates, list) or not all(map(_is_update, updates)):
                raise TelegramError("not a list of updates")
            answer["result"] = [_readable(update) for update in updates]
        return answer


def _is_update(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("update_id"), int)


def _readable(update: dict[str, Any]) -> dict[str, Any]:
    try:
        Update.de_json(update, None)
    except Exception as error:  # whatever its parser stumbles over
        return {"update_id": update["update_id"], UNREADABLE: type(error).__name__}
    return update


class Telegram:
    """A bot's side of the Bot API. An async context manager; entering it asks who the bot is.

    Raises NotNow when Telegram cannot be asked, BotError when it knows no such bot.
    """

    def __init__(self, token: str, url: str, connections: int = 64) -> None:
        shared = {"verify": ssl.create_default_context()}  # reads all the certificates of the world: once is enough
        self._requests = (
            _Checked(connections, read_timeout=20, write_timeout=20, pool_timeout=60, httpx_kwargs=shared),
            _UpdatesOneByOne(connection_pool_size=1, read_timeout=10, httpx_kwargs=shared),
        )
        self._typing: set[asyncio.Task[None]] = set()
        ours, polls = self._requests
        self._bot = Bot(token, base_url=f"{url.rstrip('/')}/bot", request=ours, get_updates_request=polls)

    async def __aenter__(self) -> Self:
        try:
            await self._bot.initialize()
        except TelegramError as error:
            await self.__aexit__()
            if isinstance(error, (InvalidToken, Forbidden)):
                raise BotError("Telegram does not know this token; look TELEGRAM_BOT_TOKEN up at @BotFather") from error
            raise NotNow(_seconds(error) if isinstance(error, RetryAfter) else None, _kind(error)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in [*self._typing]:
            task.cancel()
        await asyncio.gather(*self._typing, return_exceptions=True)
        for request in self._requests:  # Bot.shutdown leaves those of a bot that could not be entered open
            await request.shutdown()

    @property
    def me(self) -> User:
        return self._bot.bot

    async def updates(self, offset: int | None, seconds: int = POLL_SECONDS) -> Sequence[Update]:
        """What has come since `offset`, which confirms all before it. Raises NotNow or PolledElsewhere."""
        try:
            return await self._bot.get_updates(offset=offset, limit=100, timeout=seconds, allowed_updates=UPDATES)
        except Conflict as error:
            raise PolledElsewhere from error
        except (InvalidToken, Forbidden) as error:
            raise BotError("Telegram has stopped knowing this token; look it up at @BotFather") from error
        except RetryAfter as error:
            raise NotNow(_seconds(error), "429") from error
        except TelegramError as error:
            raise NotNow(None, _kind(error)) from error
        except KeyError as error:  # a refusal that comes with status 200
            raise NotNow(None, "no result") from error

    async def take_over(self) -> None:
        """Polling works where no webhook is set. What waits to be delivered stays."""
        async with _told():
            await self._bot.delete_webhook(drop_pending_updates=False)

    async def connection(self, id: str) -> BusinessConnection:
        """Whose business connection this is, and what it allows. Raises NotNow or Refused."""
        async with _told():
            return await self._bot.get_business_connection(id)

    async def typing(self, chat: int, connection: str, thread: int) -> None:
        """Shown for five seconds or until a message comes. Nothing depends on it: no failure is told, and it is left
        out while so many are under way that messages would wait for them.

        The request goes on to its end, though who asked be cancelled, as a reply's coming does. Cancelled while it
        waits for a connection it would keep that one for ever, until none is left and the bot falls silent
        (github.com/encode/httpcore/issues/1093).
        """
        if len(self._typing) < TYPING_AT_ONCE:
            request = asyncio.create_task(self._type(chat, connection, thread))
            self._typing.add(request)  # the loop itself holds on to none
            request.add_done_callback(self._typing.discard)
            await asyncio.shield(request)

    async def _type(self, chat: int, connection: str, thread: int) -> None:
        with suppress(TelegramError):
            await self._bot.send_chat_action(
                chat, "typing", message_thread_id=thread or None, business_connection_id=connection or None
            )

    async def do(self, call: Call) -> int:
        """Make one call; the id of the message that it made, else 0. Raises NotNow, Doubtful, Refused or Moved."""
        async with _told(repeatable=call.repeatable):
            return await self._do(call)

    async def _do(self, call: Call) -> int:
        payload = call.payload
        if call.method == "callback":
            with suppress(BadRequest):  # too late: the button has stopped waiting
                await self._bot.answer_callback_query(payload["query"], text=payload.get("text"))
            return 0
        text = payload["text"]
        shown: dict[str, Any] = {
            # Explicit entities also turn off every reading of the text as markup.
            "entities": [MessageEntity("code", code.offset, code.length) for code in without_links(text)],
            "link_preview_options": LinkPreviewOptions(is_disabled=True),
        }
        if call.method == "edit":
            try:
                await self._bot.edit_message_text(
                    text, call.chat, payload["message"], reply_markup=_keyboard(payload), **shown
                )
            except BadRequest as error:
                if "not modified" not in error.message:
                    raise
            return 0
        answered = payload.get("reply_to")
        message = await self._bot.send_message(
            call.chat,
            text,
            message_thread_id=call.thread or None,
            business_connection_id=call.connection or None,
            reply_parameters=ReplyParameters(answered, allow_sending_without_reply=True) if answered else None,
            reply_markup=ForceReply(selective=True) if payload.get("ask") else _keyboard(payload),
            **shown,
        )
        return message.message_id


def _keyboard(payload: dict[str, Any]) -> InlineKeyboardMarkup | None:
    buttons = payload.get("buttons")
    if not buttons:
        return None
    return InlineKeyboardMarkup([[InlineKeyboardButton(name, callback_data=data) for name, data in buttons]])


@asynccontextmanager
async def _told(*, repeatable: bool = True) -> AsyncIterator[None]:
    try:
        yield
    except RetryAfter as error:
        raise NotNow(_seconds(error), "429") from error
    except ChatMigrated as error:
        raise Moved(error.new_chat_id) from error
    except (BadRequest, Forbidden) as error:
        raise Refused(_kind(error)) from error
    except InvalidToken as error:
        raise BotError("Telegram has stopped knowing this token; look it up at @BotFather") from error
    except TelegramError as error:
        if repeatable or isinstance(error.__cause__, _NOT_SENT):
            raise NotNow(None, _kind(error)) from error
        raise Doubtful(_kind(error)) from error


def _seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return float(wait) if isinstance(wait, int) else wait.total_seconds()


def _kind(error: TelegramError) -> str:
    """The failure without Telegram's own words, which can quote what was sent."""
    cause = error.__cause__
    return type(cause).__name__ if isinstance(cause, httpx.HTTPError) else type(error).__name__
