"""Recognise the platform of a file by its content, with a reason. If several platforms match, ask.

To add a platform, put a module with the interface `platform.Platform` into this folder; it is found without a list.
"""

import pkgutil
import re
from importlib import import_module
from typing import NamedTuple, cast

import ijson

from ghost.errors import ExportError
from training.extraction.platform import Evidence, Platform
from training.extraction.source import Source

DEEP = 400  # characters of a path: no export nests like this, and each deeper level costs more than the last


def _found() -> dict[str, Platform]:
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {platform.NAME: platform for platform in cast(list[Platform], modules)}


PLATFORMS = _found()
HINT = f"; if it is a chat export, say which: --platform {'|'.join(PLATFORMS)}"


# Exports that no module reads: what the first 64 KiB of one match, or the path of a key that only it has.
UNREAD: dict[str, re.Pattern[str]] = {
    "QQ": re.compile(
        r"消息记录（此消息记录为文本格式|^消息对象:"
        r"|^\d{4}-\d\d-\d\d \d{1,2}:\d\d:\d\d [^\n]*(?:\(\d{5,}\)|<[^<>\n]+@[^<>\n]+>)$",
        re.MULTILINE,
    ),
    "WeChat": re.compile(r"\bStrContent\b|\bStrTalker\b|^微信聊天记录", re.MULTILINE),
    "VK": re.compile(r'<title>VK</title>|class="message__header"'),
    "TikTok": re.compile(r'"ChatHistory"|^>>> Chat History with ', re.MULTILINE),
    "Matrix (Element)": re.compile(r'"(?:room_creator|exported_by)"|"m\.room\.(?:message|member)"|^mx_', re.MULTILINE),
    "Zulip": re.compile(r'"zerver_(?:realm|message|userprofile)"'),
}


class Recognised(NamedTuple):
    platform: Platform
    reason: str


def recognise(source: Source, override: str | None = None) -> Recognised | None:
    """The platform of a file, or None when no module knows it.

    Raises ExportError for a form or an app that is not read, and when several platforms claim the file.
    """
    if override is not None:
        named = PLATFORMS[override]
        return None if source.name in named.COMPANIONS else Recognised(named, "named by --platform")
    evidence = evidence_of(source.head())
    if evidence.head.startswith("{\\rtf"):  # its lines may read as a chat, with codes in the words
        raise ExportError(f"{source}: rich text; save it as plain text in UTF-8")
    for broad in (False, True):
        claims: list[Recognised] = []
        refused: ExportError | None = None  # holds if no other platform claims the file
        for platform in PLATFORMS.values():
            try:
                reason = platform.recognise(source, evidence) if platform.BROAD is broad else None
            except ExportError as error:
                refused = error
            else:
                claims += [Recognised(platform, reason)] if reason is not None else []
        if len(claims) > 1:
            answers = " or ".join(f"--platform {claim.platform.NAME} ({claim.reason})" for claim in claims)
            raise ExportError(f"{source}: could be of {len(claims)} platforms. Say which: {answers}")
        if claims:
            return claims[0]
        if refused:
            raise refused
    for name, pattern in UNREAD.items():
        if pattern.search(evidence.head):
            raise ExportError(
                f"{source}: an export of {name}, which is not read. Write it as a CSV with the columns "
                "timestamp,sender,message (times as 2024-05-01T10:30:00), and pass that file"
            )
    return None


def mistaken(source: Source, named: str) -> str | None:
    """Why a file in which `--platform named` found no message is of another platform or unsupported form; or None."""
    try:
        found = recognise(source)
    except ExportError as error:
        return str(error)
    if found is None or (other := found.platform.NAME) == named:
        return None
    return f"{source}: not of {named} but of {other} ({found.reason}); leave out --platform, or type --platform {other}"


def evidence_of(head: bytes) -> Evidence:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="replace")
    is_json = encoding != "utf-16" and text.lstrip()[:1] in ("{", "[")
    return Evidence(text, _json_paths(text.encode()) if is_json else frozenset())


def _json_paths(head: bytes) -> frozenset[str]:
    paths: set[str] = set()
    try:
        # use_float: ijson 3.6 crashes the process on an integer of more than 4,300 digits, as a float it is an error.
        # buf_size: a buffer is parsed before the first of its events is seen, and 64 KiB of "[" take half a minute.
        options = {"multiple_values": True, "use_float": True, "buf_size": 1024}
        for prefix, event, value in ijson.parse(head, **options):
            if len(prefix) > DEEP:
                break
            if event == "map_key":
                paths.add(f"{prefix}.{value}".lstrip("."))
            elif event == "string" and prefix.endswith(".item"):
                paths.add(f"{prefix}=")
    except (ijson.JSONError, UnicodeDecodeError):  # the second for half a surrogate pair in a key or text
        pass  # the head ends in mid-file; what was seen until there is enough
    return frozenset(paths)
