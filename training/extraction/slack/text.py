"""Slack's text as its author saw it: `<@U061F7AUR>` is a name, `&lt;3` is `<3`; blocks where a row has no text."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from training.extraction.source import objects

# `<` and `>` of a person are escaped, so what stands between them is Slack's. A scheme must follow, as in `<https:`.
TOKEN = re.compile(r"<([@#!]|[A-Za-z][A-Za-z0-9+.-]*:)([^<>|]*)(?:\|([^<>]*))?>")
ESCAPE = re.compile("&(lt|gt|amp);")
ESCAPED = {"lt": "<", "gt": ">", "amp": "&"}
DEEPEST = 8  # blocks within blocks; Slack's own stop at four


class Names(NamedTuple):
    """Names by id."""

    users: Mapping[str, str]
    channels: Mapping[str, str]


def plain(text: str, names: Names) -> str:
    """Tokens first: what they resolve to may hold an escape, and a typed `&lt;@U1&gt;` is no token."""
    if "<" in text:
        text = TOKEN.sub(lambda token: _token(token, names), text)
    if "&" in text:
        text = ESCAPE.sub(lambda escape: ESCAPED[escape[1]], text)  # in one pass: `&amp;lt;` was typed `&lt;`
    return text


def _token(token: re.Match[str], names: Names) -> str:
    mark, target, label = token[1], token[2], token[3]
    if mark == "@":
        return "@" + (names.users.get(target) or label or target)
    if mark == "#":
        return "#" + (label or names.channels.get(target) or target)
    if mark == "!":
        command, _, argument = target.partition("^")
        if command in ("subteam", "date"):
            return label or argument.partition("^")[0]
        return "@" + target
    return label or mark + target


def block_text(block: Mapping[str, Any], names: Names, depth: int = 0) -> str:
    """The text of one block of the kit that Slack builds messages from, `` where it only shows something."""
    if depth > DEEPEST:
        return ""
    kind = block.get("type")
    parts = [block_text(part, names, depth + 1) for part in objects(block.get("elements"))]
    if kind in ("rich_text", "rich_text_list", "context"):
        return "\n".join(part.removesuffix("\n") for part in parts if part)
    if kind in ("rich_text_section", "rich_text_quote", "rich_text_preformatted"):
        return "".join(parts)
    if kind in ("section", "header"):
        fields = [block.get("text"), *objects(block.get("fields"))]
        texts = [block_text(field, names, depth + 1) for field in fields if isinstance(field, dict)]
        return "\n".join(text for text in texts if text)
    if kind in ("mrkdwn", "plain_text"):
        return plain(str(block.get("text") or ""), names)
    return _inline(kind, block, names)


def _inline(kind: Any, element: Mapping[str, Any], names: Names) -> str:
    """A piece of a line. Its text is not escaped, unlike a row's."""
    user, channel = str(element.get("user_id", "")), str(element.get("channel_id", ""))
    match kind:
        case "text":
            return str(element.get("text") or "")
        case "link":
            return str(element.get("text") or element.get("url") or "")
        case "emoji":
            return f":{element.get('name', '')}:"
        case "user":
            return "@" + names.users.get(user, user)
        case "channel":
            return "#" + names.channels.get(channel, channel)
        case "broadcast":
            return f"@{element.get('range', '')}"
        case "usergroup":
            return f"@{element.get('usergroup_id', '')}"
        case "date":
            return str(element.get("fallback") or "")
    return ""
