"""Call Telegram's Bot API and classify failures.

Uses python-telegram-bot's `Bot` but not its `Application`, which confirms updates before its handlers have finished;
here an update is confirmed once it is recorded. (aiogram would work too, but needs a dozen packages and an older
pydantic; this one needs httpx.)
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

LONGEST = 4096  # UTF-16 units in a message, as the Bot API counts
MOST_ENTITIES = 100  # Telegram ignores further entities of a message

# Telegram's servers turn addresses, mentions, commands, hashtags and numbers into links, except inside a `code` entity
# (core.telegram.org/bots/api#formatting-options). So mark each word that could become a link as code: it reads and
# copies the same and cannot be tapped. The pattern errs towards too many matches: any word with a dot followed by
# letters counts. (The prefix is bounded, or a word of 4,096 letters would take seconds; a host label has at most 63.)
_LINK = re.compile(
    r"""\S{0,99}://\S*                     # any scheme
      | \S{0,99}\w\.[^\W\d_]{2,}\S*        # a.host, an@address.of.it
      | \b\d{1,3}(?:\.\d{1,3}){3}\S*      # 192.0.2.1
      | (?<![\w/])[@/\#$][\w@]+          # @mention, /command, #tag, $TAG
      | \+?\d[\d\s().-]{6,}\d             # a telephone number, or what looks like one
    """,
    re.VERBOSE,
)


def units(text: str) -> int:
    """Return the length of `text` in UTF-16 units, as Telegram counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def without_links(text: str) -> list[MessageEntity]:
    """Return the `code` entities, in UTF-16 units, that keep `text` from containing links, mentions or commands."""
    found = list(_LINK.finditer(text))
    if len(found) > MOST_ENTITIES:
        return [MessageEntity("code", 0, units(text))]
    return [MessageEntity("code", units(text[: match.start()]), units(match.group())) for match in found]


def as_messages(reply: str, at_most: int) -> list[str]:
    """Split a reply into messages, one per line; join the lines beyond `at_most` into the last. May be empty.

    A line that is too long for a message becomes several.
    """
    lines = [line.strip() for line in reply.split("\n") if line.strip()]
    lines[at_most - 1 :] = ["\n".join(lines[at_most - 1 :])] if lines[at_most - 1 :] else []
    return [piece for line in lines for piece in _cut(line)]


def within(reply: str, at_most: int) -> str:
    """Return the reply, cut with an ellipsis if it would become more than `at_most` messages."""
    pieces = as_messages(reply, at_most)
    return reply if len(pieces) <= at_most else "\n".join([*pieces[: at_most - 1], fitting(f"{pieces[at_most - 1]}…")])


def fitting(text: str) -> str:
    """Return `text`, cut with an ellipsis if it does not fit one message."""
    return text if units(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}…"


def _cut(text: str) -> Iterator[str]:
    while units(text) > LONGEST:
        # A character takes at most two units, so half as many characters always fit.
        head = text[: LONGEST // 2]
        at = max(head.rfind(" "), head.rfind("\n"))
        head = text[:at] if at > 0 else head
        yield head
        text = text[len(head) :].lstrip()
    if text:
        yield text


LONGEST_WAIT = 60.0  # seconds between two attempts while Telegram cannot be reached
UNREADABLE = "unreadable"  # key in an update's `api_kwargs`: the kind of parsing error


class Call(NamedTuple):
    """A call of the Bot API. `method`: send, edit or callback; the last two can be repeated safely."""

    chat: int
    connection: str
    thread: int
    method: str
    payload: dict[str, Any]

    @property
    def repeatable(self) -> bool:
        return self.method != "send"


class RetryLater(Exception):
    """Telegram did not accept the call. Repeat it after `seconds`, if Telegram gave a time."""

    def __init__(self, seconds: float | None, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds

    def wait(self, failures: int) -> float:
        """Return the seconds until the next attempt, given the number of earlier failures."""
        if self.seconds is not None:
            return self.seconds
        return min(LONGEST_WAIT, 2.0 ** min(failures, 20) / 2)  # a day of failures would overflow a float


class DeliveryUnknown(Exception):
    """The call was sent, but no answer says whether it was carried out."""


class Refused(Exception):
    """Telegram refuses this for good; for example, the person has blocked the bot."""


class Moved(Exception):
    """The group has become a supergroup with another id."""

    def __init__(self, chat: int) -> None:
        super().__init__("the group has another id now")
        self.chat = chat


class PolledElsewhere(Exception):
    """Another program is polling this bot's updates."""


os.environ.setdefault("PTB_TIMEDELTA", "true")  # RetryAfter in its new form; the old one warns


TYPING_AT_ONCE = 16
POLL_SECONDS = 50  # how long a long poll waits
UPDATES = [
    "message",
    "edited_message",
    "callback_query",
    "message_reaction",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
]
# Without a connection, nothing can have arrived.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _CheckedRequest(HTTPXRequest):
    """Treat JSON that is not Telegram's, for example from a proxy, as an error, like a page that is not JSON."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        answer = HTTPXRequest.parse_json_payload(payload)
        if not isinstance(answer, dict) or ("result" not in answer and answer.get("ok") is not False):
            raise TelegramError("not an answer of the Bot API")
        return answer


class _UpdatesRequest(_CheckedRequest):
    """Reduce an update that the library cannot parse to its id, marked UNREADABLE. The library parses a batch as a
    whole, so such an update would block all others for ever."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        answer = _CheckedRequest.parse_json_payload(payload)
        if "result" in answer:
            updates = answer["result"]
            if not isinstance(updates, list) or not all(
                isinstance(update, dict) and isinstance(update.get("update_id"), int) for update in updates
            ):
                raise TelegramError("not a list of updates")
            answer["result"] = [_readable(update) for update in updates]
        return answer


def _readable(update: dict[str, Any]) -> dict[str, Any]:
    try:
        Update.de_json(update, None)
    except Exception as error:  # the parser can raise anything
        return {"update_id": update["update_id"], UNREADABLE: type(error).__name__}
    return update


class Telegram:
    """A Bot API client. An async context manager; entering it asks Telegram for the bot's identity.

    Entering raises RetryLater when Telegram cannot be reached, BotError when it does not know the token.
    """

    def __init__(self, token: str, url: str, connections: int = 64) -> None:
        shared = {"verify": ssl.create_default_context()}  # loading the CA certificates is slow: do it once
        self._requests = (
            _CheckedRequest(connections, read_timeout=20, write_timeout=20, pool_timeout=60, httpx_kwargs=shared),
            _UpdatesRequest(connection_pool_size=1, read_timeout=10, httpx_kwargs=shared),
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
                raise BotError("Telegram does not know this token; get TELEGRAM_BOT_TOKEN from @BotFather") from error
            raise RetryLater(_seconds(error) if isinstance(error, RetryAfter) else None, _kind(error)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in [*self._typing]:
            task.cancel()
        await asyncio.gather(*self._typing, return_exceptions=True)
        for request in self._requests:  # Bot.shutdown leaves them open if entering failed
            await request.shutdown()

    @property
    def me(self) -> User:
        return self._bot.bot

    async def updates(self, offset: int | None) -> Sequence[Update]:
        """Return the updates from `offset` on, and confirm all before it. Raises RetryLater or PolledElsewhere."""
        try:
            return await self._bot.get_updates(offset=offset, limit=100, timeout=POLL_SECONDS, allowed_updates=UPDATES)
        except Conflict as error:
            raise PolledElsewhere from error
        except (InvalidToken, Forbidden) as error:
            raise BotError("Telegram no longer knows this token; get a new one from @BotFather") from error
        except RetryAfter as error:
            raise RetryLater(_seconds(error), "429") from error
        except TelegramError as error:
            raise RetryLater(None, _kind(error)) from error
        except KeyError as error:  # a refusal with status 200
            raise RetryLater(None, "no result") from error

    async def delete_webhook(self) -> None:
        """Remove the webhook, which would prevent polling. Pending updates are kept."""
        async with _translate_errors():
            await self._bot.delete_webhook(drop_pending_updates=False)

    async def connection(self, id: str) -> BusinessConnection:
        """Return the owner and rights of a business connection. Raises RetryLater or Refused."""
        async with _translate_errors():
            return await self._bot.get_business_connection(id)

    async def typing(self, chat: int, connection: str, thread: int) -> None:
        """Show "typing" for five seconds or until a message arrives. Failures are ignored, and calls are skipped while
        TYPING_AT_ONCE are under way, so that messages need not wait for them.

        The request is shielded from cancellation: one cancelled while it waits for a connection would hold that
        connection for ever, until none is left (github.com/encode/httpcore/issues/1093).
        """
        if len(self._typing) < TYPING_AT_ONCE:
            request = asyncio.create_task(self._type(chat, connection, thread))
            self._typing.add(request)  # the event loop keeps no reference
            request.add_done_callback(self._typing.discard)
            await asyncio.shield(request)

    async def _type(self, chat: int, connection: str, thread: int) -> None:
        with suppress(TelegramError):
            await self._bot.send_chat_action(
                chat, "typing", message_thread_id=thread or None, business_connection_id=connection or None
            )

    async def do(self, call: Call) -> int:
        """Make one call; return the id of the new message, else 0.

        Raises RetryLater, DeliveryUnknown, Refused or Moved.
        """
        async with _translate_errors(repeatable=call.repeatable):
            return await self._do(call)

    async def _do(self, call: Call) -> int:
        payload = call.payload
        if call.method == "callback":
            with suppress(BadRequest):  # too late: the press has expired
                await self._bot.answer_callback_query(payload["query"], text=payload.get("text"))
            return 0
        text = payload["text"]
        shown: dict[str, Any] = {
            # Explicit entities also disable parsing of the text as markup.
            "entities": without_links(text),
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
async def _translate_errors(*, repeatable: bool = True) -> AsyncIterator[None]:
    try:
        yield
    except RetryAfter as error:
        raise RetryLater(_seconds(error), "429") from error
    except ChatMigrated as error:
        raise Moved(error.new_chat_id) from error
    except (BadRequest, Forbidden) as error:
        raise Refused(_kind(error)) from error
    except InvalidToken as error:
        raise BotError("Telegram no longer knows this token; get a new one from @BotFather") from error
    except TelegramError as error:
        if repeatable or isinstance(error.__cause__, _NOT_SENT):
            raise RetryLater(None, _kind(error)) from error
        raise DeliveryUnknown(_kind(error)) from error


def _seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return float(wait) if isinstance(wait, int) else wait.total_seconds()


def _kind(error: TelegramError) -> str:
    """Return the kind of failure, without Telegram's message, which can quote what was sent."""
    cause = error.__cause__
    return type(cause).__name__ if isinstance(cause, httpx.HTTPError) else type(error).__name__
