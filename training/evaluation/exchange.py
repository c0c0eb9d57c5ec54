"""What every measure is a function of: exchanges, and figures with an interval. Standard library only."""

from dataclasses import dataclass

from replicate_deployment.chat_format import Turn


@dataclass(frozen=True)
class Exchange:
    """What the other side had said, and the turn that the person, or a model in their place, answered with."""

    context: tuple[Turn, ...]
    """Turns of both sides, un-escaped, the last one by the other side."""
    reply: str
    """The turn's text, un-escaped and without its tag. Lines are a burst's messages or one message's lines."""
    language: str = ""
    """ISO 639-1 code of the conversation, where preparation recorded one."""
    platform: str = ""
    """The platform the conversation comes from, where preparation recorded one."""
    ended: str = ""
    """How a generated reply ended: `end_token`, `stop_sequence` or `length`. Empty for what the person wrote."""
    conversation: int = -1
    """The conversation's number in the data, where preparation recorded one: replies of one are not independent."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval, in the figure's own unit."""

    value: float
    low: float
    high: float
    n: int
    """How many observations it comes from."""
