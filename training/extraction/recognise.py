"""Which platform wrote this file? Decided by content, with a reason; names only break ties.

To add a platform: write a module with the shape of `platform.Platform` and list it in MODULES.
"""

from typing import NamedTuple

import ijson

from training.extraction import messenger, telegram, whatsapp
from training.extraction.platform import Evidence, Platform
from training.extraction.source import Source

# In the order of trial: the forms that cannot be mistaken come first.
MODULES: tuple[Platform, ...] = (telegram, messenger, whatsapp)
PLATFORMS = {platform.NAME: platform for platform in MODULES}
DEEP = 400  # characters of a path: no export nests like this, and each deeper level costs more than the last


class Recognised(NamedTuple):
    platform: Platform
    reason: str


def recognise(source: Source, override: str | None = None) -> Recognised | None:
    """The platform of a file, or None when no module knows it. Raises ExportError for a form that cannot be read."""
    if override is not None:
        return Recognised(PLATFORMS[override], "named by --platform")
    evidence = evidence_of(source.head())
    for platform in PLATFORMS.values():
        reason = platform.recognise(source, evidence)
        if reason is not None:
            return Recognised(platform, reason)
    return None


def evidence_of(head: bytes) -> Evidence:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="replace")
    return Evidence(text, _json_paths(head) if text.lstrip()[:1] in ("{", "[") else frozenset())


def _json_paths(head: bytes) -> frozenset[str]:
    paths: set[str] = set()
    try:
        for prefix, event, value in ijson.parse(head.removeprefix(b"\xef\xbb\xbf")):
            if len(prefix) > DEEP:
                break
            if event == "map_key":
                paths.add(f"{prefix}.{value}".lstrip("."))
            elif event == "string" and prefix.endswith(".item"):
                paths.add(f"{prefix}=")
    except (ijson.JSONError, UnicodeDecodeError):
        pass  # the head ends in mid-file; what was seen until there is enough
    return frozenset(paths)
