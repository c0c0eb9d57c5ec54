"""Fields that Signal spells alike in its own export and in its desktop database."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from training.extraction.source import line_breaks, objects, well_formed

PLACEHOLDER = "\ufffc"  # stands in a body for each person mentioned


def instant(milliseconds: Any) -> str | None:
    """Milliseconds since 1970, as a number or, in Signal's export, as a string. None where there is no such time."""
    try:
        number = int(milliseconds)
        moment = datetime.fromtimestamp(number / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds") if number > 0 else None


def body_text(body: Any, ranges: Any, names: Mapping[str, str]) -> str:
    """A body with the names of those whom it mentions. Ranges count UTF-16 units; `names` are by account id."""
    text = str(body or "")
    if PLACEHOLDER in text:
        units = text.encode("utf-16-le", "surrogatepass")
        places = [(mention, place) for mention in objects(ranges) if (place := _place(mention)) is not None]
        for mention, place in sorted(places, key=lambda pair: pair[1], reverse=True):
            account = str(mention.get("mentionAci") or mention.get("mentionUuid") or "")
            name = names.get(account) or names.get(account.lower()) or str(mention.get("replacementText") or "")
            if name and units[place : place + 2] == PLACEHOLDER.encode("utf-16-le"):
                units = units[:place] + f"@{name}".encode("utf-16-le", "surrogatepass") + units[place + 2 :]
        text = units.decode("utf-16-le", "surrogatepass")
    return line_breaks(well_formed(text))


def _place(mention: Mapping[str, Any]) -> int | None:
    """In bytes; the export leaves a start of 0 out."""
    try:
        start = int(mention.get("start") or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return start * 2 if start >= 0 else None
