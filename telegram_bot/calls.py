"""A call of Telegram's Bot API, and what can become of it."""

from typing import Any, NamedTuple

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
