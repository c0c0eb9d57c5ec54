"""What the model wrote as Telegram shall show it: several messages, nothing in them a link."""

import re
from collections.abc import Iterator
from typing import NamedTuple

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
